"""Envelopes come through whole; what is broken has a reason, and keeps its place in line."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_protocol.bodies import CONFIG_TYPE, Ack, Command, Hello, Stage
from device_protocol.envelope import (
    MESSAGE_MAX,
    READ_MAX,
    STORED_MAX,
    Envelope,
    decode,
    decode_stored,
    encode,
    renumbered,
    sent,
)
from device_protocol.errors import BadMessageError, Reason, Standing
from device_protocol.ids import RANDOM_BYTES, UUID7, uuid7
from device_protocol.numbers import NUMBER_MAX, Number
from device_protocol.topics import DOWN, NUMBERED, Kind
from tests.device_protocol.test_strict_json import SCALARS, TEXTS

IDS = st.builds(uuid7, st.integers(0, 2**48 - 1), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
COUNTS = st.integers(0, NUMBER_MAX)
NUMBERS = st.builds(Number, st.integers(1, NUMBER_MAX), st.integers(1, NUMBER_MAX))
TOKENS = st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True)
PAYLOADS = st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


def below(number: Number) -> st.SearchStrategy[Number]:
    return st.one_of(
        st.builds(Number, st.integers(0, number.boot - 1), COUNTS),
        st.builds(Number, st.just(number.boot), st.integers(0, number.seq - 1)),
    )


@st.composite
def states(draw: st.DrawFn) -> Envelope:
    """Messages whose payload may be anything."""
    number = draw(NUMBERS)
    return Envelope(
        kind=draw(st.sampled_from([Kind.STATE, Kind.EVENT])),
        id=draw(IDS),
        type=draw(TOKENS.filter(lambda token: token != CONFIG_TYPE)),
        ts=draw(st.none() | COUNTS),
        up=draw(COUNTS),
        number=number,
        payload=draw(PAYLOADS),
        floor=draw(below(number)),
        prev=draw(below(number)) if number.seq == 1 else draw(st.none() | below(number)),
        trace=draw(st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    )


STATE = Envelope(
    Kind.STATE, uuid7(1, bytes(RANDOM_BYTES)), "state", 1, 1, Number(7, 42), {}, floor=Number(7, 40)
)


@given(states())
def test_messages_come_through(message: Envelope) -> None:
    assert decode(message.kind, encode(message)) == message


@given(states())
def test_the_stored_and_the_sent_are_one_message(message: Envelope) -> None:
    assert message.floor is not None
    entry = replace(message, floor=None, prev=None, trace=None)
    stored = encode(entry)
    assert decode_stored(message.kind, stored) == entry
    raw = sent(stored, floor=message.floor, prev=message.prev, trace=message.trace)
    assert raw == encode(message)
    assert decode(message.kind, raw) == message


@given(states(), NUMBERS)
def test_numbering_anew_changes_the_number_alone(message: Envelope, number: Number) -> None:
    entry = replace(message, floor=None, prev=None, trace=None)
    anew = decode_stored(message.kind, renumbered(message.kind, encode(entry), number))
    assert anew == replace(entry, number=number)


@given(states(), st.data())
def test_damage_is_refused_with_a_reason_or_harmless(message: Envelope, data: st.DataObject) -> None:
    """Whatever happens to single bytes: never another exception, and never another device's words in it."""
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(len(raw) // 2, len(raw))) :]
    reread(message.kind, bytes(raw))


@given(st.sampled_from(Kind), st.binary(max_size=200))
def test_garbage_is_refused_with_a_reason(kind: Kind, raw: bytes) -> None:
    with pytest.raises(BadMessageError) as refused:
        decode(kind, raw)
    assert refused.value.standing is None
    assert refused.value.detail.isascii()


def reread(kind: Kind, raw: bytes) -> None:
    try:
        message = decode(kind, raw)
    except BadMessageError as error:
        told = (error.reason, error.detail)
        assert all(text.isascii() and text.isprintable() for text in told)
        return
    assert decode(kind, encode(message)) == message


MEMBERS = st.sampled_from(["id", "v", "type", "ts", "up", "boot", "seq", "payload", "floor", "prev"])
ODD = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.lists(st.integers(-1, 50), min_size=2, max_size=2), PAYLOADS
)


@given(states(), MEMBERS, ODD)
def test_the_place_in_line_survives_what_else_is_wrong(message: Envelope, member: str, odd: object) -> None:
    """A member is anything: the place is told whenever boot, seq, floor and prev are left as they were."""
    whole = json.loads(encode(message))
    whole[member] = odd
    try:
        taken = decode(message.kind, json.dumps(whole).encode())
    except BadMessageError as error:
        standing = error.standing
    else:
        standing = taken.standing
        assert standing is not None
    if member not in {"boot", "seq", "floor", "prev"}:
        assert standing == message.standing
    if standing is not None:
        assert standing.before < standing.number
        assert standing.floor < standing.number


@pytest.mark.parametrize("kind", sorted(DOWN))
def test_devices_do_not_say_what_they_are_told(kind: Kind) -> None:
    with pytest.raises(BadMessageError) as refused:
        decode(kind, encode(STATE))
    assert refused.value.reason is Reason.WRONG_KIND


def filled(size: int) -> bytes:
    """A message of this many bytes."""
    empty = len(encode(replace(STATE, payload={"fill": ""})))
    whole = json.loads(encode(STATE))
    whole["payload"] = {"fill": "x" * (size - empty)}
    return json.dumps(whole, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("size", "reason", "placed"),
    [
        (MESSAGE_MAX, None, True),
        (MESSAGE_MAX + 1, Reason.TOO_LARGE, True),
        (READ_MAX, Reason.TOO_LARGE, True),
        (READ_MAX + 1, Reason.TOO_LARGE, False),
        (5_000_000, Reason.TOO_LARGE, False),
    ],
)
def test_sizes(size: int, reason: Reason | None, placed: bool) -> None:
    raw = filled(size)
    assert len(raw) == size
    if reason is None:
        assert decode(Kind.STATE, raw).standing == STATE.standing
        return
    with pytest.raises(BadMessageError) as refused:
        decode(Kind.STATE, raw)
    assert refused.value.reason is reason
    assert refused.value.standing == (STATE.standing if placed else None)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"x": float("nan")}, Reason.BAD_JSON),
        ({"x": float("inf")}, Reason.BAD_JSON),
        ({"x": "\ud800"}, Reason.BAD_JSON),
        ({"x": "\0"}, Reason.BAD_JSON),
        ({"x": b"bytes"}, Reason.BAD_JSON),
        ({"x": 10**400}, Reason.BAD_JSON),
        ({"x": json.loads("[" * 20 + "]" * 20)}, Reason.TOO_DEEP),
        ({"x": "x" * STORED_MAX}, Reason.TOO_LARGE),
    ],
    ids=["nan", "infinity", "half a pair", "nul", "bytes", "huge", "deep", "large"],
)
def test_a_device_learns_of_its_own_mistakes_before_it_numbers(
    payload: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(BadMessageError) as refused:
        encode(replace(STATE, payload=payload, floor=None))
    assert refused.value.reason is reason


def test_a_list_that_holds_itself_is_no_json() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadMessageError):
        encode(replace(STATE, payload={"x": endless}))


def test_the_largest_entry_fits_the_way() -> None:
    """What is added when it is sent never makes a message too large of an entry that was taken."""
    number = Number(NUMBER_MAX, NUMBER_MAX)
    overhead = len(encode(replace(STATE, payload={"x": ""}, number=number, floor=None)))
    stored = encode(replace(STATE, payload={"x": "x" * (STORED_MAX - overhead)}, number=number, floor=None))
    assert len(stored) == STORED_MAX
    last = Number(NUMBER_MAX, NUMBER_MAX - 1)
    raw = sent(stored, floor=last, prev=last, trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert len(raw) < MESSAGE_MAX
    assert decode(Kind.STATE, raw).standing == Standing(number, last, last)


def test_kinds_that_are_not_numbered_stand_in_no_line() -> None:
    command = uuid7(2, bytes(RANDOM_BYTES))
    for kind, body in (
        (Kind.ACK, Ack(command, Stage.RECEIVED).dump()),
        (Kind.HELLO, Hello(7, "i", "s", "linux").dump()),
    ):
        assert kind not in NUMBERED
        message = Envelope(kind, STATE.id, kind.value, None, 0, Number(7, 0), body)
        assert decode(kind, encode(message)).standing is None


@given(st.integers(0, 2**48 - 1), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_ids_are_uuids_of_version_7(unix_ms: int, random: bytes) -> None:
    id = uuid7(unix_ms, random)
    assert UUID7.fullmatch(id)
    assert int(id.replace("-", "")[:12], 16) == unix_ms
    assert id < uuid7(unix_ms + 1, bytes(RANDOM_BYTES)) or unix_ms == 2**48 - 1


def test_random_bytes_are_counted() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        uuid7(0, bytes(9))


@given(IDS, TOKENS, PAYLOADS, COUNTS)
def test_commands_come_through(id: str, name: str, params: dict[str, Any], ms: int) -> None:
    command = Command(id, name, params, ms, ms, ms)
    assert Command.parse(command.dump()) == command
