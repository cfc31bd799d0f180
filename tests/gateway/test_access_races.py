"""Access against its own end: requests that decide before, and commit after, what takes their right away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.api import places
from runtime.clock import FakeClock
from tests.gateway.standing_still import AUDIT_HEAD, meanwhile, paused
from tests.gateway.test_claims import claim_as
from tests.gateway.test_places import Home, home, join
from tests.gateway.world import ADMIN_PASSWORD, World, make_csr, settings_for

pytestmark = pytest.mark.usefixtures("patient_statements")


async def live(world: World) -> int:
    async with world.gateway.parts.database.transaction() as tx:
        count: int = await tx.fetchval("SELECT count(*) FROM sessions WHERE ended_at IS NULL")
    return count


async def another_site(world: World, owner: Home) -> str:
    """Younger than their home: that stays the one that is meant where none is named."""
    assert isinstance(world.clock, FakeClock)
    world.clock.advance(1)
    made = await owner.http.post(f"/v1/orgs/{owner.org}/sites", json={"name": "Works"})
    site_id: str = made.json()["id"]
    return site_id


async def api_token(person: Home) -> dict[str, str]:
    wish = {"name": "script", "scopes": ["devices:read", "sessions"]}
    made = await person.http.post("/v1/me/api-tokens", json=wish)
    assert made.status_code == 201, made.text
    answer: dict[str, str] = made.json()
    return answer


@pytest.mark.parametrize(
    "how", ["removed", "lowered", "left", "lowered in the org", "shut out", "logged out", "token ended"]
)
async def test_a_session_that_opens_meanwhile_ends_too(world: World, how: str) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    place = f"/v1/orgs/{ann.org}" if how == "lowered in the org" else f"/v1/sites/{ann.site}"
    await join(ann, place, bob, "member")
    opener, member = bob.http, f"{place}/members/{bob.id}"
    if how == "token ended":
        token = await api_token(bob)
        opener, member = world.program(token["token"]), f"/v1/me/api-tokens/{token['id']}"
    ends = {
        "removed": lambda: ann.http.delete(member),
        "lowered": lambda: ann.http.patch(member, json={"role": "support"}),
        "left": lambda: bob.http.delete(member),
        "lowered in the org": lambda: ann.http.patch(member, json={"role": "support"}),
        "shut out": lambda: admin.http.patch(f"/v1/users/{bob.id}", json={"disabled": True}),
        "logged out": lambda: bob.http.post("/v1/logout"),
        "token ended": lambda: bob.http.delete(member),
    }
    opened, ended = await meanwhile(
        world, opener.post(f"/v1/devices/{device.id}/sessions", json={}), ends[how]()
    )
    assert (opened.status_code, ended.is_success) == (201, True), ended.text
    assert await live(world) == 0


@pytest.mark.parametrize("how", ["enrolled", "claimed", "moved"])
async def test_a_site_is_not_deleted_under_a_device_that_comes_in(world: World, how: str) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    works = await another_site(world, bob)
    wish = {"approve": True, "site_id": works}
    token = (await bob.http.post("/v1/registration-tokens", json=wish)).json()["token"]
    device = await world.enrol(bob.http if how == "moved" else ann.http)
    if how == "enrolled":
        key = ec.generate_private_key(ec.SECP256R1())
        body = {
            "token": token,
            "csr": make_csr(key),
            "name": "Late",
            "hardware_id": "hw-late",
            "software": "1",
        }
        comes = world.program().post("/v1/enrolments", json=body)
    elif how == "claimed":
        assert (await ann.http.post(f"/v1/devices/{device.id}/release")).status_code == 200
        comes = claim_as(world, device, token)
    else:
        comes = bob.http.patch(f"/v1/devices/{device.id}", json={"site_id": works})
    came, deleted = await meanwhile(world, comes, bob.http.delete(f"/v1/sites/{works}"))
    assert came.is_success, came.text
    assert (deleted.status_code, deleted.json()["code"]) == (409, "site_not_empty")
    there = (await bob.http.get("/v1/devices", params={"site_id": works})).json()["items"]
    assert len(there) == 1


async def test_a_device_does_not_come_into_a_site_that_is_being_deleted(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    works = await another_site(world, bob)
    device = await world.enrol(ann.http)
    moving = await world.enrol(bob.http)
    assert (await ann.http.post(f"/v1/devices/{device.id}/release")).status_code == 200
    wish = {"approve": True, "site_id": works}
    token = (await bob.http.post("/v1/registration-tokens", json=wish)).json()["token"]
    deleted, claimed, moved = await meanwhile(
        world,
        bob.http.delete(f"/v1/sites/{works}"),
        claim_as(world, device, token),
        bob.http.patch(f"/v1/devices/{moving.id}", json={"site_id": works}),
    )
    assert deleted.status_code == 204
    assert (claimed.status_code, claimed.json()["field"]) in [(403, "token"), (410, "token")], claimed.text
    assert (moved.status_code, moved.json()["field"]) == (422, "site_id"), moved.text
    assert (await ann.http.get(f"/v1/devices/{device.id}")).json()["released_until"] is not None


@pytest.mark.parametrize("lock", ["SELECT 1 FROM invitations FOR UPDATE", AUDIT_HEAD])
async def test_an_invitation_is_accepted_or_withdrawn(world: World, lock: str) -> None:
    """Whoever of the two is first; they take their locks in one order."""
    ann, bob = await home(world, "ann"), await home(world, "bob")
    path = f"/v1/sites/{ann.site}/invitations"
    made = (await ann.http.post(path, json={"role": "member"})).json()
    accepted, withdrawn = await meanwhile(
        world,
        bob.http.post("/v1/invitations/accept", json={"token": made["token"]}),
        ann.http.delete(f"{path}/{made['id']}"),
        lock=lock,
    )
    assert (accepted.status_code, withdrawn.status_code) in [(200, 404), (410, 204)], withdrawn.text


async def test_an_invitation_accepted_twice_at_once_makes_one_member(world: World) -> None:
    ann, bob, eve = await home(world, "ann"), await home(world, "bob"), await home(world, "eve")
    made = await ann.http.post(f"/v1/sites/{ann.site}/invitations", json={"role": "member"})
    body = {"token": made.json()["token"]}
    first, second = await meanwhile(
        world, *(who.http.post("/v1/invitations/accept", json=body) for who in (bob, eve))
    )
    assert (first.status_code, second.status_code) == (200, 410)
    members = (await ann.http.get(f"/v1/sites/{ann.site}/members")).json()["items"]
    assert {m["username"] for m in members} == {"ann", "bob"}


async def test_owners_who_unmake_each_other_leave_one(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    org = f"/v1/orgs/{ann.org}"
    await join(ann, org, bob, "owner")
    first, second = await meanwhile(
        world,
        ann.http.patch(f"{org}/members/{bob.id}", json={"role": "member"}),
        bob.http.patch(f"{org}/members/{ann.id}", json={"role": "member"}),
    )
    assert (first.status_code, second.status_code) == (200, 403), second.text


async def test_administrators_who_unmake_each_other_leave_one(world: World) -> None:
    admin = await home(world, "admin")
    made = await admin.http.post(
        "/v1/users", json={"username": "boss", "password": "x" * 15, "role": "admin"}
    )
    boss = world.browser()
    await boss.post("/v1/login", json={"username": "boss", "password": "x" * 15})
    first, second = await meanwhile(
        world,
        admin.http.patch(f"/v1/users/{made.json()['id']}", json={"role": "user"}),
        boss.patch(f"/v1/users/{admin.id}", json={"role": "user"}),
    )
    assert (first.status_code, second.status_code) == (200, 403), second.text


async def test_limits_hold_for_many_at_once(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ORGS_PER_PERSON", 3)
    settings = settings_for(tmp_path, database_url, keys_dir, sessions_per_user=3)
    world = await (await World(settings, clock, tmp_path).start()).prepared()
    try:
        ann = await home(world, "ann")
        pumps = [await world.enrol(ann.http) for _ in range(6)]
        node = world.node()
        for pump in pumps:
            await node.connect(pump)
        orgs = await asyncio.gather(*(ann.http.post("/v1/orgs", json={"name": "More"}) for _ in range(6)))
        assert sorted(a.status_code for a in orgs) == [201] * 2 + [409] * 4
        # Each at a device of its own: the device's lock is not what makes them wait for each other.
        opened = await asyncio.gather(
            *(ann.http.post(f"/v1/devices/{pump.id}/sessions", json={}) for pump in pumps)
        )
        assert sorted(a.status_code for a in opened) == [201] * 3 + [429] * 3
    finally:
        await world.close()


async def test_a_shut_out_author_lets_nobody_in(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    made = await ann.http.post(f"/v1/sites/{ann.site}/invitations", json={"role": "owner"})
    await admin.http.patch(f"/v1/users/{ann.id}", json={"disabled": True})
    refused = await bob.http.post("/v1/invitations/accept", json={"token": made.json()["token"]})
    assert (refused.status_code, refused.json()["code"]) == (410, "invitation_void")


async def test_an_owner_who_is_shut_out_can_be_removed(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    org = f"/v1/orgs/{ann.org}"
    await join(ann, org, bob, "owner")
    await admin.http.patch(f"/v1/users/{bob.id}", json={"disabled": True})
    left = await ann.http.delete(f"{org}/members/{ann.id}")
    assert (left.status_code, left.json()["code"]) == (409, "last_owner")
    assert (await ann.http.delete(f"{org}/members/{bob.id}")).status_code == 204


async def test_an_invitation_to_an_old_site_draws_no_devices_there(world: World, clock: FakeClock) -> None:
    """What enrols without naming a site goes to the person's own, not to that of whoever invited them."""
    eve = await home(world, "eve")
    clock.advance(1)
    bob = await home(world, "bob")
    clock.advance(1)
    await join(eve, f"/v1/sites/{eve.site}", bob, "admin")
    device = await world.enrol(bob.http)
    assert (await bob.http.get(f"/v1/devices/{device.id}")).json()["site"]["id"] == bob.site
    assert (await eve.http.get(f"/v1/devices/{device.id}")).status_code == 404


async def test_a_token_that_changes_sites_can_leave_one(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/sites/{ann.site}", bob, "member")
    wish = {"name": "leave", "scopes": ["sites:write"]}
    script = world.program((await bob.http.post("/v1/me/api-tokens", json=wish)).json()["token"])
    assert (await script.delete(f"/v1/sites/{ann.site}/members/{bob.id}")).status_code == 204


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("change", ["password_hash = '{other}'", "disabled_at = created_at"])
async def test_a_password_that_falls_while_it_is_checked_opens_nothing(
    world: World, change: str, refresh: bool
) -> None:
    """The check was right, and its login would begin behind the change, which ends those that there are."""
    await world.add_user("ann")
    body = {"username": "ann", "password": ADMIN_PASSWORD, "refresh": refresh}
    wanted = change.format(other=await world.passwords.hash("another one that is long"))
    lock = f"UPDATE users SET {wanted} WHERE username = 'ann'"
    async with asyncio.TaskGroup() as group, paused(world, lock) as pause:
        login = group.create_task(world.program().post("/v1/login", json=body))
        await pause.until_waiting(1)
    assert (login.result().status_code, login.result().json()["code"]) == (401, "wrong_login")
    async with world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM logins") == 0


async def test_no_registration_token_of_a_login_that_ended_meanwhile(world: World) -> None:
    ann = await home(world, "ann")
    first = await ann.http.post("/v1/registration-tokens", json={})
    assert first.status_code == 201  # its limit is a row now, where the next one waits
    lock = "SELECT 1 FROM rate_limits FOR UPDATE"
    async with asyncio.TaskGroup() as group, paused(world, lock) as pause:
        made = group.create_task(ann.http.post("/v1/registration-tokens", json={}))
        await pause.until_waiting(1)
        assert (await ann.http.post("/v1/logout")).status_code == 204
    assert made.result().status_code == 401, made.result().text
