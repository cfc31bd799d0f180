"""Configurations as rows: a device's versions, which one it should run with, whether it is to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from device_protocol.bodies import CONFIG_TYPE, Reported
from device_protocol.topics import Kind, Topic
from gateway.policy import configuration as policy
from gateway.store.commands import CLAIMED_MAX, DUE_CHANNEL, LEASE_S
from gateway.store.transaction import Reading, Row, Transaction, unix, utc

VERSIONS_KEPT: Final = 100
"""Of a device: to look back at, and to go back to. The newest are kept; numbers are never given again."""


@dataclass(frozen=True, slots=True)
class Version:
    """What somebody set."""

    version: int
    body: dict[str, Any]
    sha256: str
    author: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Head:
    """A device's newest version, wherever it was set. Times in Unix seconds."""

    version: int
    site_id: str
    sent_at: float | None
    """When the broker first took it; None: not yet."""
    publishes: int
    told_again_at: float | None
    """None: the device has answered, or is waited for."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the device last said that it runs with."""

    reported: Reported
    at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Order:
    """A configuration that this process is to publish, until `leased_until`."""

    topic: Topic
    version: Version
    leased_until: datetime

    @property
    def device_id(self) -> str:
        return self.topic.device


async def head(tx: Reading, device_id: str) -> Head | None:
    """None: nobody ever set one."""
    row = await tx.fetchrow("SELECT * FROM configuration_heads WHERE device_id = $1", device_id)
    if row is None:
        return None
    return Head(
        row["version"], row["site_id"], _unix(row["sent_at"]), row["publishes"], _unix(row["next_at"])
    )


async def wanted(tx: Reading, device_id: str, site_id: str) -> Version | None:
    """What the device should run with at this site; None: nobody there set it."""
    row = await tx.fetchrow(
        "SELECT c.* FROM configuration_heads h JOIN configurations c USING (device_id, version)"
        " WHERE h.device_id = $1 AND h.site_id = $2",
        device_id,
        site_id,
    )
    return None if row is None else _version(row)


async def reported(tx: Reading, device_id: str, site_id: str) -> Report | None:
    """What it said at this site; None: nothing."""
    row = await tx.fetchrow(
        "SELECT body, at, received_at FROM device_states WHERE device_id = $1 AND site_id = $2 AND kind = $3",
        device_id,
        site_id,
        CONFIG_TYPE,
    )
    return None if row is None else Report(Reported.parse(row["body"]), row["at"], row["received_at"])


async def list_of_device(
    tx: Reading, device_id: str, site_id: str, before: int | None, limit: int
) -> list[Version]:
    """Newest first, below `before`; only those of the site."""
    rows = await tx.fetch(
        "SELECT * FROM configurations WHERE device_id = $1 AND site_id = $2"
        " AND ($3::bigint IS NULL OR version < $3) ORDER BY version DESC LIMIT $4",
        device_id,
        site_id,
        before,
        limit,
    )
    return [_version(row) for row in rows]


async def put(tx: Transaction, device_id: str, site_id: str, body: dict[str, Any], author: str) -> Version:
    """A new version, to be told at once. The caller holds the device: of two writers one comes first."""
    said = await tx.fetchval(
        "SELECT (body ->> 'version')::bigint FROM device_states WHERE device_id = $1 AND kind = $2",
        device_id,
        CONFIG_TYPE,
    )
    newest = await head(tx, device_id)
    version = policy.next_version(0 if newest is None else newest.version, said)
    row = await tx.fetchrow(
        "INSERT INTO configurations (device_id, version, site_id, body, sha256, author, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
        device_id,
        version,
        site_id,
        body,
        policy.name_of(body),
        author,
        tx.at,
    )
    assert row is not None  # RETURNING
    await tx.execute(
        "INSERT INTO configuration_heads (device_id, version, site_id, next_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (device_id) DO UPDATE SET version = $2, site_id = $3, next_at = $4, sent_at = NULL,"
        " publishes = 0, leased_until = NULL",
        device_id,
        version,
        site_id,
        tx.at,
    )
    await tx.execute(
        "DELETE FROM configurations WHERE device_id = $1 AND version <= (SELECT version FROM configurations"
        " WHERE device_id = $1 ORDER BY version DESC OFFSET $2 LIMIT 1)",
        device_id,
        VERSIONS_KEPT,
    )
    tx.wake(DUE_CHANNEL)
    return _version(row)


async def greeted(tx: Transaction, running: Mapping[str, int | None]) -> None:
    """These devices said hello, and with which version they run: who runs with another one is told again, as
    often as `policy.due_at` lets it. What is due and in nobody's hand is told after the hello anyway.
    """
    held = await _hold(tx, running)
    due = {
        row["device_id"]: utc(policy.due_at(_unix(row["greeted_at"]), tx.now))
        for row in held
        if row["version"] != running[row["device_id"]]
    }
    if due:
        await tx.execute(
            "UPDATE configuration_heads h SET publishes = 0, leased_until = NULL, greeted_at = w.at,"
            " next_at = CASE WHEN h.next_at <= $3 AND coalesce(h.leased_until <= $3, true)"
            " THEN h.next_at ELSE w.at END"
            " FROM unnest($1::text[], $2::timestamptz[]) AS w(device_id, at)"
            " WHERE h.device_id = w.device_id",
            list(due),
            list(due.values()),
            tx.at,
        )
        tx.wake(DUE_CHANNEL)


async def answered(tx: Transaction, reports: Mapping[str, Reported]) -> None:
    """These devices said what they run with: who has answered the newest version need not be told again."""
    held = await _hold(tx, reports)
    ids = [row["device_id"] for row in held if policy.answers(reports[row["device_id"]], row["version"])]
    if ids:
        await tx.execute(
            "UPDATE configuration_heads SET next_at = NULL, leased_until = NULL WHERE device_id = ANY($1)",
            ids,
        )


async def claim(tx: Transaction) -> list[Order]:
    """Take what is due for this process alone, for LEASE_S. Who is revoked, or was moved away from where it
    was set, is told nothing any more.
    """
    until = utc(tx.now + LEASE_S)
    rows = await tx.fetch(
        "WITH due AS (SELECT device_id FROM configuration_heads WHERE next_at <= $1"
        " AND (leased_until IS NULL OR leased_until <= $1) ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED),"
        " found AS (SELECT d.id, d.site_id, d.type, s.org_id, d.status = 'approved' AND d.site_id = h.site_id"
        " AS here FROM due JOIN devices d ON d.id = due.device_id JOIN sites s ON s.id = d.site_id"
        " JOIN configuration_heads h USING (device_id)),"
        " claimed AS (UPDATE configuration_heads h SET"
        " next_at = CASE WHEN f.here THEN h.next_at END,"
        " leased_until = CASE WHEN f.here THEN $3::timestamptz END"
        " FROM found f WHERE h.device_id = f.id RETURNING h.device_id, h.version, f.*)"
        " SELECT n.org_id, n.type, c.* FROM claimed n JOIN configurations c USING (device_id, version)"
        " WHERE n.here ORDER BY c.created_at",
        tx.at,
        CLAIMED_MAX,
        until,
    )
    return [
        Order(
            Topic(row["org_id"], row["site_id"], row["type"], row["device_id"], Kind.CONFIG),
            _version(row),
            until,
        )
        for row in rows
    ]


async def published(tx: Transaction, order: Order, *, taken: bool | None) -> None:
    """What became of a publish: taken; False: nobody listened; None: the broker was not reached. Only where
    the lease is still ours: a hello, an answer or a newer version may have come meanwhile.

    Who does not listen says hello when it does; one that passes for connected is tried again all the same.
    """
    row = await tx.fetchrow(
        "SELECT h.*, coalesce(c.online, false) AS online FROM configuration_heads h"
        " LEFT JOIN device_connections c USING (device_id) WHERE device_id = $1 FOR UPDATE OF h",
        order.device_id,
    )
    if row is None or row["version"] != order.version.version:
        return
    sent_at = row["sent_at"] or (tx.at if taken else None)
    publishes = row["publishes"] + (taken is not None)
    again: datetime | None = None
    if taken is None:
        again = utc(tx.now + policy.BROKER_AWAY_S)
    elif taken or row["online"]:
        again = tx.at + timedelta(seconds=policy.again_s(publishes))
    ours = row["next_at"] is not None and row["leased_until"] == order.leased_until
    await tx.execute(
        "UPDATE configuration_heads SET sent_at = $2, publishes = $3,"
        " next_at = CASE WHEN $4 THEN $5 ELSE next_at END,"
        " leased_until = CASE WHEN $4 THEN NULL ELSE leased_until END WHERE device_id = $1",
        order.device_id,
        sent_at,
        publishes,
        ours,
        again,
    )


async def _hold(tx: Transaction, device_ids: Mapping[str, object]) -> Sequence[Row]:
    """The heads of these devices, until commit; in one order, so that nobody waits for who waits for them."""
    if not device_ids:
        return []
    return await tx.fetch(
        "SELECT device_id, version, greeted_at FROM configuration_heads WHERE device_id = ANY($1)"
        " ORDER BY device_id FOR UPDATE",
        list(device_ids),
    )


def _version(row: Row) -> Version:
    return Version(row["version"], row["body"], row["sha256"], row["author"], unix(row["created_at"]))


def _unix(at: datetime | None) -> float | None:
    return None if at is None else unix(at)
