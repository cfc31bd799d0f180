"""An administrator gives somebody a new password: whoever came in by the old one is out."""

from __future__ import annotations

from tests.gateway.test_places import home
from tests.gateway.test_refresh import refresh
from tests.gateway.world import ADMIN_PASSWORD, World, open_session

NEW = "another one of fifteen"


async def test_what_the_old_password_began_ends(world: World) -> None:
    admin, ann = await home(world, "admin"), await home(world, "ann")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    session = await open_session(ann.http, device)
    made = await ann.http.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    wish = {"username": "ann", "password": ADMIN_PASSWORD, "refresh": True}
    given = (await world.program().post("/v1/login", json=wish)).json()
    changed = await admin.http.patch(f"/v1/users/{ann.id}", json={"password": NEW})
    assert changed.status_code == 200, changed.text
    assert (await ann.http.get("/v1/me")).status_code == 401
    for secret in (given["access_token"], made.json()["token"]):
        assert (await world.program(secret).get("/v1/devices")).status_code == 401
    assert (await refresh(world, given["refresh_token"])).status_code == 400
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetch("SELECT ref FROM revocations WHERE kind = 'session'")
    assert [row["ref"] for row in ended] == [session.session]
    old = await world.program().post("/v1/login", json={"username": "ann", "password": ADMIN_PASSWORD})
    assert old.status_code == 401
    new = await world.program().post("/v1/login", json={"username": "ann", "password": NEW})
    assert new.status_code == 200
