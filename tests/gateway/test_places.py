"""Orgs, sites, their people, and what becomes of access when a role goes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.api.members import INVITATION_TTL_S
from runtime.clock import FakeClock
from tests.gateway.world import World, open_session


class Home:
    """A person with their own org and its first site."""

    def __init__(self, http: httpx.AsyncClient, me: dict[str, Any], site: dict[str, Any]) -> None:
        self.http = http
        self.id: str = me["id"]
        self.site: str = site["id"]
        self.org: str = site["org_id"]


async def home(world: World, name: str) -> Home:
    http = await world.person(name)
    sites = (await http.get("/v1/sites")).json()["items"]
    return Home(http, (await http.get("/v1/me")).json(), sites[0])


async def join(inviter: Home, path: str, guest: Home, role: str) -> httpx.Response:
    made = await inviter.http.post(f"{path}/invitations", json={"role": role})
    assert made.status_code == 201, made.text
    return await guest.http.post("/v1/invitations/accept", json={"token": made.json()["token"]})


async def test_everybody_begins_with_a_home(world: World) -> None:
    ann = await home(world, "ann")
    site = (await ann.http.get(f"/v1/sites/{ann.site}")).json()
    assert (site["name"], site["org"], site["role"]) == ("Home", "ann", "owner")
    members = (await ann.http.get(f"/v1/sites/{ann.site}/members")).json()["items"]
    assert [(m["username"], m["role"], m["whole_org"]) for m in members] == [("ann", "owner", True)]


async def test_sites_of_an_org(world: World) -> None:
    ann = await home(world, "ann")
    made = await ann.http.post(f"/v1/orgs/{ann.org}/sites", json={"name": "  Works  "})
    assert made.status_code == 201
    works = made.json()
    assert (works["name"], works["role"], works["org_id"]) == ("Works", "owner", ann.org)
    renamed = await ann.http.patch(f"/v1/sites/{works['id']}", json={"name": "Plant"})
    assert renamed.json()["name"] == "Plant"
    listed = [(await ann.http.get("/v1/sites", params={"limit": 1})).json()]
    listed.append(
        (await ann.http.get("/v1/sites", params={"limit": 1, "cursor": listed[0]["next_cursor"]})).json()
    )
    assert {page["items"][0]["id"] for page in listed} == {ann.site, works["id"]}
    assert listed[1]["next_cursor"] is None
    assert (await ann.http.delete(f"/v1/orgs/{ann.org}")).json()["code"] == "org_not_empty"
    assert (await ann.http.delete(f"/v1/sites/{works['id']}")).status_code == 204
    assert (await ann.http.get(f"/v1/sites/{works['id']}")).status_code == 404


async def test_a_site_with_devices_stays(world: World) -> None:
    ann = await home(world, "ann")
    device = await world.enrol(ann.http)
    refused = await ann.http.delete(f"/v1/sites/{ann.site}")
    assert (refused.status_code, refused.json()["code"]) == (409, "site_not_empty")
    await ann.http.post(f"/v1/devices/{device.id}/revoke")
    assert (await ann.http.delete(f"/v1/sites/{ann.site}")).status_code == 204
    assert (await ann.http.get(f"/v1/devices/{device.id}")).status_code == 404


async def test_an_invitation_works_once_and_shows_what_it_is(world: World) -> None:
    ann, bob, eve = await home(world, "ann"), await home(world, "bob"), await home(world, "eve")
    made = (await ann.http.post(f"/v1/sites/{ann.site}/invitations", json={"role": "member"})).json()
    shown = (await bob.http.post("/v1/invitations/inspect", json={"token": made["token"]})).json()
    assert (shown["org"], shown["site"], shown["role"], shown["invited_by"]) == (
        "ann",
        "Home",
        "member",
        "ann",
    )
    assert "token" not in shown
    joined = await bob.http.post("/v1/invitations/accept", json={"token": made["token"]})
    assert joined.json() == {"org_id": ann.org, "site_id": ann.site, "role": "member"}
    again = await eve.http.post("/v1/invitations/accept", json={"token": made["token"]})
    assert (again.status_code, again.json()["code"]) == (410, "invitation_gone")
    assert (await ann.http.get(f"/v1/sites/{ann.site}/invitations")).json()["items"] == []


async def test_invitations_end(world: World, clock: FakeClock) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    path = f"/v1/sites/{ann.site}/invitations"
    withdrawn = (await ann.http.post(path, json={"role": "member"})).json()
    assert (await ann.http.delete(f"{path}/{withdrawn['id']}")).status_code == 204
    refused = await bob.http.post("/v1/invitations/accept", json={"token": withdrawn["token"]})
    assert refused.json()["code"] == "invitation_gone"
    late = (await ann.http.post(path, json={"role": "member"})).json()
    clock.advance(INVITATION_TTL_S)
    bob = await home(world, "bob")  # the logins ended meanwhile
    refused = await bob.http.post("/v1/invitations/accept", json={"token": late["token"]})
    assert refused.json()["code"] == "invitation_gone"


async def test_an_invitation_falls_with_its_author(world: World) -> None:
    ann, adam, bob = await home(world, "ann"), await home(world, "adam"), await home(world, "bob")
    site = f"/v1/sites/{ann.site}"
    assert (await join(ann, site, adam, "admin")).status_code == 200
    made = (await adam.http.post(f"{site}/invitations", json={"role": "member"})).json()
    assert (await ann.http.delete(f"{site}/members/{adam.id}")).status_code == 204
    refused = await bob.http.post("/v1/invitations/accept", json={"token": made["token"]})
    assert (refused.status_code, refused.json()["code"]) == (410, "invitation_void")


async def test_nobody_gives_more_than_they_have(world: World) -> None:
    ann, adam, bob = await home(world, "ann"), await home(world, "adam"), await home(world, "bob")
    site = f"/v1/sites/{ann.site}"
    await join(ann, site, adam, "admin")
    for role, status in (("owner", 403), ("admin", 403), ("member", 201), ("support", 201)):
        answer = await adam.http.post(f"{site}/invitations", json={"role": role})
        assert answer.status_code == status, role
    await join(ann, site, bob, "member")
    lifted = await adam.http.patch(f"{site}/members/{bob.id}", json={"role": "admin"})
    assert lifted.status_code == 403
    # The owner of the whole org is not to be had at one of its sites.
    assert (await adam.http.delete(f"{site}/members/{ann.id}")).status_code == 404
    assert (await adam.http.delete(f"/v1/orgs/{ann.org}/members/{ann.id}")).status_code == 403


async def test_the_greater_of_two_roles_counts(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/orgs/{ann.org}", bob, "support")
    assert (await bob.http.get(f"/v1/sites/{ann.site}")).json()["role"] == "support"
    await join(ann, f"/v1/sites/{ann.site}", bob, "admin")
    assert (await bob.http.get(f"/v1/sites/{ann.site}")).json()["role"] == "admin"
    other = (await ann.http.post(f"/v1/orgs/{ann.org}/sites", json={"name": "Two"})).json()["id"]
    assert (await bob.http.get(f"/v1/sites/{other}")).json()["role"] == "support"
    again = await join(ann, f"/v1/sites/{ann.site}", bob, "member")
    assert (again.status_code, again.json()["code"]) == (409, "already_member")


async def test_an_org_keeps_an_owner(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    org = f"/v1/orgs/{ann.org}"
    for answer in (
        await ann.http.delete(f"{org}/members/{ann.id}"),
        await ann.http.patch(f"{org}/members/{ann.id}", json={"role": "admin"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    await join(ann, org, bob, "owner")
    assert (await ann.http.delete(f"{org}/members/{ann.id}")).status_code == 204
    assert (await ann.http.get(org)).status_code == 404
    assert (await bob.http.get(org)).json()["role"] == "owner"


@pytest.mark.parametrize("how", ["removed", "lowered", "left"])
async def test_sessions_end_with_the_role_that_carried_them(world: World, how: str) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    site = f"/v1/sites/{ann.site}"
    assert (await bob.http.post(f"/v1/devices/{device.id}/sessions", json={})).status_code == 404
    await join(ann, site, bob, "member")
    theirs = await open_session(bob.http, device)
    own = await open_session(ann.http, device)
    member = f"{site}/members/{bob.id}"
    if how == "lowered":
        assert (await ann.http.patch(member, json={"role": "support"})).status_code == 200
    else:
        actor = ann if how == "removed" else bob
        assert (await actor.http.delete(member)).status_code == 204
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetch("SELECT ref FROM revocations WHERE kind = 'session'")
    assert [row["ref"] for row in ended] == [theirs.session]
    live = (await ann.http.get("/v1/sessions")).json()["items"]
    assert [one["id"] for one in live] == [own.session]
    refused = await bob.http.post(f"/v1/devices/{device.id}/sessions", json={})
    assert refused.status_code == (403 if how == "lowered" else 404)


async def test_ids_of_the_other_kind_are_not_found(world: World) -> None:
    ann = await home(world, "ann")
    for path in (f"/v1/orgs/{ann.site}", f"/v1/orgs/{ann.site}/members", f"/v1/sites/{ann.org}/members"):
        assert (await ann.http.get(path)).status_code == 404, path


async def test_administrators_keep_people(world: World) -> None:
    admin, ann = await home(world, "admin"), await home(world, "ann")
    assert (await ann.http.get("/v1/users")).status_code == 403
    made = await admin.http.post("/v1/users", json={"username": "zoe", "password": "x" * 15})
    assert (made.status_code, made.json()["role"]) == (201, "user")
    taken = await admin.http.post("/v1/users", json={"username": "zoe", "password": "x" * 15})
    assert (taken.status_code, taken.json()["code"], taken.json()["field"]) == (
        409,
        "username_taken",
        "username",
    )
    short = await admin.http.post("/v1/users", json={"username": "yan", "password": "short"})
    assert (short.status_code, short.json()["field"]) == (422, "password")
    names = [user["username"] for user in (await admin.http.get("/v1/users")).json()["items"]]
    assert names == ["admin", "ann", "zoe"]


async def test_no_name_looks_like_another(world: World) -> None:
    admin = await home(world, "admin")
    for name in ("Admin", "ADMIN", "\u0430dmin", "\uff41dmin", "zo\u00eb", " ann", "a b", "-ann", ""):
        refused = await admin.http.post("/v1/users", json={"username": name, "password": "x" * 15})
        assert (refused.status_code, refused.json()["field"]) == (422, "username"), name


async def test_who_is_shut_out_is_out_everywhere(world: World) -> None:
    admin, ann = await home(world, "admin"), await home(world, "ann")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    session = await open_session(ann.http, device)
    shut = await admin.http.patch(f"/v1/users/{ann.id}", json={"disabled": True})
    assert shut.json()["disabled"] is True
    assert (await ann.http.get("/v1/me")).status_code == 401
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetchval("SELECT ref FROM revocations WHERE kind = 'session'")
    assert ended == session.session
    await admin.http.patch(f"/v1/users/{ann.id}", json={"disabled": False})
    assert (await ann.http.get("/v1/me")).status_code == 401  # the old login stays ended


async def test_an_installation_keeps_an_administrator(world: World) -> None:
    admin = await home(world, "admin")
    for change in ({"disabled": True}, {"role": "user"}):
        answer = await admin.http.patch(f"/v1/users/{admin.id}", json=change)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")


async def test_staff_see_no_devices(world: World) -> None:
    admin, ann = await home(world, "admin"), await home(world, "ann")
    device = await world.enrol(ann.http)
    for method, path in (
        ("GET", f"/v1/devices/{device.id}"),
        ("POST", f"/v1/devices/{device.id}/sessions"),
        ("GET", f"/v1/sites/{ann.site}"),
        ("GET", f"/v1/sites/{ann.site}/members"),
    ):
        answer = await admin.http.request(method, path, json={} if method == "POST" else None)
        assert answer.status_code == 404, path
