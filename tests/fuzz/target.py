"""The fuzz target: a machine that is fed what a hostile peer could send.

An input is one byte that chooses the side, the state and the owner's habits, then messages, each with a u16
length in front (the last one may be cut).
"""

from __future__ import annotations

from collections.abc import Callable

from tunnel_protocol import (
    Connection,
    ConnectionLost,
    Event,
    Hello,
    Limits,
    ResetCode,
    Side,
    StreamRequested,
)
from tunnel_protocol.codes import MAX_CONTROL_FRAMES, FrameType
from tunnel_protocol.fields import Auth, encode_auth, encode_hello
from tunnel_protocol.frames import challenge_frame, frame, open_frame

GRANT = bytes(16)
LIMITS = Limits(
    max_frame=2032,
    max_message=4096,
    stream_window=3000,
    connection_window=8000,
    max_streams=3,
    window_budget=4096,
)
HELLO = frame(FrameType.HELLO, encode_hello(Hello()))
CHALLENGE = challenge_frame(bytes(32), "fuzz.test")
AUTH = frame(FrameType.AUTH, encode_auth(Auth("device", bytes(16), bytes(16), bytes(64))))


def ignore(connection: Connection) -> None:
    """The wake-up: output is taken after each message."""


def server(steps: int) -> Connection:
    connection = Connection(Side.SERVER, LIMITS, 0.0, wake=ignore)
    connection.challenge(bytes(32), "fuzz.test")
    moves: list[Callable[[], object]] = [
        lambda: connection.receive(AUTH, 0.0),
        lambda: connection.admit(Hello()),
        lambda: connection.receive(HELLO, 0.0),
        lambda: connection.open_stream("device", "web", GRANT, None).send(bytes(70_000), 0.0),
    ]
    for move in moves[:steps]:
        move()
    return connection


def device(steps: int) -> Connection:
    connection = Connection(Side.DEVICE, LIMITS, 0.0, wake=ignore, hello=Hello())
    moves: list[Callable[[], object]] = [
        lambda: connection.receive(CHALLENGE, 0.0),
        lambda: connection.authenticate("device", bytes(16), bytes(16), bytes(64)),
        lambda: connection.receive(HELLO, 0.0),
        lambda: connection.receive(open_frame(1, "device", "web", GRANT), 0.0),
    ]
    for move in moves[:steps]:
        move()
    return connection


def messages(data: bytes) -> list[bytes]:
    found = []
    position = 0
    while position + 2 <= len(data):
        size = int.from_bytes(data[position : position + 2], "big")
        found.append(data[position + 2 : position + 2 + size])
        position += 2 + size
    return found


def one_input(data: bytes) -> None:
    """Raises when the machine does: anything but events is a finding."""
    if not data:
        return
    side, steps, habit = data[0] & 1, (data[0] >> 1) % 5, data[0] >> 4
    connection = server(steps) if side else device(steps)
    taken(connection)
    now = 0.0
    for number, message in enumerate(messages(data[1:])):
        now += 0.01
        events = connection.receive(message, now)
        check(connection, events)
        answer(connection, events, habit + number, now)
        if habit & 1 or len(connection.streams()) == 0:
            taken(connection)
    taken(connection)
    check(connection, connection.handle_timer(now + 30.0))


def answer(connection: Connection, events: list[Event], habit: int, now: float) -> None:
    """What an owner might do, chosen by the input."""
    for event in events:
        if isinstance(event, StreamRequested) and habit % 3 == 0:
            event.stream.accept(None)
            event.stream.send(b"answer", now)
    for stream in connection.streams():
        stream.consumed((stream.received - stream.consumed_bytes) // (1 + habit % 2), now)
        if habit % 7 == 6:
            stream.reset(ResetCode.CANCELLED)
        elif habit % 5 == 4 and not stream.waits_for_accept:
            stream.finish()
    check(connection, connection.take_events())


def taken(connection: Connection) -> None:
    while connection.next_message(4096) is not None:
        continue


def check(connection: Connection, events: list[Event]) -> None:
    """The bounds that hold whatever the peer does."""
    for event in events[:-1]:
        assert not isinstance(event, ConnectionLost), "an event after the loss"
    assert connection.outbox.control_frames <= MAX_CONTROL_FRAMES
    streams = connection.streams()
    assert len(streams) <= LIMITS.max_streams + 1  # and one of our own
    for stream in streams:
        assert stream.received <= stream.receive_limit or not connection.live
        assert stream.receive_limit - stream.consumed_bytes <= LIMITS.stream_window + 2 * LIMITS.window_budget
    assert connection.budget.used <= LIMITS.window_budget
    assert connection.budget.parked <= LIMITS.window_budget
