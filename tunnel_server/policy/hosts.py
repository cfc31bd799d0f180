"""The Host header: which session's label it names."""

from __future__ import annotations

import re
from dataclasses import dataclass

CACHE_ENTRIES = 4_096  # hosts of live sessions; the oldest go first, anybody may invent more


@dataclass(frozen=True, slots=True)
class Site:
    """One session's host as the browser says it: label, Host value, and origin (scheme://host[:port])."""

    label: str
    host: bytes
    origin: bytes


class Sites:
    """Host header value → Site, remembered; None for a host that is not below the domain."""

    __slots__ = ("_cache", "_pattern", "_scheme")

    def __init__(self, domain: str, scheme: str) -> None:
        # 26 letters of base32 are 130 random bits; port as RFC 3986 section 3.2.3.
        text = rf"([a-z2-7]{{26}})\.{re.escape(domain)}(?::[0-9]{{1,5}})?"
        self._pattern = re.compile(text.encode(), re.IGNORECASE)
        self._scheme = scheme.encode()
        self._cache: dict[bytes, Site] = {}

    def find(self, host: bytes) -> Site | None:
        """The site of a Host header's value."""
        site = self._cache.get(host)
        if site is None:
            match = self._pattern.fullmatch(host)
            if match is None:
                return None
            lower = host.lower()
            site = Site(match[1].lower().decode(), lower, self._scheme + b"://" + lower)
            if len(self._cache) >= CACHE_ENTRIES:
                del self._cache[next(iter(self._cache))]
            self._cache[host] = site
        return site
