"""The one way into the log: sorted, put in line, appended, and only then confirmed.

Each part of the log has its queue and at most one append under way, so that a device's messages are in the
log in the order in which they were taken. A batch whose append failed is tried again as it is, which repeats
records at worst (the gateway's line sees them a second time). When the log fails for too long, what waits for
that part is given up unconfirmed, and its devices' lines are forgotten: devices send again what nobody
accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from device_protocol.errors import Reason
from device_protocol.numbers import Number, Place
from ingest.acceptances import Acceptances
from ingest.metrics import Metrics
from ingest.policy.budget import Budget, Pressure
from ingest.policy.progress import Lines, Progress
from ingest.policy.sorting import Dead, Sorted, entry, sort
from runtime.clock import Clock
from runtime.event_log.interface import (
    APPEND_MAX,
    CONTROL,
    DEAD,
    UP,
    Entry,
    LogRefusedError,
    LogUnavailableError,
    LogWriter,
    part_of,
)
from runtime.logs import get_logger
from runtime.tasks import CrashCallback, TaskOwner

BATCH_MAX: Final = 2_000
"""Entries of one append: what one transaction of the gateway's log takes in some ten milliseconds."""
OVERHEAD: Final = 900
"""Bytes that a waiting message costs beside its own: the objects around it (measured by tests/ingest)."""
RETRY_S: Final = (0.05, 1.0)
"""Between two tries of an append: first and last, doubled each time, random below that."""
TOLD_EVERY_S: Final = 10.0
"""A log that is away is written about so often, not at each try of each part."""
CLOSE_S: Final = 1.0
"""For appends that are cancelled at the end."""

_log = get_logger("ingest.intake")


class Receipt(Protocol):
    """Where a message came from, which waits for what became of it. One of the two is called, once."""

    def settle(self) -> None:
        """It is done with: kept, seen before, or out of line. Its sender need not keep it for this hop."""
        ...

    def lost(self) -> None:
        """It was not kept, and never may be said to be."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came. `device`: who sent it, where that is known beside the topic."""

    topic: str
    payload: bytes
    receipt: Receipt
    via: str = "mqtt"
    device: str | None = None


class _Waiting:
    """A message in its part's queue; without an entry it waits only for what stands before it."""

    __slots__ = ("entry", "message", "progress", "receipt")

    def __init__(
        self, receipt: Receipt, entry: Entry | None, message: Sorted, progress: Progress | None
    ) -> None:
        self.receipt = receipt
        self.entry = entry
        self.message = message
        self.progress = progress

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        return OVERHEAD if self.entry is None else OVERHEAD + self.entry.size


class _Part:
    """One part of one of the log's topics."""

    __slots__ = ("name", "number", "topic", "waiting", "writing")

    def __init__(self, topic: str, number: int) -> None:
        self.name = f"{topic}/{number}"
        self.topic = topic
        self.number = number
        self.waiting: deque[_Waiting] = deque()
        self.writing = False

    def take(self) -> list[_Waiting]:
        """What goes into the next append."""
        batch: list[_Waiting] = []
        size = 0
        while self.waiting and len(batch) < BATCH_MAX:
            first = self.waiting[0].entry
            size += 0 if first is None else first.size
            if batch and size > APPEND_MAX:
                break
            batch.append(self.waiting.popleft())
        return batch


class Intake:
    """`pressed(True)`: too many bytes wait, nothing more may come until `pressed(False)`."""

    def __init__(
        self,
        log: LogWriter,
        acceptances: Acceptances,
        metrics: Metrics,
        clock: Clock,
        *,
        bytes_max: int,
        lines_max: int,
        append_s: float,
        pressed: Callable[[bool], None],
        on_crash: CrashCallback | None = None,
    ) -> None:
        """Nothing may be offered before `start`."""
        self._log = log
        self._acceptances = acceptances
        self._metrics = metrics
        self._clock = clock
        self._append_s = append_s
        self._pressed = pressed
        self._lines_max = lines_max
        self._parts: dict[str, list[_Part]] = {}
        self.budget = Budget(bytes_max)
        self.lines = Lines(0, lines_max)
        self.log_fails = False
        self._told_at: float | None = None
        self._draining = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks = TaskOwner("ingest.parts", on_crash=on_crash)

    def __repr__(self) -> str:
        return f"<Intake {self.budget}, {len(self.lines)} lines, {len(self._tasks)} appends>"

    @property
    def started(self) -> bool:
        return bool(self._parts)

    async def start(self) -> None:
        """Learns the log's parts, as soon as it answers."""
        while True:
            try:
                await self._log.start()
                break
            except (LogUnavailableError, LogRefusedError) as error:
                self._failed("start", error)
            await asyncio.sleep(random.uniform(RETRY_S[1] / 2, RETRY_S[1]))
        self.lines = Lines(self._log.parts(UP), self._lines_max)
        self._parts = {
            topic: [_Part(topic, number) for number in range(self._log.parts(topic))]
            for topic in (UP, CONTROL, DEAD)
        }
        self._succeeded()

    def offer(self, arrival: Arrival) -> None:
        """Take it, or confirm at once what needs no append. Never raises for what the message holds. After
        `drain` nothing is taken, nor confirmed.
        """
        if self._closed:
            return
        message = sort(arrival.topic, arrival.payload, arrival.device)
        self._metrics.messages.labels(message.kind, arrival.via).inc()
        parts = self._parts[message.log_topic]
        part = parts[part_of(message.device.encode(), len(parts))]
        progress: Progress | None = None
        if message.standing is not None:
            standing = message.standing
            offer, progress = self.lines.offer(
                part.number, message.device, standing.number, standing.before, standing.floor
            )
            if offer.place is not Place.TAKE:
                self._turn_away(offer.place, part, progress, message, arrival)
                return
        if message.dead is not None:
            self._metrics.dead_letters.labels(message.dead.reason.value).inc()
        at_ms = int(self._clock.wall() * 1000)
        kept = entry(message, arrival.topic, arrival.payload, at_ms)
        self._queue(part, _Waiting(arrival.receipt, kept, message, progress))

    def done(self, device: str) -> Number | None:
        """The device's highest number that the log has, with all before it; None: it is not remembered."""
        return self.lines.done(part_of(device.encode(), len(self._parts[UP])), device)

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is queued, at most so long; then end the appends under way. From now on nobody is
        asked to read on.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        self._closed = True
        await self._tasks.close(CLOSE_S)

    def _turn_away(
        self, place: Place, part: _Part, progress: Progress, message: Sorted, arrival: Arrival
    ) -> None:
        """It is not taken: it was before, or something is missing before it."""
        assert message.standing is not None
        if place is Place.GAP:
            self._metrics.gaps.inc()
            arrival.receipt.settle()
        elif message.standing.number <= progress.done:
            self._metrics.seen.inc()
            arrival.receipt.settle()
            self._tell(message, progress.done)
        else:  # on its way into the log: what stands before this in the queue
            self._metrics.seen.inc()
            self._queue(part, _Waiting(arrival.receipt, None, message, None))

    def _queue(self, part: _Part, waiting: _Waiting) -> None:
        part.waiting.append(waiting)
        self._press(self.budget.add(waiting.cost))
        if not part.writing:
            part.writing = True
            self._idle.clear()
            self._tasks.start(self._write(part), part.name)

    async def _write(self, part: _Part) -> None:
        """Until the queue is empty."""
        try:
            while part.waiting:
                batch = part.take()
                entries = [waiting.entry for waiting in batch if waiting.entry is not None]
                if not entries or await self._appended(part, entries):
                    self._confirm(batch)
                else:
                    self._give_up(part, batch)
        finally:
            part.writing = False
            if not any(part.writing for parts in self._parts.values() for part in parts):
                self._idle.set()

    async def _appended(self, part: _Part, entries: list[Entry]) -> bool:
        """Whether all of them are in the log for certain."""
        began = self._clock.monotonic()
        wait_s = RETRY_S[0]
        while True:
            left_s = began + self._append_s - self._clock.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    await self._log.append(part.topic, part.number, entries)
            except LogUnavailableError as error:
                self._failed(part.name, error)
            except TimeoutError:
                self._failed(part.name, "no answer")
            except LogRefusedError as error:  # each entry is within the log's limits: a setting is wrong
                self._failed(part.name, error)
                return False
            else:
                self._metrics.append_seconds.observe(self._clock.monotonic() - began)
                self._succeeded()
                return True
            wait_s = min(wait_s * 2, RETRY_S[1])
            if self._clock.monotonic() + wait_s >= began + self._append_s:
                return False
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))

    def _confirm(self, batch: list[_Waiting]) -> None:
        """All of it is in the log."""
        highest: dict[str, _Waiting] = {}
        cost = 0
        for waiting in batch:
            cost += waiting.cost
            message = waiting.message
            if waiting.progress is not None and message.standing is not None:
                waiting.progress.logged(message.standing.number)
                highest[message.device] = waiting
            elif message.dead is not None and waiting.entry is not None:
                self._refuse(message, message.dead)
            waiting.receipt.settle()
        for waiting in highest.values():
            assert waiting.progress is not None
            self._tell(waiting.message, waiting.progress.done)
        self._press(self.budget.remove(cost))

    def _give_up(self, part: _Part, batch: list[_Waiting]) -> None:
        """Whether the batch is in the log is not known: nothing that came behind it may follow it there."""
        lost = [*batch, *part.waiting]
        part.waiting.clear()
        if part.topic == UP:
            self.lines.forget(part.number)
        self._metrics.given_up.inc(len(lost))
        for waiting in lost:
            waiting.receipt.lost()
        self._press(self.budget.remove(sum(waiting.cost for waiting in lost)))

    def _refuse(self, message: Sorted, dead: Dead) -> None:
        # Of a message that another device sent in its name, the device is told nothing.
        if message.topic is not None and dead.reason is not Reason.WRONG_DEVICE:
            self._acceptances.refused(message.device, message.topic.prefix, dead.reason, dead.id)

    def _tell(self, message: Sorted, number: Number) -> None:
        assert message.topic is not None
        self._acceptances.accepted(message.device, message.topic.prefix, number)

    def _press(self, pressure: Pressure) -> None:
        if pressure is not Pressure.SAME and not self._draining:
            self._pressed(pressure is Pressure.PAUSE)

    def _failed(self, what: str, error: object) -> None:
        self._metrics.append_failed.inc()
        self.log_fails = True
        now = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            _log.warning("the log does not take appends", extra={"part": what, "error": str(error)})

    def _succeeded(self) -> None:
        if self.log_fails:
            self.log_fails = False
            self._told_at = None
            _log.info("the log takes appends again")
