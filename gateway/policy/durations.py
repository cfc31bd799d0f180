"""How long sessions, links and codes live. All times are Unix seconds."""

from __future__ import annotations

# A shorter session would end before the person has clicked through.
SESSION_MIN_S = 5
# The code only has to survive one redirect between two pages of the same browser (DESIGN 3.3).
LINK_CODE_TTL_S = 10


class DurationError(ValueError):
    """The asked duration is outside what the settings allow; the text names the range."""


def session_expiry(requested_s: int, maximum_s: int, now: float) -> int:
    """The Unix second at which a session of `requested_s` seconds ends."""
    if not SESSION_MIN_S <= requested_s <= maximum_s:
        raise DurationError(f"must be {SESSION_MIN_S}..{maximum_s} seconds, not {requested_s}")
    return int(now) + requested_s


def link_expiry(link_ttl_s: int, session_expires_at: int, now: float) -> int:
    """A link never outlives its session."""
    return min(int(now) + link_ttl_s, session_expires_at)
