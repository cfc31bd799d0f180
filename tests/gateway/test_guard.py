"""Calls through a breaker: who waits, who is let go, and what is counted."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.guard import Fault, Guard
from gateway.metrics import gateway_metrics
from gateway.policy.breaker import Rules
from runtime.metrics import Registry

DEADLINE_S = 10.0
OPEN_S = 0.5  # longer than a busy machine takes from one look to the next


class AwayError(Exception):
    """What callers get that are turned away."""


class BrokenError(Exception):
    """The dependency's own failure."""


def fault(error: BaseException) -> Fault:
    return Fault.HUNG if isinstance(error, TimeoutError) else Fault.FAILED


def made(registry: Registry | None = None, **options: object) -> Guard:
    options = {"rules": Rules(failures=2, open_s=OPEN_S, open_max_s=OPEN_S), **options}
    metrics = gateway_metrics(registry or Registry())
    return Guard("thing", metrics, fault=fault, refuse=AwayError, **options)  # type: ignore[arg-type]


async def hang(guard: Guard, entered: asyncio.Event, **options: float) -> None:
    async with guard.call(patience_s=options.get("patience_s")):
        entered.set()
        await asyncio.Event().wait()


async def fail(guard: Guard, error: type[Exception] = BrokenError) -> None:
    async with guard.call():
        raise error


async def test_who_waits_is_let_go_when_it_opens() -> None:
    guard, entered = made(), asyncio.Event()
    waiting = asyncio.ensure_future(hang(guard, entered))
    await entered.wait()
    for _ in range(2):
        with pytest.raises(BrokenError):
            await fail(guard)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(AwayError, match="breaker opened"):
            await waiting
    with pytest.raises(AwayError, match="breaker is open"):
        await fail(guard)


async def test_patience_ends_and_opens_at_once() -> None:
    guard = made()
    began = time.monotonic()
    with pytest.raises(AwayError, match="no answer"):
        await hang(guard, asyncio.Event(), patience_s=0.1)
    assert time.monotonic() - began < DEADLINE_S
    assert not guard.is_closed


async def test_standing_still_ourselves_says_nothing_of_the_dependency() -> None:
    guard = made()
    with pytest.raises(AwayError):
        await stand_still(guard)
    assert guard.is_closed


async def stand_still(guard: Guard) -> None:
    async with guard.call(patience_s=0.01):
        time.sleep(0.6)  # noqa: ASYNC251  # sleeps: the loop is to stand still
        await asyncio.Event().wait()


async def test_recovery_needs_nobody() -> None:
    guard = made()
    for _ in range(2):
        with pytest.raises(BrokenError):
            await fail(guard)
    async with asyncio.timeout(DEADLINE_S):
        while not guard.is_closed:
            try:
                async with guard.call():
                    await asyncio.sleep(0)
            except AwayError:
                await asyncio.sleep(0.01)


async def test_a_probed_guard_lets_no_visitor_try() -> None:
    guard = made(probed=True)
    for _ in range(2):
        with pytest.raises(BrokenError):
            await fail(guard)
    pause_is_over = asyncio.Event()
    asyncio.get_running_loop().call_later(1.1 * OPEN_S, pause_is_over.set)
    await pause_is_over.wait()
    with pytest.raises(AwayError):
        await fail(guard)
    async with guard.call(probe=True):
        pass
    assert guard.is_closed


async def test_no_slot_is_told_and_not_counted_as_a_failure() -> None:
    guard, entered = made(slots=1, slot_wait_s=0.05), asyncio.Event()
    waiting = asyncio.ensure_future(hang(guard, entered))
    await entered.wait()
    for _ in range(5):
        with pytest.raises(AwayError, match="busy"):
            await fail(guard)
    assert guard.is_closed
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(BrokenError):
        await fail(guard)  # the slot is free again


async def test_a_cancelled_trial_leaves_its_place() -> None:
    guard, entered = made(), asyncio.Event()
    for _ in range(2):
        with pytest.raises(BrokenError):
            await fail(guard)
    async with asyncio.timeout(DEADLINE_S):
        while not entered.is_set():
            trial = asyncio.ensure_future(hang(guard, entered))
            await asyncio.wait([trial], timeout=0.02)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    async with guard.call():
        pass
    assert guard.is_closed


async def test_the_callers_own_timeout_is_the_calls() -> None:
    guard = made()
    with pytest.raises(TimeoutError):
        async with guard.call(), asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert not guard.is_closed  # fault() called it a hang


async def test_it_is_counted() -> None:
    registry = Registry()
    guard = made(registry)
    for _ in range(2):
        with pytest.raises(BrokenError):
            await fail(guard)
    with pytest.raises(AwayError):
        await fail(guard)
    text = registry.render().decode()
    assert 'towline_gateway_breaker_open{dependency="thing"} 1' in text
    assert 'towline_gateway_breaker_opened_total{dependency="thing"} 1' in text
    assert 'towline_gateway_breaker_refused_total{dependency="thing"} 1' in text
