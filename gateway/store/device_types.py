"""Types of devices: what their devices can be asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.store import messages
from gateway.store.transaction import Reading, Row, Transaction, unix


@dataclass(frozen=True, slots=True)
class DeviceType:
    """One row. `version` counts its changes."""

    id: str
    name: str
    capabilities: dict[str, Any]
    version: int
    changed_at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What sending a command to one device takes into account."""

    org_id: str
    type: DeviceType
    online: bool
    """Whether the device holds its connection for messages, by what was heard of it lately."""
    announced: frozenset[str] | None
    """The commands that it says it executes; None: it has never said hello."""


async def get(tx: Reading, type_id: str) -> DeviceType | None:
    row = await tx.fetchrow("SELECT * FROM device_types WHERE id = $1", type_id)
    return None if row is None else _type(row)


async def list_all(tx: Reading, after: str, limit: int) -> list[DeviceType]:
    """By id, beginning behind `after`."""
    rows = await tx.fetch("SELECT * FROM device_types WHERE id > $1 ORDER BY id LIMIT $2", after, limit)
    return [_type(row) for row in rows]


async def hold(tx: Transaction, type_id: str) -> DeviceType | None:
    """As `get`; it stays as it is until commit."""
    row = await tx.fetchrow("SELECT * FROM device_types WHERE id = $1 FOR NO KEY UPDATE", type_id)
    return None if row is None else _type(row)


async def put(tx: Transaction, type_id: str, name: str, capabilities: dict[str, Any]) -> DeviceType:
    """Make it, or write over it; the version grows."""
    row = await tx.fetchrow(
        "INSERT INTO device_types AS t (id, name, capabilities, changed_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (id) DO UPDATE SET name = $2, capabilities = $3, version = t.version + 1,"
        " changed_at = $4 RETURNING *",
        type_id,
        name,
        capabilities,
        tx.at,
    )
    assert row is not None  # RETURNING
    return _type(row)


async def count(tx: Reading) -> int:
    total: int = await tx.fetchval("SELECT count(*) FROM device_types")
    return total


async def of_device(tx: Reading, device_id: str) -> Asked:
    """Of a device that exists."""
    row = await tx.fetchrow(
        "SELECT t.*, s.org_id FROM devices d JOIN device_types t ON t.id = d.type"
        " JOIN sites s ON s.id = d.site_id WHERE d.id = $1",
        device_id,
    )
    assert row is not None  # the caller holds it
    connection = await messages.connection_of(tx, device_id)
    if connection is None:
        return Asked(row["org_id"], _type(row), False, None)
    announced = None if connection.hello is None else frozenset(connection.hello.get("commands", ()))
    return Asked(row["org_id"], _type(row), connection.online, announced)


def _type(row: Row) -> DeviceType:
    return DeviceType(row["id"], row["name"], row["capabilities"], row["version"], unix(row["changed_at"]))
