"""Idle streams of one session: last in, first out, so that the unused ones grow old and go."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class IdleStreams(Generic[T]):
    """Streams with nothing in flight; ``limit`` many at most. Times are monotonic seconds."""

    __slots__ = ("_items", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: list[tuple[T, float]] = []

    def __len__(self) -> int:
        return len(self._items)

    def put(self, stream: T, now: float) -> bool:
        """Keep it; False when there are enough already."""
        if len(self._items) >= self._limit:
            return False
        self._items.append((stream, now))
        return True

    def take(self) -> T | None:
        """The stream that was used last, or None."""
        return self._items.pop()[0] if self._items else None

    def oldest(self) -> float | None:
        """Since when the longest idle one waits."""
        return self._items[0][1] if self._items else None

    def take_oldest(self) -> T | None:
        """The longest idle one: the first to go when a device has no stream left."""
        return self._items.pop(0)[0] if self._items else None

    def take_idle_since(self, moment: float) -> list[T]:
        """Every stream that has been idle since before ``moment``."""
        gone = [stream for stream, since in self._items if since <= moment]
        if gone:
            self._items = [item for item in self._items if item[1] > moment]
        return gone

    def take_all(self) -> list[T]:
        """Empty the pool."""
        gone = [stream for stream, _ in self._items]
        self._items.clear()
        return gone

    def discard(self, stream: T) -> None:
        """Forget one that died while idle."""
        self._items = [item for item in self._items if item[0] is not stream]
