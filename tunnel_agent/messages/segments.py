"""Files of checked records, one after the other: what a crash or a power cut leaves is read up to the cut.

    file    header, records
    header  magic(4)  epoch(8)  crc32(4) of the epoch
    record  length(4)  crc32(4)  kind(1)  boot(8)  seq(8)  body

`length` counts from the kind on; the crc is of the length and of what it counts.

Numbers are big-endian. `epoch` is a boot: that in which the file was begun, or last numbered anew. Nothing is
ever changed within a file; it grows, is cut at its end, or is replaced whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from device_protocol.numbers import Number

MAGIC: Final = b"TLO1"
_HEADER: Final = struct.Struct("!4sQI")
HEADER_BYTES: Final = _HEADER.size
_FRAME: Final = struct.Struct("!II")
_LENGTH: Final = struct.Struct("!I")
_HEAD: Final = struct.Struct("!BQQ")
RECORD_BYTES: Final = _FRAME.size + _HEAD.size
"""Of a record without its body."""
BODY_MAX: Final = 64 << 10  # four times the largest envelope: a longer length is no length but a torn record


@dataclass(frozen=True, slots=True)
class Record:
    """One message. `kind` is a number of `outbox.KINDS`."""

    kind: int
    number: Number
    body: bytes

    def pack(self) -> bytes:
        """As it stands in the file."""
        rest = _HEAD.pack(self.kind, self.number.boot, self.number.seq) + self.body
        length = _LENGTH.pack(len(rest))
        return _FRAME.pack(len(rest), crc32(rest, crc32(length))) + rest


def pack_header(epoch: int) -> bytes:
    """The first bytes of a file."""
    return _HEADER.pack(MAGIC, epoch, crc32(epoch.to_bytes(8, "big")))


def read_epoch(data: bytes) -> int | None:
    """Of a file's beginning; None: it is torn, or no such file."""
    if len(data) < HEADER_BYTES:
        return None
    magic, epoch, check = _HEADER.unpack_from(data)
    return epoch if magic == MAGIC and check == crc32(data[4:12]) else None


def records(data: bytes, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Those that are whole from `start` on, each with the offset at which it ends; stops at the first that
    is not.
    """
    while True:
        end = start + _FRAME.size
        if end > len(data):
            return
        length, check = _FRAME.unpack_from(data, start)
        if not _HEAD.size <= length <= _HEAD.size + BODY_MAX or end + length > len(data):
            return
        rest = data[end : end + length]
        if crc32(rest, crc32(data[start : start + _LENGTH.size])) != check:
            return
        kind, boot, seq = _HEAD.unpack_from(rest)
        start = end + length
        yield Record(kind, Number(boot, seq), rest[_HEAD.size :]), start
