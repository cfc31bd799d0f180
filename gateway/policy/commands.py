"""A command to a device: its states, what moves it, and when something is next to be done about it.

The table is the one place where a state changes; docs/commands.md is drawn from it. Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Each is written with the time at which it was reached."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"


class Event(StrEnum):
    """What can happen to a command."""

    TAKEN = "taken"
    """The broker took it, and had somebody to give it to where it can tell."""
    UNHEARD = "unheard"
    """It was not published, or the broker said that nobody listens."""
    RECEIVED = "received"
    """The device has stored it."""
    DONE = "done"
    """The device did it."""
    ERROR = "error"
    """The device tried, and says what went wrong."""
    REFUSED = "refused"
    """The device does not do it."""
    TTL_OVER = "ttl_over"
    """Nobody received it in the time that it was good for."""
    DEADLINE = "deadline"
    """The device received it, and did not say in time what came of it."""
    DEVICE_GONE = "device_gone"
    """The device was revoked, belongs to somebody else now, or is of another type."""
    AWAY = "away"
    """Nobody listened, and it may not wait."""
    NOT_ALLOWED = "not_allowed"
    """Who asked for it may not any more, and no device has said that it has it."""


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.EXPIRED})
OPEN: Final = frozenset(State) - FINAL

_OUTCOMES: Final = {Event.DONE: State.SUCCEEDED, Event.ERROR: State.FAILED}
# What is not here changes nothing: what is over stays over, and `sent` alone never becomes more than that.
TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.QUEUED, Event.TAKEN): State.SENT,
    (State.QUEUED, Event.RECEIVED): State.DELIVERED,
    (State.QUEUED, Event.TTL_OVER): State.EXPIRED,
    (State.SENT, Event.RECEIVED): State.DELIVERED,
    (State.SENT, Event.TTL_OVER): State.EXPIRED,
    (State.DELIVERED, Event.DEADLINE): State.TIMED_OUT,
    (State.QUEUED, Event.REFUSED): State.FAILED,
    # Not of one that is delivered: see `says_nothing`.
    (State.SENT, Event.REFUSED): State.FAILED,
    **{(state, event): after for state in OPEN for event, after in _OUTCOMES.items()},
    **{(state, Event.DEVICE_GONE): State.FAILED for state in OPEN},
    (State.QUEUED, Event.AWAY): State.FAILED,
    (State.QUEUED, Event.NOT_ALLOWED): State.FAILED,
    (State.SENT, Event.NOT_ALLOWED): State.FAILED,
}

# Why the gateway ended a command as failed. Any other `error` came from the device.
DEVICE_REVOKED: Final = "device_revoked"
DEVICE_MOVED: Final = "device_moved"
DEVICE_RETYPED: Final = "device_retyped"
DEVICE_AWAY: Final = "device_away"
SENDER_NOT_ALLOWED: Final = "sender_not_allowed"
_BY_THE_GATEWAY: Final = frozenset(
    {DEVICE_REVOKED, DEVICE_MOVED, DEVICE_RETYPED, DEVICE_AWAY, SENDER_NOT_ALLOWED}
)

# Ten minutes on a device that nobody watches are long; a day is what a device may sleep.
TTL_MAX_S: Final = 86_400
TTL_DEFAULT_S: Final = 60
# Of a command that may not wait: a broker's restart, or a gateway's that had it in hand, may pass; what a
# device does later than this is a surprise to whoever asked for it now.
TTL_NOW_S: Final = 10
TIMEOUT_MAX_S: Final = 3_600
# A device works one command at a time; more than these wait for hours or are a mistake in a loop.
OPEN_PER_DEVICE: Final = 50
# Published again: soon while nobody listened, slower once the broker took it. The device's ledger makes of a
# repeat nothing but its answer again.
_UNHEARD_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
# No open command is left alone for longer than the last of these, whatever restarts meanwhile.
_TAKEN_S: Final = (5.0, 10.0, 20.0, 40.0, 60.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store knows of one command that time can end."""

    state: State
    expires_at: float
    deadline: float | None
    """When a delivered one must have ended; None: not delivered."""


def moved(state: State, event: Event) -> State | None:
    """The state behind `event`; None: nothing changes."""
    return TABLE.get((state, event))


def look_again_at(standing: Standing, publishes: int, now: float) -> float:
    """When it is to be published again, or its time is over, whichever comes first.

    `publishes`: attempts since the device was last heard of; the first waits are short.
    """
    waits = _UNHEARD_S if standing.state is State.QUEUED else _TAKEN_S
    wait_s = waits[min(max(publishes, 1), len(waits)) - 1]
    end = standing.deadline if standing.state is State.DELIVERED else standing.expires_at
    again = now + wait_s
    return again if end is None else max(now, min(again, end))


def says_nothing(event: Event, *, delivered: bool) -> bool:
    """A refusal of what was received is one of a repeat alone: a device that was started anew, and keeps no
    id of a `ping`, has no time left to begin it. What became of the first it does not say.
    """
    return delivered and event is Event.REFUSED


def is_late(state: State, error: str | None) -> bool:
    """Whether a device's answer to a command that has ended tells something new: time or the gateway ended
    it. A device that answers twice says the same again.
    """
    if state is State.FAILED:
        return error in _BY_THE_GATEWAY
    return state in {State.TIMED_OUT, State.EXPIRED}
