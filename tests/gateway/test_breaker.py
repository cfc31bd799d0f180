"""The breaker's machine alone: its table, and what holds whatever calls do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.breaker import Admission, Breaker, Rules, State

RULES = Rules(failures=3, open_s=1.0, open_max_s=4.0, trial_max_s=10.0)


def admitted(breaker: Breaker, now: float = 0.0) -> Admission:
    admission = breaker.admit(now)
    assert admission is not None
    return admission


def state(breaker: Breaker) -> State:
    """Asked anew each time."""
    return breaker.state


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(RULES)
    breaker.failed(admitted(breaker, now), now, hung=True)
    assert state(breaker) is State.OPEN
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker(RULES)
    for _ in range(2):
        breaker.failed(admitted(breaker), 0.0)
    breaker.succeeded(admitted(breaker))
    for _ in range(2):
        breaker.failed(admitted(breaker), 0.0)
    assert state(breaker) is State.CLOSED
    breaker.failed(admitted(breaker), 0.0)
    assert state(breaker) is State.OPEN


def test_one_call_that_hung_is_enough() -> None:
    breaker = opened(5.0)
    assert breaker.admit(5.999) is None
    assert breaker.wait_s(5.25) == pytest.approx(0.75)


def test_one_trial_at_a_time_and_its_success_closes() -> None:
    breaker = opened()
    trial = admitted(breaker, 1.0)
    assert trial.trial
    assert state(breaker) is State.HALF_OPEN
    assert breaker.admit(1.0) is None
    assert breaker.admit(9.0) is None
    breaker.succeeded(trial)
    assert state(breaker) is State.CLOSED
    assert not admitted(breaker, 1.0).trial


def test_the_pause_doubles_up_to_its_bound_and_starts_over() -> None:
    breaker, now = opened(), 0.0
    for pause in (1.0, 2.0, 4.0, 4.0):
        assert breaker.wait_s(now) == pause
        now += pause
        breaker.failed(admitted(breaker, now), now)
    now += 4.0
    breaker.succeeded(admitted(breaker, now))
    breaker.failed(admitted(breaker, now), now, hung=True)
    assert breaker.wait_s(now) == 1.0


def test_a_trial_that_was_given_up_leaves_its_place_at_once() -> None:
    breaker = opened()
    breaker.abandoned(admitted(breaker, 1.0), 1.5)
    assert admitted(breaker, 1.5).trial


def test_a_trial_without_word_wedges_nothing() -> None:
    breaker = opened()
    lost = admitted(breaker, 1.0)
    assert breaker.admit(10.9) is None
    second = admitted(breaker, 11.0)
    breaker.failed(lost, 11.0)
    breaker.succeeded(lost)
    assert state(breaker) is State.HALF_OPEN
    breaker.succeeded(second)
    assert state(breaker) is State.CLOSED


def test_calls_of_the_time_before_say_nothing() -> None:
    breaker = Breaker(RULES)
    slow, slower = admitted(breaker), admitted(breaker)
    breaker.failed(admitted(breaker), 0.0, hung=True)
    breaker.succeeded(slow)
    assert state(breaker) is State.OPEN
    breaker.succeeded(admitted(breaker, 1.0))
    breaker.failed(slower, 1.0, hung=True)
    assert state(breaker) is State.CLOSED


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("admit", "ok", "fail", "hung", "abandon", "lose")),
        st.floats(0.0, 12.0, allow_nan=False),
        st.integers(0, 20),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_calls_do(steps: list[tuple[str, float, int]]) -> None:
    """At most one trial is out; while open, nobody is admitted before the pause is over; it never wedges."""
    breaker, now, out = Breaker(RULES), 0.0, list[Admission]()
    trial_began: float | None = None
    for action, passed, which in steps:
        now += passed
        if action == "admit":
            before, wait_s = breaker.state, breaker.wait_s(now)
            admission = breaker.admit(now)
            assert (admission is None) == (before is not State.CLOSED and wait_s > 0)
            if admission is not None:
                assert admission.trial == (before is not State.CLOSED)
                if admission.trial and before is State.HALF_OPEN:
                    assert trial_began is not None
                    assert now - trial_began >= RULES.trial_max_s
                trial_began = now if admission.trial else trial_began
                out.append(admission)
        elif out:
            tell(breaker, out.pop(which % len(out)), action, now)
        assert breaker.wait_s(now) <= max(RULES.open_max_s, RULES.trial_max_s)
    now += RULES.trial_max_s
    breaker.succeeded(admitted(breaker, now))
    assert state(breaker) is State.CLOSED


def tell(breaker: Breaker, admission: Admission, action: str, now: float) -> None:
    before = breaker.state
    if action == "ok":
        breaker.succeeded(admission)
        assert breaker.state in (before, State.CLOSED)
        assert breaker.state is before or admission.trial
    elif action in ("fail", "hung"):
        breaker.failed(admission, now, hung=action == "hung")
        assert state(breaker) is not State.CLOSED or before is State.CLOSED
    elif action == "abandon":
        breaker.abandoned(admission, now)
        assert state(breaker) is not State.CLOSED or before is State.CLOSED
