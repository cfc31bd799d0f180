"""The OpenAPI document: served live, complete, and the same as the reference that people read."""

from __future__ import annotations

import ast
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from gateway.api.app import ROUTERS, documented_routes
from gateway.api.openapi import TAGS, describe, problems_of
from gateway.api.refusals import LOOKED_UP, UnknownCodeError, codes_of_route
from gateway.errors import Problem
from gateway.internal.app import ROUTERS as INTERNAL_ROUTERS
from gateway.problem_codes import CODES
from tests.gateway.world import ORIGIN, World

ROOT = Path(__file__).resolve().parents[3]

# Public routes outside /v1, each with why it is there.
OUTSIDE_V1 = {
    "/.well-known/jwks.json": "RFC 8615: verifiers look there",
    "/.well-known/oauth-authorization-server": "RFC 8414 says where",
    "/livez": "probes of an orchestrator, the same on every listener",
    "/readyz": "probes of an orchestrator, the same on every listener",
    "/": "page",
    "/devices/{device_id}": "page",
    "/login": "page",
    "/login/with/{provider_id}": "a browser navigates there: the way to a provider",
    "/login/from/{provider_id}": "a browser navigates there: the redirect URI that providers know",
    "/support/{request_id}": "page",
    "/welcome": "page",
    "/open": "page",
    "/static/{name}": "what the pages load",
}


def test_only_what_has_a_reason_is_outside_v1() -> None:
    paths = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    assert {path for path in paths if not path.startswith("/v1/")} == set(OUTSIDE_V1)


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, one in document["paths"].items()
        for method, operation in one.items()
    ]


async def test_the_document_is_served_live_and_tells_everything(world: World) -> None:
    answer = await world.program().get("/v1/openapi.json")
    assert answer.status_code == 200
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Towline gateway"
    assert document["servers"] == [{"url": ORIGIN}]
    assert set(document["components"]["securitySchemes"]) == {"cookie", "bearer"}
    told = {tag["name"] for tag in document["tags"] if tag["description"]}
    served = {f"{m} {r.path}" for r in documented_routes() for m in r.methods or ()}
    assert {name for name, _ in operations(document)} == served
    for name, operation in operations(document):
        assert operation["summary"], name
        assert len(operation.get("description", "")) > 10, f"{name}: its docstring is its description"
        assert set(operation["tags"]) <= told, name
        assert "x-towline-access" in operation, name
        assert "HTTPValidationError" not in str(operation), name


def test_the_reference_has_every_route_and_every_code() -> None:
    page = (ROOT / "docs/api-reference.md").read_text("utf-8")
    shown = set(re.findall(r"^### `([A-Z]+ /\S*)`$", page, re.MULTILINE))
    assert shown == {f"{m} {r.path}" for r in documented_routes() for m in r.methods or ()}
    assert all(f"| `{code}` |" in page for code in CODES)
    assert set(TAGS) >= {str(tag) for route in documented_routes() for tag in route.tags}


# How the pages' scripts name what they call: as it stands there, or in a variable of the line before.
CALL = re.compile(r"""\bcall\(\s*"([A-Z]+)",\s*(path\b|"[^"]+"|`[^`]+`)""")
NAMED = re.compile(r"""\b(?:const|let) path = ("[^"]+"|`[^`]+`)""")


STREAM = re.compile(r"""\bnew EventSource\("([^"]+)"\)""")


def called_by_scripts() -> set[str]:
    """ "METHOD /path" of every call in the pages' scripts, `{}` for what is put into it."""
    found = set()
    for script in sorted((ROOT / "gateway/api/static").glob("*.js")):
        text = script.read_text("utf-8")
        calls, streams = list(CALL.finditer(text)), STREAM.findall(text)
        # None is written in a way that is not understood here, and none goes around `call`.
        assert text.count("/v1/") == len(calls) + len(streams), script
        assert text.count("EventSource") == len(streams), script
        found |= {f"GET {path}" for path in streams}
        assert text.count("fetch(") == (script.name == "call.js"), script
        for one in calls:
            named = one[2] if one[2] != "path" else NAMED.findall(text[: one.start()])[-1]
            path = re.sub(r"\$\{[^}]*\}", "{}", named[1:-1]).partition("?")[0]
            found.add(f"{one[1]} {path}")
    return found


def test_the_pages_scripts_call_what_the_document_tells() -> None:
    """The console has no back door of its own."""
    told = {
        f"{method} {re.sub(r'{[^}]*}', '{}', r.path)}"
        for r in documented_routes()
        for method in r.methods or ()
    }
    called = called_by_scripts()
    assert len(called) > 10
    assert called <= told


def problems_made() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def test_every_problem_has_a_code_of_the_table_with_its_status() -> None:
    made = problems_made()
    assert len(made) > 50
    for where, call in made:
        status, code = call.args[0], call.args[1]
        if isinstance(code, ast.Constant):
            assert code.value in CODES, where
            if isinstance(status, ast.Attribute):
                assert CODES[str(code.value)].status is HTTPStatus[status.attr], where


def test_no_code_is_left_over() -> None:
    """Each is made somewhere: in words, by a pattern, or looked up."""
    used = {str(call.args[1].value) for _, call in problems_made() if isinstance(call.args[1], ast.Constant)}
    used |= {code for codes in LOOKED_UP.values() for code in codes}
    for router in (*ROUTERS, *(router for router, _ in INTERNAL_ROUTERS)):
        for route in router.routes:
            if isinstance(route, APIRoute):
                used |= codes_of_route(route)
    assert set(CODES) - used == set()


def test_a_problem_without_a_known_code_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no_such_code"):
        Problem(HTTPStatus.CONFLICT, "no_such_code", "x")


def test_codes_come_from_the_code_of_the_route() -> None:
    by_name = {f"{m} {r.path}": r for r in documented_routes() for m in r.methods or ()}
    claim = codes_of_route(by_name["POST /v1/devices/{device_id}/claim"])
    assert {
        "not_released",
        "bad_nonce",
        "device_revoked",
        "registration_token_void",
        "too_many_requests",
    } <= claim
    assert "device_offline" not in claim
    assert not codes_of_route(by_name["GET /livez"])
    assert HTTPStatus.UNSUPPORTED_MEDIA_TYPE in problems_of(by_name["POST /v1/orgs"])
    assert describe([], ORIGIN)["paths"] == {}
    assert issubclass(UnknownCodeError, Exception)


async def test_head_is_get_without_a_body_and_needs_the_same_login(world: World) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    for path in ("/v1/me", "/v1/devices", f"/v1/devices/{device.id}", "/v1/openapi.json", "/livez", "/login"):
        whole, head = await owner.get(path), await owner.head(path)
        assert (head.status_code, head.content) == (whole.status_code, b""), path
        assert head.headers["content-length"] == whole.headers["content-length"], path
    for path in ("/v1/me", "/v1/devices", f"/v1/devices/{device.id}"):
        refused = await world.browser().head(path)
        assert (refused.status_code, refused.content) == (401, b""), path
    assert (await owner.head("/v1/logout")).status_code == 405


async def test_options_needs_no_login_and_names_the_methods(world: World) -> None:
    anybody = world.program()
    for path, methods in (
        ("/v1/devices", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/devices/d_aaaaaaaaaaaaaaaa", {"GET", "HEAD", "PATCH", "OPTIONS"}),
        ("/v1/sessions/x", {"DELETE", "OPTIONS"}),
    ):
        answer = await anybody.options(path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert set(answer.headers["allow"].split(", ")) == methods
        refused = await anybody.put(path)
        assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
        assert set(refused.headers["allow"].split(", ")) == methods
    assert (await anybody.options("/v1/nothing")).status_code == 404


JSON = {"content-type": "application/json"}


BODIES: list[tuple[bytes, dict[str, str], int, str | None]] = [
    (b'{"name": "x"}', {}, 415, "unsupported_media_type"),
    (b'{"name": "x"}', {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    (b"name=x", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ('{"name": "ü"}'.encode("latin-1"), {"content-type": "application/json; charset=latin1"}, 415, None),
    (b'{"name": "x"}', {"content-type": "application/json;charset=UTF-8"}, 201, None),
    ('{"name": "ü"}'.encode("latin-1"), JSON, 400, "bad_json"),
    (b"\xef\xbb\xbf{}", JSON, 400, "bad_json"),
    (b'{"name": "x", "name": "y"}', JSON, 400, "bad_json"),
    (b'{"name": NaN}', JSON, 400, "bad_json"),
    (b'{"name": 1' + b"0" * 6000 + b"}", JSON, 400, "bad_json"),
    (b"[" * 30_000, JSON, 400, "bad_json"),
    (b'{"name":' + b"[" * 20 + b"]" * 20 + b"}", JSON, 400, "bad_json"),
    (b"", JSON, 422, "invalid_field"),
    (b"null", JSON, 422, "invalid_field"),
    (b"[]", JSON, 422, "invalid_field"),
    (b'"x"', JSON, 422, "invalid_field"),
    (b'{"name": 7}', JSON, 422, "invalid_field"),
    (b'{"name": "a\\u0000b"}', JSON, 422, "invalid_field"),
    (b'{"name": "\\ud800"}', JSON, 422, "invalid_field"),
    (b'{"name": 1e400}', JSON, 400, "bad_json"),
    (b'{"name": "x", "nmae": "y"}', JSON, 422, "invalid_field"),
    (b'{"name": "' + b"x" * 70_000 + b'"}', JSON, 413, "too_large"),
]


async def test_bodies_that_are_no_json_of_ours(world: World) -> None:
    owner = await world.person()
    for content, headers, status, code in BODIES:
        sent = f"{headers} {content[:60]!r}"
        before = len((await owner.get("/v1/orgs")).json()["items"])
        answer = await owner.post("/v1/orgs", content=content, headers=headers)
        assert answer.status_code == status, f"{sent}: {answer.text}"
        if code is not None:
            assert answer.json()["code"] == code, sent
            if code == "invalid_field":
                assert answer.json()["field"], sent
        assert len((await owner.get("/v1/orgs")).json()["items"]) == before + (status == 201), sent


@pytest.mark.parametrize("name", ["devices", "orgs", "sites", "users", "support-requests"])
async def test_cursors_are_their_own_lists_alone(world: World, name: str) -> None:
    owner = await world.person()
    for number in range(3):
        await world.person(f"somebody-{number}")
        await owner.post("/v1/orgs", json={"name": f"Org {number}"})
    strange = (await owner.get("/v1/orgs?limit=1")).json()["next_cursor"]
    tries = ["x", "%00", "AAAA", "dXNlcnM6AA", "cw", strange if name != "orgs" else "ZGV2aWNlczpk", "A" * 600]
    for cursor in tries:
        answer = await owner.get(f"/v1/{name}?cursor={cursor}")
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor"), cursor
    for query in ("limit=0", "limit=201", "limit=x", "cursor=x&cursor=y", "unknown=1"):
        assert (await owner.get(f"/v1/{name}?{query}")).status_code == 422, query


async def test_limits_say_how_they_stand(world: World) -> None:
    program = world.program()
    for left in range(9, -1, -1):
        answer = await program.post("/v1/login", json={"username": "admin", "password": "x"})
        assert answer.status_code == 401
        assert answer.headers["ratelimit-policy"] == '"login_address_account";q=10;w=300'
        assert answer.headers["ratelimit"].startswith(f'"login_address_account";r={left};t=')
    refused = await program.post("/v1/login", json={"username": "admin", "password": "x"})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert refused.headers["ratelimit"].startswith('"login_address_account";r=0;t=')
    assert int(refused.headers["retry-after"]) <= 30
