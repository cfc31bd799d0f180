"""Large downloads whose every byte is known beforehand: a fixed pattern, each block led by its number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from random import Random

BLOCK_BYTES = 64 << 10  # also the size of one write: larger ones only cost memory
_NUMBER_BYTES = 8
SIZES = {"1MB.bin": 1_000_000, "10MB.bin": 10_000_000, "100MB.bin": 100_000_000}

# Incompressible, so that a link with compression shows its true rate; the seed makes it the same everywhere.
_PATTERN = Random(20).randbytes(BLOCK_BYTES - _NUMBER_BYTES)


def blocks(start: int, end: int) -> Iterator[bytes]:
    """The bytes [start, end) of the endless content, a block or less at a time."""
    while start < end:
        number, within = divmod(start, BLOCK_BYTES)
        block = number.to_bytes(_NUMBER_BYTES, "big") + _PATTERN
        piece = block[within : within + end - start]
        yield piece
        start += len(piece)


@lru_cache(maxsize=len(SIZES))
def sha256_of(size: int) -> str:
    """Hex SHA-256 of the first `size` bytes; takes some 0.1 s a 100 MB the first time."""
    digest = hashlib.sha256()
    for piece in blocks(0, size):
        digest.update(piece)
    return digest.hexdigest()
