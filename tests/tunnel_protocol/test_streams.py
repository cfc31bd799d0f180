"""Conversations between two joined machines: streams, ends, grants."""

from __future__ import annotations

import pytest

from tests.tunnel_protocol.pair import GRANT, SMALL, Pair
from tunnel_protocol import (
    CloseCode,
    ConnectionDraining,
    ConnectionLost,
    DataReceived,
    Drained,
    Event,
    FrameType,
    GoawayReceived,
    GrantReceived,
    GrantRevoked,
    Limits,
    Misuse,
    RefusedCode,
    ResetCode,
    StreamAccepted,
    StreamFinished,
    StreamLimit,
    StreamRefused,
    StreamRequested,
    StreamReset,
    StreamState,
    Writable,
)
from tunnel_protocol.scheduler import TAIL_MOST


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_request_leaves_together_with_its_grant_and_open() -> None:
    pair = Pair.open()
    pair.server.connection.grant(GRANT, b"token")
    stream = pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    stream.send(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    stream.finish()
    pair.server.leave()
    assert len(pair.server.in_flight) == 1
    pair.settle()
    assert names(pair.device.heard) == ["GrantReceived", "StreamRequested"]
    granted, asked = pair.device.heard
    assert isinstance(granted, GrantReceived)
    assert (granted.grant_id, granted.token) == (GRANT, b"token")
    assert isinstance(asked, StreamRequested)
    assert (asked.device, asked.service, asked.grant_id) == ("device", "web", GRANT)


def test_data_before_accept_waits_and_then_comes_in_order() -> None:
    pair = Pair.open()
    stream = pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    stream.send(b"one", 0.0)
    stream.send(b"two", 0.0)
    stream.finish()
    pair.settle()
    asked = pair.device.heard[-1]
    assert isinstance(asked, StreamRequested)
    assert asked.stream.accept("local")
    pair.settle()
    assert names(pair.device.heard[1:]) == ["DataReceived", "StreamFinished"]
    assert pair.device.data(stream.id) == b"onetwo"
    assert asked.stream.owner == "local"
    assert names(pair.server.heard) == ["StreamAccepted"]


def test_each_direction_ends_on_its_own() -> None:
    pair = Pair.open()
    ours, theirs = pair.stream()
    ours.finish()
    pair.settle()
    assert isinstance(pair.device.heard[-1], StreamFinished)
    theirs.send(b"still", 0.0)
    pair.settle()
    assert pair.server.data(ours.id) == b"still"
    theirs.finish()
    pair.settle()
    assert ours.over
    assert theirs.over
    assert not pair.server.connection.streams()
    assert not pair.device.connection.streams()


def test_refused_stream_is_over_and_what_followed_is_dropped_and_credited() -> None:
    pair = Pair.open(device=Limits(connection_window=4096, stream_window=4096))
    connection = pair.server.connection
    for _ in range(8):
        stream = connection.open_stream("device", "web", GRANT, "visitor")
        stream.send(b"x" * 3000, 0.0)
        pair.settle()
        asked = pair.device.heard[-1]
        assert isinstance(asked, StreamRequested)
        asked.stream.refuse(RefusedCode.UNKNOWN_SERVICE, "no such service: web")
        stream.send(b"y" * 1000, 0.0)
        pair.settle()
        refused = pair.server.of(StreamRefused)[-1]
        assert isinstance(refused, StreamRefused)
        assert (refused.stream, refused.code) == (stream, RefusedCode.UNKNOWN_SERVICE)
        assert refused.message == "no such service: web"
        assert stream.over
    assert not pair.device.of(DataReceived)
    assert not pair.device.connection.streams()


def test_reset_drops_the_queue_and_frees_the_stream() -> None:
    pair = Pair.open(device=Limits(stream_window=100))
    ours, theirs = pair.stream()
    ours.send(b"x" * 1000, 0.0)
    ours.reset(ResetCode.CANCELLED)
    pair.settle()
    reset = pair.device.heard[-1]
    assert isinstance(reset, StreamReset)
    assert (reset.stream, reset.code) == (theirs, ResetCode.CANCELLED)
    assert pair.server.connection.outbox.queued == 0
    assert ours.owner is None


def test_methods_of_an_ended_stream_do_nothing() -> None:
    pair = Pair.open()
    ours, theirs = pair.stream()
    ours.reset(ResetCode.CANCELLED)
    pair.settle()
    for stream in (ours, theirs):
        assert stream.send(b"late", 0.0)
        stream.finish()
        stream.reset(ResetCode.INTERNAL)
        stream.consumed(10, 0.0)
        stream.refuse(RefusedCode.INTERNAL)
        assert not stream.accept("nobody")
        assert stream.send_room() == 0
    assert pair.server.connection.next_message(65_536) is None
    assert pair.device.connection.next_message(65_536) is None


def test_the_openers_limit_is_the_peers_max_streams() -> None:
    pair = Pair.open(device=Limits(max_streams=2))
    first, _ = pair.stream()
    pair.stream()
    with pytest.raises(StreamLimit):
        pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    first.reset(ResetCode.CANCELLED)
    pair.stream()
    assert not pair.server.of(StreamRefused)


def test_a_stream_whose_last_fin_waits_still_counts() -> None:
    """OPEN overtakes a FIN that waits in the same message: the peer would see one stream too many."""
    pair = Pair.open(device=Limits(max_streams=1))
    ours, theirs = pair.stream()
    theirs.finish()
    pair.settle()
    ours.finish()
    assert ours.over
    with pytest.raises(StreamLimit):
        pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    pair.server.leave()
    pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    pair.settle()
    assert not pair.server.of(StreamRefused)


def test_a_device_opens_even_ids() -> None:
    pair = Pair.open()
    stream = pair.device.connection.open_stream("device", "web", GRANT, "caller")
    pair.settle()
    assert stream.id == 2
    asked = pair.server.heard[-1]
    assert isinstance(asked, StreamRequested)
    asked.stream.accept("here")
    pair.settle()
    assert isinstance(pair.device.heard[-1], StreamAccepted)


def test_send_says_stop_and_writable_says_go() -> None:
    limits = Limits(stream_window=1000, send_queue_high=5000, send_queue_low=1000)
    pair = Pair.open(server=limits, device=limits)
    ours, theirs = pair.stream()
    assert ours.send(b"a" * 1000, 0.0)
    assert ours.send(b"b" * 5000, 0.0)
    assert not ours.send(b"c" * 1000, 0.0)
    assert ours.stalled_since == 0.0
    pair.settle()
    assert not pair.server.of(Writable)
    while not pair.server.of(Writable):
        theirs.consumed(len(pair.device.data(ours.id)) - theirs.consumed_bytes, 0.0)
        pair.settle()
    assert ours.queued <= 1000
    theirs.consumed(len(pair.device.data(ours.id)) - theirs.consumed_bytes, 0.0)
    pair.settle()
    assert pair.device.data(ours.id) == b"a" * 1000 + b"b" * 5000 + b"c" * 1000
    assert len(pair.server.of(Writable)) == 1
    assert ours.stalled_since is None


def test_send_room_follows_both_credits_and_promises_writable() -> None:
    pair = Pair.open(device=Limits(stream_window=1000, connection_window=1500))
    ours, theirs = pair.stream()
    other, _ = pair.stream()
    assert ours.send_room() == 1000
    ours.send(b"x" * 900, 0.0)
    assert ours.send_room() == 100
    other.send(b"y" * 600, 0.0)
    assert other.send_room() == 0
    assert ours.send_room() == 0
    pair.settle()
    written = pair.server.of(Writable)
    assert {event.stream for event in written if isinstance(event, Writable)} == {ours, other}
    ours.send(b"x" * 100, 0.0)
    assert ours.send_room() == 0
    pair.settle()
    assert len(pair.server.of(Writable)) == 2
    theirs.consumed(1000, 0.0)
    pair.settle()
    assert len(pair.server.of(Writable)) == 3
    assert ours.send_room() == 800  # what the connection's credit leaves


def test_a_borrowed_view_is_sent_uncopied_or_kept() -> None:
    pair = Pair.open()
    ours, _ = pair.stream()
    buffer = bytearray(b"1" * 10_000)
    ours.send(memoryview(buffer), 0.0)
    assert pair.server.connection.borrowed
    pair.server.connection.keep_borrowed()
    buffer[:] = b"2" * 10_000
    ours.send(memoryview(buffer), 0.0)
    pair.settle()
    assert not pair.server.connection.borrowed
    assert pair.device.data(ours.id) == b"1" * 10_000 + b"2" * 10_000


def test_small_views_and_bytearrays_are_copied_at_once() -> None:
    pair = Pair.open()
    ours, _ = pair.stream()
    buffer = bytearray(b"1" * 100)
    ours.send(memoryview(buffer), 0.0)
    ours.send(buffer, 0.0)
    assert not pair.server.connection.borrowed
    buffer[:] = b"2" * 100
    pair.settle()
    assert pair.device.data(ours.id) == b"1" * 200


def test_grants_and_revocations_reach_the_device() -> None:
    pair = Pair.open()
    pair.server.connection.grant(GRANT, b"t" * 1536)
    pair.server.connection.revoke(GRANT)
    pair.settle()
    assert names(pair.device.heard) == ["GrantReceived", "GrantRevoked"]
    revoked = pair.device.heard[1]
    assert isinstance(revoked, GrantRevoked)
    assert revoked.grant_id == GRANT


def test_drain_serves_live_streams_to_their_end() -> None:
    pair = Pair.open()
    ours, theirs = pair.stream()
    pair.server.connection.drain(2500, "restart")
    pair.settle()
    goaway = pair.device.heard[-1]
    assert isinstance(goaway, GoawayReceived)
    assert (goaway.retry_after_ms, goaway.code, goaway.reason) == (2500, CloseCode.NORMAL, "restart")
    for end in (pair.server, pair.device):
        with pytest.raises(ConnectionDraining):
            end.connection.open_stream("device", "web", GRANT, "visitor")
    theirs.send(b"answer", 0.0)
    theirs.finish()
    ours.finish()
    pair.settle()
    assert pair.server.data(ours.id) == b"answer"
    assert names(pair.server.heard[-2:]) == ["Drained", "ConnectionLost"]
    lost = pair.device.heard[-1]
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code, lost.reason) == ("peer", CloseCode.NORMAL, "restart")
    assert not pair.device.of(Drained)


def test_drain_refuses_what_was_on_its_way() -> None:
    pair = Pair.open()
    ours, _ = pair.stream()
    pair.device.connection.drain(0, "going")
    late = pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    late.send(b"request", 0.0)
    pair.settle()
    refused = pair.server.of(StreamRefused)
    assert [event.stream for event in refused if isinstance(event, StreamRefused)] == [late]
    assert pair.server.connection.streams() == [ours]
    assert len(pair.device.of(StreamRequested)) == 1


def test_an_idle_connection_drains_at_once() -> None:
    pair = Pair.open()
    pair.device.connection.drain(0, "stop")
    pair.settle()
    assert names(pair.device.heard) == ["Drained", "ConnectionLost"]
    assert names(pair.server.heard) == ["GoawayReceived", "ConnectionLost"]


def test_close_ends_everything_and_says_why() -> None:
    pair = Pair.open()
    ours, theirs = pair.stream()
    ours.send(b"x" * 100, 0.0)
    pair.server.connection.close(CloseCode.REPLACED, "another instance", 700)
    pair.settle()
    lost = pair.server.heard[-1]
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code) == ("local", CloseCode.REPLACED)
    assert pair.server.connection.streams() == [ours]
    assert ours.over
    goaway, told = pair.device.heard[-2:]
    assert isinstance(goaway, GoawayReceived)
    assert goaway.retry_after_ms == 700
    assert isinstance(told, ConnectionLost)
    assert (told.fault, told.code, told.reason) == ("peer", CloseCode.REPLACED, "another instance")
    assert pair.device.connection.streams() == [theirs]


def test_lost_comes_once_whatever_follows() -> None:
    pair = Pair.open()
    pair.server.connection.close(CloseCode.NORMAL, "bye")
    pair.server.connection.close(CloseCode.INTERNAL, "again")
    pair.server.connection.drain(0, "again")
    pair.server.hear(pair.server.connection.link_closed(1006, "gone"))
    pair.server.hear(pair.server.connection.handle_timer(1e9))
    pair.server.hear(pair.server.connection.receive(b"anything", 1.0))
    assert names(pair.server.heard) == ["ConnectionLost"]
    assert pair.server.connection.next_timer() == float("inf")


def test_a_broken_link_is_a_loss_without_a_code() -> None:
    pair = Pair.open()
    pair.stream()
    pair.server.hear(pair.server.connection.link_closed(None, ""))
    lost = pair.server.heard[-1]
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code, lost.reason) == ("peer", None, "the link broke")
    assert len(pair.server.connection.streams()) == 1
    assert pair.server.connection.next_message(65_536) is None


def test_stream_ids_run_out() -> None:
    pair = Pair.open()
    pair.server.connection._next_id = 2**30 + 1
    with pytest.raises(ConnectionDraining):
        pair.server.connection.open_stream("device", "web", GRANT, "visitor")
    pair.settle()
    lost = pair.device.heard[-1]
    assert isinstance(lost, ConnectionLost)
    assert lost.code is CloseCode.IDS_EXHAUSTED


def test_misuse_is_told_to_the_caller() -> None:
    pair = Pair.open()
    connection = pair.server.connection
    with pytest.raises(Misuse):
        connection.open_stream("Device!", "web", GRANT, "visitor")
    with pytest.raises(Misuse):
        connection.grant(b"short", b"token")
    with pytest.raises(Misuse):
        connection.challenge(bytes(32), "again.test")
    ours, theirs = pair.stream()
    ours.finish()
    with pytest.raises(Misuse):
        ours.send(b"after finish", 0.0)
    with pytest.raises(Misuse):
        theirs.accept("again")
    with pytest.raises(Misuse):
        theirs.consumed(1 << 20, 0.0)
    assert connection.open_stream("device", "web", GRANT, "next").state is StreamState.OPENING


def test_wake_comes_once_until_the_output_is_taken() -> None:
    pair = Pair.open()
    ours, _ = pair.stream()
    pair.server.woken = 0
    for _ in range(5):
        ours.send(b"x", 0.0)
    assert pair.server.woken == 1
    pair.server.leave()
    ours.send(b"x", 0.0)
    assert pair.server.woken == 2


def test_a_device_that_signs_for_a_connection_which_has_ended_says_nothing() -> None:
    """One message held the challenge and what broke the rules: the events come when both were read."""
    pair = Pair()
    pair.server.connection.challenge(bytes(32), "tunnel.test")
    pair.server.leave()
    device = pair.device
    pong = bytes((FrameType.PONG, 0, 0, 8)) + bytes(12)
    device.hear(device.connection.receive(pair.server.in_flight.popleft() + pong, 0.0))
    assert names(device.heard) == ["ChallengeReceived", "ConnectionLost"]
    device.connection.authenticate("device", bytes(16), bytes(16), bytes(64))
    device.leave()
    assert [message[0] for message in device.in_flight] == [FrameType.GOAWAY]


def test_what_a_stream_sends_in_a_row_leaves_as_one_frame_while_it_is_small() -> None:
    """A service that writes head and body one after the other costs one frame, and one event there."""
    pair = Pair.open()
    (ours, theirs), (other, others) = pair.stream(), pair.stream()
    theirs.send(b"head", 0.0)
    theirs.send(b"body", 0.0)
    others.send(b"other", 0.0)
    theirs.send(b"late", 0.0)  # not the last in the batch any more
    pair.settle()
    theirs.send(b"next", 0.0)  # the batch before it has left
    pair.settle()
    heard = [event for event in pair.server.heard if isinstance(event, DataReceived)]
    assert [(event.stream, bytes(event.data)) for event in heard] == [
        (ours, b"headbody"),
        (other, b"other"),
        (ours, b"late"),
        (ours, b"next"),
    ]
    assert ours.received == 16


@pytest.mark.parametrize(("limits", "size"), [(SMALL, 129), (Limits(), TAIL_MOST // 2 + 1)])
def test_a_frame_grows_neither_over_the_peers_limit_nor_without_end(limits: Limits, size: int) -> None:
    pair = Pair.open(limits, limits)
    ours, theirs = pair.stream()
    for letter in (b"a", b"b"):
        theirs.send(letter * size, 0.0)
    theirs.finish()
    pair.settle()
    heard = [bytes(event.data) for event in pair.server.heard if isinstance(event, DataReceived)]
    assert heard == [b"a" * size, b"b" * size]
    assert ours.peer_finished
