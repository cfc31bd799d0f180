"""Nodes and the tunnels that they hold: read in bulk, decided by policy.presence, written in bulk."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.presence import (
    FLAP_WINDOW_S,
    NODE_SILENT_S,
    DevicePresence,
    PresenceChanges,
    Tunnel,
    TunnelKey,
)
from gateway.store.database import AuditEvent, Revocation, Transaction, unix, utc


async def heartbeat(tx: Transaction, node: str, boot: str) -> bool:
    """Note that the node lives. True when it is new or restarted: what it held before is gone."""
    known: str | None = await tx.fetchval("SELECT boot FROM nodes WHERE name = $1 FOR UPDATE", node)
    await tx.execute(
        "INSERT INTO nodes (name, boot, last_heartbeat) VALUES ($1, $2, $3)"
        " ON CONFLICT (name) DO UPDATE SET boot = $2, last_heartbeat = greatest($3, nodes.last_heartbeat)",
        node,
        boot,
        tx.at,
    )
    return known != boot


async def held_elsewhere(tx: Transaction, node: str) -> tuple[int, int]:
    """How many devices other living nodes hold, and how many of them `node` does not."""
    row = await tx.fetchrow(
        "SELECT count(*) AS devices, count(*) FILTER (WHERE NOT here) AS missing FROM (SELECT bool_or(EXISTS"
        " (SELECT 1 FROM tunnels own WHERE own.device_id = t.device_id AND own.node = $1)) AS here"
        " FROM tunnels t JOIN nodes n ON n.name = t.node WHERE t.node <> $1 AND n.last_heartbeat >= $2"
        " GROUP BY t.device_id) AS others",
        node,
        utc(tx.now - NODE_SILENT_S),
    )
    assert row is not None  # an aggregate
    return row["devices"], row["missing"]


async def load_devices(
    tx: Transaction, node: str, named: Iterable[str], *, whole_node: bool
) -> dict[str, DevicePresence]:
    """The approved devices a report is about, locked in one order so that two nodes cannot deadlock.

    `whole_node` adds every device that the node is believed to hold.
    """
    rows = await tx.fetch(
        "SELECT id, instance, instance_at, since FROM devices WHERE status = 'approved' AND (id = ANY($1)"
        " OR ($2 AND id IN (SELECT device_id FROM tunnels WHERE node = $3)))"
        " ORDER BY id FOR NO KEY UPDATE",
        sorted(set(named)),
        whole_node,
        node,
    )
    ids = [row["id"] for row in rows]
    replaced = await tx.fetch(
        "SELECT ref, count(*) AS times FROM revocations WHERE kind = 'replaced' AND ref = ANY($1) AND at > $2"
        " GROUP BY ref",
        ids,
        utc(tx.now - FLAP_WINDOW_S),
    )
    times = {row["ref"]: int(row["times"]) for row in replaced}
    devices = {
        row["id"]: DevicePresence(
            device_id=row["id"],
            instance=row["instance"],
            instance_at=0.0 if row["instance_at"] is None else unix(row["instance_at"]),
            since=None if row["since"] is None else unix(row["since"]),
            tunnels={},
            recent_replacements=times.get(row["id"], 0),
        )
        for row in rows
    }
    await _load_tunnels(tx, devices)
    return devices


async def _load_tunnels(tx: Transaction, devices: dict[str, DevicePresence]) -> None:
    rows = await tx.fetch(
        "SELECT node, device_id, instance, connection, connected_at, rtt_ms FROM tunnels"
        " WHERE device_id = ANY($1)",
        list(devices),
    )
    for row in rows:
        key = TunnelKey(row["node"], row["device_id"], row["instance"], row["connection"])
        devices[key.device_id].tunnels[key] = Tunnel(key, unix(row["connected_at"]), row["rtt_ms"])


async def save(tx: Transaction, changes: PresenceChanges) -> None:
    """Write what policy decided; replacements go into the feed, fighting devices into the audit log."""
    await tx.executemany(
        "DELETE FROM tunnels WHERE node = $1 AND device_id = $2 AND instance = $3 AND connection = $4",
        [(k.node, k.device_id, k.instance, k.connection) for k in changes.closed],
    )
    await tx.executemany(
        "INSERT INTO tunnels (node, device_id, instance, connection, connected_at, rtt_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (node, device_id, instance, connection) DO UPDATE SET rtt_ms = $6",
        [
            (k.node, k.device_id, k.instance, k.connection, utc(t.connected_at), t.rtt_ms)
            for k, t in changes.opened.items()
        ],
    )
    await tx.executemany(
        "UPDATE devices SET instance = $2, instance_at = $3, since = $4, last_seen = $5,"
        " software = coalesce($6, software), services = coalesce($7::jsonb, services),"
        " last_error = coalesce($8, last_error), rtt_ms = coalesce($9, rtt_ms) WHERE id = $1",
        [
            (
                d.device_id,
                d.instance,
                utc(d.instance_at),
                None if d.since is None else utc(d.since),
                tx.at,
                d.software,
                None if d.services is None else [dict(s) for s in d.services],
                d.last_error,
                d.rtt_ms,
            )
            for d in changes.touched.values()
        ],
    )
    for device_id, keep in changes.replaced.items():
        tx.revoke(Revocation("replaced", device_id, keep=keep))
    for device_id in sorted(changes.flapping):
        await _report_flapping(tx, device_id)


async def _report_flapping(tx: Transaction, device_id: str) -> None:
    """Once a window: an alarm that repeats with every replacement is one nobody reads."""
    site = await tx.fetchval(
        "UPDATE devices SET flap_reported_at = $2 WHERE id = $1"
        " AND (flap_reported_at IS NULL OR flap_reported_at < $3) RETURNING site_id",
        device_id,
        tx.at,
        utc(tx.now - FLAP_WINDOW_S),
    )
    if site is not None:
        tx.audit(AuditEvent("device.flapping", "gateway", site=site, device=device_id))
