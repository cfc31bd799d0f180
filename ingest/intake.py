"""The one way into the log: sorted, put in line, appended, and only then confirmed.

Each part of the log has its queue and at most one append under way, so that a device's messages are in the
log in the order in which they were taken. A batch whose append failed is tried again as it is, which repeats
records at worst (the gateway's line sees them a second time). When the log fails for too long, what waits for
that part is given up unconfirmed, and its devices' lines are forgotten: devices send again what nobody
accepted.

A part that fails while others take appends is sick: it holds up nobody else. What comes for it is left, but
for one append at a time that finds out when it is well again. Left is also what is out of line, and what a
device says beyond its rate: nothing of it is accepted, so its device keeps it and sends it again, later each
time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from device_protocol.errors import Reason
from device_protocol.numbers import Number, Place
from ingest.acceptances import Acceptances
from ingest.metrics import Metrics
from ingest.parts import Part, Receipt, Waiting
from ingest.policy.budget import Budget, Pressure
from ingest.policy.progress import Lines, Progress
from ingest.policy.rates import Rates
from ingest.policy.sorting import Dead, Sorted, entry, sender, sort
from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.event_log.interface import (
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

RETRY_S: Final = (0.05, 1.0)
"""Between two tries of an append: first and last, doubled each time, random below that."""
TOLD_EVERY_S: Final = 10.0
"""A log that is away is written about so often, not at each try of each part."""
HOLD_S: Final = 2.0
"""A part holds up the others for so long at most: PUBACKs leave in the order of receipt, and one that waits
for a sick part holds back all behind it. What is left too early costs a repeat, and no more."""
REST_S: Final = 1.0
"""After an append to a sick part was given up, nothing is tried there for so long."""
UNTRIED_S: Final = 100.0
"""What nobody tried for so long after it failed does not count as failing any more: nobody waits for it.
Devices that do say what they have at least every 90 s (60 s and half of it: device-v1, section 4)."""
CLOSE_S: Final = 1.0
"""For appends that are cancelled at the end."""

_log = get_logger("ingest.intake")


class Arrival(NamedTuple):
    """A message as it came. `device`: who sent it, where that is known beside the topic."""

    topic: str
    payload: bytes
    receipt: Receipt
    via: str = "mqtt"
    device: str | None = None


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
        rates: Rates,
        pressed: Callable[[bool], None],
        on_crash: CrashCallback | None = None,
    ) -> None:
        """Nothing may be offered before `start`."""
        self._log = log
        self._acceptances = acceptances
        self._metrics = metrics
        self._clock = clock
        self._append_s = append_s
        self._hold_s = min(HOLD_S, append_s / 2)
        self._rates = rates
        self._pressed = pressed
        self._lines_max = lines_max
        self._parts: dict[str, list[Part]] = {}
        self.budget = Budget(bytes_max)
        self.lines = Lines(0, lines_max)
        self._failed_at: dict[str, float] = {}
        """Of what the log did not take the last append, by name: when it was tried last, monotonic."""
        self._took_at = float("-inf")  # monotonic, when any part took one
        self._told_at: float | None = None
        self._throttled_at: float | None = None
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

    @property
    def failing(self) -> set[str]:
        """By name, the parts that did not take the last append, as far as somebody waits for them."""
        since = self._clock.monotonic() - UNTRIED_S
        tried = {part.name for parts in self._parts.values() for part in parts if part.writing}
        return {name for name, at in self._failed_at.items() if at > since or name in tried}

    @property
    def log_fails(self) -> bool:
        """All of it, or a part."""
        return bool(self.failing)

    async def start(self) -> None:
        """Learns the log's parts, as soon as it answers."""
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                await self._log.start()
                break
            except (LogUnavailableError, LogRefusedError) as error:
                self._failed("start", error)
            await asyncio.sleep(backoff.next())
        self.lines = Lines(self._log.parts(UP), self._lines_max)
        self._parts = {
            topic: [Part(topic, number) for number in range(self._log.parts(topic))]
            for topic in (UP, CONTROL, DEAD)
        }
        self._succeeded("start")

    def offer(self, arrival: Arrival) -> None:
        """Take it, or confirm at once what needs no append. Never raises for what the message holds. After
        `drain` nothing is taken, nor confirmed.
        """
        if self._closed:
            return
        now, device = self._clock.monotonic(), arrival.device or sender(arrival.topic)
        if not self._rates.takes(device, len(arrival.payload), now):
            self._throttle(device, now)
            arrival.receipt.leave()
            return
        message = sort(arrival.topic, arrival.payload, arrival.device)
        self._metrics.messages.labels(message.kind, arrival.via).inc()
        parts = self._parts[message.log_topic]
        part = parts[part_of(message.device.encode(), len(parts))]
        if part.leaves(now):
            self._metrics.left_sick.inc()
            arrival.receipt.leave()
            return
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
        self._queue(part, Waiting(arrival.receipt, kept, message, progress))

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
        self, place: Place, part: Part, progress: Progress, message: Sorted, arrival: Arrival
    ) -> None:
        """It is not taken: it was before, or something is missing before it."""
        assert message.standing is not None
        if place is Place.GAP:
            self._metrics.gaps.inc()
            arrival.receipt.leave()
        elif message.standing.number <= progress.done:
            self._metrics.seen.inc()
            arrival.receipt.settle()
            self._tell(message, progress.done)
        else:  # on its way into the log: what stands before this in the queue
            self._metrics.seen.inc()
            self._queue(part, Waiting(arrival.receipt, None, message, None))

    def _queue(self, part: Part, waiting: Waiting) -> None:
        part.waiting.append(waiting)
        self._press(self.budget.add(waiting.cost))
        if not part.writing:
            part.writing = True
            self._idle.clear()
            self._tasks.start(self._write(part), part.name)

    async def _write(self, part: Part) -> None:
        """Until the queue is empty."""
        try:
            while part.waiting:
                batch = part.take()
                entries = [waiting.entry for waiting in batch if waiting.entry is not None]
                if not entries or await self._appended(part, batch, entries):
                    self._confirm(batch)
                else:
                    self._give_up(part, batch)
        finally:
            part.writing = False
            if not any(part.writing for parts in self._parts.values() for part in parts):
                self._idle.set()

    async def _appended(self, part: Part, batch: list[Waiting], entries: list[Entry]) -> bool:
        """Whether all of them are in the log for certain. Others are not held up by it."""
        part.began_at = self._clock.monotonic()
        if part.sick:
            _leave(batch)
        watch = self._watched(part, batch)
        try:
            if not await self._tried(part, entries):
                return False
        finally:
            watch.cancel()
        part.sick = False
        self._metrics.append_seconds.observe(self._clock.monotonic() - part.began_at)
        self._succeeded(part.name)
        return True

    async def _tried(self, part: Part, entries: list[Entry]) -> bool:
        """Again and again, for `append_s`."""
        backoff = Backoff(*RETRY_S)
        while True:
            left_s = part.began_at + self._append_s - self._clock.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    await self._log.append(part.topic, part.number, entries)
            except LogUnavailableError as error:
                self._failed(part.name, error)
            except TimeoutError:
                self._failed(part.name, "no answer")
            except LogRefusedError as error:  # each entry is within the log's limits: a setting is wrong
                self._failed(part.name, error)
                part.sick = True  # it would be refused again: nobody need wait for that
                return False
            else:
                return True
            wait_s = backoff.next()
            if self._clock.monotonic() + wait_s >= part.began_at + self._append_s:
                return False
            await asyncio.sleep(wait_s)

    def _watched(self, part: Part, batch: list[Waiting]) -> _Repeating:
        """Looks now and then whether it is this part alone that does not take what it is given."""
        return _Repeating(self._hold_s, lambda: self._look(part, batch))

    def _look(self, part: Part, batch: list[Waiting]) -> None:
        if part.sick or self._took_at <= part.began_at:
            return
        part.sick = True
        _log.warning("a part of the log is sick", extra={"part": part.name})
        # What came behind the batch must not follow it: whether that one will be there is not known.
        behind = list(part.waiting)
        self._drop(part)
        self._metrics.given_up.inc(len(behind))
        _leave([*batch, *behind])
        self._press(self.budget.remove(sum(waiting.cost for waiting in behind)))

    def _confirm(self, batch: list[Waiting]) -> None:
        """All of it is in the log."""
        highest: dict[str, Waiting] = {}
        cost = 0
        for waiting in batch:
            cost += waiting.cost
            message = waiting.message
            if waiting.progress is not None and message.standing is not None:
                waiting.progress.logged(message.standing.number)
                highest[message.device] = waiting
            elif message.dead is not None and waiting.entry is not None:
                self._refuse(message, message.dead)
            waiting.settle()
        for waiting in highest.values():
            assert waiting.progress is not None
            self._tell(waiting.message, waiting.progress.done)
        self._press(self.budget.remove(cost))

    def _give_up(self, part: Part, batch: list[Waiting]) -> None:
        """Whether the batch is in the log is not known: nothing that came behind it may follow it there."""
        lost = [*batch, *part.waiting]
        self._drop(part)
        self._metrics.given_up.inc(len(lost))
        part.sick = part.sick or self._took_at > part.began_at
        if part.sick:
            part.rests_until = self._clock.monotonic() + REST_S
            _leave(lost)
        else:  # all of the log is away
            for waiting in lost:
                waiting.lost()
        self._press(self.budget.remove(sum(waiting.cost for waiting in lost)))

    def _drop(self, part: Part) -> None:
        """Nobody remembers what was to come behind an append whose fate is not known."""
        part.waiting.clear()
        if part.topic == UP:
            self.lines.forget(part.number)

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

    def _throttle(self, device: str, now: float) -> None:
        self._metrics.left_rate.inc()
        if self._throttled_at is None or now - self._throttled_at >= TOLD_EVERY_S:
            self._throttled_at = now
            _log.warning("a device says more than it may", extra={"device": device})

    def _failed(self, what: str, error: object) -> None:
        self._metrics.append_failed.inc()
        now = self._failed_at[what] = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            _log.warning("the log does not take appends", extra={"part": what, "error": str(error)})

    def _succeeded(self, what: str) -> None:
        self._took_at = self._clock.monotonic()
        if not self._failed_at:
            return
        failing = self.failing
        self._failed_at = {
            part.name: self._failed_at[part.name]
            for parts in self._parts.values()
            for part in parts
            if part.name in failing and part.name != what and (part.writing or part.sick)
        }
        if not self._failed_at:
            self._told_at = None
            _log.info("the log takes appends again")


class _Repeating:
    """Calls until it is cancelled, each `every_s` seconds."""

    def __init__(self, every_s: float, call: Callable[[], None]) -> None:
        self._every_s = every_s
        self._call = call
        self._timer = asyncio.get_running_loop().call_later(every_s, self._again)

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._again)
        self._call()

    def cancel(self) -> None:
        self._timer.cancel()


def _leave(those: list[Waiting]) -> None:
    for waiting in those:
        waiting.leave()
