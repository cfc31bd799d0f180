"""Ids inside a place: what is somebody else's is not to be had through a place of one's own."""

from __future__ import annotations

from gateway.api.app import documented_routes
from tests.gateway.test_places import home, join
from tests.gateway.world import World

# Every route that names a thing inside a place; each is tried below.
NESTED = {
    "DELETE /v1/orgs/{place_id}/invitations/{invitation_id}",
    "DELETE /v1/orgs/{place_id}/members/{user_id}",
    "DELETE /v1/sites/{place_id}/invitations/{invitation_id}",
    "DELETE /v1/sites/{place_id}/members/{user_id}",
    "PATCH /v1/orgs/{place_id}/members/{user_id}",
    "PATCH /v1/sites/{place_id}/members/{user_id}",
}


def test_these_are_all() -> None:
    found = {
        f"{method} {route.path}"
        for route in documented_routes()
        for method in route.methods or ()
        if route.path.count("{") > 1
    }
    assert found == NESTED


async def test_an_invitation_is_withdrawn_from_its_own_place_alone(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    of_site = await ann.http.post(f"/v1/sites/{ann.site}/invitations", json={"role": "member"})
    of_org = await ann.http.post(f"/v1/orgs/{ann.org}/invitations", json={"role": "member"})
    site_id, org_id = of_site.json()["id"], of_org.json()["id"]
    for person, path in (
        (bob, f"/v1/sites/{bob.site}/invitations/{site_id}"),
        (bob, f"/v1/orgs/{bob.org}/invitations/{org_id}"),
        (bob, f"/v1/orgs/{bob.org}/invitations/{site_id}"),
        # Her own as well: what was sent out for the whole org is no site's, and the other way round.
        (ann, f"/v1/sites/{ann.site}/invitations/{org_id}"),
        (ann, f"/v1/orgs/{ann.org}/invitations/{site_id}"),
    ):
        answer = await person.http.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    for kind, place, still in (("sites", ann.site, site_id), ("orgs", ann.org, org_id)):
        listed = (await ann.http.get(f"/v1/{kind}/{place}/invitations")).json()["items"]
        assert [one["id"] for one in listed] == [still]
        assert (await ann.http.delete(f"/v1/{kind}/{place}/invitations/{still}")).status_code == 204


async def test_a_member_is_changed_where_they_are_one_alone(world: World) -> None:
    ann, bob, eve = await home(world, "ann"), await home(world, "bob"), await home(world, "eve")
    await join(ann, f"/v1/sites/{ann.site}", eve, "member")
    for kind, place in (("sites", bob.site), ("orgs", bob.org), ("orgs", ann.org)):
        owner = ann if place == ann.org else bob
        path = f"/v1/{kind}/{place}/members/{eve.id}"
        for answer in (
            await owner.http.patch(path, json={"role": "support"}),
            await owner.http.delete(path),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    members = (await ann.http.get(f"/v1/sites/{ann.site}/members")).json()["items"]
    assert [one["role"] for one in members if one["user_id"] == eve.id] == ["member"]
