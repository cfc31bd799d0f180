"""The pure decisions about configurations."""

from __future__ import annotations

import pytest

from device_protocol.bodies import Reported
from gateway.policy.capabilities import BadParameterError, UnsupportedError
from gateway.policy.configuration import (
    VERSION_MAX,
    again_s,
    answers,
    check,
    drifts,
    due_at,
    name_of,
    next_version,
)

TYPE = {
    "commands": {},
    "config": {
        "type": "object",
        "properties": {"net": {"type": "object", "properties": {"port": {"type": "integer"}}}},
        "additionalProperties": False,
    },
}


def test_a_body_is_checked_by_its_type() -> None:
    check(TYPE, {})
    check(TYPE, {"net": {"port": 80}})
    with pytest.raises(UnsupportedError):
        check({"commands": {}}, {})
    with pytest.raises(BadParameterError) as refused:
        check(TYPE, {"net": {"port": "eighty"}})
    assert (refused.value.field, str(refused.value)) == ("body.net.port", "net: port: of another type")
    with pytest.raises(BadParameterError) as refused:
        check(TYPE, {"net": {"port": 80}, "other": 1})
    assert (refused.value.field, str(refused.value)) == ("body.other", "other: not one that there may be")


def test_equal_bodies_have_one_name() -> None:
    assert name_of({"a": 1, "b": {"c": "ä", "d": 2}}) == name_of({"b": {"d": 2, "c": "ä"}, "a": 1})
    names = [name_of(body) for body in ({}, {"a": 1}, {"a": "1"}, {"a": True}, {"a": 1.0}, {"b": 1})]
    assert len(set(names)) == len(names)
    # By hand: printf '{"a":1}' | sha256sum
    assert names[1] == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@pytest.mark.parametrize(
    ("newest", "reported", "then"),
    [(0, None, 1), (4, None, 5), (4, 4, 5), (4, 9, 10), (4, VERSION_MAX, VERSION_MAX + 1), (4, 2**53 - 1, 5)],
)
def test_a_version_is_above_all_that_are_known(newest: int, reported: int | None, then: int) -> None:
    assert next_version(newest, reported) == then


@pytest.mark.parametrize(
    ("wanted", "reported", "drift"),
    [
        (None, None, False),
        (None, Reported(None), False),
        (None, Reported(3, "a"), True),
        ((4, "a"), None, True),
        ((4, "a"), Reported(None), True),
        ((4, "a"), Reported(3, "a"), True),
        ((4, "a"), Reported(4, "b"), True),
        ((4, "a"), Reported(4), True),
        ((4, "a"), Reported(4, "a"), False),
        ((4, "a"), Reported(4, "a", error="not in force"), False),
    ],
)
def test_drift(wanted: tuple[int, str] | None, reported: Reported | None, drift: bool) -> None:
    assert drifts(wanted, reported) is drift


def test_what_answers_a_version() -> None:
    assert answers(Reported(4), 4)
    assert answers(Reported(3, told=4, error="no"), 4)
    assert not answers(Reported(3, told=3), 4)
    assert not answers(Reported(3, error="no"), 4)  # of which one that is, it does not say


def test_it_is_told_again_ever_less_often() -> None:
    waits = [again_s(publishes) for publishes in range(1, 12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5, 3600)


def test_a_hello_is_answered_at_once_and_the_next_one_five_seconds_later() -> None:
    assert due_at(None, 100.0) == 100.0
    assert due_at(100.0, 100.5) == 105.0
    assert due_at(105.0, 101.0) == 105.0, "those behind it do not put it off"
    assert due_at(105.0, 105.0) == 110.0
    assert due_at(105.0, 120.0) == 120.0
    assert due_at(3700.0, 100.0) == 100.0, "the clock went back: it must not be waited for"
