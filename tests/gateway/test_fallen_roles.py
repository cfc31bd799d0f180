"""A role that falls takes along what was begun by it: also what is under way, and what lies about unused."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.gateway.standing_still import paused
from tests.gateway.test_places import home, join
from tests.gateway.world import World, make_csr

pytestmark = pytest.mark.usefixtures("patient_statements")

_OF_BOB = "user_id = (SELECT id FROM users WHERE username = 'bob') AND site_id IS NOT NULL"
FALLS = {
    f"DELETE FROM memberships WHERE {_OF_BOB}": 404,
    f"UPDATE memberships SET role = 'support' WHERE {_OF_BOB}": 403,
}


@pytest.mark.parametrize(("falls", "status"), FALLS.items(), ids=["removed", "lowered"])
async def test_no_session_of_a_role_that_fell_meanwhile(world: World, falls: str, status: int) -> None:
    """It saw the device as a member, and waits for its role while that is taken away and committed."""
    ann, bob = await home(world, "ann"), await home(world, "bob")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    await join(ann, f"/v1/sites/{ann.site}", bob, "member")
    async with asyncio.TaskGroup() as group, paused(world, falls) as pause:
        opening = group.create_task(bob.http.post(f"/v1/devices/{device.id}/sessions", json={}))
        await pause.until_waiting(1)
    assert opening.result().status_code == status, opening.result().text
    async with world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM sessions") == 0


@pytest.mark.parametrize("how", ["lowered", "shut out"])
async def test_a_registration_token_falls_with_its_authors_role(world: World, how: str) -> None:
    """Whoever may not make one any more has none out there either."""
    admin = await home(world, "admin")
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/sites/{ann.site}", bob, "admin")
    wish = {"approve": True, "site_id": ann.site}
    token = (await bob.http.post("/v1/registration-tokens", json=wish)).json()["token"]
    if how == "lowered":
        fell = await ann.http.patch(f"/v1/sites/{ann.site}/members/{bob.id}", json={"role": "member"})
    else:
        fell = await admin.http.patch(f"/v1/users/{bob.id}", json={"disabled": True})
    assert fell.status_code == 200
    body = {"token": token, "csr": make_csr(ec.generate_private_key(ec.SECP256R1()))}
    body |= {"name": "Late", "hardware_id": "hw-late", "software": "1"}
    refused = await world.program().post("/v1/enrolments", json=body)
    assert (refused.status_code, refused.json()["code"]) == (410, "registration_token_void")
    assert (await ann.http.get("/v1/devices")).json()["items"] == []


@pytest.mark.parametrize(
    ("invited", "left"), [("admin", "admin"), ("member", "member"), ("member", "support")]
)
async def test_an_invitation_falls_when_its_author_may_not_give_it_any_more(
    world: World, invited: str, left: str
) -> None:
    """Lowered, not removed: the author still belongs there, and may no longer give this role."""
    ann, bob, eve = await home(world, "ann"), await home(world, "bob"), await home(world, "eve")
    site = f"/v1/sites/{ann.site}"
    await join(ann, site, bob, "owner")
    token = (await bob.http.post(f"{site}/invitations", json={"role": invited})).json()["token"]
    fell = await ann.http.patch(f"{site}/members/{bob.id}", json={"role": left})
    assert fell.status_code == 200, fell.text
    refused = await eve.http.post("/v1/invitations/accept", json={"token": token})
    assert (refused.status_code, refused.json()["code"]) == (410, "invitation_void")
    assert (await eve.http.get(site)).status_code == 404
    raised = await ann.http.patch(f"{site}/members/{bob.id}", json={"role": "owner"})
    assert raised.status_code == 200
    assert (await eve.http.post("/v1/invitations/accept", json={"token": token})).status_code == 200
