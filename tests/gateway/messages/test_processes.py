"""The consumer where it runs: in the gateway, and in a process apart."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from gateway.consume import ConsumerProcess
from gateway.messages.settings import LogSettings
from gateway.store.transaction import Row
from runtime.clock import SYSTEM_CLOCK
from runtime.settings import SettingsError
from tests.gateway.messages.site import Site
from tests.gateway.world import World, settings_for

TABLE = LogSettings(kind="table")


async def has(site: Site, count: int) -> None:
    async def there() -> bool:
        [row] = await site.rows("SELECT count(*) FROM device_history")
        return bool(row["count"] == count)

    await site.until(there)


async def test_the_gateway_stores_what_the_log_has(
    live_site: Site, tmp_path: Path, database_url: str, keys_dir: Path
) -> None:
    pump = await live_site.device()
    world = World(settings_for(tmp_path, database_url, keys_dir, log=TABLE), SYSTEM_CLOCK, tmp_path)
    try:
        await (await world.start()).prepared()
        await live_site.append([pump.says() for _ in range(3)])
        await has(live_site, 3)
    finally:
        await world.close()
    # It ended in peace: another need not wait.
    assert not await live_site.rows("SELECT 1 FROM log_positions WHERE owner IS NOT NULL")
    assert not await live_site.rows("SELECT 1 FROM log_consumers")


async def test_a_process_apart_stores_it_and_the_gateway_leaves_it_alone(
    live_site: Site, tmp_path: Path, database_url: str, keys_dir: Path
) -> None:
    settings = settings_for(
        tmp_path, database_url, keys_dir, log=TABLE, consumer="apart", consumer_ops_listen="127.0.0.1:0"
    )
    world = World(settings, SYSTEM_CLOCK, tmp_path)
    process = ConsumerProcess(settings)
    pump = await live_site.device()
    try:
        await (await world.start()).prepared()
        await live_site.append([pump.says()])
        assert world.gateway.storing is None
        assert process.failed_checks() == ["schema"]
        await process.start()
        await has(live_site, 1)
        assert process.failed_checks() == []
        assert "towline_gateway_history_rows_total 1" in process.registry.render().decode()
    finally:
        await process.close()
        await world.close()


def test_what_a_process_apart_has_nothing_to_do_with(tmp_path: Path) -> None:
    off = settings_for(tmp_path, "postgresql://x", tmp_path, consumer="apart")
    inside = settings_for(tmp_path, "postgresql://x", tmp_path, log=TABLE)
    for settings, field in ((off, "log.kind"), (inside, "consumer")):
        with pytest.raises(SettingsError, match=field):
            ConsumerProcess(settings)


def test_a_log_in_kafka_needs_to_be_named() -> None:
    with pytest.raises(ValueError, match="servers"):
        LogSettings(kind="kafka")
    with pytest.raises(ValueError, match="key"):
        LogSettings(kind="kafka", servers=("kafka:9092",), certificate=Path("client.crt"))
    with pytest.raises(ValueError, match="ca"):
        LogSettings(kind="kafka", servers=("kafka:9092",), certificate=Path("a.crt"), key=Path("a.key"))


async def test_requests_do_not_wait_for_a_batch_that_waits(
    live_site: Site,
    owner: asyncpg.Connection[Row],
    tmp_path: Path,
    database_url: str,
    keys_dir: Path,
) -> None:
    """It has connections of its own: more requests than the API has connections go on beside it."""
    settings = settings_for(tmp_path, database_url, keys_dir, log=TABLE, database_pool_max=2)
    world = World(settings, SYSTEM_CLOCK, tmp_path)
    holding = owner.transaction()
    try:
        await (await world.start()).prepared()
        person = await world.person()
        device = await world.enrol(person)
        await holding.start()
        await owner.execute("LOCK TABLE device_lines IN EXCLUSIVE MODE")
        pumps = [await live_site.device() for _ in range(20)]
        await live_site.append([pump.says() for pump in pumps])
        await live_site.until(lambda: waits(live_site))
        for path in ("", "/state", "/history", "/history?key=temperature&step_s=60"):
            for _ in range(5):
                answer = await person.get(f"/v1/devices/{device.id}{path}")
                assert answer.status_code == 200, answer.text
        assert await waits(live_site)
        await holding.rollback()
        await has(live_site, 20)
    finally:
        await world.close()


async def waits(site: Site) -> bool:
    """A batch stands before the lock."""
    return bool(
        await site.rows("SELECT 1 FROM pg_locks WHERE relation = 'device_lines'::regclass AND NOT granted")
    )
