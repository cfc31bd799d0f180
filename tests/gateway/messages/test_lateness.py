"""How old what is not stored is."""

from __future__ import annotations

from gateway.messages.lateness import Lateness
from gateway.store.positions import Part
from runtime.event_log.interface import UP

ONE, TWO = (UP, 1), (UP, 2)
NOW_MS = 1_760_000_000_000
HOUR_MS = 3_600_000


class Looks:
    """One a second."""

    def __init__(self) -> None:
        self.lateness = Lateness()
        self.now_ms = NOW_MS
        self.stored: dict[Part, int] = {}

    def age_s(self, late: dict[Part, int], hand: dict[Part, int] | None = None) -> float:
        self.now_ms += 1000
        return self.lateness.look(UP, late, hand or {}, self.stored, self.now_ms)


def test_nothing_is_late() -> None:
    assert Looks().age_s({}) == 0


def test_what_comes_after_a_quiet_hour_is_new() -> None:
    looks = Looks()
    looks.stored[ONE] = NOW_MS - HOUR_MS
    assert looks.age_s({ONE: 7}) == 0
    assert looks.age_s({}) == 0


def test_a_part_that_stands_grows_older_by_the_second() -> None:
    looks = Looks()
    looks.stored[ONE] = NOW_MS - HOUR_MS
    assert [looks.age_s({ONE: 7}) for _ in range(4)] == [0, 1, 2, 3]


def test_what_was_read_and_is_not_stored_says_itself_when_it_came() -> None:
    looks = Looks()
    assert looks.age_s({ONE: 7, TWO: 1}, {ONE: NOW_MS - HOUR_MS}) == (HOUR_MS + 1000) / 1000
    # Put back, and not read again yet: it is the same record.
    assert looks.age_s({ONE: 7, TWO: 1}) == (HOUR_MS + 2000) / 1000


def test_a_part_that_moves_is_as_late_as_what_was_stored_of_it_last() -> None:
    looks = Looks()
    looks.age_s({ONE: 7})
    looks.stored[ONE] = NOW_MS - 60_000
    assert looks.age_s({ONE: 1007}) == 62
    assert looks.age_s({ONE: 1007}) == 63


def test_the_oldest_of_all_parts_counts() -> None:
    looks = Looks()
    looks.age_s({ONE: 7})
    assert looks.age_s({ONE: 7, TWO: 1}) == 1
    assert looks.age_s({TWO: 1}) == 1
