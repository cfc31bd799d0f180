"""Who gets the next stream of a device that has none left: sessions in turn, each first come first served."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Waiting requests of one device, at most ``limit``; deadlines are monotonic seconds."""

    __slots__ = ("_by_session", "_count", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._by_session: OrderedDict[str, deque[tuple[T, float]]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def put(self, session: str, waiter: T, deadline: float) -> bool:
        """Queue it; False when too many wait already."""
        if self._count >= self._limit:
            return False
        self._by_session.setdefault(session, deque()).append((waiter, deadline))
        self._count += 1
        return True

    def take(self) -> T | None:
        """The next one: the first of the session whose turn it is."""
        if not self._by_session:
            return None
        session, waiting = next(iter(self._by_session.items()))
        waiter, _ = waiting.popleft()
        self._count -= 1
        if waiting:
            self._by_session.move_to_end(session)
        else:
            del self._by_session[session]
        return waiter

    def put_back(self, session: str, waiter: T, deadline: float) -> None:
        """Return one that was taken in vain to the front."""
        self._by_session.setdefault(session, deque()).appendleft((waiter, deadline))
        self._by_session.move_to_end(session, last=False)
        self._count += 1

    def take_expired(self, now: float) -> list[T]:
        """Every waiter whose deadline passed."""
        return self._take_where(lambda _, deadline: deadline <= now)

    def discard(self, waiter: T) -> None:
        """Forget one whose visitor went away."""
        self._take_where(lambda item, _: item is waiter)

    def take_all(self) -> list[T]:
        """Empty the queue: the device is gone."""
        return self._take_where(lambda _, __: True)

    def _take_where(self, gone: Callable[[T, float], bool]) -> list[T]:
        taken: list[T] = []
        for session in list(self._by_session):
            waiting = self._by_session[session]
            taken += [item for item, deadline in waiting if gone(item, deadline)]
            kept = deque((item, deadline) for item, deadline in waiting if not gone(item, deadline))
            if kept:
                self._by_session[session] = kept
            else:
                del self._by_session[session]
        self._count -= len(taken)
        return taken
