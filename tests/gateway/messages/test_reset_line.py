"""A device whose line stands beyond its numbers: an operator lets it begin anew, and that is on record."""

from __future__ import annotations

from pathlib import Path

from device_protocol.numbers import Number
from gateway.policy.messages import BOOTS_AHEAD_MAX
from gateway.reset_line import reset
from gateway.store import messages
from runtime.clock import FakeClock
from tests.gateway.messages.site import Site
from tests.gateway.world import settings_for


async def test_a_muted_device_is_heard_again(
    site: Site, tmp_path: Path, database_url: str, keys_dir: Path
) -> None:
    pump = await site.device()
    process = await site.process()
    await site.says(pump)
    await process.store()
    async with site.database.transaction() as tx:
        await messages.put_lines(tx, {pump.id: Number(1, 2**40)})
        await tx.execute("UPDATE device_states SET seq = $2 WHERE device_id = $1", pump.id, 2**40)
    pump.floor = Number(1, 1)
    await site.says(pump)
    await process.store()
    assert await site.history(pump) == [(1, 1)], "muted"
    told = await reset(settings_for(tmp_path, database_url, keys_dir), pump.id)
    assert told is not None
    assert f"boot 1, message {2**40}" in told
    pump.floor = Number(1, 2)  # the bridge had it in the log
    await site.says(pump)
    await site.says(pump)
    await process.store()
    assert await site.history(pump) == [(1, 1), (1, 3), (1, 4)]
    [row] = await site.rows("SELECT seq FROM device_states WHERE device_id = $1", pump.id)
    assert row["seq"] == 4
    [line] = await site.rows("SELECT record FROM audit_events WHERE kind = 'device.line_reset'")
    assert f'"seq":{2**40}' in line["record"]


async def test_it_is_heard_at_whatever_boot_it_is_and_nothing_is_missing_of_it(
    site: Site, tmp_path: Path, database_url: str, keys_dir: Path
) -> None:
    """Nothing is known of it then, so there is nothing that its boot could be too far ahead of."""
    pump = await site.device()
    process = await site.process()
    pump.boot = BOOTS_AHEAD_MAX + 4_464
    async with site.database.transaction() as tx:
        await messages.put_lines(tx, {pump.id: Number(pump.boot, 2**40)})
    await site.says(pump)
    await process.store()
    assert await site.history(pump) == [], "muted"
    assert await reset(settings_for(tmp_path, database_url, keys_dir), pump.id) is not None
    pump.floor = Number(pump.boot, 1)
    await site.append([pump.says(), pump.says()])
    await process.store()
    assert await site.history(pump) == [(pump.boot, 2), (pump.boot, 3)]
    assert await site.rows("SELECT 1 FROM dead_letters") == []
    assert "towline_gateway_missing_total 0" in site.registry.render().decode()


async def test_of_a_device_that_there_is_not_nothing_is_done(
    site: Site, tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    assert await reset(settings_for(tmp_path, database_url, keys_dir), "d_none") is None
    assert await site.rows("SELECT 1 FROM audit_events WHERE kind = 'device.line_reset'") == []
