"""Junk to every operation that takes a body, on both listeners: a problem tells, and nothing was written."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.api.app import FORMS, PUBLIC_BODY_MAX, documented_routes
from gateway.internal.app import INTERNAL_BODY_MAX
from gateway.internal.app import ROUTERS as INTERNAL_ROUTERS
from gateway.internal.peer import ingest_of
from gateway.policy.links import LABEL_LENGTH
from gateway.problem_codes import CODES
from runtime.clock import FakeClock
from tests.gateway.contract.spoilt import DEEP, LATIN_1, TWICE, Spoilt, fitting, missing, schema_of, spoilt
from tests.gateway.tables import changed, contents
from tests.gateway.test_matrix import PREPARED, Stage
from tests.gateway.test_peers import peer
from tests.gateway.world import World, settings_for

JSON = {"content-type": "application/json"}
OVERSIZE = b'{"name": "' + b"x" * (PUBLIC_BODY_MAX + 4096) + b'"}'
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
async def stage(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[Stage]:
    # Without the general limit, which would answer all of it by 429.
    settings = settings_for(tmp_path, database_url, keys_dir)
    wide = replace(settings, requests_per_login_s=100_000, writes_per_person_s=100_000)
    world = await (await World(wide, clock, tmp_path).start()).prepared()
    yield await Stage(world, await world.person("owner")).populate()
    await world.close()


@pytest.fixture
async def tables(owner_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


def wrong(answer: httpx.Response, expected: Spoilt | None = None) -> str | None:
    """What the answer to junk lacks; None: nothing."""
    if not 400 <= answer.status_code < 500:
        return f"{answer.status_code} {answer.text[:80]}"
    told = answer.json()
    if answer.headers["content-type"] != "application/problem+json" or told["code"] not in CODES:
        return f"no problem of ours: {answer.text[:80]}"
    if told["code"] == "invalid_field" and not told.get("field"):
        return f"names no field: {answer.text[:80]}"
    if expected is None or expected.field is None:
        return None
    if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY or not told["field"].startswith(expected.field):
        return f"not about {expected.field}: {answer.text[:120]}"
    return None


def broken(status: int, answer: httpx.Response) -> str | None:
    return wrong(answer) or (None if answer.status_code == status else f"{answer.status_code}, not {status}")


async def path_of(stage: Stage, route: APIRoute, method: str) -> str:
    """Of real things that the owner may do it to."""
    prepare = PREPARED.get(f"{method} {route.path}")
    if prepare is not None:
        return (await prepare(stage, route.path)).path
    known = {"device_id": stage.device.id, "org_id": stage.org, "site_id": stage.site}
    known["place_id"] = stage.place(route.path)
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], str(uuid4())), route.path)


def writing(routes: list[APIRoute]) -> list[tuple[str, APIRoute]]:
    return [(method, route) for route in routes for method in sorted((route.methods or set()) & WRITES)]


async def test_no_public_operation_takes_junk(
    stage: Stage, tables: asyncpg.Connection[asyncpg.Record]
) -> None:
    ways = [
        (m, r, await path_of(stage, r, m)) for m, r in writing(documented_routes()) if r.path not in FORMS
    ]
    before, found, tried = await contents(tables), [], 0
    for method, route, path in ways:
        sent: list[tuple[str, str | None]] = []
        for what, content, status in (
            ("latin-1", LATIN_1, HTTPStatus.BAD_REQUEST),
            ("deep", DEEP, HTTPStatus.BAD_REQUEST),
            ("twice", TWICE, HTTPStatus.BAD_REQUEST),
            ("oversize", OVERSIZE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        ):
            answer = await stage.owner.request(method, path, content=content, headers=JSON)
            sent.append((what, broken(status, answer)))
        schema = schema_of(route)
        if schema is not None:
            fits = fitting(schema)
            for junk in (*spoilt(schema, fits), *missing(schema, fits)):
                answer = await stage.owner.request(method, path, content=junk.content, headers=JSON)
                sent.append((junk.what, wrong(answer, junk)))
        tried += len(sent)
        found += [f"{method} {route.path}, {what}: {fault}" for what, fault in sent if fault is not None]
        assert changed(before, await contents(tables)) == [], f"{method} {route.path} wrote"
    assert not found, "\n".join(found)
    assert tried > 500


@pytest.mark.parametrize("path", sorted(FORMS))
async def test_no_form_takes_junk(
    world: World, path: str, tables: asyncpg.Connection[asyncpg.Record]
) -> None:
    """They say it as RFC 6749 (section 5.2) does."""
    form, before = {"content-type": "application/x-www-form-urlencoded"}, await contents(tables)
    for content, headers in (
        (LATIN_1, form),
        ("token=ü".encode("latin-1"), form),
        (b"grant_type=x&grant_type=y", form),
        (b"grant_type=%00&client_id=%00", form),
        (b"grant_type=refresh_token&client_id=towline&refresh_token=%00", form),
        (b"", form),
        (b"{}", JSON),
        (DEEP, JSON),
        (b"token=" + b"x" * (PUBLIC_BODY_MAX - 10), form),
    ):
        answer = await world.program().post(path, content=content, headers=headers)
        assert answer.status_code in {400, 401}, (content[:40], answer.text)
        assert answer.json()["error"], content[:40]
    oversize = await world.program().post(path, content=OVERSIZE, headers=form)
    assert oversize.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert changed(before, await contents(tables)) == []


LABEL, COOKIE, UNKNOWN = "a" * LABEL_LENGTH, "0" * 64, "00000000-0000-4000-8000-000000000000"
EVENT = {"device_id": "d_" + "a" * 16, "instance": "0" * 32, "connection": 1, "state": "connected", "at": 1.0}
PASSED = {"id": UNKNOWN, "sid": UNKNOWN, "at": 1.0, "method": "GET", "path": "/", "status": 200}
# A body for each route that takes one, about nothing that is there.
INTERNAL: dict[str, dict[str, Any]] = {
    "/internal/v1/links/redeem": {"token": "x", "label": LABEL, "cookie_sha256": COOKIE},
    "/internal/v1/sessions/resolve": {"label": LABEL, "cookie_sha256": COOKIE},
    "/internal/v1/sessions/{sid}/end": {"cookie_sha256": COOKIE},
    "/internal/v1/devices/authenticate": {"device_id": "d_" + "a" * 16, "key_id": "0" * 32},
    "/internal/v1/presence": {
        "node": "node-a",
        "boot": "x",
        "full": False,
        "events": [{**EVENT, "services": [{"name": "web"}]}],
    },
    "/internal/v1/devices/broker-login": {"device_id": "d_" + "a" * 16, "password": "x"},
    "/internal/v1/dead-letters/replay": {"dry_run": True},
    "/internal/v1/devices/refused": {
        "refused": [{"device_id": "d_" + "a" * 16, "what": "will", "topic": "x", "count": 1}]
    },
    "/internal/v1/request-log": {"entries": [{**PASSED, "received": 0, "sent": 0, "ms": 0.0}]},
}
# Made fit and not refused there: one odd device must not cost its node the whole report.
MADE_FIT = re.compile(r"client|path|method|events\.0\.(software|error|services\.0\.(name|kind))")


# Its body is no model: tests/event_log has what it refuses.
APPEND = "/internal/v1/log/{topic}/{part}"


def internal() -> list[APIRoute]:
    found = [route for router, _ in INTERNAL_ROUTERS for route in router.routes]
    return [route for route in found if isinstance(route, APIRoute) and route.path != APPEND]


async def test_no_internal_operation_takes_junk(
    world: World, tables: asyncpg.Connection[asyncpg.Record]
) -> None:
    node, ingest = world.node().http, peer(world, "ingest")
    # The node's first word is what it may say; later junk must add nothing to it.
    await node.post("/internal/v1/presence", json=INTERNAL["/internal/v1/presence"])
    for_ingest = [one for router, asked in INTERNAL_ROUTERS if asked is ingest_of for one in router.routes]
    before, found, tried = await contents(tables), [], 0
    for method, route in writing(internal()):
        path, schema = route.path.replace("{sid}", UNKNOWN), schema_of(route)
        assert schema is not None, "say here what it does without a body"
        caller = ingest if route in for_ingest else node
        for content in (LATIN_1, DEEP, b"[" * 100_000, b"{", b"\xff" * 70_000, b'{"name": NaN}'):
            fault = wrong(await caller.request(method, path, content=content, headers=JSON))
            found += [] if fault is None else [f"{path}, {content[:10]!r}: {fault}"]
        huge = await caller.request(method, path, content=b"x" * (INTERNAL_BODY_MAX + 1), headers=JSON)
        assert (huge.status_code, huge.json()["code"]) == (413, "too_large")
        fits = INTERNAL[route.path]
        for junk in (*spoilt(schema, fits, strict=False), *missing(schema, fits)):
            answer = await caller.request(method, path, content=junk.content, headers=JSON)
            tried += 1
            name = junk.what.partition(":")[0]
            if junk.field is None and MADE_FIT.search(name) and answer.is_success:
                continue
            fault = wrong(answer, junk)
            found += [] if fault is None else [f"{path}, {junk.what}: {fault}"]
        assert changed(before, await contents(tables)) == [], f"{path} wrote"
    assert not found, "\n".join(found)
    assert tried > 150


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ED%A0%80", "x" * 2000, "-1", "%FF"])
async def test_no_address_of_the_internal_listener_takes_junk(world: World, name: str) -> None:
    node = world.node().http
    for route in internal():
        if "{" not in route.path:
            continue
        for method in route.methods or ():
            path = re.sub(r"\{\w+\}", name, route.path)
            answer = await node.request(method, path, json=INTERNAL.get(route.path))
            assert answer.status_code < 500, (path, answer.text)
            if not answer.is_success:
                assert wrong(answer) is None, (path, answer.text)
    for query in ("after=-1", "after=x", "after=%00", f"after={2**64}"):
        answer = await node.get(f"/internal/v1/revocations?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, "after"), query
