"""Somebody who owns an org alone is shut out: at once, and what they owned gets another owner."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.gateway.standing_still import meanwhile
from tests.gateway.test_places import Home, home, join
from tests.gateway.world import ADMIN_PASSWORD, World

pytestmark = pytest.mark.usefixtures("patient_statements")


async def shut_out(admin: Home, who: Home, *, disabled: bool = True) -> list[str]:
    """Disable the person; the ids of the orgs that are left without an owner."""
    answer = await admin.http.patch(f"/v1/users/{who.id}", json={"disabled": disabled})
    assert answer.status_code == 200, answer.text
    return [org["id"] for org in answer.json()["without_owner"]]


async def kinds_of(person: httpx.AsyncClient) -> dict[str, dict[str, object]]:
    """The person's own audit lines by kind, the newest of each."""
    lines = (await person.get("/v1/me/audit", params={"order": "oldest"})).json()["items"]
    return {line["kind"]: line["detail"] for line in lines}


async def test_the_only_owner_is_shut_out_at_once_and_succeeded(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    await world.enrol(ann.http)
    await join(ann, f"/v1/orgs/{ann.org}", bob, "admin")
    before = (await admin.http.get(f"/v1/users/{ann.id}/orgs")).json()["items"]
    assert [(one["id"], one["members"], one["devices"]) for one in before] == [(ann.org, 1, 1)]
    assert await shut_out(admin, ann) == [ann.org]
    # Bob runs the place, and nobody there makes owners any more.
    members = f"/v1/orgs/{ann.org}/members"
    raised = await bob.http.patch(f"{members}/{bob.id}", json={"role": "owner"})
    assert raised.status_code == 403
    passed = await admin.http.post(f"/v1/users/{ann.id}/successor", json={"user_id": str(bob.id)})
    assert (passed.status_code, passed.json()["items"]) == (200, before)
    roles = {m["username"]: m["role"] for m in (await bob.http.get(members)).json()["items"]}
    assert roles == {"ann": "owner", "bob": "owner"}
    assert (await bob.http.patch(f"{members}/{ann.id}", json={"role": "member"})).status_code == 200
    assert (await kinds_of(bob.http))["org.owner_appointed"] == {"org": ann.org, "former": str(ann.id)}
    assert (await admin.http.get(f"/v1/users/{ann.id}/orgs")).json()["items"] == []
    again = await admin.http.post(f"/v1/users/{ann.id}/successor", json={"user_id": str(bob.id)})
    assert (again.status_code, again.json()["items"]) == (200, [])


async def test_who_is_let_in_again_reads_what_was_passed_on(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    await shut_out(admin, ann)
    await admin.http.post(f"/v1/users/{ann.id}/successor", json={"user_id": str(bob.id)})
    assert await shut_out(admin, ann, disabled=False) == []
    back = world.browser()
    body = {"username": "ann", "password": ADMIN_PASSWORD}
    assert (await back.post("/v1/login", json=body)).status_code == 200
    assert (await kinds_of(back))["user.succeeded"] == {"by": str(bob.id), "orgs": [ann.org]}
    roles = (await back.get(f"/v1/orgs/{ann.org}/members")).json()["items"]
    assert {m["username"]: m["role"] for m in roles} == {"ann": "owner", "bob": "owner"}


async def test_an_org_with_another_owner_is_not_passed_on(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/orgs/{ann.org}", bob, "owner")
    cleo = await home(world, "cleo")
    assert await shut_out(admin, ann) == []
    passed = await admin.http.post(f"/v1/users/{ann.id}/successor", json={"user_id": str(cleo.id)})
    assert passed.json()["items"] == []
    assert (await cleo.http.get(f"/v1/orgs/{ann.org}")).status_code == 404
    # An owner who is shut out too is none.
    assert sorted(await shut_out(admin, bob)) == sorted([ann.org, bob.org])


async def test_nobody_is_succeeded_who_may_log_in_nor_by_one_who_may_not(world: World) -> None:
    admin, ann, bob = await home(world, "admin"), await home(world, "ann"), await home(world, "bob")
    path = f"/v1/users/{ann.id}/successor"
    early = await admin.http.post(path, json={"user_id": str(bob.id)})
    assert (early.status_code, early.json()["code"]) == (409, "user_not_disabled")
    await shut_out(admin, ann)
    await shut_out(admin, bob)
    for who in (ann.id, bob.id, uuid4()):
        refused = await admin.http.post(path, json={"user_id": str(who)})
        assert (refused.status_code, refused.json()["field"]) == (422, "user_id")
    assert (await admin.http.get(f"/v1/users/{uuid4()}/orgs")).status_code == 404


async def test_two_successors_at_once_make_one_owner(world: World) -> None:
    admin, ann, bob, cleo = await asyncio.gather(*(home(world, n) for n in ("admin", "ann", "bob", "cleo")))
    await shut_out(admin, ann)
    path = f"/v1/users/{ann.id}/successor"
    first, second = await meanwhile(
        world,
        admin.http.post(path, json={"user_id": str(bob.id)}),
        admin.http.post(path, json={"user_id": str(cleo.id)}),
    )
    assert ([one["id"] for one in first.json()["items"]], second.json()["items"]) == ([ann.org], [])
