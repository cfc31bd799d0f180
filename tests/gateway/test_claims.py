"""A device that changes hands, and devices as their people name, tag, move and search them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.claims import CLAIM_PURPOSE, RELEASE_TTL_S
from gateway.randomness import digest
from runtime.clock import FakeClock
from tests.gateway.test_places import Home, home, join
from tests.gateway.world import Device, World, base64url, open_session
from tunnel_agent.claim import claim
from tunnel_agent.enrolment import Enrolment, EnrolmentRequest
from tunnel_agent.errors import EnrolmentError
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import IdentityStore


async def new_token(owner: Home, *, approve: bool = True) -> str:
    answer = await owner.http.post("/v1/registration-tokens", json={"approve": approve})
    token: str = answer.json()["token"]
    return token


async def claim_as(world: World, device: Device, signed: str, **changes: Any) -> httpx.Response:
    program = world.program()
    path = f"/v1/devices/{device.id}"
    nonce = (await program.post(path + "/certificate/challenge")).json()["nonce"]
    raw = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
    message = CLAIM_PURPOSE + raw + device.id.encode() + digest(signed)
    body = {"token": signed, "nonce": nonce, "signature": base64url(device.sign(message)), **changes}
    return await program.post(path + "/claim", json=body)


async def test_a_released_device_goes_where_it_proves_itself(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    await ann.http.patch(f"/v1/devices/{device.id}", json={"tags": ["cellar"]})
    session = await open_session(ann.http, device)
    early = await claim_as(world, device, await new_token(bob))
    assert (early.status_code, early.json()["code"]) == (409, "not_released")
    assert (await ann.http.post(f"/v1/devices/{device.id}/release")).status_code == 200
    assert (await ann.http.get(f"/v1/devices/{device.id}")).json()["released_until"] is not None
    claimed = await claim_as(world, device, await new_token(bob))
    assert claimed.status_code == 200, claimed.text
    assert claimed.json()["site"]["id"] == bob.site
    assert (await ann.http.get(f"/v1/devices/{device.id}")).status_code == 404
    theirs = (await bob.http.get(f"/v1/devices/{device.id}")).json()
    assert (theirs["online"], theirs["role"]) == (True, "owner")
    assert (theirs["tags"], theirs["released_until"]) == ([], None)
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetch("SELECT ref FROM revocations WHERE kind = 'session'")
        told = await tx.fetch("SELECT kind, site FROM audit_events WHERE kind ~ 'handed_over|claimed'")
    assert [row["ref"] for row in ended] == [session.session]
    assert {(row["kind"], row["site"]) for row in told} == {
        ("device.handed_over", ann.site),
        ("device.claimed", bob.site),
    }


async def test_possession_is_proved(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device, other = await world.enrol(ann.http), await world.enrol(bob.http)
    await ann.http.post(f"/v1/devices/{device.id}/release")
    token = await new_token(bob)
    thief = Device(device.id, other.key, {})
    wrong = await claim_as(world, thief, token)
    assert (wrong.status_code, wrong.json()["code"]) == (403, "bad_signature")
    # A signature for one token says nothing for another: whoever watches cannot turn the device aside.
    swapped = await claim_as(world, device, token, token=await new_token(ann))
    assert swapped.json()["code"] == "bad_signature"
    replayed = await claim_as(world, device, token, nonce="A" * 43)
    assert replayed.json()["code"] == "bad_signature"
    assert (await claim_as(world, device, token)).status_code == 200
    assert (await claim_as(world, device, token)).json()["code"] == "registration_token_used"


async def test_both_owners_say_yes(world: World, clock: FakeClock) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    path = f"/v1/devices/{device.id}/release"
    await ann.http.post(path)
    silent = await claim_as(world, device, await new_token(bob, approve=False))
    assert (silent.status_code, silent.json()["code"]) == (409, "token_does_not_approve")
    assert (await ann.http.delete(path)).status_code == 204
    assert (await claim_as(world, device, await new_token(bob))).json()["code"] == "not_released"
    await ann.http.post(path)
    clock.advance(RELEASE_TTL_S + 1)
    bob = await home(world, "bob")  # the logins ended meanwhile
    assert (await claim_as(world, device, await new_token(bob))).json()["code"] == "not_released"


async def test_a_token_falls_with_the_role_of_its_author(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/sites/{ann.site}", bob, "admin")
    made = await bob.http.post("/v1/registration-tokens", json={"site_id": ann.site})
    await ann.http.delete(f"/v1/sites/{ann.site}/members/{bob.id}")
    device = await world.enrol(bob.http)
    refused = await claim_as(world, device, made.json()["token"])
    assert (refused.status_code, refused.json()["code"]) == (410, "registration_token_void")


async def test_the_agents_own_claim(world: World, tmp_path: Path) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    store, url = IdentityStore(tmp_path / "state"), f"http://{world.gateway.public_address}"
    request = EnrolmentRequest(url, await new_token(ann), "Pump", "hw-1", "agent", None, 10.0)
    identity = await asyncio.to_thread(Enrolment(store, request, say=lambda line: None).run)
    client, token = GatewayClient(url), await new_token(bob)
    with pytest.raises(EnrolmentError, match="ask its owner to release it"):
        await asyncio.to_thread(claim, identity, client, token)
    await ann.http.post(f"/v1/devices/{identity.device_id}/release")
    assert await asyncio.to_thread(claim, identity, client, token) == ("Pump", "Home")
    assert (await bob.http.get(f"/v1/devices/{identity.device_id}")).json()["role"] == "owner"


async def test_names_and_tags(world: World) -> None:
    ann = await home(world, "ann")
    device = await world.enrol(ann.http)
    path = f"/v1/devices/{device.id}"
    changed = (await ann.http.patch(path, json={"name": " Boiler ", "tags": ["b", "a", "b"]})).json()
    assert (changed["name"], changed["tags"]) == ("Boiler", ["a", "b"])
    kept = (await ann.http.patch(path, json={})).json()
    assert (kept["name"], kept["tags"]) == ("Boiler", ["a", "b"])
    for body, field in (
        ({"tags": ["Ä"]}, "tags.0"),
        ({"tags": ["x"] * 17}, "tags"),
        ({"name": "\u202e"}, "name"),
        ({"nmae": "x"}, "nmae"),
        ({"site_id": "s_aaaaaaaaaaaaaaaa"}, "site_id"),
    ):
        wrong = await ann.http.patch(path, json=body)
        assert (wrong.status_code, wrong.json()["field"]) == (422, field)


async def test_a_device_moves_between_sites_of_its_owner(world: World, clock: FakeClock) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    clock.advance(1)  # the older site is the one that is meant when none is named
    works = (await ann.http.post(f"/v1/orgs/{ann.org}/sites", json={"name": "Works"})).json()["id"]
    await join(ann, f"/v1/sites/{ann.site}", bob, "member")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    theirs, own = await open_session(bob.http, device), await open_session(ann.http, device)
    moved = await ann.http.patch(f"/v1/devices/{device.id}", json={"site_id": works})
    assert moved.json()["site"] == {"id": works, "name": "Works"}
    assert (await bob.http.get(f"/v1/devices/{device.id}")).status_code == 404
    async with world.gateway.parts.database.transaction() as tx:
        ended = [row["ref"] for row in await tx.fetch("SELECT ref FROM revocations WHERE kind = 'session'")]
    assert ended == [theirs.session]
    assert own.session not in ended
    # Into a home where one is nobody: it does not even exist.
    refused = await ann.http.patch(f"/v1/devices/{device.id}", json={"site_id": bob.site})
    assert (refused.status_code, refused.json()["field"]) == (422, "site_id")


async def test_an_administrator_of_a_site_moves_nothing_out_of_it(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/sites/{ann.site}", bob, "admin")
    device = await world.enrol(ann.http)
    refused = await bob.http.patch(f"/v1/devices/{device.id}", json={"site_id": bob.site})
    assert refused.status_code == 403


async def test_searching(world: World, clock: FakeClock) -> None:
    ann = await home(world, "ann")
    clock.advance(1)  # the older site is the one that is meant when none is named
    works = (await ann.http.post(f"/v1/orgs/{ann.org}/sites", json={"name": "Works"})).json()["id"]
    pump, boiler = await world.enrol(ann.http, name="Pump 100%"), await world.enrol(ann.http, name="Boiler")
    waiting = await world.enrol(ann.http, name="New", approve=False)
    await world.node().connect(pump)
    await ann.http.patch(f"/v1/devices/{boiler.id}", json={"tags": ["hot", "cellar"], "site_id": works})

    async def found(**wanted: Any) -> set[str]:
        answer = await ann.http.get("/v1/devices", params=wanted)
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    assert await found() == {pump.id, boiler.id, waiting.id}
    assert await found(q="PUMP") == await found(q="0%") == await found(online=True) == {pump.id}
    assert await found(q=boiler.id[2:]) == await found(tag=["hot", "cellar"]) == {boiler.id}
    assert await found(site_id=works) == {boiler.id}
    assert await found(status="pending") == {waiting.id}
    assert await found(tag=["hot", "cold"]) == await found(q="%_") == set()
    for wrong in ({"status": "rejected"}, {"q": "x" * 65}, {"limit": 0}, {"colour": "red"}, {"tag": "Ä"}):
        assert (await ann.http.get("/v1/devices", params=wrong)).status_code == 422, wrong


async def test_people_of_a_site_see_its_devices(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    await join(ann, f"/v1/orgs/{ann.org}", bob, "support")
    listed = (await bob.http.get("/v1/devices")).json()["items"]
    assert [(one["id"], one["role"], one["owner"]) for one in listed] == [(device.id, "support", "ann")]
