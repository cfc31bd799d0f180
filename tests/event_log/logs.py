"""The logs that keep one contract, each as it runs in an installation, with all that stands behind it."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from gateway.errors import StoreUnavailableError
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.store import migrate, schema
from gateway.store.database import Database
from gateway.store.log_table import TableReader
from ingest.gateway_log import GatewayWriter
from runtime.event_log.interface import Entry, LogReader, LogUnavailableError, LogWriter, Record
from runtime.event_log.kafka import KafkaAddress, KafkaReader, KafkaWriter
from runtime.internal_http import InternalHttp
from runtime.tasks import TaskOwner
from testbed.gateways import Gateways
from testbed.kafka import KafkaServer
from testbed.ports import LOOPBACK, free_port
from testbed.postgres_server import PostgresServer
from towline.embedded.postgres import OWNER

GIVE_UP_S = 2.0  # of one append that never comes to anything: nobody wants to wait for it
APPEND_S = 15.0  # of all others: milliseconds, and what a busy machine adds
SILENT_S = 2.0  # of a broker; the others say at once that they are away
BACK_S = 60.0  # a loaded machine starts a database and a gateway, or a broker
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class InternalApi:
    """How the gateway's internal listener is asked."""

    internal_url: str
    ca: Path
    certificate: Path
    key: Path
    call_s: float
    connections: int = 8


class RunningLog(ABC):
    """Opens writers and readers, each with connections of its own, and breaks what they speak to."""

    def __init__(self) -> None:
        self._ends = AsyncExitStack()

    async def writer(self, append_s: float = APPEND_S) -> LogWriter:
        """`append_s`: after which an append is given up."""
        writer = await self.new_writer(self._ends, append_s)
        self._ends.push_async_callback(writer.close)
        await until_available(writer.start)
        return writer

    async def reader(self) -> LogReader:
        reader = await self.new_reader(self._ends)
        self._ends.push_async_callback(reader.close)
        await until_available(reader.start)
        return reader

    async def close_all(self) -> None:
        """What was opened in one test."""
        await self._ends.aclose()

    @abstractmethod
    async def new_writer(self, ends: AsyncExitStack, append_s: float) -> LogWriter:
        """Not started."""

    @abstractmethod
    async def new_reader(self, ends: AsyncExitStack) -> LogReader: ...

    @abstractmethod
    async def lost_writer(self, ends: AsyncExitStack) -> LogWriter:
        """One that nobody answers."""

    @abstractmethod
    def kill(self) -> None:
        """kill -9 of all that keeps the log."""

    @abstractmethod
    async def come_back(self) -> None:
        """Start again; it may take a while until it answers."""

    @abstractmethod
    def freeze(self) -> None:
        """What takes appends stands still."""

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    async def fall_silent(self) -> None:
        """No reader gets an answer."""

    @abstractmethod
    async def speak_again(self) -> None: ...

    @abstractmethod
    async def forget(self, topic: str, part: int, before: int) -> None:
        """What is below the offset is kept no more."""


class EmbeddedLog(RunningLog):
    """A gateway with a Postgres: ingest's writer over mTLS, the consumer's reader in the database."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._postgres = PostgresServer(folder)
        self._gateways: Gateways | None = None
        self._url = ""

    def start(self) -> None:
        asyncio.run(self._postgres.start())
        # As on a site where the gateway's role owns nothing.
        name = self._postgres.create_database(owner=OWNER)
        self._url = self._postgres.url(name)
        asyncio.run(schema.put(self._url, self._postgres.owner_url(name), migrate.load()))
        settings = {"log": {"kind": "table"}, "consumer": "apart"}
        self._gateways = Gateways(self._folder, settings=settings, database_url=self._url)
        self._gateways.start()
        keyring = load_keyring(self._folder / "keys", time.time())
        issue_ingest_certificate(keyring, "ingest-a", self._folder / "ingest", time.time())

    def close(self) -> None:
        if self._gateways is not None:
            self._gateways.close()
        self._postgres.stop()

    def logs(self) -> str:
        return "" if self._gateways is None else self._gateways.logs()

    @property
    def gateways(self) -> Gateways:
        assert self._gateways is not None, "started"
        return self._gateways

    async def new_writer(self, ends: AsyncExitStack, append_s: float) -> LogWriter:
        return self._writer(self.gateways.ports[0].internal, ends, append_s)

    async def lost_writer(self, ends: AsyncExitStack) -> LogWriter:
        return self._writer(free_port(), ends, GIVE_UP_S)

    def api(self, port: int, call_s: float = GIVE_UP_S) -> InternalApi:
        folder = self._folder / "ingest"
        return InternalApi(
            f"https://localhost:{port}",
            folder / "internal_ca.crt",
            folder / "ingest.crt",
            folder / "ingest.key",
            call_s=call_s,
        )

    def _writer(self, port: int, ends: AsyncExitStack, append_s: float) -> LogWriter:
        http = InternalHttp(self.api(port, append_s))
        ends.callback(http.close)
        return GatewayWriter(http)

    async def database(self, ends: AsyncExitStack) -> Database:
        database = Database(self._url, pool_max=4, wall=time.time)
        await database.open()
        ends.push_async_callback(database.close)
        database.prepared = True
        return database

    async def new_reader(self, ends: AsyncExitStack) -> LogReader:
        database = await self.database(ends)
        shortlived = PostgresShortLived(database)
        tasks = TaskOwner("wakes")
        tasks.start(shortlived.run(), "run")
        tasks.start(probe(database), "probe")
        ends.push_async_callback(shortlived.close)
        ends.push_async_callback(tasks.close, 5.0)
        return TableReader(database, shortlived)

    def kill(self) -> None:
        self.gateways.processes.kill("gateway-0")
        self._postgres.kill()

    async def come_back(self) -> None:
        await self._postgres.start()
        self.gateways.processes.again("gateway-0")

    def freeze(self) -> None:
        self.gateways.processes.signal("gateway-0", signal.SIGSTOP)

    def thaw(self) -> None:
        self.gateways.processes.signal("gateway-0", signal.SIGCONT)

    async def fall_silent(self) -> None:
        self._postgres.kill()

    async def speak_again(self) -> None:
        await self._postgres.start()

    async def forget(self, topic: str, part: int, before: int) -> None:
        async with AsyncExitStack() as ends, (await self.database(ends)).transaction() as tx:
            await tx.execute(
                'DELETE FROM log_records WHERE topic = $1 AND part = $2 AND "offset" < $3',
                topic,
                part,
                before,
            )


class KafkaLog(RunningLog):
    """Kafka, in topics of one prefix."""

    def __init__(self, server: KafkaServer, prefix: str) -> None:
        super().__init__()
        self._server = server
        self.address = server.address(prefix)

    async def new_writer(self, ends: AsyncExitStack, append_s: float) -> LogWriter:
        return KafkaWriter(self.address, append_s=append_s)

    async def lost_writer(self, ends: AsyncExitStack) -> LogWriter:
        return KafkaWriter(KafkaAddress((f"{LOOPBACK}:{free_port()}",)), append_s=GIVE_UP_S)

    async def new_reader(self, ends: AsyncExitStack) -> LogReader:
        return KafkaReader(self.address, silent_s=SILENT_S)

    def kill(self) -> None:
        self._server.kill()

    async def come_back(self) -> None:
        self._server.begin()

    def freeze(self) -> None:
        self._server.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.send(signal.SIGCONT)

    async def fall_silent(self) -> None:
        self.freeze()

    async def speak_again(self) -> None:
        self.thaw()

    async def forget(self, topic: str, part: int, before: int) -> None:
        admin = AIOKafkaAdminClient(**self.address.options())
        await admin.start()
        try:
            place = TopicPartition(self.address.name(topic), part)
            await admin.delete_records({place: RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()


async def probe(database: Database) -> None:
    """As each gateway does: without it nobody gets to a database that was away."""
    while True:
        try:
            async with database.transaction(probe=True) as tx:
                await tx.fetchval("SELECT 1")
        except StoreUnavailableError:
            await asyncio.sleep(PAUSE_S)
        else:
            await asyncio.sleep(4 * PAUSE_S)


@asynccontextmanager
async def silent(log: RunningLog) -> AsyncIterator[None]:
    await log.fall_silent()
    try:
        yield
    finally:
        await log.speak_again()


@asynccontextmanager
async def frozen(log: RunningLog) -> AsyncIterator[None]:
    log.freeze()
    try:
        yield
    finally:
        log.thaw()


async def until_available(call: object) -> None:
    """Again and again until it answers, as everybody who uses a log does."""
    assert callable(call)
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                await call()
                return
            except LogUnavailableError:
                await asyncio.sleep(PAUSE_S)


async def append_surely(writer: LogWriter, topic: str, part: int, entries: Sequence[Entry]) -> int:
    """As a bridge whose devices send again: until it is known that the log has them."""
    async with asyncio.timeout(BACK_S):
        while True:
            try:
                return await writer.append(topic, part, entries)
            except LogUnavailableError:
                await asyncio.sleep(PAUSE_S)


async def read_all(reader: LogReader, topic: str, part: int, first: int, *, most: int = 500) -> list[Record]:
    """From this offset to what is the end now."""
    async with asyncio.timeout(BACK_S):
        end = await _end(reader, topic, part)
        found: list[Record] = []
        while first + len(found) < end:
            try:
                found += await reader.read({(topic, part): first + len(found)}, most=most, wait_s=1.0)
            except LogUnavailableError:
                await asyncio.sleep(PAUSE_S)
    return found


async def _end(reader: LogReader, topic: str, part: int) -> int:
    while True:
        try:
            return (await reader.ends(topic))[part]
        except LogUnavailableError:
            await asyncio.sleep(PAUSE_S)


def entry(value: bytes, key: bytes = b"d_aaaaaaaaaaaaaaaa") -> Entry:
    return Entry(key, value, int(time.time() * 1000))


def numbered(numbers: Sequence[int]) -> list[Entry]:
    return [entry(b"%d" % number) for number in numbers]


def numbers_of(records: Sequence[Record]) -> list[int]:
    return [int(one.entry.value) for one in records]
