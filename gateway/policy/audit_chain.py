"""The chain as values: what one row must be, and the first of many that is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

GENESIS = bytes(32)
"""What the first row follows."""

# Computed by the database from the record; readers filter by them, so a changed one hides a line.
COLUMNS = ("kind", "actor", "owner", "site", "device", "at")


def chain_hash(previous: bytes, record: str) -> bytes:
    """SHA-256(previous ‖ record), 32 bytes."""
    return hashlib.sha256(previous + record.encode()).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is stored. `columns`: what the database computed from it; None: not known."""

    seq: int
    record: str
    prev_hash: bytes
    hash: bytes
    columns: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's end at some time: this event was there, and this was its hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """The first event that is not what was written. `until` > `seq`: it is one of these; signed heads tell
    no more.
    """

    seq: int
    until: int
    why: str

    def __str__(self) -> str:
        where = (
            f"event {self.seq}" if self.until == self.seq else f"one of the events {self.seq} to {self.until}"
        )
        return f"{where}: {self.why}"


@dataclass(slots=True)
class Walk:
    """Goes along the chain once, comparing it with `heads` (by their numbers, smallest first)."""

    heads: Iterator[Head]
    claim: str = "the head signed at the time"
    """What `heads` are, for the fault's text."""
    last: Head = Head(0, GENESIS)
    """The last event that is right by itself."""
    agreed: int = 0
    """The last one that a signed head vouches for."""
    compared: int = 0
    """How many signed heads were compared."""
    _next: Head | None = field(init=False)

    def __post_init__(self) -> None:
        self._next = next(self.heads, None)

    def over(self, rows: Iterable[Row]) -> Fault | None:
        """The first of `rows`, which follow those before, that is wrong."""
        for row in rows:
            fault = self._step(row)
            if fault is not None:
                return fault
        return None

    def end(self, stored: Head | None = None) -> Fault | None:
        """After the last row. `stored`: the end as the database itself wrote it down; None: not known."""
        beyond = self._next
        if beyond is not None and beyond.seq > self.last.seq:
            return _one(self.last.seq + 1, f"cut off: {self.claim} knows event {beyond.seq}")
        if stored is None or stored == self.last:
            return None
        if stored.seq > self.last.seq:
            return _one(self.last.seq + 1, f"cut off: the log once ended with event {stored.seq}")
        if stored.seq < self.last.seq:
            return _one(stored.seq + 1, f"added behind the log's end, which is event {stored.seq}")
        return _one(stored.seq, "is not the one with which the log ended")

    def _step(self, row: Row) -> Fault | None:
        seq = self.last.seq + 1
        if row.seq != seq:
            return _one(seq, f"missing: event {row.seq} follows event {seq - 1}")
        why = wrong_row(row)
        if why is not None:
            return _one(seq, why)
        if row.prev_hash != self.last.hash:
            return Fault(
                self._oldest_doubt(seq),
                seq,
                "altered or removed: the last of these does not follow the one before it",
            )
        fault = self._compare(row)
        self.last = Head(seq, row.hash)
        return fault

    def _oldest_doubt(self, seq: int) -> int:
        """Whoever altered an event may have made its hash anew, and that of some after it: then the break
        shows later. No head: that one or its neighbour, which is all that can be said.
        """
        return self.agreed + 1 if self.compared else max(seq - 1, 1)

    def _compare(self, row: Row) -> Fault | None:
        """A head says of each event up to its own that it was as it is, so one that disagrees leaves those
        since the last that agreed.
        """
        while self._next is not None and self._next.seq <= row.seq:
            if self._next.seq == row.seq and self._next.hash != row.hash:
                return Fault(self.agreed + 1, row.seq, f"rewritten: {self.claim} says otherwise")
            self.agreed = self._next.seq
            self.compared += 1
            self._next = next(self.heads, None)
        return None


def wrong_row(row: Row) -> str | None:
    """What is wrong about a row by itself; None: nothing."""
    if chain_hash(row.prev_hash, row.record) != row.hash:
        return "altered: its hash is not that of its record"
    try:
        record = json.loads(row.record)
    except (ValueError, RecursionError):
        return "altered: its record is not JSON"
    if not isinstance(record, dict) or record.get("seq") != row.seq:
        return "moved: its record bears another number"
    for name, value in (row.columns or {}).items():
        if record.get(name) != value:
            return f"altered: its column {name} is not what its record says"
    return None


def _one(seq: int, why: str) -> Fault:
    return Fault(seq, seq, why)
