"""The same messages to the firmware's mux and to Python's device: they hear, say and end the same."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.firmware.core_pipe import LINK_BUFFER, CorePipe, Told
from tests.tunnel_protocol.pair import GRANT, INSTANCE, KEY_ID, NONCE, SIGNATURE, End
from tunnel_protocol import (
    ChallengeReceived,
    ConnectionLost,
    DataReceived,
    Event,
    FrameType,
    GoawayReceived,
    GrantReceived,
    GrantRevoked,
    Limits,
    ResetCode,
    Side,
    Stream,
    StreamFinished,
    StreamRequested,
    StreamReset,
)
from tunnel_protocol.frames import (
    challenge_frame,
    credit_frame,
    frame,
    goaway_frame,
    grant_frame,
    open_frame,
    refused_frame,
    reset_frame,
)

LIMITS: Final = Limits(
    max_frame=2040,
    max_message=LINK_BUFFER,
    stream_window=1000,
    connection_window=3000,
    max_streams=3,
    keepalive_ms=300_000,  # nothing falls due in a conversation
    stream_window_max=1000,  # as the firmware's, it does not grow
)
_HEADER: Final = struct.Struct(">BBHI")
_HELLO: Final = b"".join(struct.pack(">BHI", tag, 4, value) for tag, value in ((5, 16), (6, 300_000)))

# One thing of a message: what, an id or a number, a size.
Piece = tuple[str, int, int]
USUAL: Final = (
    "open",
    "data",
    "data",
    "data",
    "data",
    "fin",
    "reset",
    "credit",
    "ping",
    "pong",
    "grant",
    "revoke",
)
OF_STREAMS: Final = ("data", "fin", "reset", "opened", "refused")
ODD: Final = ("opened", "refused", "goaway", "hello", "flags", "cut", "length", "noise", "type")
PIECES: Final = st.tuples(
    st.sampled_from(USUAL * 20 + ODD),
    st.integers(0, 8),
    st.sampled_from([1, 2, 3, 10, 100, 501, 999, 1000, 1500, 2040]),
)
# What the device's owner does behind a message, on the stream with that place.
ACTS: Final = st.tuples(
    st.sampled_from(["nothing"] * 8 + ["send"] * 6 + ["reset"] * 2 + ["drain"]),
    st.integers(0, 2),
    st.sampled_from([1, 100, 3000]),
)
TALK: Final = st.lists(st.tuples(st.lists(PIECES, min_size=1, max_size=3), ACTS), min_size=6, max_size=25)


@pytest.fixture(scope="module")
def pipe(asan: Path) -> Iterator[CorePipe]:
    with CorePipe(asan / "tests" / "core-pipe") as joined:
        yield joined


@dataclass
class Said:
    """What a device told its owner and its peer, in words that both kinds share."""

    heard: list[tuple[object, ...]] = field(default_factory=list)
    control: list[tuple[object, ...]] = field(default_factory=list)
    taken: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    sent: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    ended: list[int] = field(default_factory=list)  # streams whose FIN left
    live: set[int] = field(default_factory=set)

    def read(self, messages: list[bytes]) -> None:
        for message in messages:
            at = 0
            while at < len(message):
                kind, flags, length, stream_id = _HEADER.unpack_from(message, at)
                payload = message[at + 8 : at + 8 + length]
                assert flags == 0
                assert len(payload) == length
                at += 8 + length
                self._read_frame(FrameType(kind), stream_id, payload)

    def _read_frame(self, kind: FrameType, stream_id: int, payload: bytes) -> None:
        match kind:
            case FrameType.DATA:
                self.sent[stream_id] += payload
            case FrameType.FIN:
                self.ended.append(stream_id)
            case FrameType.PING | FrameType.AUTH | FrameType.HELLO:
                self.control.append((kind.name,))
            case FrameType.GOAWAY:
                self.control.append((kind.name, payload[:4], payload[8:10]))  # without the words
            case FrameType.REFUSED:
                self.control.append((kind.name, stream_id, payload[:2]))
            case _:
                self.control.append((kind.name, stream_id, payload))


class PythonDevice:
    def __init__(self) -> None:
        self.end = End(Side.DEVICE, LIMITS)
        self.said = Said()
        self.streams: dict[int, Stream] = {}
        self.now = 0.0

    def receive(self, message: bytes, now: float) -> None:
        self.now = now
        self.hear(self.end.connection.receive(message, now))

    def hear(self, events: list[Event]) -> None:
        came: dict[Stream, int] = {}
        asked: list[Stream] = []
        for event in self.end.hear(events):
            match event:
                case ChallengeReceived():
                    self.end.connection.authenticate("device", INSTANCE, KEY_ID, SIGNATURE)
                case StreamRequested():
                    self.streams[event.stream.id] = event.stream
                    asked.append(event.stream)
                case DataReceived():
                    self.said.taken[event.stream.id] += event.data
                    came[event.stream] = came.get(event.stream, 0) + len(event.data)
                case _:
                    pass
            self.said.heard += _heard_by_python(event)
        for stream, size in came.items():
            self.take(stream, size)
        for stream in asked:
            stream.accept(None)
            self.hear(self.end.connection.take_events())

    def take(self, stream: Stream, size: int) -> None:
        """In the pieces that the firmware's ring gives, which ends where its window does."""
        while size > 0:
            piece = min(size, LIMITS.stream_window - stream.consumed_bytes % LIMITS.stream_window)
            stream.consumed(piece, self.now)
            size -= piece

    def act(self, what: str, stream_id: int, data: bytes) -> None:
        stream = self.streams[stream_id]
        match what:
            case "send":
                stream.send(data, self.now)
            case "finish":
                stream.finish()
            case "reset":
                stream.reset(ResetCode.CANCELLED)
        self.hear(self.end.connection.take_events())

    def drain(self) -> None:
        self.end.connection.drain(0, "drain")
        self.hear(self.end.connection.take_events())

    def leave(self) -> None:
        self.end.leave()
        self.said.read(list(self.end.in_flight))
        self.end.in_flight.clear()
        self.hear(self.end.connection.take_events())
        self.said.live = {stream.id for stream in self.end.connection.streams() if not stream.over}


def _heard_by_python(event: Event) -> list[tuple[object, ...]]:
    match event:
        case StreamRequested():
            return [("requested", event.stream.id)]
        case StreamFinished():
            return [("finished", event.stream.id)]
        case StreamReset():
            return [("reset", event.stream.id, int(event.code))]
        case GrantReceived():
            return [("grant", bytes(event.token))]
        case GrantRevoked():
            return [("revoked", bytes(event.grant_id))]
        case GoawayReceived():
            return [("goaway", int(event.code))]
        case ConnectionLost():
            return [("lost", None if event.code is None else int(event.code))]
        case _:
            return []


class Firmware:
    def __init__(self, pipe: CorePipe) -> None:
        self.pipe = pipe
        self.said = Said()
        pipe.begin(LIMITS)

    def receive(self, message: bytes, now: float) -> None:
        self.hear(self.pipe.set_time(now))
        self.hear(self.pipe.receive(message))

    def hear(self, told: list[Told]) -> None:
        came: dict[int, None] = {}
        asked: list[int] = []
        for one in told:
            match one.kind:
                case "requested":
                    asked.append(one.stream)
                    self.said.live.add(one.stream)
                case "data":
                    came[one.stream] = None
                case "taken":
                    self.said.taken[one.stream] += one.payload
                case "over":
                    self.said.live.discard(one.stream)
                case _:
                    pass
            self.said.heard += _heard_by_firmware(one)
        for stream_id in came:
            self.hear(self.pipe.take(stream_id, LINK_BUFFER))
        for stream_id in asked:
            self.hear(self.pipe.accept(stream_id))
            self.hear(self.pipe.take(stream_id, LINK_BUFFER))

    def act(self, what: str, stream_id: int, data: bytes) -> None:
        match what:
            case "send":
                self.hear(self.pipe.send(stream_id, data))
            case "finish":
                self.hear(self.pipe.finish(stream_id))
            case "reset":
                self.said.live.discard(stream_id)
                self.hear(self.pipe.reset(stream_id))

    def drain(self) -> None:
        self.hear(self.pipe.drain())

    def leave(self) -> None:
        messages, told = self.pipe.leave(1000)
        self.said.read(messages)
        self.hear(told)


def _heard_by_firmware(one: Told) -> list[tuple[object, ...]]:
    match one.kind:
        case "requested" | "finished":
            return [(one.kind, one.stream)]
        case "over":
            assert one.number is not None
            return [("reset", one.stream, one.number - 100)] if one.number >= 100 else []
        case "grant" | "revoked":
            return [(one.kind, one.payload)]
        case "goaway" | "lost":
            return [(one.kind, one.number)]
        case _:
            return []


class Sender:
    """Writes the server's messages: mostly as the protocol allows, now and then not."""

    def __init__(self, python: PythonDevice) -> None:
        self.python = python
        self.next_id = 1

    def message(self, pieces: list[Piece]) -> bytes:
        return b"".join(self.piece(*piece) for piece in pieces)

    def target(self, what: str, number: int) -> int:
        """A stream to which it may be sent, 0 where there is none; with 5 one of the last, be it over."""
        if number == 5 and self.next_id > 3:
            return self.next_id - 4
        ended = {one[1] for one in self.python.said.heard if one[0] == "finished"}
        live = sorted(i for i in self.python.said.live if what == "credit" or i not in ended)
        return live[number % len(live)] if live else 0

    def fitting(self, stream_id: int, size: int) -> int:
        """Within the credit, unless there is none."""
        stream = self.python.streams.get(stream_id)
        room = 0 if stream is None else stream.receive_limit - stream.received
        return min(size, room) or size

    def piece(self, what: str, number: int, size: int) -> bytes:
        stream_id = self.target(what, number)
        if stream_id == 0 and what in OF_STREAMS:
            what = "open"
        match what:
            case "open":
                self.next_id += 2 + (4 if number == 5 else 0)  # ids may be left out
                return open_frame(self.next_id - 2, "device", "web", GRANT)
            case "data":
                fits = size if number == 0 and size == 2040 else self.fitting(stream_id, size)
                return frame(FrameType.DATA, bytes([number]) * fits, stream_id)
            case "fin":
                return frame(FrameType.FIN, b"", stream_id)
            case "reset":
                return reset_frame(stream_id, size)
            case "credit":
                return credit_frame(stream_id if number < 4 else 0, size * 100)
            case "ping" | "pong":
                kind = FrameType.PING if what == "ping" else FrameType.PONG
                return frame(kind, size.to_bytes(8, "big"))
            case "grant":
                return grant_frame(bytes([number]) * 16, b"t" * min(size, 1536))
            case "revoke":
                return frame(FrameType.REVOKE, bytes([number]) * 16)
            case _:
                return self.odd(what, stream_id, number, size)

    def odd(self, what: str, stream_id: int, number: int, size: int) -> bytes:
        match what:
            case "opened":
                return frame(FrameType.OPENED, b"", stream_id)
            case "refused":
                return refused_frame(stream_id, number, "no")
            case "goaway":
                return goaway_frame(0, size, [0, 0, 0, 9, 4, 77, 0, 0, 0][number], "go")
            case "hello":
                return frame(FrameType.HELLO, _HELLO)
            case "flags":
                return _HEADER.pack(FrameType.PING, number + 1, 8, 0) + bytes(8)
            case "cut":
                return frame(FrameType.PING, bytes(8))[: number + 1]
            case "length":
                return frame(FrameType.PING, bytes(number))
            case "noise":
                return bytes((number * 37 + at * 101) % 256 for at in range(min(size, 40)))
            case _:
                return _HEADER.pack(16 + number, 0, 0, stream_id)


class Both:
    """One server's messages to the two devices, whose owners do the same."""

    def __init__(self, pipe: CorePipe) -> None:
        self.firmware = Firmware(pipe)
        self.python = PythonDevice()
        self.now = 0.0
        self.finished: set[int] = set()

    def receive(self, message: bytes) -> None:
        self.now += 0.125
        for device in (self.firmware, self.python):
            device.receive(message, self.now)
            device.leave()
        self.compare()

    def act(self, what: str, place: int, size: int) -> None:
        live = sorted(self.python.said.live)
        if what == "drain":
            self.firmware.drain()
            self.python.drain()
        elif live and what != "nothing":
            stream_id = live[place % len(live)]
            for device in (self.firmware, self.python):
                device.act(what, stream_id, b"u" * size)
        self.finish_what_the_server_finished()
        for device in (self.firmware, self.python):
            device.leave()
        self.compare()

    def finish_what_the_server_finished(self) -> None:
        for stream_id in sorted(self.python.said.live):
            if ("finished", stream_id) in self.python.said.heard and stream_id not in self.finished:
                self.finished.add(stream_id)
                for device in (self.firmware, self.python):
                    device.act("finish", stream_id, b"")

    def compare(self) -> None:
        one, other = self.firmware.said, self.python.said
        assert one.heard == other.heard
        assert one.control == other.control
        assert one.sent == other.sent
        assert sorted(one.ended) == sorted(other.ended)  # whose turn comes first is each scheduler's own
        assert one.live == other.live
        for stream_id, taken in other.taken.items():
            # What the firmware's owner had not taken when the stream was cut is gone.
            assert taken.startswith(one.taken[stream_id])
            assert taken == one.taken[stream_id] or stream_id not in one.live


_DOES_NOTHING: Final = ("nothing", 0, 1)
OVER_THE_RINGS_END: Final = [
    ([("open", 0, 1)], _DOES_NOTHING),
    ([("data", 1, 100)] * 3, _DOES_NOTHING),
    ([("data", 1, 100)] * 2, _DOES_NOTHING),
    ([("data", 1, 501)], _DOES_NOTHING),
]


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@example(talk=OVER_THE_RINGS_END)
@given(talk=TALK)
def test_the_two_hear_and_say_the_same(pipe: CorePipe, talk: list[tuple[list[Piece], Piece]]) -> None:
    both = Both(pipe)
    sender = Sender(both.python)
    both.receive(challenge_frame(NONCE, "tunnel.test"))
    both.receive(frame(FrameType.HELLO, _HELLO))
    for pieces, act in talk:
        both.receive(sender.message(pieces))
        both.act(*act)
