"""Any cutting of frames into messages gives the same events; garbage gives ConnectionLost at worst."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tunnel_protocol.pair import GRANT, End, Pair
from tunnel_protocol import (
    ConnectionLost,
    DataReceived,
    Event,
    Limits,
    StreamAccepted,
    StreamFinished,
    StreamRequested,
    StreamReset,
)
from tunnel_protocol.codes import HEADER_SIZE, FrameType
from tunnel_protocol.frames import HEADER, credit_frame, frame, open_frame, refused_frame, reset_frame


def open_device() -> Pair:
    return Pair.open(
        device=Limits(max_frame=1000, stream_window=5000, connection_window=20_000, max_streams=3)
    )


def digest(events: list[Event]) -> list[tuple[object, ...]]:
    """Events as values: without the stream objects, and DATA joined, since only its bytes matter."""
    result: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, DataReceived):
            result.append(("data", event.stream.id, bytes(event.data)))
        elif isinstance(event, StreamRequested):
            result.append(("open", event.stream.id, event.device, event.service, event.grant_id))
        elif isinstance(event, StreamReset):
            result.append(("reset", event.stream.id, event.code))
        elif isinstance(event, StreamFinished | StreamAccepted):
            result.append((type(event).__name__, event.stream.id))
        elif isinstance(event, ConnectionLost):
            result.append(("lost", event.fault, event.code, event.reason))
        else:
            result.append((type(event).__name__,))
    return result


IDS = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 2**31])
FRAMES = st.one_of(
    st.builds(lambda i, d: frame(FrameType.DATA, d, i), IDS, st.binary(min_size=1, max_size=1001)),
    st.builds(lambda i: open_frame(i, "device", "web", GRANT), IDS),
    st.builds(lambda i: frame(FrameType.FIN, b"", i), IDS),
    st.builds(reset_frame, IDS, st.integers(0, 2**16 - 1)),
    st.builds(credit_frame, IDS, st.integers(0, 2**64 - 1)),
    st.builds(lambda i, m: refused_frame(i, 3, m), IDS, st.text(max_size=300)),
    st.builds(lambda p: frame(FrameType.PING, p), st.binary(min_size=8, max_size=8)),
    st.builds(lambda p: frame(FrameType.GRANT, GRANT + p), st.binary(max_size=1600)),
    st.builds(
        lambda kind, flags, i, p: HEADER.pack(kind, flags, len(p), i) + p,
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 1]),
        IDS,
        st.binary(max_size=64),
    ),
)


def accepting(end: End, message: bytes) -> list[Event]:
    """Feeds a message; streams are accepted as soon as they are asked for."""
    events = end.hear(end.connection.receive(message, 0.0))
    for event in events:
        if isinstance(event, StreamRequested):
            event.stream.accept("local")
    return events + end.hear(end.connection.take_events())


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(FRAMES, max_size=12), cuts=st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_cutting_into_messages_gives_the_same_events(frames: list[bytes], cuts: list[bool]) -> None:
    """An OPEN always ends its message here: accepting later moves data from direct to early."""
    one, other = open_device().device, open_device().device
    for piece in frames:
        accepting(one, piece)
    message = b""
    for piece, cut in zip(frames, cuts, strict=False):
        message += piece
        if cut or piece[0] == FrameType.OPEN:
            accepting(other, message)
            message = b""
    if message:
        accepting(other, message)
    assert digest(one.heard) == digest(other.heard)


@settings(max_examples=150, deadline=None)
@given(frames=st.lists(FRAMES, max_size=20))
def test_frames_in_any_order_end_in_events_or_one_loss(frames: list[bytes]) -> None:
    pair = open_device()
    for piece in frames:
        accepting(pair.device, piece)
    losses = pair.device.of(ConnectionLost)
    assert len(losses) <= 1
    if losses:
        assert pair.device.heard[-1] is losses[0]
        assert isinstance(losses[0], ConnectionLost)
        assert losses[0].fault == "peer"
    assert not pair.device.connection.outbox.queued


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(st.binary(max_size=300), max_size=5), handshake=st.booleans())
def test_garbage_gives_only_a_loss_by_the_peers_fault(messages: list[bytes], handshake: bool) -> None:
    pair = Pair() if handshake else open_device()
    for end in (pair.server, pair.device):
        for message in messages:
            end.hear(end.connection.receive(message, 0.0))
        for event in end.heard:
            assert not isinstance(event, ConnectionLost) or event.fault == "peer"


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), at=st.integers(0, 3000))
def test_a_cut_message_is_a_violation_never_a_wait(data: bytes, at: int) -> None:
    """Frames do not run over message ends: nothing of a cut frame is kept."""
    pair = open_device()
    stream = pair.stream()[0]
    pair.device.heard.clear()
    whole = frame(FrameType.DATA, data[:1000], stream.id)
    cut = min(at, len(whole) - 1)
    pair.device.hear(pair.device.connection.receive(whole[:cut], 0.0))
    assert [type(event) for event in pair.device.heard] == [ConnectionLost]


@given(data=st.binary(min_size=1, max_size=500), parts=st.integers(1, 7))
def test_received_data_is_a_view_of_the_message(data: bytes, parts: int) -> None:
    pair = open_device()
    stream = pair.stream()[0]
    message = b"".join(frame(FrameType.DATA, data, stream.id) for _ in range(parts))
    events = pair.device.connection.receive(memoryview(message), 0.0)
    views = [event.data for event in events if isinstance(event, DataReceived)]
    assert [bytes(view) for view in views] == [data] * parts
    assert all(view.obj is message for view in views)
    assert len(message) == parts * (HEADER_SIZE + len(data))
