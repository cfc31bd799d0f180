"""When a link may be turned into a session cookie, and when a code may be issued for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Binding = Literal["browser", "click"]
Presented = Literal["token", "code"]
Kind = Literal["web", "tcp"]  # of a service: a web session has a cookie, a TCP session a bearer, none both

# 26 characters of 5 bits: 130 random bits, more than a UUID, so a label is never guessed and never reused.
LABEL_LENGTH = 26
LABEL_PATTERN = re.compile(rf"[a-z2-7]{{{LABEL_LENGTH}}}")


class LinkRefusal(StrEnum):
    """Why a link does not open. The values are the problem codes of the API."""

    BINDING = "binding"
    USED = "link_used"
    EXPIRED = "link_expired"
    ENDED = "session_ended"
    BAD = "bad_link"
    KIND = "wrong_kind"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the store knows about a link at the moment of the decision (times in Unix seconds)."""

    binding: Binding
    kind: str
    burnt: bool
    expires_at: float
    code_expires_at: float | None
    """None: no code was issued yet."""
    session_ended: bool
    session_expires_at: float


def refuse_redeem(facts: LinkFacts, presented: Presented, kind: Kind, now: float) -> LinkRefusal | None:
    """None when the link may be burnt now. Binding and kind are judged first: they tell nothing about use."""
    if presented == "token" and facts.binding == "browser":
        return LinkRefusal.BINDING
    if presented == "code" and facts.binding != "browser":
        return LinkRefusal.BAD
    if facts.kind != kind:
        return LinkRefusal.KIND
    refusal = _refuse_state(facts, now)
    if refusal is not None:
        return refusal
    deadline = facts.code_expires_at if presented == "code" else facts.expires_at
    return LinkRefusal.EXPIRED if deadline is None or now >= deadline else None


def refuse_code(facts: LinkFacts, now: float) -> LinkRefusal | None:
    """None when a one-time code may be issued to the session's own user."""
    if facts.binding != "browser":
        return LinkRefusal.BINDING
    return refuse_look(facts, now)


def refuse_look(facts: LinkFacts, now: float) -> LinkRefusal | None:
    """None when the link is still good. Looking consumes nothing."""
    refusal = _refuse_state(facts, now)
    if refusal is not None:
        return refusal
    return LinkRefusal.EXPIRED if now >= facts.expires_at else None


def _refuse_state(facts: LinkFacts, now: float) -> LinkRefusal | None:
    if facts.burnt:
        return LinkRefusal.USED
    if facts.session_ended or now >= facts.session_expires_at:
        return LinkRefusal.ENDED
    return None
