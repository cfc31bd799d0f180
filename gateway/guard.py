"""Calls to a dependency that may be dead or hang: each goes through its breaker, and none waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum

from gateway.metrics import GatewayMetrics
from gateway.policy.breaker import Admission, Breaker, Rules, State
from runtime.logs import get_logger

# A timer of ours that fires this late says that we stood still ourselves: no word about the dependency.
OWN_DELAY_S = 0.5

log = get_logger("gateway.guard")


class Fault(Enum):
    """What an exception says about the dependency."""

    NONE = "none"
    """It answered: the exception is about the call."""
    FAILED = "failed"
    HUNG = "hung"


class Guard:
    """One dependency behind its breaker. When that opens, whoever waits for the dependency is let go too.

    `fault` judges an exception; `refuse(reason)` makes the one for callers that are turned away. `probed`:
    only calls with `probe` may be trials, so that no visitor waits for a dependency that hangs; somebody must
    probe. `slots`: most calls at once beside the probe, where connections are a pool; others wait
    `slot_wait_s` at most.
    """

    def __init__(
        self,
        name: str,
        metrics: GatewayMetrics,
        *,
        fault: Callable[[BaseException], Fault],
        refuse: Callable[[str], Exception],
        rules: Rules | None = None,
        probed: bool = False,
        slots: int = 1000,
        slot_wait_s: float = 3.0,
    ) -> None:
        self.name = name
        self._fault = fault
        self._refuse = refuse
        self._probed = probed
        self._breaker = Breaker(rules or Rules())
        self._slots = asyncio.Semaphore(slots)
        self._slot_wait_s = slot_wait_s
        self._waiting: set[asyncio.Timeout] = set()
        self._open = metrics.breaker_open.labels(name)
        self._opened = metrics.breaker_opened.labels(name)
        self._refused = metrics.breaker_refused.labels(name)
        self.on_open: list[Callable[[], None]] = []
        """Called when the breaker opens: connections of the time before are not to be trusted."""

    def __repr__(self) -> str:
        return f"<Guard {self.name} {self._breaker} waiting={len(self._waiting)}>"

    @property
    def is_closed(self) -> bool:
        """Whether calls are let through."""
        return self._breaker.state is State.CLOSED

    @asynccontextmanager
    async def call(self, *, probe: bool = False, patience_s: float | None = None) -> AsyncIterator[None]:
        """Make one call in the block. Raises what `refuse` makes: at once while the breaker is open, and as
        soon as it opens while this waits. `patience_s` bounds the whole block; longer is a hang.
        """
        admission = self._admit(probe)
        began = _now()
        try:
            async with self._slot(probe), self._interruptible(patience_s):
                yield
        except _LetGo as error:
            self._breaker.abandoned(admission, _now())
            self._refused.inc()
            raise self._refuse(str(error)) from None
        except _OutOfPatience as error:
            self._judge(admission, Fault.HUNG, _now() - began - (patience_s or 0.0), "no answer")
            raise self._refuse("no answer") from error
        except Exception as error:
            self._judge(admission, self._fault(error), 0.0, type(error).__name__)
            raise
        except BaseException:  # the caller was cancelled
            self._breaker.abandoned(admission, _now())
            raise
        else:
            self._judge(admission, Fault.NONE, 0.0, "")

    def _admit(self, probe: bool) -> Admission:
        admission = self._breaker.admit(_now()) if probe or not self._probed or self.is_closed else None
        if admission is None:
            self._refused.inc()
            raise self._refuse("breaker is open")
        return admission

    def _judge(self, admission: Admission, fault: Fault, late_s: float, reason: str) -> None:
        before = self._breaker.state
        if fault is Fault.NONE:
            self._breaker.succeeded(admission)
        elif fault is Fault.HUNG and late_s > OWN_DELAY_S:
            self._breaker.abandoned(admission, _now())
        else:
            self._breaker.failed(admission, _now(), hung=fault is Fault.HUNG)
        after = self._breaker.state
        if before is State.CLOSED and after is State.OPEN:
            self._on_open(reason)
        elif before is State.HALF_OPEN and after is State.CLOSED:
            self._open.set(0)
            log.info("dependency answers again", extra={"dependency": self.name})

    def _on_open(self, reason: str) -> None:
        self._open.set(1)
        self._opened.inc()
        log.warning("dependency does not answer", extra={"dependency": self.name, "reason": reason})
        for told in self.on_open:
            told()
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(_now())

    @asynccontextmanager
    async def _slot(self, probe: bool) -> AsyncIterator[None]:
        """All of them being taken says that we are busy, and nothing of the dependency. A probe takes
        none: it is to find out while calls hang in all of them.
        """
        if probe:
            yield
            return
        async with self._interruptible(self._slot_wait_s, _LetGo("busy")):
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def _interruptible(
        self, patience_s: float | None, expired: Exception | None = None
    ) -> AsyncIterator[None]:
        deadline = None if patience_s is None else _now() + patience_s
        scope = asyncio.timeout_at(deadline)
        try:
            async with scope:
                self._waiting.add(scope)
                try:
                    yield
                finally:
                    self._waiting.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise  # the call's own, which `fault` judges
            if scope.when() != deadline:
                raise _LetGo("breaker opened") from None
            raise expired or _OutOfPatience from None


class _LetGo(Exception):
    """The caller waits no longer, for reasons that say nothing new of the dependency."""


class _OutOfPatience(Exception):
    """The dependency used up the caller's patience."""


def _now() -> float:
    """The loop's time, also where tests hold the gateway's clock: pauses are real."""
    return asyncio.get_running_loop().time()
