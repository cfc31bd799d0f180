"""Header names that both directions treat alike, and the bounded cache from a raw name to its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

R = TypeVar("R")

# RFC 9110 section 7.6.1 and what implementations in the field send: never passed on by any proxy.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)

# Raw names come in few spellings; a visitor or device that invents new ones must not fill the memory.
CACHE_ENTRIES = 512
CACHE_NAME_BYTES = 64

# Tokens of Connection that say something about the connection and name no header.
CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade", b""})


class RuleCache(Generic[R]):
    """Raw header name → rule; ``None`` is the commonest rule: pass it on as it is."""

    __slots__ = ("_find", "rules")

    def __init__(self, find: Callable[[bytes], R | None], known: Mapping[bytes, R | None]) -> None:
        self._find = find
        self.rules: dict[bytes, R | None] = {}
        for name, rule in known.items():
            self.rules[name] = rule
            self.rules[name.title()] = rule

    def learn(self, name: bytes) -> R | None:
        """The rule of a name that ``rules`` does not hold, remembered while there is room."""
        rule = self._find(name.lower())
        if len(self.rules) < CACHE_ENTRIES and len(name) <= CACHE_NAME_BYTES:
            self.rules[name] = rule
        return rule


# One header in more pieces than this is an attack on whoever joins them.
MAX_PIECES = 64


def joined(earlier: bytes | None, value: bytes, separator: bytes = b",") -> bytes:
    """A header that came in several lines (RFC 9110 section 5.2); ValueError for absurdly many."""
    if earlier is None:
        return value
    if earlier.count(separator) > MAX_PIECES:
        raise ValueError("one header in too many pieces")
    return earlier + separator + value


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(part.strip(b" \t").lower() for part in value.split(b","))


# What nearly every Connection header says: looked up, not parsed, on each request.
_USUAL_TOKENS = {value: _tokens(value) for value in (b"keep-alive", b"Keep-Alive", b"close", b"Upgrade")}


def tokens(value: bytes) -> frozenset[bytes]:
    """The lower-case members of a comma-separated list (RFC 9110 section 5.6.1)."""
    return _USUAL_TOKENS.get(value) or _tokens(value)


def without_nominated(lines: list[bytes], connection: bytes) -> list[bytes]:
    """Header lines without those that ``Connection`` names (RFC 9110 section 7.6.1)."""
    nominated = tokens(connection) - CONNECTION_OPTIONS
    if not nominated:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in nominated]
