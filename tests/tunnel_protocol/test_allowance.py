"""Frames that say nothing: how many of them a peer may send (section 9), and what crumbs may cost."""

from __future__ import annotations

import pytest

from tests.tunnel_protocol.pair import GRANT, Pair
from tunnel_protocol import (
    CloseCode,
    ConnectionLost,
    Event,
    GoawayReceived,
    Limits,
    ResetCode,
    Stream,
    StreamRequested,
)
from tunnel_protocol.allowance import BURST, BYTES_PER_CREDIT, PER_SECOND, PER_STREAM, ControlAllowance
from tunnel_protocol.codes import FrameType
from tunnel_protocol.errors import ProtocolViolation
from tunnel_protocol.frames import credit_frame, frame, goaway_frame


def used_up(allowance: ControlAllowance) -> ControlAllowance:
    allowance.left = 0
    return allowance


@pytest.mark.parametrize(
    ("now", "next_id", "sent", "earned"),
    [
        (1.0, 0, 0, PER_SECOND),
        (0.0, 20, 0, 10 * PER_STREAM),
        (0.0, 0, 100 * BYTES_PER_CREDIT, 200),
        (3_600.0, 0, 0, BURST),  # an hour of silence buys no flood
    ],
)
def test_what_is_moved_earns_frames(now: float, next_id: int, sent: int, earned: int) -> None:
    allowance = used_up(ControlAllowance(0.0))
    allowance.fill(now, next_id, sent)
    assert allowance.left == earned - 1


def test_a_peer_of_tiny_windows_may_credit_every_byte() -> None:
    allowance = used_up(ControlAllowance(0.0))
    allowance.open(stream_window=1, connection_window=1 << 20)
    allowance.fill(0.0, 0, 100)
    assert allowance.left == 199


def test_nothing_moved_and_nothing_left_is_an_overflow() -> None:
    allowance = used_up(ControlAllowance(0.0))
    with pytest.raises(ProtocolViolation) as caught:
        allowance.fill(0.0, 0, 0)
    assert caught.value.code is CloseCode.OVERFLOW


def flood(pair: Pair, one: bytes, count: int) -> list[Event]:
    """What the server's end hears when so many of these come, a hundred a message."""
    events: list[Event] = []
    for _ in range(count // 100):
        events += pair.server.connection.receive(one * 100, pair.now)
    return events


@pytest.mark.parametrize("one", [credit_frame(0, 1), frame(FrameType.PONG, bytes(8))], ids=["CREDIT", "PONG"])
def test_a_flood_that_says_nothing_ends_in_an_overflow(one: bytes) -> None:
    pair = Pair.open()
    assert not flood(pair, one, BURST - 100)
    (lost,) = flood(pair, one, 200)
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code) == ("peer", CloseCode.OVERFLOW)


def reset_stream(pair: Pair) -> Stream:
    ours, _ = pair.stream()
    ours.reset(ResetCode.CANCELLED)
    return ours


def test_data_that_was_under_way_when_its_stream_was_cut_is_free() -> None:
    pair = Pair.open()
    window = Limits().stream_window
    stream = reset_stream(pair)
    crumb = frame(FrameType.DATA, b"x", stream.id)
    assert not flood(pair, crumb, window - 100)
    assert pair.server.connection.live


def test_data_beyond_the_credit_of_a_stream_that_is_over_counts_as_frames_that_say_nothing() -> None:
    pair = Pair.open()
    stream = reset_stream(pair)
    piece = frame(FrameType.DATA, bytes(Limits().stream_window - 1), stream.id)
    assert not pair.server.connection.receive(piece, pair.now)
    events = flood(pair, frame(FrameType.DATA, b"xy", stream.id), BURST + 200)
    assert [event.code for event in events if isinstance(event, ConnectionLost)] == [CloseCode.OVERFLOW]


def test_a_goaway_that_is_repeated_is_told_once() -> None:
    pair = Pair.open()
    pair.stream()
    goes = goaway_frame(1 << 29, 0, CloseCode.NORMAL, "")
    events = flood(pair, goes, 1_000)
    assert [type(event) for event in events] == [GoawayReceived]
    events = pair.server.connection.receive(goaway_frame(0, 0, CloseCode.INTERNAL, "bad"), pair.now)
    assert [type(event) for event in events] == [GoawayReceived, ConnectionLost]


def test_crumbs_that_wait_for_accept_or_for_room_are_kept_as_one_piece() -> None:
    pair = Pair.open(device=Limits(stream_window=2_000))
    ours = pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    for _ in range(5_000):
        ours.send(b"x", 0.0)
    assert ours._queue is not None
    assert len(ours._queue) <= 2
    pair.settle()
    asked = pair.device.of(StreamRequested)[-1]
    assert isinstance(asked, StreamRequested)
    assert type(asked.stream._early) is bytearray
    asked.stream.accept("local")
    pair.settle()
    asked.stream.consumed(2_000, 0.0)
    pair.settle()
    asked.stream.consumed(2_000, 0.0)
    pair.settle()
    assert pair.device.data(ours.id) == b"x" * 5_000
