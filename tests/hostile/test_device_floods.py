"""A device that keeps the rules' letter and wants all of the node: its memory, its time, its log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostile.raw_tunnel import (
    DATA,
    FIN,
    HELLO,
    OPEN,
    OPENED,
    PING,
    PONG,
    REFUSED,
    RESET,
    U32_MAX,
    U64_MAX,
    RawTunnel,
    credit,
    field,
    frame,
    goaway,
    hello,
    number,
    open_frame,
    websocket_frame,
)
from tests.hostile.scene import HOSTILE, Bounds, Scene

NORMAL, REPLACED, OVERFLOW = 0, 5, 8
GROWTH_MB = 6.0  # as in test_device_breaks_rules: one tunnel's buffers
LINES = 8
FLOOD_MESSAGES = 400  # each of some thousand frames: far beyond what any of these may send
UPLOAD = 8 << 20
# Of an upload that the device never takes: a queue of 64 KiB, a read of 256 KiB, and the visitor's own share.
UPLOADS, UPLOADS_MB = 6, 10.0
GET_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def stream_of(scene: Scene, tunnel: RawTunnel, **visit: Any) -> tuple[int, asyncio.StreamReader]:
    """The id of a stream that an accomplice's request opened, and where its answer comes."""
    known = len(tunnel.of(OPEN))
    reader, _ = await scene.visit(**visit)
    return (await tunnel.until_heard(OPEN, known + 1))[known][0], reader


async def answer(scene: Scene, tunnel: RawTunnel) -> None:
    """The tunnel still serves."""
    stream, reader = await stream_of(scene, tunnel)
    await tunnel.send(frame(OPENED, b"", stream), frame(DATA, GET_ANSWER, stream))
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


def messages(one: bytes, frames: int) -> Iterator[bytes]:
    """The same message again and again."""
    message = websocket_frame(one * frames)
    return itertools.repeat(message, FLOOD_MESSAGES)


SAYS_NOTHING = {
    "CREDIT that raises nothing": credit(0, 1),
    "PONG for no PING": frame(PONG, b"liar" * 2),
    "FIN of a stream that is over": frame(FIN, b"", 1),
    "RESET of a stream that is over": frame(RESET, bytes(2), 1),
    "OPENED of a stream that is over": frame(OPENED, b"", 1),
    "REFUSED of a stream that is over": frame(REFUSED, bytes(2), 1),
    "CREDIT of a stream that is over": credit(1, 1),
    "DATA of a stream that is over": frame(DATA, b"x", 1),
}


@pytest.mark.parametrize("name", SAYS_NOTHING)
async def test_frames_that_say_nothing_have_an_end(scene: Scene, name: str) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    stream, _ = await stream_of(scene, tunnel)
    assert stream == 1
    await tunnel.send(frame(REFUSED, (11).to_bytes(2), stream))
    await tunnel.flood(messages(SAYS_NOTHING[name], 1_000))
    await tunnel.until_ended()
    assert tunnel.goaway_code == OVERFLOW
    await scene.honest.more(2)
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_pings_have_an_end_also_when_their_answers_are_read(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    await tunnel.flood(itertools.islice(messages(frame(PING, bytes(8)), 16), 4 * FLOOD_MESSAGES))
    await tunnel.until_ended()
    assert tunnel.goaway_code == OVERFLOW
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_opens_have_an_end(scene: Scene) -> None:
    """A device may open no stream; each try is refused, and costs it of what it may send."""
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    ids = iter(range(2, 1 << 20, 2))
    await tunnel.send(*(open_frame(next(ids)) for _ in range(3)))
    # Before the flood: of what was queued when it ended the tunnel, only GOAWAY still leaves.
    refusals = await tunnel.until_heard(REFUSED, 3)
    assert [(stream, payload[:2]) for stream, payload in refusals] == [(n, b"\0\x08") for n in (2, 4, 6)]
    opens = (websocket_frame(b"".join(open_frame(next(ids)) for _ in range(200))) for _ in range(100))
    await tunnel.flood(opens)
    await tunnel.until_ended()
    assert tunnel.goaway_code == OVERFLOW
    assert {payload[:2] for _, payload in tunnel.of(REFUSED)} == {(8).to_bytes(2)}  # of as many as were heard
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_a_goaway_that_is_repeated_fills_no_log(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    stream, _ = await stream_of(scene, tunnel)
    await tunnel.send(frame(OPENED, b"", stream))
    await tunnel.flood(messages(goaway(last_id=stream), 500))
    await tunnel.until_ended()
    assert tunnel.goaway_code == OVERFLOW
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


GENEROUS_HELLO = hello(number(1, 256), number(2, 2_048), number(5, 2**31), number(6, 300_000))


async def test_extreme_limits_are_served(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    widest = (number(3, U32_MAX), number(4, U32_MAX), number(5, U32_MAX))
    for said in (GENEROUS_HELLO, hello(*widest)):
        tunnel = await scene.tunnel(said)
        await answer(scene, tunnel)
        await tunnel.close()
    await scene.over(bounds, mb=GROWTH_MB, lines=2 * LINES)


async def test_credit_of_2_64_and_credit_backwards_change_nothing(scene: Scene) -> None:
    tunnel = await scene.tunnel()
    await tunnel.send(credit(0, U64_MAX), credit(0, 0), credit(0, 5))
    stream, reader = await stream_of(scene, tunnel)
    await tunnel.send(frame(OPENED, b"", stream), credit(stream, U64_MAX), credit(stream, 0))
    await tunnel.send(frame(DATA, GET_ANSWER, stream))
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await answer(scene, tunnel)


async def begin_uploads(scene: Scene, count: int) -> None:
    """Accomplices who upload as fast as anybody takes it."""
    for _ in range(count):
        _, writer = await scene.visit(f"/{count}", f"Content-Length: {UPLOAD}", method="POST")
        writer.write(bytes(UPLOAD))


@pytest.mark.parametrize("windows", [(1, 1), (1, U32_MAX), (U32_MAX, 1)], ids=str)
async def test_a_device_without_credit_costs_a_queue_a_stream(scene: Scene, windows: tuple[int, int]) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel(hello(number(3, windows[0]), number(4, windows[1])))
    await begin_uploads(scene, UPLOADS)
    for stream, _ in await tunnel.until_heard(OPEN, UPLOADS):
        await tunnel.send(frame(OPENED, b"", stream))
    await scene.honest.more(10)
    await scene.over(bounds, mb=UPLOADS_MB, lines=LINES)


async def test_credit_byte_by_byte_for_many_stalled_uploads_slows_nobody(scene: Scene) -> None:
    """Each CREDIT of the connection concerns every stream that waits: many of them at once are the attack."""
    bounds = Bounds(scene.node)
    uploads = 60
    tunnel = await scene.tunnel(hello(number(3, U32_MAX), number(4, 1)))
    await begin_uploads(scene, uploads)
    await tunnel.until_heard(OPEN, uploads)
    await tunnel.send(*(frame(OPENED, b"", stream) for stream, _ in tunnel.of(OPEN)))
    offsets = iter(range(2, 1 << 30))
    rising = (websocket_frame(b"".join(credit(0, next(offsets)) for _ in range(4_000))) for _ in range(50))
    await tunnel.flood(rising)
    await scene.honest.more(3)
    await scene.over(bounds, mb=60.0, lines=LINES)


@pytest.mark.parametrize("sips", [False, True], ids=["never", "a byte a second"])
async def test_a_device_that_does_not_read_costs_what_its_transport_holds(scene: Scene, sips: bool) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel(hello(number(3, U32_MAX), number(4, U32_MAX), number(6, 300_000)))
    tunnel.stop_reading()
    await begin_uploads(scene, UPLOADS)
    for _ in range(3):
        await tunnel.send(frame(PONG, bytes(8)))  # it lives
        if sips:
            tunnel.sip()
        await scene.honest.more(5)
    await scene.over(bounds, mb=UPLOADS_MB, lines=LINES)


async def test_a_device_that_floods_and_does_not_read_the_answers_is_cut(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    tunnel.stop_reading()
    ids = iter(range(2, 1 << 22, 2))
    opens = (websocket_frame(b"".join(open_frame(next(ids)) for _ in range(50))) for _ in range(400))
    await tunnel.flood(opens)
    await scene.node.until(lambda state: HOSTILE not in state["tunnels"])
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_resets_of_every_stream_are_an_answer_each(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    tunnel = await scene.tunnel()
    for _ in range(30):
        stream, reader = await stream_of(scene, tunnel)
        await tunnel.send(frame(OPENED, b"", stream), frame(RESET, (2).to_bytes(2), stream))
        retried, _ = (await tunnel.until_heard(OPEN, len(tunnel.of(OPEN))))[-1]
        if retried == stream:
            retried, _ = (await tunnel.until_heard(OPEN, len(tunnel.of(OPEN)) + 1))[-1]
        await tunnel.send(frame(RESET, (2).to_bytes(2), retried))
        async with asyncio.timeout(5):
            assert b" 502 " in await reader.readline()
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_the_largest_hello_is_taken_and_costs_little(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    services = [field(9, b"s%02d;x=%s" % (n, b"y" * 60)) for n in range(64)]
    children = [field(11, b"c%04d" % n) for n in range(1_000)]
    huge = hello(field(7, b",".join([b"a"] * 512)), field(8, b"x" * 128), *services, *children)
    instance = b"all of one insta"
    tunnels = [await scene.tunnel(huge, instance=instance) for _ in range(4)]
    await scene.honest.more(2)
    for tunnel in tunnels:
        assert not tunnel.ended.is_set()
    await scene.over(bounds, mb=GROWTH_MB, lines=LINES)


async def test_an_instance_keeps_its_four_newest_tunnels(scene: Scene) -> None:
    instance = b"the instance one"
    tunnels = [await scene.tunnel(instance=instance)]
    for _ in range(3):
        tunnels.append(await scene.tunnel(instance=instance))
    for _ in range(2):
        tunnels.append(await scene.connect())
        await tunnels[-1].say_hello(scene.key, HOSTILE, instance=instance)
    for tunnel in tunnels[:2]:
        await tunnel.until_ended()
        assert tunnel.goaway_code == NORMAL
    await scene.node.until(lambda state: state["tunnels"][HOSTILE] == 4)


async def test_a_clone_replaces_every_tunnel_of_the_other_instance(scene: Scene) -> None:
    old = [await scene.tunnel(instance=b"the instance one") for _ in range(2)]
    clone = await scene.tunnel()
    for tunnel in old:
        await tunnel.until_ended()
        assert (tunnel.goaway_code, tunnel.status) == (REPLACED, 4000 + REPLACED)
    await answer(scene, clone)
    assert HELLO in [kind for kind, _, _ in clone.heard]
