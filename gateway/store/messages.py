"""What devices said, in rows: lines, boots, latest states, connections. Read in bulk, written in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from device_protocol.numbers import Number
from gateway.policy.device_clock import Boot, moment_of, ms_of
from gateway.policy.messages import STALE_S, Connection, HistoryRow
from gateway.policy.stays import KnownDevice, Start, Stay
from gateway.store.transaction import Reading, Row, Transaction

HISTORY: Final = tuple(HistoryRow._fields)
"""Columns of device_history."""


async def devices_of(tx: Reading, ids: Iterable[str]) -> dict[str, KnownDevice]:
    """Where these devices are now, and were; those that do not exist are missing."""
    wanted = list(ids)
    rows = await tx.fetch(
        "SELECT d.id, s.org_id, d.site_id, d.type, d.status FROM devices d JOIN sites s ON s.id = d.site_id"
        " WHERE d.id = ANY($1)",
        wanted,
    )
    found = {r["id"]: KnownDevice(r["org_id"], r["site_id"], r["type"], r["status"]) for r in rows}
    # After the devices: who moves meanwhile is then at the new place at worst, and was at the old one.
    former = await tx.fetch(
        "SELECT p.device_id, p.org_id, p.site_id, p.type, p.until, (c.hello ->> 'boot')::bigint AS boot,"
        " c.started_at FROM device_places p LEFT JOIN device_connections c USING (device_id)"
        " WHERE p.device_id = ANY($1) ORDER BY p.device_id, p.until",
        wanted,
    )
    for row in former:
        device = found.get(row["device_id"])
        if device is not None:
            stay = Stay(row["org_id"], row["site_id"], row["type"], ms_of(row["until"]))
            started = row["started_at"] and Start(row["boot"], ms_of(row["started_at"]))
            found[row["device_id"]] = device._replace(former=(*device.former, stay), start=started)
    return found


async def lines_of(tx: Reading, ids: Iterable[str], *, hold: bool = False) -> dict[str, Number]:
    """How far each device's messages were taken. `hold`: they stay so until commit."""
    lock = " ORDER BY device_id FOR UPDATE" if hold else ""
    rows = await tx.fetch(
        f"SELECT device_id, boot, seq FROM device_lines WHERE device_id = ANY($1){lock}", list(ids)
    )
    return {row["device_id"]: Number(row["boot"], row["seq"]) for row in rows}


async def boots_of(tx: Reading, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Boot]:
    """What is known of these boots of these devices."""
    wanted = list(keys)
    rows = await tx.fetch(
        "SELECT b.device_id, b.boot, b.first_seen, b.started_at FROM device_boots b"
        " JOIN unnest($1::text[], $2::bigint[]) AS w(device_id, boot) USING (device_id, boot)",
        [device for device, _ in wanted],
        [boot for _, boot in wanted],
    )
    return {
        (row["device_id"], row["boot"]): Boot(
            ms_of(row["first_seen"]), None if row["started_at"] is None else ms_of(row["started_at"])
        )
        for row in rows
    }


async def connections_of(tx: Reading, ids: Iterable[str]) -> dict[str, Connection]:
    """The message connections of these devices, as they were told last."""
    rows = await tx.fetch("SELECT * FROM device_connections WHERE device_id = ANY($1)", list(ids))
    return {row["device_id"]: _connection(row) for row in rows}


async def add_history(tx: Transaction, rows: Sequence[HistoryRow]) -> None:
    """asyncpg's errors when one of them cannot stand there: then none does."""
    if rows:
        await tx.copy("device_history", HISTORY, rows)


async def ids_of(tx: Reading, rows: Sequence[HistoryRow]) -> dict[tuple[str, datetime, int, int], str]:
    """Of the rows at these rows' keys: whose they are."""
    found = await tx.fetch(
        "SELECT h.device_id, h.at, h.boot, h.seq, h.id FROM device_history h"
        " JOIN unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::bigint[])"
        " AS w(device_id, at, boot, seq) USING (device_id, at, boot, seq)",
        *_columns(rows, "device_id", "at", "boot", "seq"),
    )
    return {(r["device_id"], r["at"], r["boot"], r["seq"]): str(r["id"]) for r in found}


async def taken_by_others(tx: Reading, rows: Sequence[HistoryRow]) -> set[tuple[str, int, int]]:
    """Of these rows' numbers those that another message has, at whatever time: slow."""
    if not rows:
        return set()
    found = await tx.fetch(
        "SELECT w.device_id, w.boot, w.seq FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::uuid[])"
        " AS w(device_id, boot, seq, id) WHERE EXISTS (SELECT 1 FROM device_history h"
        " WHERE h.device_id = w.device_id AND h.boot = w.boot AND h.seq = w.seq AND h.id <> w.id)",
        *_columns(rows, "device_id", "boot", "seq", "id"),
    )
    return {(row["device_id"], row["boot"], row["seq"]) for row in found}


async def put_lines(tx: Transaction, lines: Mapping[str, Number]) -> None:
    """A line never goes back."""
    if not lines:
        return
    ordered = sorted(lines.items())
    await tx.execute(
        "INSERT INTO device_lines AS l (device_id, boot, seq)"
        " SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])"
        " ON CONFLICT (device_id) DO UPDATE SET boot = excluded.boot, seq = excluded.seq"
        " WHERE (l.boot, l.seq) < (excluded.boot, excluded.seq)",
        [device for device, _ in ordered],
        [number.boot for _, number in ordered],
        [number.seq for _, number in ordered],
    )


async def forget_line(tx: Transaction, device_id: str) -> None:
    """The device's next message is taken from where it says that it stands, and is its latest state."""
    await tx.execute("DELETE FROM device_lines WHERE device_id = $1", device_id)
    await tx.execute("UPDATE device_states SET boot = 0, seq = 0 WHERE device_id = $1", device_id)


async def put_boots(tx: Transaction, boots: Mapping[tuple[str, int], Boot]) -> None:
    """What stands there stays: times of messages were counted from it."""
    if not boots:
        return
    ordered = sorted(boots.items())
    await tx.execute(
        "INSERT INTO device_boots (device_id, boot, first_seen, started_at)"
        " SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])"
        " ON CONFLICT DO NOTHING",
        [device for (device, _), _ in ordered],
        [boot for (_, boot), _ in ordered],
        [moment_of(boot.first_seen_ms) for _, boot in ordered],
        [None if boot.started_ms is None else moment_of(boot.started_ms) for _, boot in ordered],
    )


async def put_states(tx: Transaction, states: Mapping[tuple[str, str], HistoryRow]) -> None:
    """The latest of each device and kind (the key's); an older one does not replace it."""
    if not states:
        return
    ordered = sorted(states.items())
    rows = [row for _, row in ordered]
    await tx.execute(
        "INSERT INTO device_states AS s (device_id, kind, site_id, boot, seq, type, at, received_at, body)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[],"
        " $7::timestamptz[], $8::timestamptz[], $9::jsonb[])"
        " ON CONFLICT (device_id, kind) DO UPDATE SET site_id = excluded.site_id, boot = excluded.boot,"
        " seq = excluded.seq, type = excluded.type, at = excluded.at, received_at = excluded.received_at,"
        " body = excluded.body WHERE (s.boot, s.seq) < (excluded.boot, excluded.seq)",
        [device for (device, _), _ in ordered],
        [kind for (_, kind), _ in ordered],
        *_columns(rows, "site_id", "boot", "seq", "type", "at", "received_at", "body"),
    )


async def put_connections(tx: Transaction, connections: Mapping[str, Connection]) -> None:
    """What hellos and wills told last; in the order of the ids."""
    await tx.executemany(
        "INSERT INTO device_connections (device_id, online, since, seen_at, instance, hello, started_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device_id) DO UPDATE SET"
        " online = excluded.online, since = excluded.since,"
        " seen_at = greatest(device_connections.seen_at, excluded.seen_at), instance = excluded.instance,"
        " hello = excluded.hello, started_at = excluded.started_at",
        [
            (device, told.online, told.since, told.seen_at, told.instance, told.hello, told.started_at)
            for device, told in sorted(connections.items())
        ],
    )


async def note_heard(tx: Transaction, heard: Mapping[str, datetime]) -> None:
    """These devices live: the log took a heartbeat of theirs then."""
    if not heard:
        return
    ids = sorted(heard)
    await tx.fetch(
        "SELECT 1 FROM device_connections WHERE device_id = ANY($1) ORDER BY device_id FOR UPDATE", ids
    )
    await tx.execute(
        "UPDATE device_connections c SET seen_at = h.at FROM unnest($1::text[], $2::timestamptz[])"
        " AS h(id, at) WHERE c.device_id = h.id AND c.seen_at < h.at",
        ids,
        [heard[device] for device in ids],
    )


@dataclass(frozen=True, slots=True)
class Latest:
    """One kind's latest message."""

    at: datetime
    received_at: datetime
    boot: int
    seq: int
    type: str
    body: dict[str, Any]


async def latest(tx: Reading, device_id: str, site_id: str) -> dict[str, Latest]:
    """By kind; only what the device said at this site: what it said elsewhere is not for people here."""
    rows = await tx.fetch(
        "SELECT * FROM device_states WHERE device_id = $1 AND site_id = $2", device_id, site_id
    )
    return {
        r["kind"]: Latest(r["at"], r["received_at"], r["boot"], r["seq"], r["type"], r["body"]) for r in rows
    }


async def connection_of(tx: Reading, device_id: str) -> Connection | None:
    """The device's message connection; one that was not heard for long enough is offline."""
    told = (await connections_of(tx, [device_id])).get(device_id)
    if told is None or not told.online or told.seen_at >= tx.at - timedelta(seconds=STALE_S):
        return told
    return replace(told, online=False, since=told.seen_at + timedelta(seconds=STALE_S))


def _columns(rows: Sequence[HistoryRow], *names: str) -> list[list[object]]:
    return [[getattr(row, name) for row in rows] for name in names]


def _connection(row: Row) -> Connection:
    return Connection(
        row["online"], row["since"], row["seen_at"], row["instance"], row["hello"], row["started_at"]
    )
