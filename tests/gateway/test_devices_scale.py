"""A page of devices reads about a page of rows, however many devices there are: by its plan, not by time."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway.randomness import new_device_id
from gateway.store import devices, places
from gateway.store.devices import LISTED_MAX, Wanted
from gateway.store.transaction import Reading, Row, Transaction
from runtime.clock import SYSTEM_CLOCK

SITES = 3  # of the one who asks
OWN = 2000  # devices at each of them
OTHERS = 12_000
NODE = "node-a"


class Explained(Reading):
    """Asks for the plan and what it really read, instead of the rows."""

    plan: dict[str, Any]

    async def fetch(self, query: str, *args: object) -> list[Row]:
        rows = await super().fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *args)
        self.plan = json.loads(rows[0][0])[0]["Plan"]
        return []


class Site:
    """A database with two people's devices, one of whom asks."""

    def __init__(self, connection: asyncpg.Connection[Row], user_id: UUID, sites: list[str]) -> None:
        self.connection = connection
        self.user_id = user_id
        self.sites = sites

    async def plan(self, after: str, wanted: Wanted) -> dict[str, Any]:
        reading = Explained(self.connection, SYSTEM_CLOCK.wall())  # type: ignore[arg-type]
        await devices.list_seen(reading, self.user_id, after, LISTED_MAX, wanted)
        return reading.plan


@pytest.fixture
async def site(owner_url: str) -> AsyncIterator[Site]:
    connection = await asyncpg.connect(owner_url)
    try:
        yield await filled(connection)
    finally:
        await connection.close()


async def filled(connection: asyncpg.Connection[Row]) -> Site:
    tx = Transaction(connection, SYSTEM_CLOCK.wall())  # type: ignore[arg-type]
    await connection.execute(
        "INSERT INTO nodes (name, boot, last_heartbeat) VALUES ($1, 'b', $2)", NODE, in_an_hour()
    )
    user_id, others = [await add_person(tx, name) for name in ("asks", "another")]
    org_id = await tx.fetchval("SELECT org_id FROM memberships WHERE user_id = $1", user_id)
    sites = [await tx.fetchval("SELECT id FROM sites WHERE org_id = $1", org_id)]
    for _ in range(SITES - 1):
        sites.append(f"s_{new_device_id()[2:]}")
        await tx.execute(
            "INSERT INTO sites (id, org_id, name, created_at) VALUES ($1, $2, 'More', $3)",
            sites[-1],
            org_id,
            tx.at,
        )
    for one in sites:
        await add_devices(connection, one, OWN)
    other = await tx.fetchval("SELECT site_id FROM site_roles WHERE user_id = $1", others)
    await add_devices(connection, other, OTHERS)
    await connection.execute("ANALYZE")
    return Site(connection, user_id, sites)


async def add_person(tx: Transaction, name: str) -> UUID:
    user_id = uuid4()
    await tx.execute("INSERT INTO users (id, username, created_at) VALUES ($1, $2, $3)", user_id, name, tx.at)
    await places.add_home(tx, user_id, name)
    return user_id


async def add_devices(connection: asyncpg.Connection[Row], site_id: str, number: int) -> None:
    now = datetime.now(UTC)
    ids = [new_device_id() for _ in range(number)]
    await connection.copy_records_to_table(
        "devices",
        columns=(
            *("id", "site_id", "name", "hardware_id", "status", "public_key", "key_id", "software"),
            *("services", "created_at"),
        ),
        records=[
            (
                one,
                site_id,
                one,
                one,
                "approved",
                secrets.token_bytes(91),
                secrets.token_bytes(16),
                "s",
                "[]",
                now,
            )
            for one in ids
        ],
    )
    await connection.copy_records_to_table(
        "tunnels",
        columns=("node", "device_id", "instance", "connection", "connected_at"),
        records=[(NODE, one, b"i", 1, now) for one in ids],
    )


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every step of the plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def read_rows(step: dict[str, Any]) -> float:
    """What a step read of its table, together with what it threw away."""
    each = step["Actual Rows"] + sum(
        step.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Join Filter")
    )
    return float(each * step["Actual Loops"])


PAGES = {
    "the first page": ("", Wanted()),
    "in the middle": ("d_n", Wanted()),
    "who is online": ("", Wanted(online=True)),
    "by status": ("", Wanted(status="approved")),
}


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_page_reads_about_a_page_of_devices(site: Site, mode: str) -> None:
    """Neither the rest of one's own devices nor anybody else's, and nothing sorts more than a page a site."""
    await site.connection.execute(f"SET plan_cache_mode = {mode}")
    pages = {**PAGES, "of one site": ("", Wanted(site_id=site.sites[1]))}
    for name, (after, wanted) in pages.items():
        of = 1 if wanted.site_id else SITES
        plan = await site.plan(after, wanted)
        scans = [step for step in nodes(plan) if step.get("Relation Name") == "devices"]
        assert sum(map(read_rows, scans)) <= of * LISTED_MAX, (name, plan)
        for step in nodes(plan):
            if step["Node Type"] in {"Sort", "Incremental Sort"}:
                below = step["Plans"][0]
                assert below["Actual Rows"] * below["Actual Loops"] <= of * LISTED_MAX, (name, plan)
        assert plan["Actual Rows"] == LISTED_MAX, name


async def test_the_order_within_a_site_comes_from_the_index(site: Site) -> None:
    plan = await site.plan("d_c", Wanted(site_id=site.sites[0]))
    [found] = [step for step in nodes(plan) if step.get("Index Name") == "devices_site"]
    assert found["Actual Rows"] * found["Actual Loops"] == LISTED_MAX
    above = [step for step in nodes(plan) if found in step.get("Plans", ())]
    assert [step["Node Type"] for step in above] == ["Limit"]
