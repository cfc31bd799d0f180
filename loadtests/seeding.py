"""Many enrolled devices at once, written straight into the gateway's database.

Enrolment over the API is limited to one a second for each address, on purpose; a benchmark that needs a
thousand devices is the operator of its own gateway and writes what an enrolment would have written.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from gateway.settings import Settings
from runtime.settings import load
from towline.data_folder import DataFolder
from towline.gateway_client import Credentials
from tunnel_agent.device_key import DeviceKey

_ID_BYTES = 10  # 16 characters of base32
_COLUMNS = (
    "id", "site_id", "name", "hardware_id", "status", "public_key", "key_id",
    "software", "services", "created_at",
)  # fmt: skip
_SERVICES = json.dumps([{"name": "web", "kind": "web"}])


@dataclass(frozen=True, slots=True)
class SeededDevice:
    """An approved device and its private key."""

    id: str
    key: DeviceKey

    def to_json(self) -> dict[str, str]:
        return {"id": self.id, "key": self.key.to_pem().decode("ascii")}

    @classmethod
    def from_json(cls, value: dict[str, str]) -> SeededDevice:
        return cls(value["id"], DeviceKey.from_pem(value["key"].encode("ascii")))


def new_device() -> SeededDevice:
    name = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()
    return SeededDevice(f"d_{name}", DeviceKey.generate())


async def write_devices(url: str, username: str, devices: Sequence[SeededDevice]) -> None:
    """New approved devices of this person's site, in the database at `url`."""
    connection = await asyncpg.connect(url)
    try:
        site = await connection.fetchval(
            "SELECT r.site_id FROM site_roles r JOIN users u ON u.id = r.user_id WHERE u.username = $1",
            username,
        )
        now = datetime.now(UTC)
        rows = [
            (
                one.id, site, f"seeded {one.id}", f"seeded-{one.id}", "approved",
                one.key.public_der, one.key.key_id, "bench", _SERVICES, now,
            )
            for one in devices
        ]  # fmt: skip
        await connection.copy_records_to_table("devices", records=rows, columns=_COLUMNS)
    finally:
        await connection.close()


def seed_devices(data: DataFolder, number: int) -> list[SeededDevice]:
    """`number` new approved devices of the administrator, in the database of the `towline up` on `data`."""
    devices = [new_device() for _ in range(number)]
    url = load(Settings, data.config / "gateway.toml").database()
    asyncio.run(write_devices(url, Credentials.load(data.credentials).username, devices))
    return devices
