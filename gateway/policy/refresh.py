"""What a refresh token that is presented does (decision 0018). One of a login's tokens is good at a time."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Family:
    """The refresh tokens of one login; times in Unix seconds, hashes SHA-256."""

    client_id: str
    current: bytes
    previous: bytes | None
    """What the current one was traded for; None: none was traded yet."""
    rotated_at: float
    """When the previous one was first traded."""
    expires_at: float
    """The current one's idle end, or the login's own end."""
    live: bool
    """The login has not ended and its person may log in."""


class Trade(Enum):
    """`REFUSED` changes nothing."""

    ROTATE = "the current one: a new one takes its place"
    REPEAT = "the one before, in time: its successor is void, another one takes its place"
    REUSED = "a used one: two parties have it, and the login ends"
    REFUSED = "another client's, too old, or of a login that ended"


def judge_refresh(family: Family, client_id: str, presented: bytes, now: float, grace_s: float) -> Trade:
    """What to do for the token whose hash is `presented`; it names this family."""
    if not family.live or client_id != family.client_id:
        return Trade.REFUSED
    if hmac.compare_digest(presented, family.current):
        return Trade.ROTATE if now < family.expires_at else Trade.REFUSED
    again = family.previous is not None and hmac.compare_digest(presented, family.previous)
    # To the millisecond: the store rounds times.
    if again and grace_s > 0 and round(now - family.rotated_at, 3) < grace_s:
        return Trade.REPEAT
    return Trade.REUSED
