"""Nodes and the tunnels that they hold: read in bulk, decided by policy.presence, written in bulk."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.live import Change
from gateway.policy.presence import (
    FLAP_WINDOW_S,
    NODE_SILENT_S,
    DevicePresence,
    PresenceChanges,
    Tunnel,
    TunnelKey,
    is_online,
)
from gateway.store.transaction import AuditEvent, Revocation, Transaction, unix, utc


async def heartbeat(tx: Transaction, node: str, boot: str) -> bool:
    """Note that the node lives. True when it is new or restarted: what it held before is gone."""
    row = await tx.fetchrow("SELECT boot, told_lost FROM nodes WHERE name = $1 FOR UPDATE", node)
    known = None if row is None else row["boot"]
    if row is not None and row["told_lost"]:
        await tx.execute("UPDATE nodes SET told_lost = false WHERE name = $1", node)
        await _tell_of_node(tx, node, "device.online")
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
        "SELECT t.node, t.device_id, t.instance, t.connection, t.connected_at, t.rtt_ms, n.told_lost"
        " FROM tunnels t JOIN nodes n ON n.name = t.node WHERE t.device_id = ANY($1)",
        list(devices),
    )
    for row in rows:
        key = TunnelKey(row["node"], row["device_id"], row["instance"], row["connection"])
        device = devices[key.device_id]
        device.tunnels[key] = Tunnel(key, unix(row["connected_at"]), row["rtt_ms"])
        if row["told_lost"]:
            device.untold.add(key)
    for device in devices.values():
        device.was_online = is_online(device)


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
    for device in changes.touched.values():
        if is_online(device) != device.was_online:
            tx.tell(
                Change(f"device.{'online' if is_online(device) else 'offline'}", device_id=device.device_id)
            )
    for device_id, keep in changes.replaced.items():
        tx.revoke(Revocation("replaced", device_id, keep=keep))
    for device_id in sorted(changes.flapping):
        await _report_flapping(tx, device_id)


async def tell_lost(tx: Transaction) -> None:
    """Tell of the devices whose nodes fell silent: nobody reports the end of those tunnels."""
    silent = utc(tx.now - NODE_SILENT_S)
    if await tx.fetchval("SELECT 1 FROM nodes WHERE NOT told_lost AND last_heartbeat < $1 LIMIT 1", silent):
        rows = await tx.fetch(
            "SELECT name FROM nodes WHERE NOT told_lost AND last_heartbeat < $1 ORDER BY name FOR UPDATE",
            silent,
        )
        for row in rows:
            await tx.execute("UPDATE nodes SET told_lost = true WHERE name = $1", row["name"])
            await _tell_of_node(tx, row["name"], "device.offline")


async def _tell_of_node(tx: Transaction, node: str, kind: str) -> None:
    """Of the approved devices that `node` holds and no node that is heard does."""
    rows = await tx.fetch(
        "SELECT DISTINCT t.device_id FROM tunnels t JOIN devices d ON d.id = t.device_id WHERE t.node = $1"
        " AND d.status = 'approved' AND NOT EXISTS (SELECT 1 FROM tunnels o JOIN nodes n ON n.name = o.node"
        " WHERE o.device_id = t.device_id AND o.node <> $1 AND NOT n.told_lost) ORDER BY 1",
        node,
    )
    for row in rows:
        tx.tell(Change(kind, device_id=row["device_id"]))


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
