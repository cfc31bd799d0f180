"""A tunnel server that breaks one rule of the page: the agent leaves it with the code, and comes back.

A server for each of the page's vectors and a tunnel to each of them, all at once: an agent waits longer
each time before it dials the same server again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.hostile.raw_server import AgentProcess, RawPeer, RawServer, open_frame
from tests.hostile.raw_tunnel import AUTH, CHALLENGE, DATA, FIN, OPEN, OPENED, WAIT_S, frame
from tests.hostile.raw_tunnel import GRANT as GRANT_FRAME
from tests.tunnel_agent.authority import claims, token
from tests.tunnel_server.doubles import Upstream
from tunnel_agent.policy.reconnect import MAX_CONNECTIONS

VECTORS = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "bad_frames.json"
# The device of the vectors: its name, its grant and its limits.
DEVICE = "d_abcdefghijklmnop"
GRANT = UUID(hex="101112131415161718191a1b1c1d1e1f").bytes
# `max_message` is not the vectors' 2,048: no agent may be set below this.
LIMITS = {
    "max_frame": 2_032,
    "max_message": 66_000,
    "stream_window": 4_096,
    "stream_window_max": 4_096,
    "connection_window": 16_384,
    "max_streams": 4,
}
OVER_MAX_MESSAGE = "a message over max_message"
# RFC 6455 section 7.4.1: the agent's WebSocket may refuse what is too long before its machine sees it.
TOO_BIG = {4001, 1009}
BACKOFF_S = 1.0  # the longest wait before a server is dialled for the second time
CHALLENGED = frame(CHALLENGE, bytes(32) + b"127.0.0.1")
QUESTION = b"are you well?"
# Of each tunnel "open" and "grant accepted", twice; "ended" once; and what is said of the process.
LINES_A_VECTOR, LINES_ELSE, LINE_BYTES = 5, 3, 500


def device_vectors() -> list[dict[str, Any]]:
    cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
    return [case for case in cases if case["side"] == "device"]


class Fleet:
    """The agents, and for each vector the server that one of them dials."""

    def __init__(self) -> None:
        self.agents: list[AgentProcess] = []
        self.servers: dict[str, RawServer] = {}
        body = claims(time.time(), aud=DEVICE, jti=str(UUID(bytes=GRANT)))
        self.grant = frame(GRANT_FRAME, GRANT + token(body))

    async def start(self, stack: AsyncExitStack, folder: Path, names: list[str]) -> None:
        service = Upstream(echo)
        stack.push_async_callback(service.close)
        host, port = await service.start()
        for start in range(0, len(names), MAX_CONNECTIONS):
            urls = []
            for name in names[start : start + MAX_CONNECTIONS]:
                server = self.servers[name] = RawServer()
                urls.append(await server.start())
                stack.push_async_callback(server.close)
            home = folder / str(start)
            home.mkdir()
            agent = AgentProcess(home, urls, {"web": f"{host}:{port}"}, device=DEVICE, limits=LIMITS)
            stack.push_async_callback(asyncio.to_thread, agent.stop)
            self.agents.append(agent)


async def echo(service: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        await fleet.start(stack, tmp_path, [case["name"] for case in device_vectors()])
        yield fleet


async def taken_to(peer: RawPeer, state: str, grant: bytes) -> bytes:
    """What must stand before the next frame, in the same message."""
    if state == "awaiting_challenge":
        return b""
    if state == "signing":  # over before another message can come: an agent signs at once
        return CHALLENGED
    if state == "awaiting_hello":
        await peer.send(CHALLENGED)
        await peer.until_heard(AUTH)
        return b""
    await peer.greet()
    await peer.send(grant)
    return b""


async def broken(peer: RawPeer, case: dict[str, Any], grant: bytes) -> None:
    """One rule; what `before` says after the OPENs goes with it, for what they allow changes with time."""
    joined = await taken_to(peer, case["state"], grant)
    for message in map(bytes.fromhex, case["before"]):
        if case["accept"] and message[0] == OPEN:
            await peer.send(message)
            await peer.until_heard(OPENED)
        else:
            joined += message
    assert not peer.ended.is_set(), f"ended before the rule was broken: {peer.status}"
    bad = bytes.fromhex(case["hex"])
    if case["name"] == OVER_MAX_MESSAGE:
        bad *= LIMITS["max_message"] // len(bad) + 1
    await peer.send(joined + bad)
    async with asyncio.timeout(WAIT_S):
        await peer.ended.wait()
    code = case["close_code"]
    if case["name"] == OVER_MAX_MESSAGE:
        assert peer.status in TOO_BIG, peer.status
        return
    assert peer.status == 4000 + code, peer.status
    assert peer.goaway_code == code, peer.goaway_code
    assert bool(peer.of(AUTH)) == (case["state"] not in ("awaiting_challenge", "signing"))


async def served(peer: RawPeer, grant: bytes) -> None:
    """An honest server, and a visitor's stream through it."""
    await peer.greet()
    await peer.send(grant, open_frame(1, GRANT, device=DEVICE.encode()))
    await peer.until_heard(OPENED)
    await peer.send(frame(DATA, QUESTION, 1), frame(FIN, stream=1))
    await peer.until_heard(FIN)
    assert b"".join(payload for _, payload in peer.of(DATA)) == QUESTION


async def played(fleet: Fleet, case: dict[str, Any]) -> str | None:
    """What was wrong, if anything."""
    server = fleet.servers[case["name"]]
    try:
        await broken(await server.peer(), case, fleet.grant)
        await served(await server.peer(BACKOFF_S + WAIT_S), fleet.grant)
    except (AssertionError, TimeoutError) as fault:
        return f"{case['name']}: {type(fault).__name__} {fault}"
    return None


async def test_the_bad_frames_of_the_vectors_live(fleet: Fleet) -> None:
    cases = device_vectors()
    assert len(cases) == len(fleet.servers) > 60
    faults = await asyncio.gather(*(played(fleet, case) for case in cases))
    assert not any(faults), [fault for fault in faults if fault]
    for agent in fleet.agents:
        assert agent.process.poll() is None
        lines = agent.lines()
        assert len(lines) <= LINES_A_VECTOR * MAX_CONNECTIONS + LINES_ELSE, len(lines)
        assert max(map(len, agent.log.read_text().splitlines())) <= LINE_BYTES
        bad = [line for line in lines if line["level"] in ("error", "critical") or "traceback" in line]
        assert not bad, bad[:3]
