"""How old the oldest record is that came into the log and is not stored: lag in time, for operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.store.positions import Part


class _Late(NamedTuple):
    next: int
    """The first offset that is not stored."""
    came_ms: int
    """When that record came into the log, as far as one can tell."""


class Lateness:
    """One consumer's. `look` each second, for one topic at a time. Times are Unix milliseconds."""

    def __init__(self) -> None:
        self._late: dict[str, dict[Part, _Late]] = {}

    def __repr__(self) -> str:
        return f"<Lateness {self._late}>"

    def look(
        self,
        topic: str,
        late: Mapping[Part, int],
        in_hand: Mapping[Part, int],
        stored: Mapping[Part, int],
        now_ms: int,
    ) -> float:
        """Seconds since the oldest came. `late`: the topic's parts that have records which are not stored,
        and from which offset. `in_hand`: when the first came that was read of a part and is not stored yet.
        `stored`: when the last came that is.
        """
        before, self._late[topic] = self._late.get(topic, {}), {}
        for part, next in late.items():
            came_ms = in_hand.get(part)
            if came_ms is None:
                came_ms = self._guessed(before.get(part), next, stored.get(part, now_ms), now_ms)
            self._late[topic][part] = _Late(next, came_ms)
        return max(((now_ms - one.came_ms) / 1000 for one in self._late[topic].values()), default=0.0)

    @staticmethod
    def _guessed(before: _Late | None, next: int, stored_ms: int, now_ms: int) -> int:
        if before is None:  # it was not late a second ago: the last that was stored may have come long before
            return now_ms
        # It stands; or it moves, and then what comes next is about as old as what was stored last.
        return before.came_ms if before.next == next else stored_ms
