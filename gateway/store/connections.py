"""What a device needs to send messages: its topics' prefix, and a password where brokers ask for one."""

from __future__ import annotations

import hmac

from gateway.store.transaction import Reading, Transaction


async def prefix_of(reading: Reading, device_id: str) -> str | None:
    """`{org}/{site}/{type}/{device}`; None for an unknown device."""
    found = await reading.fetchrow(
        "SELECT s.org_id, s.id, d.type FROM devices d JOIN sites s ON s.id = d.site_id WHERE d.id = $1",
        device_id,
    )
    return None if found is None else "/".join((*found.values(), device_id))


async def status_of(reading: Reading, device_id: str) -> tuple[str, str] | None:
    """Status and prefix; None for an unknown device."""
    found = await reading.fetchrow(
        "SELECT d.status, s.org_id, s.id, d.type FROM devices d JOIN sites s ON s.id = d.site_id"
        " WHERE d.id = $1",
        device_id,
    )
    if found is None:
        return None
    status, *place = found.values()
    return status, "/".join((*place, device_id))


async def put_password(tx: Transaction, device_id: str, sha256: bytes) -> None:
    """Its one password from now on: one that was given before is good no more."""
    await tx.execute(
        "INSERT INTO device_broker_passwords (device_id, sha256, created_at) VALUES ($1, $2, $3)"
        " ON CONFLICT (device_id) DO UPDATE SET sha256 = $2, created_at = $3",
        device_id,
        sha256,
        tx.at,
    )


async def revoked_serials(reading: Reading) -> list[int]:
    """Of every certificate that is good still and whose device is not."""
    rows = await reading.fetch(
        "SELECT c.serial FROM device_certificates c JOIN devices d ON d.id = c.device_id"
        " WHERE d.status <> 'approved' AND c.expires_at > $1 ORDER BY c.serial",
        reading.at,
    )
    return [int(row["serial"], 16) for row in rows]


async def may_log_in(reading: Reading, device_id: str, sha256: bytes) -> bool:
    """Whether this is the password of a device that is approved now."""
    kept: bytes | None = await reading.fetchval(
        "SELECT p.sha256 FROM device_broker_passwords p JOIN devices d ON d.id = p.device_id"
        " WHERE p.device_id = $1 AND d.status = 'approved'",
        device_id,
    )
    return kept is not None and hmac.compare_digest(kept, sha256)
