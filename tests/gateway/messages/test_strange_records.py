"""Records in the log that no ingest of ours wrote: each costs itself at most, and what it was is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.messages import batch as batches
from gateway.messages import blame as blames
from gateway.policy import messages as policy
from runtime.event_log import headers
from runtime.event_log.interface import UP, Record
from tests.gateway.messages.site import Process, Site
from tests.gateway.messages.talkers import Talker

Header = tuple[str, Any]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that waits tries again at once."""
    monkeypatch.setattr(batches, "RETRY_MAX_S", 0.1)


async def stores(site: Site, process: Process, strange: Talker, **changes: Any) -> None:
    """All that the log has; of that device's records something is as `changes` says."""
    at = process.leases.of([UP])
    records = [
        one._replace(entry=one.entry._replace(**changes)) if one.entry.key == strange.id.encode() else one
        for one in await site.reads(at)
    ]
    await asyncio.wait_for(process.batches.take(records, at), 20)


async def letters(site: Site) -> list[tuple[str, str, str, str | None]]:
    rows = await site.rows("SELECT reason, detail, topic, device_id FROM dead_letters ORDER BY n")
    return [tuple(row) for row in rows]


async def two(site: Site) -> tuple[Process, Talker, Talker]:
    """What stores, one device with a strange record, and one with three good ones around it."""
    strange, pump = await site.device(), await site.device()
    await site.append([pump.says(), strange.says(), pump.says(), pump.says()])
    return await site.process(), strange, pump


@pytest.mark.parametrize(
    "found",
    [
        ((headers.TOPIC, None),),
        ((headers.TOPIC, b"a/b"), (headers.DEAD, b"bad_json"), (headers.DETAIL, None)),
    ],
)
async def test_one_that_cannot_be_read_is_a_letter_of_nothing_but_its_bytes(
    site: Site, found: tuple[Header, ...]
) -> None:
    process, strange, pump = await two(site)
    await stores(site, process, strange, headers=found)
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    assert await letters(site) == [("store_refused", "TypeError", "", None)]
    [row] = await site.rows("SELECT body FROM dead_letters")
    assert strange.id.encode() not in row["body"]
    assert b'"seq":1' in row["body"]


async def test_one_of_which_no_letter_can_be_made_is_its_bytes_too(site: Site) -> None:
    """Here the letter's size is what cannot be had."""
    process, strange, pump = await two(site)
    found = ((headers.TOPIC, b"no topic"), (headers.SIZE, None))
    await stores(site, process, strange, headers=found)
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    assert await letters(site) == [("store_refused", "AttributeError", "", None)]


@pytest.mark.parametrize("at_ms", [-(10**17), -1, 10**17, None])
async def test_a_time_that_there_is_not_stalls_nobody(site: Site, at_ms: int | None) -> None:
    process, strange, pump = await two(site)
    await stores(site, process, strange, at_ms=at_ms)
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    kept = [reason for reason, *_ in await letters(site)]
    later = at_ms == 10**17  # of a clock that is ahead: it came now
    assert kept == ([] if later else ["store_refused" if at_ms is None else "time_out_of_range"])
    assert await site.history(strange) == ([(1, 1)] if later else [])


async def test_of_a_defect_that_trips_at_every_record_a_few_are_put_away_and_the_rest_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an alarm, until a mended release comes; also where they are more than may be, in one batch."""
    monkeypatch.setattr(blames, "DEFECTS_MAX", 2)
    pump = await site.device()
    process = await site.process()
    await site.says(pump)
    await process.store()
    at = process.leases.of([UP])
    for _ in range(4):
        pump.floor = pump.prev  # it was told of each
        await site.says(pump)

    def spoilt(record: Record) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(policy, "read", spoilt)
        with pytest.raises(ZeroDivisionError):
            await process.store()
    assert "towline_gateway_log_stuck 1" in site.registry.render().decode()
    assert await letters(site) == [("store_refused", "ZeroDivisionError", "", None)] * 2
    assert [new - at[part] for part, new in process.leases.of([UP]).items() if new != at[part]] == [2]
    await process.store()
    assert await site.history(pump) == [(1, 1), (1, 4), (1, 5)]
    text = site.registry.render().decode()
    assert "towline_gateway_missing_total 1" in text, "what was put away without its number"
    assert "towline_gateway_log_stuck 0" in text
