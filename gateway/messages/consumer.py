"""Reads this gateway's parts of the log and writes what they say, for ever.

Two loops, so that a command's answer does not wait behind a thousand readings: one for what is in line, one
for hello and ack. Beside them, each by itself: the leases each second, how far behind we are each second, the
history's partitions each hour.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import Final

from gateway.commands.downlink import Downlink
from gateway.errors import StoreUnavailableError
from gateway.messages.batch import RETRY_FIRST_S, RETRY_MAX_S, STATEMENT_S, Batches
from gateway.messages.greeter import Greeter
from gateway.messages.lateness import Lateness
from gateway.messages.leases import LEASE_S, RENEW_EVERY_S, Leases
from gateway.metrics import GatewayMetrics
from gateway.policy.device_clock import DAYS_AHEAD
from gateway.store import history, positions
from gateway.store.database import Database
from gateway.store.history import PartsBusyError
from gateway.store.positions import Part, Position
from gateway.store.transaction import utc
from runtime.clock import Clock
from runtime.event_log.interface import CONTROL, DEAD, UP, LogError, LogGoneError, LogReader
from runtime.logs import get_logger

TOPICS: Final = (UP, CONTROL, DEAD)
# Connections of the consumer's own: two loops, one for partitions and what is owed, and each of the log's
# readers, where the log is in the database. The look of every second has one beside these.
POOL_MAX: Final = 6
UP_MOST: Final = 1000
CONTROL_MOST: Final = 200
# Nothing comes: then what is owed to live followers is told, and parts that are new are read.
WAIT_S: Final = 0.5
LOOK_EVERY_S: Final = 1.0  # how far behind we are, for operators
PARTS_EVERY_S: Final = 3600.0
PARTS_RETRY_S: Final = 5.0
LEAVE_S: Final = 2.0  # others wait for the lease's end instead

log = get_logger("gateway.messages")


class Consumer:
    """One process's. `run` is the task; it ends only by cancellation."""

    def __init__(
        self,
        database: Database,
        reader: Callable[[], LogReader],
        downlink: Downlink,
        clock: Clock,
        metrics: GatewayMetrics,
        *,
        history_days: int,
    ) -> None:
        """`database`: its own, prepared. `reader` makes one: each loop has its own."""
        self._database = database
        self._reader = reader
        self._clock = clock
        self._metrics = metrics
        self._days = history_days
        self.leases = Leases(database)
        self.greeter = Greeter(downlink, clock)
        self._up, self._control = self._batches(), self._batches()
        self._lateness = Lateness()
        self._parts_until: date | None = None
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"<Consumer {self.leases}>"

    def _batches(self) -> Batches:
        return Batches(
            self._database,
            self.leases,
            self.greeter,
            self._clock,
            self._metrics,
            history_days=self._days,
        )

    async def run(self) -> None:
        await self._first_parts()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(), name="messages.watch")
                tasks.create_task(self._keep_parts(), name="messages.parts")
                tasks.create_task(self._follow((UP, DEAD), self._up, UP_MOST), name="messages.up")
                tasks.create_task(
                    self._follow((CONTROL,), self._control, CONTROL_MOST), name="messages.control"
                )
                tasks.create_task(self.greeter.run(), name="messages.greeter")
        finally:
            await self._leave()

    async def _first_parts(self) -> None:
        """Before anything is written there must be where to."""
        while True:
            if await self.make_parts():
                return
            await asyncio.sleep(PARTS_RETRY_S)

    async def _keep_parts(self) -> None:
        while True:
            await asyncio.sleep(PARTS_EVERY_S)
            await self.make_parts()

    async def make_parts(self) -> bool:
        """The history's partitions of the days to come, and none before the retention. False: not now."""
        try:
            async with self._database.transaction(statement_s=STATEMENT_S) as tx:
                changed = await history.keep_parts(tx, self._days)
                gone = await history.forget_boots(tx, self._days)
                gone += await history.forget_places(tx, self._days)
                today = tx.at.date()
        except (StoreUnavailableError, PartsBusyError) as error:
            log.info("the history's partitions wait", extra={"reason": str(error)})
            return False
        self._parts_until = today + timedelta(days=DAYS_AHEAD)
        if changed or gone:
            log.info("the history's partitions are right", extra={"changed": changed, "forgotten": gone})
        return True

    async def _watch(self) -> None:
        """Renew the leases, and see how far behind we are: neither waits for the other."""
        reader = self._reader()
        try:
            await self._patiently(lambda: self._begin(reader))
            counts = {topic: reader.parts(topic) for topic in TOPICS}
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._renew(counts), name="messages.renewal")
                tasks.create_task(self._look(reader), name="messages.lag")
        finally:
            await reader.close()

    async def _begin(self, reader: LogReader) -> None:
        try:
            await reader.start()
        except LogError:
            self._metrics.log_away.set(1)
            raise

    async def _renew(self, counts: Mapping[str, int]) -> None:
        """Whatever the log does: a part that does not answer must cost nobody the others."""
        while True:
            with suppress(StoreUnavailableError):  # said by the guard
                await self.leases.renew(counts)
            await asyncio.sleep(RENEW_EVERY_S)

    async def _look(self, reader: LogReader) -> None:
        while True:
            answers = [await self._look_at(reader, topic) for topic in TOPICS]
            if all(answers):
                self._said.clear()
                self._metrics.log_away.set(0)
            if self._parts_until is not None:
                today = utc(self._clock.wall()).date()
                self._metrics.parts_ahead_days.set((self._parts_until - today).days)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at(self, reader: LogReader, topic: str) -> bool:
        """Whether the log says where all of the topic's parts end."""
        try:
            ends = await reader.ends(topic)
        except LogError as error:
            self._say_once(error)
            self._metrics.log_away.set(1)
            return False
        with suppress(StoreUnavailableError):
            async with self._database.reading() as reading:
                found = await positions.all_of(reading)
            self._measure(topic, ends, found)
        return True

    def _measure(self, topic: str, ends: Mapping[int, int], found: Mapping[Part, Position]) -> None:
        behind = {
            (topic, part): end - found[topic, part].next
            for part, end in ends.items()
            if (topic, part) in found
        }
        if not behind:
            return
        self._metrics.log_lag.labels(topic).set(sum(max(0, lag) for lag in behind.values()))
        mine = {p: found[p].next for p, lag in behind.items() if lag > 0 and p in self.leases.held}
        batches = self._control if topic == CONTROL else self._up
        now_ms = int(self._clock.wall() * 1000)
        age_s = self._lateness.look(topic, mine, batches.in_hand(), batches.newest_ms, now_ms)
        self._metrics.log_age_seconds.labels(topic).set(max(0.0, age_s))

    async def _follow(self, topics: Collection[str], batches: Batches, most: int) -> None:
        reader = self._reader()
        try:
            await self._patiently(reader.start)
            while True:
                await self._patiently(lambda: self._read_on(reader, topics, batches, most))
        finally:
            await reader.close()

    async def _read_on(self, reader: LogReader, topics: Collection[str], batches: Batches, most: int) -> None:
        """Whatever comes next."""
        at = self.leases.of(topics)
        if not at:
            await self.leases.wait_taken(WAIT_S)
            return
        try:
            records = await reader.read(at, most=most, wait_s=WAIT_S)
        except LogGoneError as gone:
            await self._skip(gone, at)
            return
        # Parts that went to another consumer while this waited are not ours to write.
        records = [
            one for one in records if self.leases.held.get((one.topic, one.part)) == at[one.topic, one.part]
        ]
        if records:
            await batches.take(records, at)
        await batches.tell_owed()

    async def _skip(self, gone: LogGoneError, at: Mapping[Part, int]) -> None:
        """Go on where the log begins now: it dropped what nobody had read, or it was put back."""
        part = (gone.topic, gone.part)
        log.error(
            "the log has not what comes next: it lost records, or was put back",
            extra={"topic": gone.topic, "part": gone.part, "next": at[part], "earliest": gone.earliest},
        )
        moves = {part: (at[part], gone.earliest)}
        async with self._database.transaction() as tx:
            moved = await positions.advance(tx, self.leases.owner, moves, utc(tx.now + LEASE_S))
        if not moved:
            self.leases.forget([part])
            return
        self.leases.moved(moves)
        self._metrics.missing.inc(max(0, gone.earliest - at[part]))

    async def _patiently(self, call: Callable[[], Awaitable[None]]) -> None:
        """Until it succeeds: the log and the database come back, and what is read is read again."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await call()
                return
            except (LogError, StoreUnavailableError) as error:
                self._say_once(error)
            except Exception:  # a defect of ours must not end the reading of all other devices
                log.exception("reading the log failed")
                wait_s = RETRY_MAX_S
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _say_once(self, error: Exception) -> None:
        """Until the log answers again."""
        said = f"{type(error).__name__}: {error}"
        if said not in self._said:
            self._said.add(said)
            log.warning("the log waits", extra={"reason": said})

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.leases.leave()
        except (TimeoutError, StoreUnavailableError) as error:
            log.info("the leases end by themselves", extra={"reason": type(error).__name__})
