"""Enrolment, approval, revocation and renewal of devices."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.api.limits import RENEW_PER_DEVICE
from runtime.clock import FakeClock
from tests.gateway.world import ORIGIN, Device, World, base64url, make_csr, settings_for


async def poll(world: World, device: Device) -> httpx.Response:
    client = world.program(device.enrolment["poll_secret"])
    return await client.get(f"/v1/enrolments/{device.enrolment['enrolment_id']}")


async def test_a_device_waits_until_its_owner_approves(world: World) -> None:
    owner = await world.person()
    device = await world.enrol(owner, approve=False, name="Pump <b>")
    assert device.enrolment["status"] == "pending"
    assert (await poll(world, device)).json() == {"status": "pending", "device_id": device.id}
    shown = (await owner.get("/v1/devices")).json()
    assert shown["next_cursor"] is None
    assert shown["items"] == [
        {
            "id": device.id,
            "name": "Pump <b>",
            "type": "linux",
            "hardware_id": shown["items"][0]["hardware_id"],
            "tags": [],
            "status": "pending",
            "created_at": shown["items"][0]["created_at"],
            "released_until": None,
            "online": False,
            "since": None,
            "last_seen": None,
            "last_error": None,
            "rtt_ms": None,
            "software": "agent 1.0",
            "services": [],
            "site": {"id": shown["items"][0]["site"]["id"], "name": "Home"},
            "owner": "admin",
            "role": "owner",
        }
    ]
    approved = await owner.post(f"/v1/devices/{device.id}/approve")
    assert approved.json()["status"] == "approved"
    answer = (await poll(world, device)).json()
    assert answer["status"] == "approved"
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer["ca"].encode()))
    assert certificate.public_key() == device.key.public_key()
    root = serialization.load_pem_public_key(answer["device_root"].encode())
    assert isinstance(root, ec.EllipticCurvePublicKey)
    assert answer["key_list"] == world.gateway.parts.keyring.key_list
    assert answer["tunnel_urls"] == ["wss://localhost:8082/tunnel"]
    assert answer["server_ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert answer["gateway_url"] == ORIGIN


async def test_a_token_can_approve_in_advance(world: World) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    assert device.enrolment["status"] == "approved"
    assert (await poll(world, device)).json()["status"] == "approved"


async def test_rejected_devices_are_gone(world: World) -> None:
    owner = await world.person()
    device = await world.enrol(owner, approve=False)
    assert (await owner.post(f"/v1/devices/{device.id}/reject")).json()["status"] == "rejected"
    assert (await poll(world, device)).json() == {"status": "rejected", "device_id": device.id}
    assert (await owner.get("/v1/devices")).json()["items"] == []
    answer = await owner.post(f"/v1/devices/{device.id}/approve")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_status")


async def test_registration_tokens_work_once_and_not_for_long(world: World, clock: FakeClock) -> None:
    owner = await world.person()
    tokens = [(await owner.post("/v1/registration-tokens", json={})).json()["token"] for _ in range(2)]

    async def enrol(token: str, hardware_id: str) -> httpx.Response:
        key = ec.generate_private_key(ec.SECP256R1())
        body = {
            "token": token,
            "csr": make_csr(key),
            "name": "x",
            "hardware_id": hardware_id,
            "software": "s",
        }
        return await world.program().post("/v1/enrolments", json=body)

    racing = await asyncio.gather(*(enrol(tokens[0], f"hw{n}") for n in range(5)))
    assert sorted(a.status_code for a in racing) == [201, 410, 410, 410, 410]
    assert (await enrol(tokens[0], "other")).json()["code"] == "registration_token_used"
    clock.advance(15 * 60 + 1)
    late = await enrol(tokens[1], "other")
    assert (late.status_code, late.json()["code"]) == (410, "registration_token_expired")
    wrong = await enrol("guess", "other")
    assert (wrong.status_code, wrong.json()["code"]) == (403, "registration_token_unknown")


async def test_bound_hardware_cannot_be_bound_again(world: World) -> None:
    """A hardware id proves nothing: whoever knows it must not take the device over."""
    owner, thief = await world.person(), await world.person("thief")
    token = (await thief.post("/v1/registration-tokens", json={})).json()["token"]
    first = (await owner.post("/v1/registration-tokens", json={"approve": True})).json()["token"]

    async def enrol(with_token: str) -> httpx.Response:
        body = {
            "token": with_token,
            "csr": make_csr(ec.generate_private_key(ec.SECP256R1())),
            "name": "Pump",
            "hardware_id": "serial-1",
            "software": "s",
        }
        return await world.program().post("/v1/enrolments", json=body)

    device_id = (await enrol(first)).json()["device_id"]
    conflict = await enrol(token)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "hardware_id_conflict")
    assert (await owner.get(f"/v1/devices/{device_id}")).json()["owner"] == "admin"
    await owner.post(f"/v1/devices/{device_id}/revoke")
    # The refusal did not use the token up; after the revocation it serves.
    assert (await enrol(token)).status_code == 201


async def test_a_squatted_hardware_id_is_freed_by_an_administrator(world: World) -> None:
    """Somebody enrols the id of a device that is not theirs: its owner is told the way out, and that is one
    that takes nothing away from whoever has the id, should the administrator be deceived.
    """
    admin, squatter, owner = [await world.person(*name) for name in ((), ("squatter",), ("owner",))]

    async def enrol(person: httpx.AsyncClient) -> httpx.Response:
        made = await person.post("/v1/registration-tokens", json={"approve": True})
        body = {
            "token": made.json()["token"],
            "csr": make_csr(ec.generate_private_key(ec.SECP256R1())),
            "name": "Boiler",
            "hardware_id": "serial-7",
            "software": "s",
        }
        return await world.program().post("/v1/enrolments", json=body)

    squatted = (await enrol(squatter)).json()["device_id"]
    refused = await enrol(owner)
    assert (refused.status_code, refused.json()["code"]) == (409, "hardware_id_conflict")
    assert "an administrator of the installation can free the id" in refused.json()["detail"]
    assert "squatter" not in refused.text
    body = {"hardware_id": "serial-7", "reason": "The owner showed its label"}
    for stranger in (owner, squatter):
        assert (await stranger.post("/v1/hardware-ids/free", json=body)).status_code == 403
    assert (await enrol(owner)).status_code == 409
    assert (await admin.post("/v1/hardware-ids/free", json=body)).status_code == 204
    true = await enrol(owner)
    assert true.status_code == 201, true.text
    # The squatter's goes on as their own device, and can be found out about by nobody else.
    assert (await squatter.get(f"/v1/devices/{squatted}")).json()["status"] == "approved"
    assert (await squatter.get(f"/v1/devices/{true.json()['device_id']}")).status_code == 404
    assert (await enrol(squatter)).json()["code"] == "hardware_id_conflict"
    site = (await squatter.get("/v1/sites")).json()["items"][0]["id"]
    told = (await squatter.get(f"/v1/sites/{site}/audit?kind=device.hardware_id_freed")).json()["items"]
    assert [(one["actor"]["name"], one["detail"]) for one in told] == [("admin", body)]
    # Once for each holder, and nothing where there is none.
    assert (await admin.post("/v1/hardware-ids/free", json=body)).status_code == 204
    assert (await admin.post("/v1/hardware-ids/free", json=body)).status_code == 404


async def test_malformed_enrolments_name_the_field(world: World) -> None:
    owner = await world.person()
    token = (await owner.post("/v1/registration-tokens", json={})).json()["token"]
    good = {
        "token": token,
        "csr": make_csr(ec.generate_private_key(ec.SECP256R1())),
        "name": "x",
        "hardware_id": "h",
        "software": "s",
    }
    wrong = [
        ("csr", "garbage"),
        ("csr", make_csr(ec.generate_private_key(ec.SECP384R1()))),
        ("csr", "x" * 5000),
        ("name", ""),
        ("name", "a\nb"),
        ("name", "n" * 65),
        ("name", 5),
        ("hardware_id", " "),
        ("software", "s" * 129),
        ("surplus", "x"),
    ]
    for field, value in wrong:
        answer = await world.program().post("/v1/enrolments", json={**good, field: value})
        assert answer.status_code == 422, (field, answer.text)
        assert answer.json()["field"] == field
        assert answer.headers["content-type"] == "application/problem+json"
    for missing in good:
        body = {k: v for k, v in good.items() if k != missing}
        assert (await world.program().post("/v1/enrolments", json=body)).json()["field"] == missing
    broken = await world.program().post(
        "/v1/enrolments", content="{", headers={"content-type": "application/json"}
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "bad_json")
    huge = await world.program().post("/v1/enrolments", json={**good, "name": "x" * 70_000})
    assert (huge.status_code, huge.json()["code"]) == (413, "too_large")


async def test_the_poll_secret_is_needed(world: World) -> None:
    owner = await world.person()
    device, other = await world.enrol(owner), await world.enrol(owner)
    path = f"/v1/enrolments/{device.enrolment['enrolment_id']}"
    for client in (world.program(), world.program("x"), world.program(other.enrolment["poll_secret"]), owner):
        assert (await client.get(path)).status_code == 404


async def test_device_pages_of_a_list(world: World) -> None:
    owner = await world.person()
    ids = sorted([(await world.enrol(owner)).id for _ in range(5)])
    first = (await owner.get("/v1/devices", params={"limit": 3})).json()
    assert [d["id"] for d in first["items"]] == ids[:3]
    rest = (await owner.get("/v1/devices", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [d["id"] for d in rest["items"]] == ids[3:]
    assert rest["next_cursor"] is None
    assert (await owner.get("/v1/devices", params={"limit": 0})).status_code == 422


async def renew(
    world: World, device: Device, *, nonce: str, signer: Device | None = None, key: object = None
) -> httpx.Response:
    padded = nonce + "=" * (-len(nonce) % 4)
    message = b"towline-renew-v1" + base64.urlsafe_b64decode(padded) + device.id.encode()
    body = {
        "nonce": nonce,
        "csr": make_csr(key or device.key),
        "signature": base64url((signer or device).sign(message)),
    }
    return await world.program().post(f"/v1/devices/{device.id}/certificate", json=body)


async def challenge(world: World, device: Device) -> httpx.Response:
    return await world.program().post(f"/v1/devices/{device.id}/certificate/challenge")


async def test_renewal_works_a_year_later(world: World, clock: FakeClock) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    clock.advance(366 * 86_400)
    nonce = (await challenge(world, device)).json()["nonce"]
    answer = await renew(world, device, nonce=nonce)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"certificate", "ca", "key_list", "tunnel_urls", "server_ca"}
    certificate = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
    assert certificate.not_valid_after_utc.timestamp() > clock.wall() + 80 * 86_400
    again = await renew(world, device, nonce=nonce)
    assert (again.status_code, again.json()["code"]) == (403, "bad_nonce")


async def test_renewal_needs_the_devices_own_key(world: World, clock: FakeClock) -> None:
    owner = await world.person()
    device, other = await world.enrol(owner), await world.enrol(owner)
    nonce = (await challenge(world, device)).json()["nonce"]
    wrong_signer = await renew(world, device, nonce=nonce, signer=other)
    assert (wrong_signer.status_code, wrong_signer.json()["code"]) == (403, "bad_signature")
    new_key = await renew(world, device, nonce=nonce, key=ec.generate_private_key(ec.SECP256R1()))
    assert (new_key.status_code, new_key.json()["field"]) == (422, "csr")
    foreign = (await challenge(world, other)).json()["nonce"]
    assert (await renew(world, device, nonce=foreign)).json()["code"] == "bad_nonce"
    clock.advance(121)
    assert (await renew(world, device, nonce=nonce)).json()["code"] == "bad_nonce"


async def test_revoked_and_pending_devices_do_not_renew(world: World) -> None:
    owner = await world.person()
    revoked, pending = await world.enrol(owner), await world.enrol(owner, approve=False)
    nonce = (await challenge(world, revoked)).json()["nonce"]
    await owner.post(f"/v1/devices/{revoked.id}/revoke")
    late = await renew(world, revoked, nonce=nonce)
    assert (late.status_code, late.json()["code"]) == (403, "device_revoked")
    assert (await challenge(world, revoked)).status_code == 403
    assert (await challenge(world, pending)).json()["code"] == "device_pending"
    ghost = Device("d_" + "a" * 16, revoked.key, {})
    assert (await challenge(world, ghost)).status_code == 404


async def test_challenges_are_limited(world: World) -> None:
    device = await world.enrol(await world.person())
    answers = [(await challenge(world, device)).status_code for _ in range(RENEW_PER_DEVICE.burst + 5)]
    assert answers.count(200) == RENEW_PER_DEVICE.burst
    assert answers[-1] == 429


async def test_a_stranger_keeps_no_device_from_renewing(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, trusted_proxies=("127.0.0.1",))
    world = await (await World(settings, clock, tmp_path).start()).prepared()
    try:
        device = await world.enrol(await world.person())

        async def asked_from(address: str) -> int:
            path = f"/v1/devices/{device.id}/certificate/challenge"
            headers = {"x-forwarded-for": address}
            return (await world.program().post(path, headers=headers)).status_code

        stranger = [await asked_from("198.51.100.7") for _ in range(RENEW_PER_DEVICE.burst + 1)]
        assert stranger[-1] == 429
        assert await asked_from("198.51.100.8") == 200
    finally:
        await world.close()


@pytest.mark.parametrize("status", ["approved", "pending", "revoked", "rejected"])
async def test_who_may_connect(world: World, status: str) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner, approve=status in {"approved", "revoked"})
    if status in {"revoked", "rejected"}:
        await owner.post(f"/v1/devices/{device.id}/{'revoke' if status == 'revoked' else 'reject'}")
    body = {"device_id": device.id, "key_id": device.key_id}
    answer = await node.http.post("/internal/v1/devices/authenticate", json=body)
    if status == "approved":
        assert answer.json()["name"] == "Pump"
        assert answer.json()["device_id"] == device.id
    else:
        assert answer.status_code == 403
        assert answer.json()["code"] == ("pending" if status == "pending" else "revoked")
    for wrong in ({**body, "key_id": "0" * 32}, {**body, "device_id": "d_" + "a" * 16}):
        assert (await node.http.post("/internal/v1/devices/authenticate", json=wrong)).status_code == 404
