"""Ids of messages and commands: UUIDs of version 7 (RFC 9562 section 5.7), in lower case."""

from __future__ import annotations

import re
from typing import Final

UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
RANDOM_BYTES: Final = 10
"""What uuid7 wants to be given: 74 of its 80 bits are used."""


def uuid7(unix_ms: int, random: bytes) -> str:
    """A new id. `unix_ms` orders ids roughly; a device without a clock says 0. `random`: RANDOM_BYTES."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"needs {RANDOM_BYTES} random bytes")
    bits = int.from_bytes(random, "big")
    value = (unix_ms & (1 << 48) - 1) << 80 | bits
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
