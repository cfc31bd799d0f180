"""A request for support: its states, who moves it, and what it is at a moment. Times are Unix seconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

# Nobody decided within a week: the fault is mended or forgotten, and a late yes would surprise.
REQUEST_TTL_S = 7 * 86_400
# A visit, not a residence: whoever needs more asks again.
CONSENT_MAX_S = 24 * 3600
CONSENT_MIN_S = 300
REASON_MAX = 500
# Lines of one consent's log. A page that asks each second for the longest consent makes 86,400; they take
# some 30 MB, and 400 with the longest paths. A full log ends the consent: what cannot be written down is not
# done.
LOG_LINES_MAX = 100_000

# Of a request in the log: all of it, or its two ends when it takes long; `lost` is a note of what is missing.
Part = Literal["whole", "began", "ended", "lost"]


class State(StrEnum):
    """Time alone makes `lapsed` of `pending`, `expired` of `approved`: the store may say the former."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"
    LAPSED = "lapsed"
    EXPIRED = "expired"


class Move(StrEnum):
    APPROVE = "approve"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    END = "end"


# Everything else is refused: what is over stays over.
MOVES: dict[tuple[State, Move], State] = {
    (State.PENDING, Move.APPROVE): State.APPROVED,
    (State.PENDING, Move.REFUSE): State.REFUSED,
    (State.PENDING, Move.WITHDRAW): State.WITHDRAWN,
    (State.APPROVED, Move.END): State.ENDED,
}


def state_at(stored: State, lapses_at: float, until: float | None, now: float) -> State:
    """What the request is now."""
    if stored is State.PENDING and now >= lapses_at:
        return State.LAPSED
    if stored is State.APPROVED and (until is None or now >= until):
        return State.EXPIRED
    return stored


def moved(state: State, move: Move) -> State | None:
    """The state behind `move`; None: it is not to be made any more."""
    return MOVES.get((state, move))
