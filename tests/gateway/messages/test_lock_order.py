"""What is in line, and hello and ack, are written at once, of the same devices: nobody waits in a ring."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from device_protocol.bodies import CONFIG_TYPE, Reported
from device_protocol.topics import Kind
from gateway.messages.batch import Batches
from gateway.policy.configuration import name_of
from gateway.store import configurations
from runtime.event_log.interface import CONTROL, UP
from tests.gateway.messages.site import DAYS, Owner, Process, Site, held, waits

BODY = {"log_level": "debug"}


# What the batch in line writes late, and what it writes early.
@pytest.mark.parametrize("table", ["device_boots", "device_connections", "device_states"])
async def test_readings_and_a_hello_of_one_device_never_wait_for_each_other(
    site: Site, owner: Owner, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    """As when a restarted device comes back: it greets, reports its configuration and lives. Postgres ends a
    ring by refusing one of the two.
    """
    pump = await site.device()
    await site.says(pump, Kind.HELLO)
    up = await site.process()
    control = Batches(
        up.batches._database, up.leases, up.greeter, site.clock, site.metrics, history_days=DAYS
    )
    hellos = Process(site, up.leases, up.greeter, control)
    assert await hellos.store(CONTROL) == 1
    async with site.database.transaction() as tx:
        await configurations.put(tx, pump.id, site.place.site, BODY, "owner")
    pump.reboot()
    pump.now_ms += 1000
    report = Reported(version=1, sha256=name_of(BODY), told=1)
    await site.says(pump, Kind.STATE, type=CONFIG_TYPE, payload=report.dump())
    await site.says(pump, Kind.HEARTBEAT)
    await site.says(pump, Kind.HELLO)
    async with held(owner, f"LOCK TABLE {table} IN SHARE MODE"):
        stored = asyncio.create_task(up.store(UP))
        await site.until(partial(waits, site, "relation"))
        greeted = asyncio.create_task(hellos.store(CONTROL))
        await site.until(partial(_done_or_waiting, site, greeted))
    assert list(await asyncio.wait_for(asyncio.gather(stored, greeted), 20)) == [2, 1]
    assert not [one for one in caplog.messages if "waited for each other" in one]


async def _done_or_waiting(site: Site, task: asyncio.Task[int]) -> bool:
    """Behind the other batch, or behind what keeps that one."""
    [row] = await site.rows("SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted")
    return task.done() or row["waiting"] > 1
