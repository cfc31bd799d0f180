"""A device asks where its messages go and as whom; a broker asks whether that is who it says."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cryptography import x509

from gateway.keys.keyring import load_keyring
from runtime.clock import FakeClock
from tests.gateway.test_peers import peer
from tests.gateway.world import Device, World, base64url, settings_for

PURPOSE = b"towline-connection-v1"
BROKER = "mqtt://127.0.0.1:1883"


@pytest.fixture
async def world(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[World]:
    settings = settings_for(tmp_path, database_url, keys_dir, device_mqtt_url=BROKER)
    running = World(settings, clock, tmp_path)
    await (await running.start()).prepared()
    yield running
    await running.close()


async def challenge(world: World, device: Device) -> str:
    answer = await world.program().post(f"/v1/devices/{device.id}/certificate/challenge")
    nonce: str = answer.json()["nonce"]
    return nonce


async def asked(
    world: World, device: Device, nonce: str, *, purpose: bytes = PURPOSE, signer: Device | None = None
) -> httpx.Response:
    raw = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
    signature = base64url((signer or device).sign(purpose + raw + device.id.encode()))
    body = {"nonce": nonce, "signature": signature}
    return await world.program().post(f"/v1/devices/{device.id}/connection", json=body)


async def password_of(world: World, device: Device) -> str:
    answer = await asked(world, device, await challenge(world, device))
    assert answer.status_code == 200, answer.text
    password: str = answer.json()["mqtt"]["password"]
    return password


async def login(world: World, device: Device, password: str) -> int:
    body = {"device_id": device.id, "password": password}
    return (await peer(world, "ingest").post("/internal/v1/devices/broker-login", json=body)).status_code


async def test_a_device_learns_its_topics_and_its_broker(world: World) -> None:
    owner = await world.person("ada")
    device = await world.enrol(owner)
    [site] = (await owner.get("/v1/sites")).json()["items"]
    told = (await asked(world, device, await challenge(world, device))).json()
    assert told["prefix"] == f"{site['org_id']}/{site['id']}/linux/{device.id}"
    assert told["mqtt"]["url"] == BROKER


async def test_a_password_ends_with_the_next_one_and_with_the_device(world: World) -> None:
    owner = await world.person("ada")
    device, other = await world.enrol(owner), await world.enrol(owner)
    first = await password_of(world, device)
    assert await login(world, device, first) == 204
    assert await login(world, other, first) == 401
    second = await password_of(world, device)
    assert [await login(world, device, one) for one in (first, second)] == [401, 204]
    assert (await owner.post(f"/v1/devices/{device.id}/revoke")).status_code == 200
    assert await login(world, device, second) == 401


async def test_nobody_else_is_told_it(world: World) -> None:
    owner = await world.person("ada")
    device, other = await world.enrol(owner), await world.enrol(owner)
    pending = await world.enrol(owner, approve=False)
    nonce = await challenge(world, device)
    for wrong in (
        await asked(world, device, nonce, signer=other),
        await asked(world, device, nonce, purpose=b"towline-renew-v1"),
    ):
        assert (wrong.status_code, wrong.json()["code"]) == (403, "bad_signature")
    assert (await asked(world, device, nonce)).status_code == 200
    assert (await asked(world, device, nonce)).json()["code"] == "bad_nonce"
    assert (await asked(world, device, await challenge(world, other))).json()["code"] == "bad_nonce"
    assert (await asked(world, pending, nonce)).json()["code"] == "device_pending"


async def test_the_database_holds_no_password(world: World, owner_url: str) -> None:
    device = await world.enrol(await world.person("ada"))
    password = await password_of(world, device)
    async with world.gateway.parts.database.reading() as reading:
        row = await reading.fetchrow("SELECT p::text AS held FROM device_broker_passwords p")
    assert row is not None
    assert password not in row["held"]
    assert base64.urlsafe_b64decode(password + "=" * (-len(password) % 4)).hex() not in row["held"]


async def test_the_revocation_list_names_the_certificates_of_devices_that_are_revoked(
    world: World, clock: FakeClock
) -> None:
    owner = await world.person("ada")
    revoked, sound = await world.enrol(owner), await world.enrol(owner)
    ingest = peer(world, "ingest")
    ca = load_keyring(world.settings.keys_dir, world.clock.wall()).device_ca.certificate

    async def listed() -> set[int]:
        answer = await ingest.get("/internal/v1/devices/revocation-list")
        found = x509.load_pem_x509_crl(answer.json()["pem"].encode())
        assert found.issuer == ca.subject
        assert found.is_signature_valid(cast(Any, ca.public_key()))
        now = datetime.fromtimestamp(world.clock.wall(), UTC)
        assert found.next_update_utc is not None
        assert found.last_update_utc < now < found.next_update_utc
        assert abs(found.next_update_utc - now - timedelta(days=7)) < timedelta(seconds=2)
        return {entry.serial_number for entry in found}

    async def serials(device: Device) -> set[int]:
        async with world.gateway.parts.database.transaction() as tx:
            rows = await tx.fetch("SELECT serial FROM device_certificates WHERE device_id = $1", device.id)
        return {int(row["serial"], 16) for row in rows}

    assert await listed() == set()
    assert (await owner.post(f"/v1/devices/{revoked.id}/revoke")).status_code == 200
    assert await listed() == await serials(revoked) != set()
    assert not await listed() & await serials(sound)
    clock.advance(91 * 86400)  # they have expired: nobody takes them any more
    assert await listed() == set()


async def refused(world: World, *entries: dict[str, Any]) -> int:
    body = {"refused": list(entries)}
    return (await peer(world, "ingest").post("/internal/v1/devices/refused", json=body)).status_code


async def test_what_a_broker_refused_is_in_the_audit_log_once_a_minute(
    world: World, clock: FakeClock
) -> None:
    owner = await world.person("ada")
    device, other = await world.enrol(owner), await world.enrol(owner)
    [site] = (await owner.get("/v1/sites")).json()["items"]
    entry = {"device_id": device.id, "what": "publish", "topic": "o/s/linux/d_x/cmd", "count": 3}
    assert (
        await refused(world, entry, entry | {"device_id": "d_" + "z" * 16}, entry | {"device_id": "x"}) == 204
    )
    assert await refused(world, entry, entry | {"device_id": other.id, "what": "subscribe"}) == 204

    async def told() -> list[tuple[str, str, Any]]:
        answer = await owner.get(f"/v1/sites/{site['id']}/audit?kind=broker.refused")
        return [
            (line["device"]["id"], line["actor"]["id"], line["detail"]) for line in answer.json()["items"]
        ]

    lines = await told()
    assert sorted(one for one, _, _ in lines) == sorted([device.id, other.id])
    assert all(one == actor for one, actor, _ in lines)
    mine = next(detail for one, _, detail in lines if one == device.id)
    assert mine == {"what": "publish", "topic": "o/s/linux/d_x/cmd", "count": 3, "told_by": "one"}
    clock.advance(56.0)
    assert await refused(world, entry) == 204
    assert len(await told()) == 3
    assert await refused(world, entry | {"what": "sing"}) == 422
    assert (
        await peer(world, None).post("/internal/v1/devices/refused", json={"refused": [entry]})
    ).status_code == 403
