"""Random sequences of frames that parse, against a live node and a live agent: each end stays what it is.

`make soak` runs longer; the seed is printed and TOWLINE_SEED takes it again.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.raw_server import RawPeer, Target, attacked, open_frame
from tests.hostile.raw_tunnel import (
    CREDIT,
    DATA,
    FIN,
    GRANT,
    HELLO,
    OPEN,
    OPENED,
    PING,
    PONG,
    REFUSED,
    RESET,
    REVOKE,
    U64_MAX,
    Ended,
    frame,
    goaway,
)
from tests.hostile.raw_tunnel import open_frame as device_opens
from tests.hostile.scene import Bounds, Scene
from tests.tunnel_agent.authority import claims, grant_id, token

CLOSE_CODES = {0, 1, 7, 8, 12}
MESSAGES = 30  # of a tunnel, as long as it lives
# What many tunnels leave behind, one after the other, in an allocator that keeps a little of each.
FUZZ_MB = 16.0
WARM_UP = 20
AGENT_MB = 6.0  # of any number of conversations; 3,000 took 2.7
# A stream is one socket, and a tunnel may have 256 of them; two tunnels while one ends and the next begins.
AGENT_FDS = 600
LOG_BYTES = 30 * 300  # of a conversation: twenty refusals, and what begins and ends it


def seeded() -> random.Random:
    seed = int(os.environ.get("TOWLINE_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"TOWLINE_SEED={seed}")
    return random.Random(seed)


def code(draw: random.Random) -> bytes:
    return draw.choice([0, 1, 2, 5, 11, 12, 999, 65_535]).to_bytes(2)


def offset(draw: random.Random) -> bytes:
    return draw.choice([0, 1, 65_536, 1 << 20, 1 << 40, U64_MAX, draw.randrange(1 << 20)]).to_bytes(8)


def data(draw: random.Random) -> bytes:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    return draw.choice([answer, b"x", bytes(100), bytes(draw.randrange(1, 30_000)), b"\xff" * 9])


COMMON: dict[int, Callable[[random.Random], bytes]] = {
    DATA: data,
    FIN: lambda draw: b"",
    RESET: code,
    CREDIT: offset,
    OPENED: lambda draw: b"",
    REFUSED: lambda draw: code(draw) + b"no",
}


def stream_frame(draw: random.Random, ids: list[int]) -> bytes:
    """Mostly what an honest peer could say, of a stream that there is or was."""
    kind = draw.choices(list(COMMON), [8, 3, 2, 4, 6, 1])[0]
    return frame(kind, COMMON[kind](draw), draw.choice(ids))


def device_message(draw: random.Random, ids: list[int]) -> bytes:
    frames = []
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        what = draw.random()
        if what < 0.75 and ids:
            frames.append(stream_frame(draw, ids))
        elif what < 0.85:
            frames.append(frame(draw.choice([PING, PONG]), bytes(8)))
        elif what < 0.95:
            frames.append(frame(CREDIT, offset(draw)))
        elif what < 0.97:
            frames.append(device_opens(2 * draw.randrange(1, 1_000)))
        else:
            frames.append(goaway(draw.choice([0, 1, 9, 12]), draw.choice([0, 1, 1 << 29])))
    return b"".join(frames)


async def one_tunnel(scene: Scene, draw: random.Random) -> None:
    """A tunnel's whole life; how it ends is the draw's affair, but with a code of the page."""
    tunnel = await scene.connect()
    await tunnel.say_hello(scene.key, "d_hostile0000000")
    for _ in range(draw.randrange(4)):
        await scene.visit("/", "Content-Length: 40000", method=draw.choice(["GET", "POST"]))
    for _ in range(MESSAGES):
        ids = [stream for stream, _ in tunnel.of(OPEN)] or [1]
        try:
            await tunnel.send(device_message(draw, ids))
        except Ended:
            break
        await asyncio.sleep(0)
    await tunnel.close()
    assert tunnel.goaway_code is None or tunnel.goaway_code in CLOSE_CODES, tunnel.goaway_code


async def fuzz_node(scene: Scene, tunnels: int) -> None:
    draw = seeded()
    scene.one_session = True
    await one_tunnel(scene, draw)  # the first one pays for what all others use
    bounds = Bounds(scene.node)
    for _ in range(tunnels):
        await one_tunnel(scene, draw)
        assert scene.honest.fault is None, scene.honest.fault
        for writer in scene.sockets:
            writer.transport.abort()
        scene.sockets.clear()
        scene.tunnels.clear()
    await scene.honest.more(3)
    # A tunnel's two lines, and some for each of the streams that its frames ruined.
    await scene.over(bounds, mb=FUZZ_MB, lines=40 * tunnels)


async def test_a_node_survives_random_frames(scene: Scene) -> None:
    await fuzz_node(scene, 60)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_node_survives_random_frames_for_long(scene: Scene) -> None:
    await fuzz_node(scene, 10_000)


def server_message(draw: random.Random, ids: list[int], grant: bytes) -> bytes:
    frames = []
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        what = draw.random()
        if what < 0.35:
            ids.append(ids[-1] + draw.choice([2, 2, 2, 4]))
            frames.append(open_frame(ids[-1], draw.choice([grant, grant, bytes(16)])))
        elif what < 0.85:
            kind = draw.choice([DATA, DATA, DATA, FIN, RESET, CREDIT])
            frames.append(frame(kind, COMMON[kind](draw), draw.choice(ids[-8:])))
        elif what < 0.93:
            frames.append(frame(draw.choice([PING, PONG]), bytes(8)))
        elif what < 0.98:
            frames.append(frame(GRANT, draw.randbytes(16) + b"a.b.c"))
        else:
            frames.append(frame(REVOKE, draw.randbytes(16)))
    return b"".join(frames)


async def one_conversation(peer: RawPeer, draw: random.Random, body: dict[str, object]) -> int:
    """Until the agent leaves, or the draw ends it; how many messages the agent answered for."""
    await peer.greet(frame(HELLO))
    grant, ids = grant_id(body), [1]
    await peer.send(frame(GRANT, grant + token(body)), open_frame(1, grant))
    sent = 0
    while sent < MESSAGES and await peer.send(server_message(draw, ids, grant)):
        sent += 1
        try:  # what the kernel took says nothing of an agent that has left
            await peer.settled()
        except AssertionError:
            break
    if draw.random() < 0.3:
        await peer.send(goaway(draw.choice([0, 11]), draw.choice([0, 1, 100])))
    await peer.close()
    assert peer.goaway_code is None or peer.goaway_code in CLOSE_CODES, peer.goaway_code
    return sent


async def fuzz_agent(folder: Path, conversations: int) -> None:
    """One agent lives through all of them."""
    draw, target, body = seeded(), Target(), claims(time.time())
    async with attacked(folder, hasty=True, web=target) as (agent, server):
        for _ in range(WARM_UP):  # they pay for what all others use
            await one_conversation(await server.peer(), draw, body)
        bounds, sent, started = Bounds(agent), 0, time.monotonic()
        for _ in range(conversations):
            sent += await one_conversation(await server.peer(), draw, body)
            assert agent.fds <= AGENT_FDS, agent.fds
        print(f"{conversations} conversations, {sent} messages, {time.monotonic() - started:.1f} s,")
        print(f"{bounds.growth_mb:.1f} MB more, {agent.fds} files, {agent.log.stat().st_size} bytes of log")
        assert sent >= conversations  # more than one each: it did not just hang up
        assert target.connections >= conversations
        await target.until(lambda: not target.live)
        assert agent.process.poll() is None
        bounds.stop()
        assert bounds.growth_mb <= AGENT_MB
        assert agent.log.stat().st_size <= conversations * LOG_BYTES
        bad = [line for line in agent.lines() if "traceback" in line or line["level"] == "critical"]
        assert not bad, bad[:2]


async def test_an_agent_survives_random_frames(tmp_path: Path) -> None:
    await fuzz_agent(tmp_path, 300)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_an_agent_survives_random_frames_for_long(tmp_path: Path) -> None:
    await fuzz_agent(tmp_path, 20_000)
