"""The consumer on a real Kafka: killed while it writes, beside requests, and what it says of its lag."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gateway.messages.consumer import Consumer
from gateway.messages.settings import LogSettings
from runtime.clock import SYSTEM_CLOCK
from runtime.event_log.interface import PARTS, UP, Entry, part_of
from runtime.event_log.kafka import KafkaReader, KafkaWriter
from testbed.kafka import KafkaServer
from testbed.ops import is_ready, metric
from testbed.ports import LOOPBACK, free_port
from testbed.processes import Processes, short_folder
from testbed.settings_tables import GatewayPorts, gateway_table, write_table
from tests.gateway.messages.site import Owner, Site, held, waits
from tests.gateway.messages.talkers import Talker
from tests.gateway.world import World, settings_for

with_kafka = pytest.mark.xdist_group("kafka")
CONSUMER = "consumer"
READY_S = 60.0


@dataclass
class Kafka:
    """Topics of this test's own."""

    server: KafkaServer
    prefix: str
    writer: KafkaWriter

    async def append(self, entries: Iterable[Entry]) -> None:
        parts: dict[int, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(part_of(entry.key, PARTS[UP]), []).append(entry)
        for part, some in parts.items():
            await self.writer.append(UP, part, some)

    def reader(self) -> KafkaReader:
        return KafkaReader(self.server.address(self.prefix))

    @property
    def settings(self) -> LogSettings:
        return LogSettings(kind="kafka", servers=(f"{LOOPBACK}:{self.server.port}",), prefix=self.prefix)


@pytest.fixture
async def in_kafka(kafka: KafkaServer) -> AsyncIterator[Kafka]:
    prefix = f"c{secrets.token_hex(4)}"
    writer = KafkaWriter(kafka.address(prefix))
    await writer.start()
    yield Kafka(kafka, prefix, writer)
    await writer.close()


class Apart:
    """`python -m gateway consume`, as it runs in production."""

    def __init__(self, folder: Path, url: str, log: Kafka) -> None:
        self.processes = Processes(folder)
        self.ops = free_port()
        table = gateway_table(
            folder,
            GatewayPorts.free(),
            public_url="http://localhost",
            database_url=url,
            tunnel_urls=["wss://localhost:8082/tunnel"],
            log={"kind": "kafka", "servers": list(log.settings.servers), "prefix": log.prefix},
            consumer="apart",
            consumer_ops_listen=f"{LOOPBACK}:{self.ops}",
        )
        self._config = write_table(folder / "gateway.toml", table)

    def begin(self) -> None:
        if CONSUMER in self.processes:
            self.processes.again(CONSUMER)
        else:
            self.processes.run(
                CONSUMER, [sys.executable, "-m", "gateway", "consume", "--config", str(self._config)]
            )

    def ready(self) -> None:
        self.processes.wait_ready(CONSUMER, lambda: is_ready(self.ops), READY_S)


KILLS: list[tuple[str, str]] = [
    # The history is written; the latest state is not, and nothing is committed.
    ("LOCK TABLE device_states IN SHARE MODE", "relation"),
    # It has asked for the commit, which will happen, and never hears of it.
    ("SELECT pg_advisory_xact_lock(42)", "advisory"),
]


@with_kafka
async def test_killed_between_write_and_commit_it_stores_each_message_once(
    live_site: Site, owner: Owner, in_kafka: Kafka
) -> None:
    """Kafka is told nothing by consumers: where to go on stands in the same transaction as the rows."""
    site = live_site
    await owner.execute(
        "CREATE FUNCTION stand() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER stand AFTER INSERT OR UPDATE ON device_lines DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION stand()"
    )
    pumps = [await site.device() for _ in range(6)]
    with short_folder("kafka-") as folder:
        apart = Apart(folder, site.url, in_kafka)
        try:
            apart.begin()
            apart.ready()
            for statement, lock in KILLS:
                async with held(owner, statement):
                    await in_kafka.append(pump.says() for _ in range(10) for pump in pumps)
                    await site.until(partial(waits, site, lock))
                    apart.processes.kill(CONSUMER)
                apart.begin()
                await everything(site, pumps)
            # And wherever it happens to be.
            await in_kafka.append(pump.says() for _ in range(100) for pump in pumps)
            apart.processes.kill(CONSUMER)
            apart.begin()
            await everything(site, pumps)
            apart.ready()
            await site.until(lambda: _is(metric(apart.ops, "towline_gateway_log_lag") == 0))
            assert metric(apart.ops, "towline_gateway_missing_total ") == 0
        finally:
            apart.processes.close()
    assert not await site.rows("SELECT 1 FROM dead_letters")


async def everything(site: Site, pumps: list[Talker]) -> None:
    """Once, in order."""

    async def there() -> bool:
        [row] = await site.rows("SELECT count(*) FROM device_history")
        return bool(row["count"] >= sum(pump.seq for pump in pumps))

    await site.until(there, READY_S)
    for pump in pumps:
        assert await site.history(pump) == [(1, n) for n in range(1, pump.seq + 1)]


async def _is(value: bool) -> bool:
    return value


@with_kafka
async def test_requests_do_not_wait_for_a_database_that_is_slow_to_store(
    live_site: Site,
    owner: Owner,
    in_kafka: Kafka,
    tmp_path: Path,
    keys_dir: Path,
    figures: Callable[[str, str], None],
) -> None:
    """The consumer inside the gateway, which is the harder case: each of its statements takes seconds."""
    await owner.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON device_history FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    settings = settings_for(tmp_path, live_site.url, keys_dir, log=in_kafka.settings, database_pool_max=2)
    world = World(settings, SYSTEM_CLOCK, tmp_path)
    try:
        await (await world.start()).prepared()
        person = await world.person()
        device = await world.enrol(person)
        pump = await live_site.device()
        await in_kafka.append(pump.says() for _ in range(400))  # sixteen seconds, and what tests add
        await live_site.until(lambda: sleeps(live_site))
        times = []
        for n in range(150):
            path = ("", "/state", "/history")[n % 3]
            began = time.perf_counter()
            answer = await person.get(f"/v1/devices/{device.id}{path}")
            times.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            if not await sleeps(live_site):
                break
        # All of these while one statement of the consumer went on: none waited for it.
        assert len(times) > 50
        p99_s = sorted(times)[int(len(times) * 0.99)]
        figures("API p99 while storing takes 40 ms a message", f"{p99_s * 1000:.0f} ms of {len(times)}")
        assert p99_s < 2.0
        await live_site.until(lambda: _all_of(live_site, pump), READY_S)
    finally:
        await world.close()


async def _all_of(site: Site, pump: Talker) -> bool:
    return len(await site.history(pump)) == pump.seq


async def sleeps(site: Site) -> bool:
    """Somebody is in the middle of a COPY."""
    return bool(
        await site.rows("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'")
    )


async def test_lag_and_age_in_the_embedded_log(live_site: Site, owner: Owner) -> None:
    consumer = await live_site.consumer()
    await lag_and_age(live_site, owner, consumer, live_site.append)


@with_kafka
async def test_lag_and_age_in_kafka(live_site: Site, owner: Owner, in_kafka: Kafka) -> None:
    await lag_and_age(live_site, owner, await live_site.consumer(in_kafka.reader), in_kafka.append)


async def lag_and_age(
    site: Site, owner: Owner, consumer: Consumer, append: Callable[[Iterable[Entry]], Awaitable[None]]
) -> None:
    """Postgres holds the writing up: what came half a minute ago and is not stored is so old, and older."""
    pump, fan = await site.device(), await site.device()
    site.run(consumer)
    await append([pump.says(), fan.says()])

    def shown(name: str) -> float:
        start = f'towline_gateway_{name}{{topic="up"}}'
        lines = [line for line in site.registry.render().decode().splitlines() if line.startswith(start)]
        return float(lines[0].split()[-1]) if lines else -1.0

    def says(lag: int, age_s: float) -> Callable[[], Awaitable[bool]]:
        return lambda: _is(shown("log_lag") == lag and shown("log_age_seconds") >= age_s)

    await site.until(lambda: _all_of(site, fan))
    await site.until(lambda: _is(shown("log_lag") == 0 == shown("log_age_seconds")))
    async with held(owner, "LOCK TABLE device_lines IN EXCLUSIVE MODE"):
        pump.now_ms = int(time.time() * 1000) - 30_000
        await append([pump.says() for _ in range(3)])
        await site.until(says(3, 31))
        assert shown("log_age_seconds") <= time.time() - pump.now_ms / 1000
        fan.now_ms = int(time.time() * 1000)
        await append([fan.says()])  # a newer one makes it no younger
        await site.until(says(4, 32))
    await site.until(lambda: _is(shown("log_lag") == 0 == shown("log_age_seconds")))
    assert await site.history(pump) == [(1, n) for n in range(1, 5)]
