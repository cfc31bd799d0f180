"""Every single thing that can be done to a chain is named, at the event where it was done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.audit_chain import COLUMNS, GENESIS, Fault, Head, Row, Walk, chain_hash
from gateway.store.transaction import AuditEvent, audit_record

LENGTH = 50
NOW = 1_800_000_000.0


def rows_of(records: Sequence[str], first: int = 1, previous: bytes = GENESIS) -> list[Row]:
    """A chain that is right, whatever its records say."""
    rows = []
    for seq, record in enumerate(records, first):
        columns = {name: json.loads(record).get(name) for name in COLUMNS}
        rows.append(Row(seq, record, previous, chain_hash(previous, record), columns))
        previous = rows[-1].hash
    return rows


def record(seq: int, detail: str = "") -> str:
    event = AuditEvent(f"kind.{seq}", f"actor-{seq}", site="s_x", device=None, detail={"text": f"ü{detail}"})
    return audit_record(seq, NOW + seq, event)


CHAIN = rows_of([record(seq) for seq in range(1, LENGTH + 1)])
HEADS = [Head(row.seq, row.hash) for row in CHAIN]
NUMBERS = st.integers(1, LENGTH)


def walked(
    rows: Sequence[Row], heads: Sequence[Head] = HEADS, stored: Head | None = HEADS[-1]
) -> Fault | None:
    walk = Walk(iter(heads))
    return walk.over(rows) or walk.end(stored)


def named(rows: Sequence[Row], **given_: object) -> tuple[int, int] | None:
    fault = walked(rows, **given_)  # type: ignore[arg-type]
    return None if fault is None else (fault.seq, fault.until)


def with_row(seq: int, **changes: object) -> list[Row]:
    return [replace(row, **changes) if row.seq == seq else row for row in CHAIN]  # type: ignore[arg-type]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def renumbered(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, seq=seq) for seq, row in enumerate(rows, 1)]


def test_what_was_not_touched_is_whole() -> None:
    assert walked(CHAIN) is None
    assert walked(CHAIN, heads=HEADS[::7]) is None
    assert walked(CHAIN, heads=[]) is None


@given(NUMBERS, st.integers(0, 255), st.sampled_from(["hash", "prev_hash"]))
def test_an_altered_hash_is_named(seq: int, bit: int, column: str) -> None:
    changed = with_row(seq, **{column: flipped(getattr(CHAIN[seq - 1], column), bit)})
    assert named(changed) == (seq, seq)
    assert named(changed, heads=[]) == (seq, seq)


@given(NUMBERS, st.data())
def test_an_altered_record_is_named(seq: int, data: st.DataObject) -> None:
    text = CHAIN[seq - 1].record
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != text[at]))
    changed = with_row(seq, record=text[:at] + other + text[at + 1 :])
    assert named(changed) == (seq, seq)
    assert named(changed, heads=[]) == (seq, seq)


@given(NUMBERS, st.sampled_from(COLUMNS), st.one_of(st.none(), st.text()))
def test_an_altered_column_is_named_although_the_record_is_right(
    seq: int, column: str, value: str | None
) -> None:
    columns = dict(CHAIN[seq - 1].columns or {})
    if columns[column] == value:
        return
    assert named(with_row(seq, columns=columns | {column: value})) == (seq, seq)


@given(NUMBERS)
def test_a_removed_event_is_named(seq: int) -> None:
    rest = [row for row in CHAIN if row.seq != seq]
    assert named(rest) == (seq, seq)
    assert named(rest, heads=[]) == (seq, seq)
    assert named(renumbered(rest)) == (seq, seq)


@given(NUMBERS, NUMBERS)
def test_swapped_events_are_named(one: int, other: int) -> None:
    if one == other:
        return
    swapped = list(CHAIN)
    swapped[one - 1] = replace(CHAIN[other - 1], seq=one)
    swapped[other - 1] = replace(CHAIN[one - 1], seq=other)
    assert named(swapped) == (min(one, other),) * 2
    assert named(swapped, heads=[]) == (min(one, other),) * 2


@given(NUMBERS)
def test_a_cut_off_end_is_named(seq: int) -> None:
    """By the database's own note of its end, and where that was changed too, by the signed heads."""
    cut = CHAIN[: seq - 1]
    end = Head(cut[-1].seq, cut[-1].hash) if cut else Head(0, GENESIS)
    assert named(cut, heads=[]) == (seq, seq)
    assert named(cut, stored=end) == (seq, seq)
    assert named(cut, heads=HEADS[-1:], stored=None) == (seq, seq)
    # Nobody would know otherwise.
    assert named(cut, heads=[], stored=end) is None


@given(NUMBERS)
def test_an_event_put_in_between_is_named(seq: int) -> None:
    before = CHAIN[seq - 2].hash if seq > 1 else GENESIS
    new = rows_of([record(seq, "new")], seq, before)[0]
    shifted = [replace(row, seq=row.seq + 1) for row in CHAIN[seq - 1 :]]
    assert named([*CHAIN[: seq - 1], new, *shifted]) == (seq, seq)


def test_an_event_put_behind_the_end_is_named() -> None:
    new = rows_of([record(LENGTH + 1)], LENGTH + 1, CHAIN[-1].hash)
    assert named([*CHAIN, *new]) == (LENGTH + 1, LENGTH + 1)


@given(NUMBERS)
def test_a_chain_rewritten_from_any_event_on_is_named(seq: int) -> None:
    """By somebody who may do everything in the database: every hash fits, the note of the end too."""
    before = CHAIN[seq - 2].hash if seq > 1 else GENESIS
    new = rows_of([record(number, "new") for number in range(seq, LENGTH + 1)], seq, before)
    whole = [*CHAIN[: seq - 1], *new]
    end = Head(LENGTH, whole[-1].hash)
    assert named(whole, stored=end) == (seq, seq)
    assert named(whole, heads=[], stored=end) is None


@settings(max_examples=200)
@given(NUMBERS, st.sets(NUMBERS, min_size=1))
def test_with_few_heads_the_range_that_is_named_holds_it(seq: int, signed: set[int]) -> None:
    before = CHAIN[seq - 2].hash if seq > 1 else GENESIS
    new = rows_of([record(number, "new") for number in range(seq, LENGTH + 1)], seq, before)
    heads = [HEADS[number - 1] for number in sorted(signed)]
    fault = walked([*CHAIN[: seq - 1], *new], heads=heads, stored=None)
    if max(signed) < seq:
        assert fault is None
        return
    assert fault is not None
    assert fault.seq <= seq <= fault.until
    assert fault.until == min(number for number in signed if number >= seq)


@given(NUMBERS.filter(lambda seq: seq < LENGTH))
def test_an_event_altered_with_its_hash_is_named_or_its_neighbour(seq: int) -> None:
    """Whoever makes the hash anew, too, breaks the link to the next one."""
    before = CHAIN[seq - 2].hash if seq > 1 else GENESIS
    new = rows_of([record(seq, "new")], seq, before)[0]
    changed = [new if row.seq == seq else row for row in CHAIN]
    assert named(changed) == (seq, seq)
    assert named(changed, heads=[]) == (seq, seq + 1)


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "[" * 100_000])
def test_a_record_that_is_none_is_named(text: str) -> None:
    changed = with_row(7, record=text, hash=chain_hash(CHAIN[5].hash, text))
    assert named(changed, heads=[]) == (7, 7)
