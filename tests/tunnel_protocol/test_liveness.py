"""Timers in virtual time: keepalive, the late timer, the handshake's end, round trips."""

from __future__ import annotations

import pytest

from tests.tunnel_protocol.pair import End, Pair
from tunnel_protocol import CloseCode, ConnectionLost, Limits, Side
from tunnel_protocol.codes import FrameType
from tunnel_protocol.frames import frame


def lost(end: End) -> ConnectionLost:
    event = end.heard[-1]
    assert isinstance(event, ConnectionLost)
    return event


def kinds(end: End) -> list[int]:
    """Types of the single-frame messages that wait to leave."""
    end.leave()
    found = [message[0] for message in end.in_flight]
    end.in_flight.clear()
    return found


@pytest.mark.parametrize("side", list(Side))
def test_the_handshake_ends_within_its_time(side: Side) -> None:
    end = End(side, Limits())
    assert end.connection.next_timer() == 10.0
    assert end.hear(end.connection.handle_timer(9.99)) == []
    end.hear(end.connection.handle_timer(10.0))
    assert (lost(end).fault, lost(end).code) == ("timeout", CloseCode.HANDSHAKE_TIMEOUT)
    assert end.connection.next_timer() == float("inf")


def test_silence_is_asked_about_and_then_fatal() -> None:
    pair = Pair.open()
    server = pair.server
    assert server.connection.next_timer() == 4.0
    server.hear(server.connection.handle_timer(4.0))
    assert kinds(server) == [FrameType.PING]
    assert server.connection.next_timer() == 9.0
    server.hear(server.connection.handle_timer(8.9))
    assert server.heard == []
    server.hear(server.connection.handle_timer(9.0))
    assert (lost(server).fault, lost(server).code) == ("timeout", CloseCode.KEEPALIVE_TIMEOUT)


def test_an_answer_keeps_the_connection() -> None:
    pair = Pair.open()
    for _ in range(200):
        pair.timers(pair.now + 0.25)
        pair.settle()
    assert not pair.server.heard
    assert not pair.device.heard


def test_a_part_of_a_message_is_a_sign_of_life() -> None:
    """A large message over a poor line takes longer than the silence that ends a connection."""
    server = Pair.open().server
    for second in range(4, 60):
        server.connection.heard(second - 0.5)
        server.hear(server.connection.handle_timer(float(second)))
    assert server.heard == []
    server.connection.heard(3.0)  # an older look changes nothing
    for moment in (58.5 + 4.0, 58.5 + 9.0):
        server.hear(server.connection.handle_timer(moment))
    assert (lost(server).fault, lost(server).code) == ("timeout", CloseCode.KEEPALIVE_TIMEOUT)


def test_any_inbound_byte_counts_and_nobody_asks_then() -> None:
    pair = Pair.open()
    ours, theirs = pair.stream()
    for step in range(1, 50):
        pair.now = step * 1.0
        theirs.send(b"x", pair.now)
        pair.device.leave()
        for message in pair.device.in_flight:
            pair.server.connection.receive(message, pair.now)
        pair.device.in_flight.clear()
        assert pair.server.hear(pair.server.connection.handle_timer(pair.now)) == []
    assert pair.server.connection.next_timer() > pair.now
    assert ours.received == 49


def test_a_process_that_slept_asks_before_it_judges() -> None:
    """SIGSTOP for a minute: the timer fires late, so the silence may be our own."""
    pair = Pair.open()
    server = pair.server
    server.hear(server.connection.handle_timer(60.0))
    assert server.heard == []
    assert kinds(server) == [FrameType.PING]
    assert server.connection.next_timer() == pytest.approx(65.0)
    server.hear(server.connection.handle_timer(65.0))
    assert lost(server).code is CloseCode.KEEPALIVE_TIMEOUT


def test_a_process_that_slept_goes_on_when_the_peer_answers() -> None:
    pair = Pair.open()
    pair.timers(60.0)
    pair.settle()
    pair.timers(64.0)
    pair.settle()
    assert not pair.server.heard
    assert not pair.device.heard


def test_the_larger_keepalive_is_in_force() -> None:
    pair = Pair.open(device=Limits(keepalive_ms=60_000))
    assert pair.server.connection.next_timer() == 60.0
    assert pair.device.connection.next_timer() == 60.0


def test_round_trips_are_measured_and_the_smallest_is_kept() -> None:
    pair = Pair.open()
    connection = pair.server.connection
    assert connection.rtt_s == 0.0
    for rtt, now in ((0.030, 100.0), (0.020, 200.0), (0.050, 300.0)):
        ping = connection.liveness.ping(now)
        pair.server.hear(connection.receive(frame(FrameType.PONG, ping), now + rtt))
        assert connection.last_rtt_s == pytest.approx(rtt)
    assert connection.rtt_s == pytest.approx(0.020)


def test_an_answer_to_an_older_ping_measures_nothing() -> None:
    pair = Pair.open()
    connection = pair.server.connection
    old = connection.liveness.ping(10.0)
    connection.liveness.ping(20.0)
    connection.receive(frame(FrameType.PONG, old), 21.0)
    assert connection.last_rtt_s == 0.0
    connection.receive(frame(FrameType.PONG, b"whatever"), 21.0)
    assert connection.last_rtt_s == 0.0


def test_a_busy_connection_still_measures_now_and_then() -> None:
    pair = Pair.open()
    server = pair.server
    pings = 0
    for second in range(1, 61):
        server.connection.receive(frame(FrameType.PONG, b"\xff" * 8), float(second))
        server.hear(server.connection.handle_timer(float(second)))
        server.leave()
        for message in server.in_flight:
            assert message[0] == FrameType.PING
            server.connection.receive(frame(FrameType.PONG, message[8:16]), second + 0.01)
            pings += 1
        server.in_flight.clear()
    assert 2 <= pings <= 4
