"""The door's frames (RFC 6455 section 5): however the bytes are cut, the same comes out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.websocket_frames import FrameEvent, FrameReader, Opcode, Payload, Ping, close_frame, frame

MASK = b"\x01\x02\x03\x04"
FRAMES = st.one_of(
    st.tuples(st.just(Opcode.BINARY), st.binary(max_size=300)),
    st.tuples(st.just(Opcode.PING), st.binary(max_size=125)),
)


def in_rows(events: list[FrameEvent]) -> list[FrameEvent]:
    """With payload that stands in a row put together, as one read of it all gives it."""
    rows: list[FrameEvent] = []
    for event in events:
        if rows and isinstance(event, Payload) and isinstance(last := rows[-1], Payload):
            rows[-1] = Payload(last.data + event.data)
        else:
            rows.append(event)
    return rows


@given(st.lists(FRAMES, max_size=20), st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_any_pieces_give_the_same(sent: list[tuple[Opcode, bytes]], cuts: list[int]) -> None:
    wire = b"".join(frame(opcode, data, MASK) for opcode, data in sent) + close_frame(1000, "", MASK)
    whole = FrameReader(masked=True).feed(wire)
    reader, events, at = FrameReader(masked=True), list[FrameEvent](), 0
    while at < len(wire):
        size = cuts[at % len(cuts)]
        events += reader.feed(wire[at : at + size])
        at += size
    assert in_rows(events) == whole
    assert in_rows(whole) == whole  # one read: one piece for each row
    assert b"".join(event.data for event in whole if isinstance(event, Payload)) == b"".join(
        data for opcode, data in sent if opcode is Opcode.BINARY
    )
    assert [event.data for event in whole if isinstance(event, Ping)] == [
        data for opcode, data in sent if opcode is Opcode.PING
    ]
