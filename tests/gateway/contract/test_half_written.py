"""Nothing is half-written: what cannot be audited has not happened, on every route that changes something."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TypeAlias

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.routing import APIRoute

from gateway.api.credentials import ANYBODY, DEVICE
from gateway.policy.access import Action
from tests.gateway.tables import changed, contents
from tests.gateway.test_matrix import (
    FORMS,
    NOBODY,
    OF_ONESELF,
    OWNER,
    PERSONAS,
    PREPARED,
    Call,
    Persona,
    Stage,
    access_of,
    expected,
    routes,
)
from tests.gateway.world import ADMIN_PASSWORD, World, make_csr

TRIGGER = """
CREATE FUNCTION refuse_audit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log takes nothing'; END $$;
CREATE TRIGGER refuse_audit BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse_audit();
ALTER TABLE audit_events DISABLE TRIGGER refuse_audit;
"""
# They change nothing that the audit log tells of: two only show, one makes a code of a minute for a link.
UNAUDITED = {"POST /v1/links/inspect", "POST /v1/links/code", "POST /v1/invitations/inspect"}

Tables: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def tables(owner_url: str) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(owner_url)
    await connection.execute(TRIGGER)
    yield connection
    await connection.close()


@pytest.fixture
async def stage(world: World) -> Stage:
    return await Stage(world, await world.person("owner")).populate()


async def audit_refuses(tables: Tables, refuses: bool) -> None:
    word = "ENABLE" if refuses else "DISABLE"
    await tables.execute(f"ALTER TABLE audit_events {word} TRIGGER refuse_audit")


def doer(stage: Stage, route: APIRoute) -> Persona:
    """Who may do it; the owner where they may."""
    action = Action(str(access_of(route)))
    if action is Action.INVITATION_ACCEPT:  # who invites is there already
        return next(persona for persona in PERSONAS if persona.role is None and persona is not NOBODY)
    return next(p for p in (OWNER, *PERSONAS) if HTTPStatus.OK in expected(stage, p, action, route.path))


async def call_of(stage: Stage, method: str, route: APIRoute) -> Call:
    prepare = PREPARED.get(f"{method} {route.path}")
    if prepare is not None:
        return await prepare(stage, route.path)
    if route.path == "/v1/devices/{device_id}/release" and method == "DELETE":
        device_id = await stage.fresh_device("approved")
        await stage.owner.post(f"/v1/devices/{device_id}/release")
        return Call(route.path.format(device_id=device_id))
    if route.path == "/v1/devices/{device_id}/release":
        return Call(route.path.format(device_id=await stage.fresh_device("approved")))
    assert (method, route.path) == ("DELETE", "/v1/orgs/{org_id}"), "say in PREPARED how it is called"
    made = (await stage.owner.post("/v1/orgs", json={"name": "Empty"})).json()["id"]
    return Call(route.path.format(org_id=made))


async def test_what_cannot_be_audited_has_not_happened(stage: Stage, tables: Tables) -> None:
    wrong, tried = [], 0
    for method, route in routes():
        key = f"{method} {route.path}"
        if method == "GET" or access_of(route) in {ANYBODY, DEVICE} or key in OF_ONESELF | FORMS | UNAUDITED:
            continue
        call = await call_of(stage, method, route)
        client = stage.clients[doer(stage, route).name]
        before = await contents(tables)
        await audit_refuses(tables, True)
        refused = await client.request(method, call.path, json=call.body)
        await audit_refuses(tables, False)
        half = changed(before, await contents(tables))
        if (refused.status_code, refused.json()["code"]) != (500, "internal") or half:
            wrong.append(f"{key}: {refused.status_code} {refused.text[:80]}, changed {half}")
        # The same call was a good one: now it is done and audited.
        done = await client.request(method, call.path, json=call.body)
        if not done.is_success or "audit_events" not in changed(before, await contents(tables)):
            wrong.append(f"{key} afterwards: {done.status_code} {done.text[:80]}")
        tried += 1
    assert not wrong, "\n".join(wrong)
    assert tried >= 25


@pytest.mark.parametrize("key", sorted(OF_ONESELF))
async def test_what_one_does_to_oneself_has_not_happened_either(
    world: World, tables: Tables, key: str
) -> None:
    method, path = key.split(" ")
    me, other = await world.person(), await world.person()
    made = await me.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    logins = (await me.get("/v1/me/logins")).json()["items"]
    ids = {"token_id": made.json()["id"], "login_id": next(i["id"] for i in logins if not i["current"])}
    path = re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)
    before = await contents(tables)
    await audit_refuses(tables, True)
    refused = await me.request(method, path)
    assert (refused.status_code, refused.json()["code"]) == (500, "internal"), refused.text
    assert "set-cookie" not in refused.headers
    assert changed(before, await contents(tables)) == []
    assert (await me.get("/v1/me")).status_code == (await other.get("/v1/me")).status_code == 200
    await audit_refuses(tables, False)
    assert (await me.request(method, path)).is_success


async def test_what_devices_and_logins_begin_is_not_half_written(
    world: World, stage: Stage, tables: Tables
) -> None:
    token = await stage.owner.post("/v1/registration-tokens", json={"approve": True})
    assert token.status_code == 201
    body = {"token": token.json()["token"], "name": "Pump", "hardware_id": "hw-half", "software": "1"}
    body["csr"] = make_csr(ec.generate_private_key(ec.SECP256R1()))
    login = {"username": "owner", "password": ADMIN_PASSWORD}
    for path, sent in (
        ("/v1/enrolments", body),
        ("/v1/login", login),
        ("/v1/login", {**login, "refresh": True}),
    ):
        before = await contents(tables)
        await audit_refuses(tables, True)
        refused = await world.browser().post(path, json=sent)
        await audit_refuses(tables, False)
        assert (refused.status_code, refused.json()["code"]) == (500, "internal"), refused.text
        assert "set-cookie" not in refused.headers
        assert changed(before, await contents(tables)) == [], path
        assert (await world.browser().post(path, json=sent)).is_success, path
