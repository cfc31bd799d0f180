"""The answer to an enrolment was lost: who holds the token and the key asks again, and is the same device."""

from __future__ import annotations

from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.api.enrolments import REGISTRATION_TOKEN_TTL_S
from runtime.clock import FakeClock
from tests.gateway.world import World, make_csr


class Newcomer:
    """A device that may send its request as often as it likes."""

    def __init__(self, world: World, token: str) -> None:
        self._world = world
        self._body = {"token": token, "name": "Pump", "hardware_id": "hw-1", "software": "agent 1.0"}

    async def ask(self, key: ec.EllipticCurvePrivateKey) -> httpx.Response:
        return await self._world.program().post("/v1/enrolments", json=self._body | {"csr": make_csr(key)})

    async def poll(self, answer: dict[str, Any]) -> httpx.Response:
        client = self._world.program(answer["poll_secret"])
        return await client.get(f"/v1/enrolments/{answer['enrolment_id']}")


async def newcomer(world: World, owner: httpx.AsyncClient, *, approve: bool) -> Newcomer:
    token = (await owner.post("/v1/registration-tokens", json={"approve": approve})).json()["token"]
    return Newcomer(world, token)


async def test_the_same_key_gets_the_same_enrolment_and_the_lost_answer_opens_nothing(world: World) -> None:
    owner, key = await world.person(), ec.generate_private_key(ec.SECP256R1())
    device = await newcomer(world, owner, approve=True)
    lost, again = (await device.ask(key)).json(), (await device.ask(key)).json()
    assert again["device_id"] == lost["device_id"]
    assert again["status"] == "approved"
    assert (await device.poll(lost)).status_code == 404
    assert (await device.poll(again)).json()["certificate"].startswith("-----BEGIN CERTIFICATE")
    assert len((await owner.get("/v1/devices")).json()["items"]) == 1


async def test_another_key_or_a_late_one_finds_the_token_used(world: World, clock: FakeClock) -> None:
    owner, key = await world.person(), ec.generate_private_key(ec.SECP256R1())
    device = await newcomer(world, owner, approve=False)
    first = (await device.ask(key)).json()
    other = await device.ask(ec.generate_private_key(ec.SECP256R1()))
    assert (other.status_code, other.json()["code"]) == (410, "registration_token_used")
    assert (await device.poll(first)).status_code == 200  # who does not hold the key changes nothing
    clock.advance(REGISTRATION_TOKEN_TTL_S + 1)
    late = await device.ask(key)
    assert (late.status_code, late.json()["code"]) == (410, "registration_token_used")


async def test_a_rejected_or_revoked_device_does_not_come_back_by_its_token(world: World) -> None:
    owner, key = await world.person(), ec.generate_private_key(ec.SECP256R1())
    device = await newcomer(world, owner, approve=True)
    first = (await device.ask(key)).json()
    assert (await owner.post(f"/v1/devices/{first['device_id']}/revoke", json={})).is_success
    assert (await device.ask(key)).status_code == 410
