"""The one table of states, beside the promise written out by hand."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.commands import (
    DEVICE_AWAY,
    DEVICE_MOVED,
    DEVICE_RETYPED,
    DEVICE_REVOKED,
    FINAL,
    OPEN,
    SENDER_NOT_ALLOWED,
    TABLE,
    Event,
    Standing,
    State,
    is_late,
    look_again_at,
    moved,
)
from gateway.store.migrate import load

NOW = 1_000_000.0
LOOKED_AT_WITHIN_S = 60.0
"""Of any open command, whatever restarts meanwhile."""

# A row each state, a column each event; "-": it stays what it is.
PROMISED = """
           taken unheard received  done      error  refused ttl_over deadline  device_gone away   not_allowed
queued     sent  -       delivered succeeded failed failed  expired  -         failed      failed failed
sent       -     -       delivered succeeded failed failed  expired  -         failed      -      failed
delivered  -     -       -         succeeded failed -       -        timed_out failed      -      -
succeeded  -     -       -         -         -      -       -        -         -           -      -
failed     -     -       -         -         -      -       -        -         -           -      -
timed_out  -     -       -         -         -      -       -        -         -           -      -
expired    -     -       -         -         -      -       -        -         -           -      -
"""


def test_the_table_is_what_was_promised() -> None:
    head, *rows = [line.split() for line in PROMISED.strip().splitlines()]
    promised = {
        (State(row[0]), Event(event)): State(after)
        for row in rows
        for event, after in zip(head, row[1:], strict=True)
        if after != "-"
    }
    assert promised == TABLE
    assert {row[0] for row in rows} == set(State)
    assert set(head) == set(Event)


def test_what_is_over_stays_over_and_everything_open_can_end() -> None:
    for state, event in product(FINAL, Event):
        assert moved(state, event) is None
    for state in OPEN:
        by_time = {moved(state, Event.TTL_OVER), moved(state, Event.DEADLINE)} - {None}
        assert len(by_time) == 1, state
        assert by_time < FINAL


def test_only_the_device_says_that_a_command_arrived_or_was_done() -> None:
    """`sent` alone never becomes `delivered` (N16)."""
    of_the_device = {Event.RECEIVED, Event.DONE, Event.ERROR, Event.REFUSED}
    for (_, event), after in TABLE.items():
        if after in {State.DELIVERED, State.SUCCEEDED}:
            assert event in of_the_device


def test_the_store_knows_these_states() -> None:
    schema = "".join(one.sql for one in load())
    named = re.search(r"state IN \(('queued'[^)]*)\)", schema)
    assert named is not None
    assert set(re.findall(r"'(\w+)'", named[1])) == set(State)


@given(
    st.sampled_from(sorted(OPEN)),
    st.integers(0, 10**6),
    st.floats(-100.0, 90_000.0),
    st.floats(-100.0, 4_000.0),
)
def test_no_open_command_is_left_alone_for_long(
    state: State, publishes: int, ttl_s: float, timeout_s: float
) -> None:
    deadline = NOW + timeout_s if state is State.DELIVERED else None
    standing = Standing(state, NOW + ttl_s, deadline)
    again = look_again_at(standing, publishes, NOW)
    assert NOW <= again <= NOW + LOOKED_AT_WITHIN_S
    end = deadline if deadline is not None else NOW + ttl_s
    assert again <= max(NOW, end)  # its end is noticed when it comes


def test_the_waits_between_publishes_grow() -> None:
    far = Standing(State.QUEUED, NOW + 90_000, None)
    waits = [look_again_at(far, n, NOW) - NOW for n in range(1, 20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 30.0)


@pytest.mark.parametrize(
    ("state", "error", "late"),
    [
        (State.TIMED_OUT, None, True),
        (State.EXPIRED, None, True),
        (State.FAILED, DEVICE_REVOKED, True),
        (State.FAILED, DEVICE_MOVED, True),
        (State.FAILED, DEVICE_RETYPED, True),
        (State.FAILED, DEVICE_AWAY, True),
        (State.FAILED, SENDER_NOT_ALLOWED, True),
        (State.FAILED, "busy", False),
        (State.SUCCEEDED, None, False),
    ],
)
def test_only_an_answer_that_tells_something_new_is_late(state: State, error: str | None, late: bool) -> None:
    assert is_late(state, error) is late


def test_the_document_shows_this_table() -> None:
    """docs/commands.md is drawn from it: `make docs`."""
    drawn = (Path(__file__).parents[3] / "docs/commands.md").read_text("utf-8")
    for (state, event), after in TABLE.items():
        assert f"{state} --> {after}: {event}" in drawn
