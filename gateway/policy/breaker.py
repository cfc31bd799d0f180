"""A circuit breaker as a machine: no I/O, no clock; times are monotonic seconds and arguments.

==========  ====================================================  ==========
state       what happened                                         then
==========  ====================================================  ==========
CLOSED      `failures` calls failed in a row, or one hung         OPEN
OPEN        the pause is over and somebody asks: that is a trial  HALF_OPEN
HALF_OPEN   the trial went well                                   CLOSED
HALF_OPEN   the trial failed: a longer pause                      OPEN
HALF_OPEN   the trial was given up: the next may try at once      OPEN
HALF_OPEN   no word of the trial for `trial_max_s`                HALF_OPEN, another trial
==========  ====================================================  ==========

A call that was admitted before the last change of state says nothing any more: neither does a late success of
the time before the outage close the breaker, nor does a late failure open it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When it opens and how long it waits; seconds."""

    failures: int = 3
    """In a row: one may be a connection that died while it was idle."""
    open_s: float = 0.5
    """The first pause; each failed trial doubles it."""
    open_max_s: float = 0.5
    trial_max_s: float = 30.0
    """A trial whose end is never told is given up after this, so that nothing is wedged."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave to make one call; its end must be told once."""

    epoch: int
    trial: bool


class Breaker:
    """One dependency's breaker."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._epoch = 0
        self._failures = 0
        self._pause_s = rules.open_s
        self._until = 0.0  # OPEN: when a trial may begin. HALF_OPEN: when the trial is given up
        self.state = State.CLOSED

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value} failures={self._failures} epoch={self._epoch}>"

    def admit(self, now: float) -> Admission | None:
        """Leave for one call; None: refuse it at once."""
        if self.state is State.CLOSED:
            return Admission(self._epoch, trial=False)
        if now < self._until:
            return None
        self._enter(State.HALF_OPEN, now + self._rules.trial_max_s)
        return Admission(self._epoch, trial=True)

    def wait_s(self, now: float) -> float:
        """Seconds until a trial may begin; 0.0 when a call would be admitted."""
        if self.state is State.CLOSED:
            return 0.0
        longest = max(self._rules.open_max_s, self._rules.trial_max_s)  # the difference may round past it
        return min(longest, max(0.0, self._until - now))

    def succeeded(self, admission: Admission) -> None:
        """The dependency answered (with whatever)."""
        if admission.epoch != self._epoch:
            return
        self._failures = 0
        if self.state is State.HALF_OPEN:
            self._pause_s = self._rules.open_s
            self._enter(State.CLOSED, 0.0)

    def failed(self, admission: Admission, now: float, *, hung: bool = False) -> None:
        """It did not. `hung`: it let the caller wait for all of its patience, which nobody shall do again."""
        if admission.epoch != self._epoch:
            return
        self._failures += 1
        if self.state is State.HALF_OPEN:
            self._pause_s = min(self._pause_s * 2, self._rules.open_max_s)
        elif not hung and self._failures < self._rules.failures:
            return
        self._enter(State.OPEN, now + self._pause_s)

    def abandoned(self, admission: Admission, now: float) -> None:
        """The caller gave up for reasons of its own: that says nothing of the dependency."""
        if admission.epoch == self._epoch and self.state is State.HALF_OPEN:
            self._enter(State.OPEN, now)

    def _enter(self, state: State, until: float) -> None:
        self.state = state
        self._until = until
        self._epoch += 1
        if state is State.CLOSED:
            self._failures = 0
