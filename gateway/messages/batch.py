"""A batch of records in one transaction: it moves the position and writes what records change, or neither.

Whatever is cut short is done again, by this consumer or another, from the same position: a batch that was
committed cannot be committed twice, as the position is not where it began any more. What one record is to
blame for (`blame`) makes that one a dead letter; for what none is to blame the batch waits, with an alarm.

Both loops write at once, and about the same devices. So each takes its rows in this order of tables, and in
one table by the device's id, or they would wait for each other: log_positions, device_lines, device_history,
dead_letters, device_states, device_boots, device_connections, commands, configuration_heads.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from gateway.commands import outcome
from gateway.errors import StoreUnavailableError
from gateway.messages.blame import Blame, Defects, blame, is_too_slow
from gateway.messages.greeter import Greeter
from gateway.messages.leases import LEASE_S, Leases
from gateway.messages.telling import Subject, Telling, change
from gateway.metrics import GatewayMetrics
from gateway.policy import messages as policy
from gateway.policy.device_clock import window
from gateway.policy.messages import Applied, Arrival, DeviceAck, Facts, HistoryRow, RecordPlace
from gateway.store import configurations, dead_letters, history, messages, positions
from gateway.store.commands import Ended
from gateway.store.database import Database
from gateway.store.positions import Part
from gateway.store.transaction import Transaction, utc
from runtime.clock import Clock
from runtime.event_log.interface import CONTROL, Record
from runtime.logs import get_logger

# Nobody waits for it; a batch may have to wait for locks of the API, and for a disk.
STATEMENT_S: Final = 30.0
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
# Each looks through the device's whole history. A device whose counter went back is told so at its first.
COMPARED_MAX: Final = 20
# A long history takes longer: what was not compared by then is kept as a dead letter, which loses nothing.
COMPARE_S: Final = 1.0
# At most one part in so many of all time goes into it: or a device that repeats old numbers slows the others.
COMPARE_SHARE: Final = 20
# A batch that was too slow twice is tried by halves: together it may be more than STATEMENT_S is enough for.
SLOW_MAX: Final = 2
SAID_EVERY_S: Final = 60.0  # of a batch that waits
READ_AT_ONCE: Final = 100  # some 3 ms

_TOLD_AS: Final = {"event": "device.message", policy.CONFIG_STATE: "configuration.changed"}

log = get_logger("gateway.messages")


class NotOursError(Exception):
    """A part is another consumer's by now, or was moved: what was read of it is not to be written."""


class HalveError(Exception):
    """These records together cannot be written: of each half one sees which one it is. `name`: why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.name = type(error).__name__


@dataclass(slots=True)
class Committed:
    """What is done once the batch is committed."""

    applied: Applied
    moves: Mapping[Part, tuple[int, int]]
    told: Sequence[Subject] = ()
    ended: list[Ended] = field(default_factory=list)
    left_out: int = 0
    """Dead letters that there was no room for."""


class Batches:
    """Writes what one loop reads. `take` is called one at a time."""

    def __init__(
        self,
        database: Database,
        leases: Leases,
        greeter: Greeter,
        clock: Clock,
        metrics: GatewayMetrics,
        *,
        history_days: int,
    ) -> None:
        self._database = database
        self._leases = leases
        self._greeter = greeter
        self._clock = clock
        self._metrics = metrics
        self._days = history_days
        self._telling = Telling()
        self._defects = Defects()
        self._hand: list[Arrival] = []
        self._compare_from = 0.0
        self._said_at: float | None = None
        self.newest_ms: dict[Part, int] = {}
        """When the last record that was committed of each part came into the log."""

    async def take(self, records: Sequence[Record], at: Mapping[Part, int]) -> None:
        """Write these, which were read from the positions `at`. Ends early when a part is not ours any more;
        what is left will be read again by whoever has it.

        It tries as long as the database is away, or refuses what no record is to blame for. A record that is
        becomes a dead letter: of a batch with such a one each half is tried for itself, and so on.
        """
        self._hand = await self._read(records, int(self._clock.wall() * 1000))
        try:
            await self._take(self._hand, dict(at))
        except NotOursError:
            self._leases.forget({(record.topic, record.part) for record in records})
        finally:
            self._hand = []
            self._well()

    async def _read(self, records: Sequence[Record], now_ms: int) -> list[Arrival]:
        """Others have their turn meanwhile: the API's requests, in the same process."""
        arrivals: list[Arrival] = []
        for n, record in enumerate(records, 1):
            try:
                arrivals.append(policy.read(policy.bounded(record, now_ms)))
            except Exception as error:  # a defect of ours
                if self._defects.one_more(self._now()):
                    log.exception("a record cannot be read", extra={"place": list(record[:3])})
                    arrivals.append(policy.bare(record, now_ms, type(error).__name__))
                elif arrivals:
                    return arrivals  # what was read is stored; then this one comes again, and waits
                else:
                    self._alarm(error, arrivals)
                    raise
            if n % READ_AT_ONCE == 0:
                await asyncio.sleep(0)
        return arrivals

    def in_hand(self) -> dict[Part, int]:
        """When the first record came (Unix milliseconds) that was read of a part and is not stored yet."""
        return {arrival.place[:2]: arrival.received_ms for arrival in reversed(self._hand)}

    async def _take(self, arrivals: list[Arrival], where: dict[Part, int]) -> None:
        pending = deque([arrivals])
        while pending:
            some = pending.popleft()
            try:
                await self._committed(some, where, {})
            except HalveError as error:
                log.warning("a batch was refused", extra={"records": len(some), "error": error.name})
                pending.extendleft(await self._halved(some, where, error))

    async def _halved(
        self, arrivals: list[Arrival], where: dict[Part, int], error: HalveError
    ) -> list[list[Arrival]]:
        """Both halves, the first one last; a single record is put away, and nothing is left to be tried."""
        if len(arrivals) > 1:
            middle = len(arrivals) // 2
            return [arrivals[:middle], arrivals[middle:]][::-1]
        [one] = arrivals
        log.error("a record was refused", exc_info=error.__cause__, extra={"place": list(one.place)})
        refused = {one.place: error.name}
        try:
            await self._committed(arrivals, where, refused)
        except HalveError:  # nor can its letter be written
            await self._committed([policy.bare(one.record, one.received_ms, error.name)], where, refused)
        return []

    async def _committed(
        self, arrivals: list[Arrival], where: dict[Part, int], refused: Mapping[RecordPlace, str]
    ) -> None:
        """Try until it is committed. `where` moves with it. HalveError: the records are to blame, or they are
        too many.
        """
        wait_s, slow = RETRY_FIRST_S, 0
        while True:
            try:
                done = await self._try(arrivals, where, refused)
                break
            except NotOursError:
                raise
            except StoreUnavailableError as error:
                # The commit may have happened: then the next try finds the position moved.
                _say_waits(error)
                slow += is_too_slow(error)
                if slow >= SLOW_MAX and len(arrivals) > 1:
                    raise HalveError(error) from error
                if slow >= SLOW_MAX:
                    self._alarm(error, arrivals)
            except Exception as error:
                await self._refused(error, arrivals, refused)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_MAX_S)
        self._well()
        for part, (_, new) in done.moves.items():
            where[part] = new
        self._leases.moved(done.moves)
        for arrival in arrivals:
            self.newest_ms[arrival.place[:2]] = arrival.received_ms
        self._hand = self._hand[len(arrivals) :]  # of halves the first is written first
        self._after(done)

    async def _refused(
        self, error: Exception, arrivals: list[Arrival], refused: Mapping[RecordPlace, str]
    ) -> None:
        """The database is there, and does not take it. HalveError, or it is to be tried again as it is."""
        found = blame(error)
        if found is Blame.NO_PART and await self._make_parts():
            return
        single = len(arrivals) == 1
        if found is Blame.RECORD and not refused:
            raise HalveError(error) from error
        # A defect that one record trips must not hold up all others; one that trips at each loses nothing.
        if found is Blame.DEFECT and not refused and (not single or self._defects.one_more(self._now())):
            raise HalveError(error) from error
        if found in (Blame.RECORD, Blame.DEFECT) and refused and not arrivals[0].is_bare:
            raise HalveError(error) from error
        self._alarm(error, arrivals)

    def _alarm(self, error: Exception, arrivals: Sequence[Arrival]) -> None:
        """It waits until somebody mends what keeps it."""
        self._metrics.log_stuck.set(1)
        if self._said_at is None or self._now() - self._said_at >= SAID_EVERY_S:
            self._said_at = self._now()
            log.error("a batch cannot be stored, and waits", exc_info=error, extra={"records": len(arrivals)})

    def _well(self) -> None:
        """The alarm ends, if it was ours: the other loop's batch may still wait."""
        if self._said_at is not None:
            self._metrics.log_stuck.set(0)
            self._said_at = None

    def _now(self) -> float:
        return self._clock.monotonic()

    async def _try(
        self, arrivals: list[Arrival], where: Mapping[Part, int], refused: Mapping[RecordPlace, str]
    ) -> Committed:
        began = self._clock.monotonic()
        moves = {part: (where[part], last + 1) for part, last in _parts(arrivals).items()}
        async with self._database.transaction(statement_s=STATEMENT_S) as tx:
            if not await positions.advance(tx, self._leases.owner, moves, utc(tx.now + LEASE_S)):
                raise NotOursError
            if arrivals[0].record.topic == CONTROL:
                done = await self._control(tx, arrivals, refused, moves)
            else:
                done = await self._numbered(tx, arrivals, refused, moves)
            done.told = self._telling.due(_subjects(done.applied), self._clock.monotonic())
            for subject in done.told:
                tx.tell(change(subject))
        self._metrics.batch_seconds.observe(self._clock.monotonic() - began)
        return done

    async def _numbered(
        self,
        tx: Transaction,
        arrivals: list[Arrival],
        refused: Mapping[RecordPlace, str],
        moves: Mapping[Part, tuple[int, int]],
    ) -> Committed:
        named = _devices(arrivals)
        boots = {(a.topic.device, a.envelope.number.boot) for a in arrivals if a.topic and a.envelope}
        facts = Facts(
            devices=await messages.devices_of(tx, named),
            window=window(tx.now, self._days),
            lines=await messages.lines_of(tx, named, hold=True),
            boots=await messages.boots_of(tx, sorted(boots)),
        )
        applied = policy.decide(arrivals, facts, refused)
        await messages.add_history(tx, applied.history)
        if applied.seen:  # behind the COPY: of two in one batch the second is a repeat
            await self._compare(tx, applied, facts)
        left_out = await dead_letters.add(tx, applied.letters)
        await messages.put_states(tx, applied.states)
        await messages.put_boots(tx, applied.boots)
        await messages.put_lines(tx, applied.lines)
        await messages.note_heard(tx, applied.heard)
        await configurations.answered(tx, policy.reports(applied))
        return Committed(applied, moves, left_out=left_out)

    async def _compare(self, tx: Transaction, applied: Applied, facts: Facts) -> None:
        """A number that was taken before: by this message, by another one, or by none, as the device had
        given this one up for want of room and a copy of it came late. Only the second is worth a word.
        """
        found = await messages.ids_of(tx, [row for _, row in applied.seen])
        strangers = policy.strangers(applied, found)
        taken = await self._taken(tx, [row for _, row in strangers[:COMPARED_MAX]])
        for n, stranger in enumerate(strangers):
            if taken is None or n >= COMPARED_MAX or stranger[1].number in taken:
                policy.reused(applied, stranger, facts)

    async def _taken(self, tx: Transaction, rows: list[HistoryRow]) -> set[tuple[str, int, int]] | None:
        """Of these rows' numbers those that another message has; None: not to be found out now."""
        began = self._now()
        if not rows or began < self._compare_from:
            return None if rows else set()
        try:
            async with tx.brief(COMPARE_S):
                return await messages.taken_by_others(tx, rows)
        except asyncpg.QueryCanceledError:
            log.warning("a device's history is too long to compare repeats with", extra={"rows": len(rows)})
            return None
        finally:
            now = self._now()
            self._compare_from = now + COMPARE_SHARE * (now - began)

    async def _control(
        self,
        tx: Transaction,
        arrivals: list[Arrival],
        refused: Mapping[RecordPlace, str],
        moves: Mapping[Part, tuple[int, int]],
    ) -> Committed:
        named = _devices(arrivals)
        facts = Facts(
            devices=await messages.devices_of(tx, named),
            window=window(tx.now, self._days),
            lines=await messages.lines_of(tx, named),
            connections=await messages.connections_of(tx, named),
        )
        applied = policy.decide_control(arrivals, facts, refused)
        left_out = await dead_letters.add(tx, applied.letters)
        await messages.put_connections(tx, applied.connections)
        said_hello = [one.device_id for one in applied.greetings.values() if one.hello is not None]
        ended = await outcome.heard(tx, _by_device(applied.acks), said_hello)
        if said_hello:
            await configurations.greeted(tx, policy.running(applied))
        return Committed(applied, moves, left_out=left_out, ended=ended)

    def _after(self, done: Committed) -> None:
        """It is committed."""
        applied, metrics = done.applied, self._metrics
        now = self._clock.monotonic()
        self._telling.owe(_subjects(applied))
        self._telling.told(done.told, now)
        self._greeter.greet(applied.greetings.values())
        outcome.count(metrics, done.ended)
        for name, count in applied.outcomes.items():
            metrics.messages.labels(name).inc(count)
        for letter in applied.letters:
            metrics.dead_letters.labels(letter.reason.value).inc()
        metrics.dead_letters_left_out.inc(done.left_out)
        metrics.history_rows.inc(len(applied.history))
        if applied.passed:
            metrics.missing.inc(applied.passed)
            log.error("accepted messages are missing: the log lost them, or the database went back")

    async def tell_owed(self) -> None:
        """Tell what changed a while ago and was not told yet."""
        now = self._clock.monotonic()
        subjects = self._telling.due((), now)
        if not subjects:
            return
        try:
            async with self._database.transaction() as tx:
                for subject in subjects:
                    tx.tell(change(subject))
        except StoreUnavailableError:
            return  # the next look tries again
        self._telling.told(subjects, now)

    async def _make_parts(self) -> bool:
        """Whether the history has all its partitions now: the day may have come without them."""
        try:
            async with self._database.transaction(statement_s=STATEMENT_S) as tx:
                return await history.keep_parts(tx, self._days) > 0
        except (StoreUnavailableError, history.PartsBusyError, asyncpg.PostgresError) as error:
            log.warning("the history's partitions cannot be made now", extra={"reason": str(error)})
            return False


def _say_waits(error: StoreUnavailableError) -> None:
    if isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
        log.warning("a batch and another transaction waited for each other", exc_info=error.__cause__)
    else:
        log.info("a batch waits for Postgres", extra={"reason": str(error)})


def _parts(arrivals: Sequence[Arrival]) -> dict[Part, int]:
    """The last offset of each part."""
    return {arrival.place[:2]: arrival.place[2] for arrival in arrivals}


def _devices(arrivals: Sequence[Arrival]) -> list[str]:
    return sorted({arrival.topic.device for arrival in arrivals if arrival.topic is not None})


def _by_device(acks: Sequence[DeviceAck]) -> dict[str, list[outcome.Answer]]:
    """Each one's in the order it gave them."""
    found: dict[str, list[outcome.Answer]] = {}
    for ack in acks:
        found.setdefault(ack.device_id, []).append(_answer(ack))
    return found


def _answer(ack: DeviceAck) -> outcome.Answer:
    place = "/".join(map(str, ack.place))
    return outcome.Answer(ack.ack, ack.received_at.timestamp(), place, ack.trace)


def _subjects(applied: Applied) -> set[Subject]:
    return {(device, _TOLD_AS.get(kind, "device.state")) for device, kind in applied.told}
