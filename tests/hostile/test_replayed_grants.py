"""A hostile server kept a grant that was revoked; the agent it belongs to is killed and starts anew."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.hostile.raw_server import AgentProcess, RawPeer, RawServer, Target, attacked, open_frame
from tests.hostile.raw_tunnel import GRANT, HELLO, OPENED, REFUSED, REVOKE, WAIT_S, frame
from tests.tunnel_agent.authority import claims, grant_id, token
from tunnel_agent.identity import MAX_FILE_BYTES
from tunnel_agent.policy.reconnect import MAX_BACKOFF_S

GRANT_REVOKED = 4
FLOOD = 4_000  # more would be too many control frames for what they move, and end the tunnel


async def greeted(server: RawServer) -> RawPeer:
    peer = await server.peer(MAX_BACKOFF_S + WAIT_S)
    await peer.greet(frame(HELLO))
    return peer


async def until_on_disk(agent: AgentProcess, text: str) -> None:
    path = agent.state / "revoked.json"
    async with asyncio.timeout(WAIT_S):
        while not path.exists() or text not in path.read_text():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seen", [True, False], ids=["used before", "never shown"])
async def test_a_killed_agent_refuses_what_was_revoked(tmp_path: Path, seen: bool) -> None:
    web = Target()
    body = claims(time.time())
    grant = frame(GRANT, grant_id(body) + token(body))
    async with attacked(tmp_path, web=web) as (agent, server):
        peer = await greeted(server)
        if seen:
            await peer.send(grant, open_frame(1, grant_id(body)))
            await peer.until_heard(OPENED)
        await peer.send(frame(REVOKE, grant_id(body)))
        await until_on_disk(agent, grant_id(body).hex())
        before = web.connections
        agent.kill()
        agent.start()
        peer = await greeted(server)
        await peer.send(grant, open_frame(1, grant_id(body)))
        _, refused = (await peer.until_heard(REFUSED))[0]
        assert int.from_bytes(refused[:2]) == GRANT_REVOKED
        assert web.connections == before
        # Another person's session is not touched by it.
        await peer.send(open_frame(3, await peer.grant()))
        await peer.until_heard(OPENED)


async def test_invented_revocations_wear_no_disk_out(tmp_path: Path) -> None:
    """The file stays small, and is written now and then; a restart takes it."""
    async with attacked(tmp_path, web=Target()) as (agent, server):
        peer = await greeted(server)
        await peer.grant()
        path, inodes = agent.state / "revoked.json", set()
        for n in range(0, FLOOD, 500):
            assert await peer.send(*(frame(REVOKE, (n + k).to_bytes(16)) for k in range(500)))
            await peer.settled()
            inodes |= {path.stat().st_ino} if path.exists() else set()
        assert len(inodes) <= 2
        await asyncio.to_thread(agent.stop)
        assert path.stat().st_size < MAX_FILE_BYTES // 16
        agent.start()
        peer = await greeted(server)
        await peer.send(open_frame(1, await peer.grant()))
        await peer.until_heard(OPENED)
