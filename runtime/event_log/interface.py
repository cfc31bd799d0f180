"""What a log is to those who write and read it, whichever it is. All implementations pass the same tests."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

UP: Final = "up"
"""Topic of devices' numbered messages, in their order."""
CONTROL: Final = "control"
"""Topic of hello and ack: they repeat until answered."""
DEAD: Final = "dead"
"""Topic of what no line could be found for."""
PARTS: Final[Mapping[str, int]] = {UP: 12, CONTROL: 4, DEAD: 1}
"""How many parts a new installation makes of each topic."""

APPEND_MAX: Final = 900 * 1024
"""Bytes of the entries of one append by their `size`: below the 1 MiB at which Kafka refuses a batch."""
ENTRY_OVERHEAD: Final = 64
"""More than what any log adds to an entry's own bytes; it also bounds how many entries are one append."""
HEADER_OVERHEAD: Final = 16
"""The same for each header."""
READ_MAX: Final = 4 * 1024 * 1024
"""About how many bytes of values one read returns, and a log reads ahead of it, at most."""
AT_MS_END: Final = 253_402_300_800_000
"""The year 10000, which no database's time reaches."""

_HEADER = re.compile(r"[a-z_]{1,32}")


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


class Entry(NamedTuple):
    """What is appended. `at_ms`: Unix milliseconds when it arrived; the same however often it is read."""

    key: bytes
    value: bytes
    at_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it counts for in APPEND_MAX."""
        headers = sum(HEADER_OVERHEAD + len(name) + len(value) for name, value in self.headers)
        return ENTRY_OVERHEAD + len(self.key) + len(self.value) + headers


class Record(NamedTuple):
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

    async def start(self) -> None:
        """Learns the number of parts. LogUnavailableError when it cannot."""

    async def close(self) -> None: ...

    def parts(self, topic: str) -> int:
        """How many parts the topic has; does not change while this is open."""
        ...

    async def ends(self, topic: str) -> dict[int, int]:
        """Of each part the offset that its next record will have. LogUnavailableError; LogRefusedError for a
        topic that there is not.
        """
        ...

    async def read(
        self, positions: Mapping[tuple[str, int], int], *, most: int, wait_s: float
    ) -> list[Record]:
        """At most `most` records, and about READ_MAX bytes, at and after these offsets, each part's in order;
        [] when nothing came within `wait_s`. LogUnavailableError. LogGoneError also for an offset beyond the
        end: the log was lost, or put back to an older state. LogRefusedError for a part that there is not.

        One call at a time: readers are cheap.
        """
        ...


def check_append(entries: Sequence[Entry]) -> None:
    """LogRefusedError for what no log takes: nothing at all, too much, times and headers out of bounds."""
    if not entries:
        raise LogRefusedError("an append without entries")
    size = sum(entry.size for entry in entries)
    if size > APPEND_MAX:
        raise LogRefusedError(f"an append of {size} bytes; at most {APPEND_MAX}")
    for entry in entries:
        if not 0 <= entry.at_ms < AT_MS_END:
            raise LogRefusedError(f"no time: {entry.at_ms}")
        if not all(_HEADER.fullmatch(name) for name, _ in entry.headers):
            raise LogRefusedError("a header's name is 1 to 32 small letters and underscores")


def part_of(key: bytes, parts: int) -> int:
    """The share of so many that is a device's, `key` its id: everywhere the same, whether parts of a topic or
    bridges are shared out.
    """
    return zlib.crc32(key) % parts
