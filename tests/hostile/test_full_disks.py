"""The agent's state lies on a disk of 64 KiB that is full: it lives, says so, and recovers unaided."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.raw_server import AgentProcess, RawServer, Target, open_frame
from tests.hostile.raw_tunnel import GRANT, HELLO, OPENED, REVOKE, WAIT_S, field, frame
from tests.tunnel_agent.authority import KEY, OTHER_KEY, claims, grant_id, token
from tunnel_agent.revocations import SAVE_EVERY_S

KEY_LIST = 10  # the field of HELLO


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB; mounting it needs root."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(state)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"this test needs root, to mount a tmpfs: {done.stderr}"
    yield state
    subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(disk: Path) -> Path:
    """Until not a byte fits."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while os.statvfs(disk).f_bavail:
            file.write(bytes(512))
    return filler


async def said(agent: AgentProcess, event: str, seconds: float = WAIT_S) -> dict[str, object]:
    async with asyncio.timeout(seconds):
        while True:
            found: list[dict[str, object]] = [line for line in agent.lines() if line["event"] == event]
            if found:
                return found[0]
            await asyncio.sleep(0.05)


async def test_an_agent_on_a_full_disk_lives_and_recovers(tmp_path: Path, small_disk: Path) -> None:
    server, target = RawServer(), Target()
    agent = AgentProcess(tmp_path, [await server.start()], {"web": await target.start()})
    try:
        filler = fill(small_disk)
        newer = agent.authority.key_list_text(5, [KEY.jwk(), OTHER_KEY.jwk()])
        peer = await server.peer()
        await peer.greet(frame(HELLO, field(KEY_LIST, newer)))
        assert "No space left" in str((await said(agent, "key list not saved, trying again"))["reason"])
        body = claims(time.time())
        grant = frame(GRANT, grant_id(body) + token(body, OTHER_KEY))  # in force all the same
        await peer.send(grant, open_frame(1, grant_id(body)))
        await peer.until_heard(OPENED)
        await peer.send(frame(REVOKE, grant_id(body)))
        failed = await said(agent, "revocations not saved, trying again")
        assert "No space left" in str(failed["reason"])
        await peer.send(open_frame(3, await peer.grant()))
        await peer.until_heard(OPENED, 2)  # it goes on serving
        assert not [name for name in os.listdir(small_disk) if name.startswith(".")], "left beside"
        filler.unlink()
        await said(agent, "revocations saved again", SAVE_EVERY_S + WAIT_S)
        await said(agent, "key list saved again", SAVE_EVERY_S + WAIT_S)
        assert (agent.state / "keylist.jws").read_bytes() == newer
        assert grant_id(body).hex() in (small_disk / "revoked.json").read_text()
        events = [line["event"] for line in agent.lines()]
        assert events.count("revocations not saved, trying again") == 1
    finally:
        await asyncio.to_thread(agent.stop)
        await server.close()
        target.close()
