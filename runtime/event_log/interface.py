"""What a log is to those who write and read it, whichever it is. All implementations pass the same tests."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

UP: Final = "up"
"""Topic of devices' numbered messages, in their order."""
CONTROL: Final = "control"
"""Topic of hello and ack: they repeat until answered."""
DEAD: Final = "dead"
"""Topic of what no line could be found for."""
PARTS: Final[Mapping[str, int]] = {UP: 12, CONTROL: 4, DEAD: 1}
"""How many parts a new installation makes of each topic."""

APPEND_MAX: Final = 900 * 1024
"""Bytes of keys, values and headers in one append: below the 1 MiB at which Kafka refuses a batch."""


class LogError(Exception):
    """Of the log."""


class LogUnavailableError(LogError):
    """It does not answer. Whether what was appended is in it is not known."""


class LogRefusedError(LogError):
    """It will never take this: the caller's fault, or a setting's."""


class LogGoneError(LogError):
    """What was to be read is not kept any more; `earliest` is the first offset that is."""

    def __init__(self, topic: str, part: int, earliest: int) -> None:
        super().__init__(f"{topic}/{part} begins at {earliest}")
        self.topic, self.part, self.earliest = topic, part, earliest


@dataclass(frozen=True, slots=True)
class Entry:
    """What is appended. `at_ms`: Unix milliseconds when it arrived; the same however often it is read."""

    key: bytes
    value: bytes
    at_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it counts for in APPEND_MAX."""
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


@dataclass(frozen=True, slots=True)
class Record:
    """What is read: an entry and its place."""

    topic: str
    part: int
    offset: int
    entry: Entry


class LogWriter(Protocol):
    """Appends. Each part takes one append at a time: a second one waits for the first's answer."""

    async def start(self) -> None:
        """Learns the number of parts. LogUnavailableError when it cannot."""

    async def close(self) -> None: ...

    def parts(self, topic: str) -> int:
        """How many parts the topic has; does not change while this is open."""
        ...

    async def append(self, topic: str, part: int, entries: Sequence[Entry]) -> int:
        """The first one's offset, once all are durable; they follow each other. LogUnavailableError,
        LogRefusedError.
        """
        ...


class LogReader(Protocol):
    """Reads from where the caller says; it remembers nothing."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ends(self, topic: str) -> dict[int, int]:
        """Of each part the offset that its next record will have. LogUnavailableError."""
        ...

    async def read(
        self, positions: Mapping[tuple[str, int], int], *, most: int, wait_s: float
    ) -> list[Record]:
        """At most `most` records at and after these offsets, each part's in order; [] when nothing came
        within `wait_s`. LogUnavailableError, LogGoneError.
        """
        ...


def part_of(key: bytes, parts: int) -> int:
    """Where a device's records are: everywhere the same."""
    return zlib.crc32(key) % parts
