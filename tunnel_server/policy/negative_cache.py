"""Cookies that the gateway does not know: asked about once, for a while."""

from __future__ import annotations

ENTRIES = 4_096  # 32-byte hashes; the oldest go first, and the rates bound how fast new ones come
KEPT_S = 30.0  # a cookie never becomes good later: it leaves this node only after the gateway took it


class NegativeCache:
    """Hashes with the monotonic time until which they count as unknown."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def is_known_bad(self, cookie_hash: bytes, now: float) -> bool:
        """Whether the gateway said so a short while ago."""
        until = self._until.get(cookie_hash)
        if until is None:
            return False
        if until <= now:
            del self._until[cookie_hash]
            return False
        return True

    def remember(self, cookie_hash: bytes, now: float) -> None:
        """The gateway does not know it."""
        if len(self._until) >= ENTRIES:
            del self._until[next(iter(self._until))]
        self._until[cookie_hash] = now + KEPT_S
