"""A site with devices in a database, a log there, and consumers that store what the log has."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from device_protocol.topics import Kind
from gateway.commands.downlink import DownlinkGoneError
from gateway.messages.batch import Batches
from gateway.messages.consumer import Consumer
from gateway.messages.greeter import Greeter
from gateway.messages.leases import LEASE_S, Leases
from gateway.metrics import gateway_metrics
from gateway.policy.stays import KnownDevice
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.store import devices, history, log_table, people, places
from gateway.store.database import Database
from gateway.store.log_table import TableReader
from gateway.store.transaction import Row
from runtime.clock import Clock, FakeClock
from runtime.event_log.interface import PARTS, UP, Entry, LogReader, Record, part_of
from runtime.metrics import Registry
from tests.gateway.messages.talkers import Talker, log_topic

Owner: TypeAlias = "asyncpg.Connection[Row]"
DAYS = 30


class Letterbox:
    """A broker's place: what was published, or that nothing can be."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.connected = True
        self.came = asyncio.Event()

    async def publish(self, topic: str, payload: bytes) -> bool:
        if not self.connected:
            raise DownlinkGoneError("away")
        self.published.append((topic, payload))
        self.came.set()
        return True


@dataclass
class Process:
    """What stores, without its loops: one step at a time."""

    site: Site
    leases: Leases
    greeter: Greeter
    batches: Batches

    async def store(self, topic: str = UP) -> int:
        """All that the log has: how many records."""
        count = 0
        while records := await self.site.reads(at := self.leases.of([topic])):
            await self.batches.take(records, at)
            count += len(records)
        return count


class Site:
    """One installation, its database as the service's role has it."""

    def __init__(self, url: str, clock: Clock, stack: AsyncExitStack) -> None:
        self.url = url
        self.clock = clock
        self.stack = stack
        self.database: Database
        self.letters = Letterbox()
        self.registry = Registry()
        self.metrics = gateway_metrics(self.registry)
        self.place = KnownDevice("", "", "linux", "approved")

    async def open(self) -> Site:
        self.database = await self.another_database()
        self.shortlived = PostgresShortLived(self.database)
        task = asyncio.create_task(self.shortlived.run())
        self.stack.push_async_callback(_ended, task)
        async with self.database.transaction() as tx:
            user = await people.put_user(tx, "owner", None)
            org = await places.add_org(tx, user, "Works")
            site = await places.add_site(tx, org, "Hall")
            await history.keep_parts(tx, DAYS)
            await log_table.parts(tx)
        self.place = KnownDevice(org, site, "linux", "approved")
        return self

    async def another_database(self) -> Database:
        """Connections of their own, as each consumer has."""
        database = Database(self.url, pool_max=6, wall=self.clock.wall)
        await database.open()
        database.prepared = True
        self.stack.push_async_callback(database.close)
        return database

    async def device(self) -> Talker:
        device_id = "d_" + "".join(secrets.choice("abcdefghijklmnop") for _ in range(16))
        async with self.database.transaction() as tx:
            await devices.add(
                tx,
                device_id=device_id,
                site_id=self.place.site,
                name="Pump",
                hardware_id=device_id,
                status="approved",
                public_key=device_id.encode(),
                key_id=device_id.encode()[:16],
                software="1",
            )
        return Talker(device_id, self.place, now_ms=int(self.clock.wall() * 1000))

    async def append(self, entries: Iterable[Entry], topic: str = UP) -> None:
        """As bridges do: each part's in one append."""
        parts: dict[int, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(part_of(entry.key, PARTS[topic]), []).append(entry)
        for part, some in parts.items():
            async with self.database.transaction() as tx:
                await log_table.append(tx, topic, part, some)

    async def says(self, talker: Talker, kind: Kind = Kind.TELEMETRY, **how: Any) -> None:
        await self.append([talker.says(kind, **how)], log_topic(kind))

    async def reads(self, at: dict[tuple[str, int], int]) -> list[Record]:
        reader = TableReader(self.database, self.shortlived)
        try:
            return await reader.read(at, most=5000, wait_s=0)
        finally:
            await reader.close()

    async def process(self, database: Database | None = None) -> Process:
        """One that starts now, when all that ran before have been dead for long: nothing is remembered."""
        assert isinstance(self.clock, FakeClock)
        self.clock.advance(LEASE_S + 1)
        own = database or await self.another_database()
        leases = Leases(own)
        greeter = Greeter(self.letters, self.clock)
        batches = Batches(own, leases, greeter, self.clock, self.metrics, history_days=DAYS)
        process = Process(self, leases, greeter, batches)
        await leases.renew(PARTS)
        return process

    async def consumer(self, reader: Callable[[], LogReader] | None = None) -> Consumer:
        """A whole one; `run` starts it. `reader`: of another log than the embedded one."""
        database = await self.another_database()
        return Consumer(
            database,
            reader or (lambda: TableReader(database, self.shortlived)),
            self.letters,
            self.clock,
            self.metrics,
            history_days=DAYS,
        )

    def run(self, consumer: Consumer) -> asyncio.Task[None]:
        """Until the test's end."""
        task = asyncio.create_task(consumer.run())
        self.stack.push_async_callback(_ended, task)
        return task

    async def rows(self, query: str, *args: object) -> list[Row]:
        async with self.database.reading() as tx:
            return await tx.fetch(query, *args)

    async def history(self, talker: Talker) -> list[tuple[int, int]]:
        """(boot, seq) of what is kept of it, in the order of its numbers."""
        rows = await self.rows(
            "SELECT boot, seq FROM device_history WHERE device_id = $1 ORDER BY boot, seq", talker.id
        )
        return [(row["boot"], row["seq"]) for row in rows]

    async def until(self, true: Callable[[], Awaitable[object]], wait_s: float = 20.0) -> None:
        """`true` comes to say so."""
        async with asyncio.timeout(wait_s):
            while True:
                if await true():
                    return
                await asyncio.sleep(0.05)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def held(owner: Owner, statement: str) -> AsyncIterator[None]:
    """What it locks is the owner's until the block ends."""
    holding = owner.transaction()
    await holding.start()
    try:
        await owner.execute(statement)
        yield
    finally:
        await holding.rollback()


async def waits(site: Site, lock: str) -> bool:
    """Whether somebody stands before a lock of this kind."""
    return bool(await site.rows("SELECT 1 FROM pg_locks WHERE locktype = $1 AND NOT granted", lock))
