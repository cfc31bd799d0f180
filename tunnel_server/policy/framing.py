"""How much chunk framing a body may cost: sizes, extensions and trailers carry nothing (RFC 9112, 7.1.1)."""

from __future__ import annotations

# A body of one-byte chunks costs 5 bytes more for each; three times that still is no attack.
BYTES_PER_BODY_BYTE = 18
# llhttp looks for these among trailers too, and is of no use for another answer then.
FRAMING_NAMES = frozenset(
    {b"connection", b"proxy-connection", b"transfer-encoding", b"content-length", b"upgrade"}
)
# Stands for the body of a read that held a head: such a read is excused, heads have limits of their own.
HEAD_BYTES = 1 << 20


def unframed(before: int, size: int, body: int) -> int:
    """Framing bytes beyond what the body excuses, after a read of ``size`` bytes, ``body`` of them body."""
    beyond = before + size - BYTES_PER_BODY_BYTE * body
    return beyond if beyond > 0 else 0
