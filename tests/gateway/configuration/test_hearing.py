"""What the consumer of the log makes of reports and hellos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from device_protocol.bodies import CONFIG_TYPE, Reported
from device_protocol.topics import Kind
from gateway.policy.configuration import name_of
from gateway.store import configurations
from runtime.clock import FakeClock
from runtime.event_log.interface import CONTROL, UP
from tests.gateway.messages.site import Site
from tests.gateway.messages.talkers import Talker, hello

BODY = {"log_level": "debug"}
NAME = name_of(BODY)


@pytest.fixture
async def site(database_url: str, clock: FakeClock) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        yield await Site(database_url, clock, stack).open()


async def configured(site: Site) -> Talker:
    """A device of which version 1 is wanted."""
    pump = await site.device()
    async with site.database.transaction() as tx:
        await configurations.put(tx, pump.id, site.place.site, BODY, "owner")
    return pump


async def reports(site: Site, pump: Talker, **said: Any) -> None:
    await site.says(pump, Kind.STATE, type=CONFIG_TYPE, payload=Reported(**said).dump())


async def is_due(site: Site, pump: Talker) -> bool:
    async with site.database.reading() as tx:
        head = await configurations.head(tx, pump.id)
    assert head is not None
    return head.told_again_at is not None


async def test_a_report_is_kept_beside_the_state_and_settles_what_was_told(site: Site) -> None:
    pump = await configured(site)
    await site.says(pump, Kind.STATE, payload={"door": "open"})
    await reports(site, pump, version=None, told=None)
    await (await site.process()).store(UP)
    assert await is_due(site, pump)
    await reports(site, pump, version=1, sha256=NAME, told=1)
    await (await site.process()).store(UP)
    assert not await is_due(site, pump)
    async with site.database.reading() as tx:
        found = await configurations.reported(tx, pump.id, site.place.site)
        told = await tx.fetch("SELECT device_id FROM events WHERE kind = 'configuration.changed'")
    assert found is not None
    assert found.reported == Reported(1, NAME, told=1)
    assert [row["device_id"] for row in told] == [pump.id] * len(told)
    assert told
    kinds = await site.rows("SELECT kind, body FROM device_states WHERE device_id = $1", pump.id)
    assert {row["kind"]: row["body"] for row in kinds}["state"] == {"door": "open"}


async def test_of_several_reports_in_one_batch_the_last_counts(site: Site) -> None:
    pump = await configured(site)
    await reports(site, pump, version=1, sha256=NAME, told=1)
    await reports(site, pump, version=None, told=1, error="not taken")
    await (await site.process()).store(UP)
    async with site.database.reading() as tx:
        found = await configurations.reported(tx, pump.id, site.place.site)
    assert found is not None
    assert found.reported.error == "not taken"
    assert not await is_due(site, pump)


async def test_a_hello_with_another_version_is_told_and_one_with_it_is_not(site: Site) -> None:
    pump = await configured(site)
    await reports(site, pump, version=1, sha256=NAME, told=1)
    await (await site.process()).store(UP)
    await site.says(pump, Kind.HELLO, payload=hello(pump) | {"config": 1})
    await (await site.process()).store(CONTROL)
    assert not await is_due(site, pump)
    for other in (None, 0, 7):
        await site.says(pump, Kind.HELLO, payload=hello(pump) | {"config": other})
        await (await site.process()).store(CONTROL)
        assert await is_due(site, pump)
        await reports(site, pump, version=other, told=1)
        await (await site.process()).store(UP)
        assert not await is_due(site, pump)


async def test_a_will_and_who_was_never_configured_change_nothing(site: Site) -> None:
    pump, other = await configured(site), await site.device()
    await reports(site, pump, version=1, sha256=NAME)
    await (await site.process()).store(UP)
    await site.says(pump, Kind.HELLO, payload={"gone": True, "instance": "instance-1"})
    await site.says(other, Kind.HELLO)
    await reports(site, other, version=4, sha256=NAME, told=4)
    await (await site.process()).store(CONTROL)
    await (await site.process()).store(UP)
    assert not await is_due(site, pump)
    async with site.database.reading() as tx:
        assert await configurations.head(tx, other.id) is None
        assert await configurations.reported(tx, other.id, site.place.site) is not None
