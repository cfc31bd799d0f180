"""Behind the TCP door: frames in raw bytes, broken rules, and clients that vanish, stall or read slowly."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct

import pytest

from runtime.tcp_door import DoorClose
from runtime.websocket_frames import (
    MAX_FRAME,
    FrameEvent,
    FrameReader,
    Opcode,
    Payload,
    Pong,
    close_frame,
    frame,
    frame_head,
)
from tests.tunnel_server.conftest import WAIT_S, Stage, running, settings
from tests.tunnel_server.doors import MASK, close_code, entered
from tests.tunnel_server.doubles import Upstream
from tunnel_protocol import ResetCode
from tunnel_server.edge.tcp_splice import HOLLOW_BURST
from tunnel_server.settings import VisitorLimits


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (frame(Opcode.TEXT, b"text", MASK), 1003),
        (frame(Opcode.BINARY, b"unmasked"), 1002),
        (b"\xc2\x81" + MASK + b"x", 1002),  # RSV1: compression that nobody agreed to
        (b"\x83\x80" + MASK, 1002),  # an opcode that is reserved
        (b"\x80\x81" + MASK + b"x", 1002),  # a continuation of nothing
        (b"\x02\x81" + MASK + b"x" + frame(Opcode.BINARY, b"y", MASK), 1002),  # a message inside another
        (b"\x09\x80" + MASK, 1002),  # a fragmented ping
        (frame_head(Opcode.PING, 126, MASK), 1002),
        (b"\x82\xfe\x00\x05" + MASK, 1002),  # a length in more bytes than it needs
        (frame_head(Opcode.BINARY, MAX_FRAME + 1, MASK), 1009),
        (b"\x82\xff\x80" + bytes(7) + MASK, 1009),
        (frame(Opcode.CLOSE, b"\x03", MASK), 1002),
        (frame(Opcode.CLOSE, b"\x03\xed", MASK), 1002),  # 1005 is never sent
        (frame(Opcode.CLOSE, b"\x03\xe8\xff", MASK), 1007),
        (frame(Opcode.BINARY, b"", MASK) + frame(Opcode.BINARY, b"more", MASK), 1002),  # behind our own end
        (frame(Opcode.BINARY, b"", MASK) * 2, 1002),  # a second end
        (frame(Opcode.PING, b"", MASK) * (int(HOLLOW_BURST) + 1), 1008),
        (frame(Opcode.PONG, b"", MASK) * (int(HOLLOW_BURST) + 1), 1008),
        (b"\x02\x80" + MASK + (b"\x00\x80" + MASK) * int(HOLLOW_BURST), 1008),  # fragments of nothing
    ],
)
async def test_broken_rules_end_with_their_code(stage: Stage, attack: bytes, code: int) -> None:
    _, visitor = await entered(stage)
    visitor.send(attack)
    rest = await visitor.rest()
    assert close_code(rest) == code, rest
    await stage.until(lambda: not stage.devices[0].splices)
    assert stage.devices[0].resets in ([ResetCode.CANCELLED], [])
    assert stage.node.devices.tunnels()[0].in_use == 0


async def test_frames_may_come_in_any_pieces(stage: Stage) -> None:
    upstream, visitor = await entered(stage)
    ping = frame(Opcode.PING, b"are you there", MASK)
    for byte in frame(Opcode.BINARY, b"slow" * 50, MASK) + ping + frame(Opcode.BINARY, b"ly", MASK):
        visitor.send(bytes([byte]))
        await asyncio.sleep(0)
    frames, events = FrameReader(masked=False), list[FrameEvent]()
    async with asyncio.timeout(WAIT_S):
        while payload(events) != b"SLOW" * 50 + b"LY":
            events += frames.feed(await visitor.reader.read(65_536))
    assert Pong(b"are you there") in events
    assert bytes(upstream.received) == b"slow" * 50 + b"ly"


def payload(events: list[FrameEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Payload))


async def test_the_client_breaks_off(stage: Stage) -> None:
    _, visitor = await entered(stage)
    visitor.send(close_frame(DoorClose.RESET, "", MASK))
    assert close_code(await visitor.rest()) == DoorClose.RESET
    await stage.until(lambda: stage.devices[0].resets == [ResetCode.CANCELLED])


@pytest.mark.parametrize("polite", [True, False])
async def test_the_client_vanishes(stage: Stage, polite: bool) -> None:
    """Its FIN without a Close is no end of bytes that a service could take for one."""
    _, visitor = await entered(stage)
    if polite:
        visitor.writer.write_eof()
    else:
        visitor.close()
    await stage.until(lambda: stage.devices[0].resets == [ResetCode.CANCELLED])
    await stage.until(lambda: stage.node.devices.tunnels()[0].in_use == 0)


async def test_the_client_vanishes_while_the_device_takes_nothing(stage: Stage) -> None:
    """Nothing is read from it then, so its reset is not heard of by reading."""
    _, visitor = await entered(stage)
    (splice,) = stage.devices[0].splices
    splice.data = lambda data: None  # type: ignore[method-assign]  # no credit returns
    (connection,) = stage.node.edge.connections
    visitor.send(frame(Opcode.BINARY, bytes(MAX_FRAME), MASK) * 16)
    await stage.until(lambda: connection.reading_paused)
    raw = visitor.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.writer.transport.abort()
    await stage.until(lambda: not stage.node.edge.connections)
    assert stage.node.devices.tunnels()[0].in_use == 0


async def test_a_visitor_that_reads_nothing_holds_its_windows_and_no_more(stage: Stage) -> None:
    """The device stops at the stream's credit, whatever it has; a neighbour is not disturbed."""
    sent = 0

    async def pour(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"hello\n")
        while await reader.read(1) == b"g":
            for _ in range(640):  # 40 MiB
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    _, stalled = await entered(stage, pour)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport, says uvloop
    stalled.send(frame(Opcode.BINARY, b"g", MASK))
    connection = next(iter(stage.node.edge.connections))
    looks, last = 0, 0

    def stands_still() -> bool:
        nonlocal looks, last
        looks, last = (looks + 1 if sent and sent == last and connection.write_paused else 0), sent
        return looks > 100

    await stage.until(stands_still)
    assert sent < 24 << 20
    assert connection.transport.get_write_buffer_size() < 8 << 20


async def test_a_visitor_that_reads_slowly_gets_the_last_bytes_too() -> None:
    """Both directions are over long before it has taken what is here for it."""
    size = 1 << 20

    async def give(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()
        writer.write(bytes(size))

    limits = VisitorLimits(resolves_per_s=1000.0, linger_s=0.05)
    async with running(settings(limits=limits, tunnels={"stream_window": size})) as stage:
        _, visitor = await entered(stage, give)
        connection = next(iter(stage.node.edge.connections))
        for end in (connection.transport, visitor.writer.transport):
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, buffer, 65_536)
        visitor.writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
        visitor.send(frame(Opcode.BINARY, b"", MASK))
        await stage.until(lambda: not stage.devices[0].splices)
        looks = itertools.count()
        await stage.until(lambda: next(looks) > 150)  # several sweeps
        visitor.writer.transport.resume_reading()  # type: ignore[attr-defined]
        rest = await visitor.rest()
    assert close_code(rest) == 1000
    assert len(rest) > size
