"""What waits for each part of the log, and whom it concerns."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from ingest.policy.progress import Progress
from ingest.policy.sorting import Sorted
from runtime.event_log.interface import APPEND_MAX, Entry

BATCH_MAX: Final = 2_000
"""Entries of one append: what one transaction of the gateway's log takes in some ten milliseconds."""
OVERHEAD: Final = 960
"""Bytes that a waiting message costs beside its own: the objects around it (measured by tests/ingest)."""


class Receipt(Protocol):
    """Where a message came from, which waits for what became of it. One of the three is called, once."""

    def settle(self) -> None:
        """It is done with: kept, or seen before. Its sender need not keep it for this hop."""
        ...

    def leave(self) -> None:
        """It is out of line, or too much, or what was to keep it fails: nobody may be told that it is kept.
        This hop need not keep it either; the device sends again what was not accepted.
        """
        ...

    def lost(self) -> None:
        """As `leave`, and what else comes this way would not be kept either: the log is away."""
        ...


class Waiting:
    """A message in its part's queue; without an entry it waits only for what stands before it."""

    __slots__ = ("cost", "entry", "message", "progress", "receipt")

    def __init__(
        self, receipt: Receipt | None, entry: Entry | None, message: Sorted, progress: Progress | None
    ) -> None:
        """`receipt` None: who waited was told."""
        self.receipt = receipt
        self.entry = entry
        self.message = message
        self.progress = progress
        self.cost = OVERHEAD + (0 if entry is None else entry.size)
        """Bytes of memory, about."""

    def settle(self) -> None:
        """See Receipt; nothing for whom something was told before."""
        if self.receipt is not None:
            self.receipt.settle()

    def leave(self) -> None:
        """The same."""
        receipt, self.receipt = self.receipt, None
        if receipt is not None:
            receipt.leave()

    def lost(self) -> None:
        """The same."""
        if self.receipt is not None:
            self.receipt.lost()


class Part:
    """One part of one of the log's topics. Times in monotonic seconds."""

    __slots__ = ("began_at", "name", "number", "rests_until", "sick", "topic", "waiting", "writing")

    def __init__(self, topic: str, number: int) -> None:
        self.name = f"{topic}/{number}"
        self.topic = topic
        self.number = number
        self.waiting: deque[Waiting] = deque()
        self.writing = False
        self.began_at = 0.0
        """When the append under way was tried first."""
        self.sick = False
        """It fails, and others do not."""
        self.rests_until = 0.0

    def __repr__(self) -> str:
        return f"<Part {self.name}{' sick' if self.sick else ''}, {len(self.waiting)} waiting>"

    def leaves(self, now: float) -> bool:
        """What comes now is not taken: it is being found out whether the part is well again."""
        return self.sick and (self.writing or now < self.rests_until)

    def take(self) -> list[Waiting]:
        """What goes into the next append."""
        batch: list[Waiting] = []
        size = 0
        while self.waiting and len(batch) < BATCH_MAX:
            size += self.waiting[0].cost - OVERHEAD
            if batch and size > APPEND_MAX:
                break
            batch.append(self.waiting.popleft())
        return batch
