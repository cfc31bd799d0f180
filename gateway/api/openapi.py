"""The public API as an OpenAPI document: made of the routes, with what the framework cannot know of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from gateway.api.credentials import ANYBODY, DEVICE, acts
from gateway.api.refusals import codes_of_route, needs_login
from gateway.problem_codes import CODES

TITLE: Final = "Towline gateway"
_DESCRIPTION: Final = (
    "Reach a device's own web UI from anywhere. Every error is problem+json (RFC 9457) with a stable `code`."
    " What is not yours does not exist: it answers `404` `not_found`."
)
TAGS: Final = {
    "login": "Logging in and out, by password or provider, and one's own logins.",
    "api tokens": "What scripts act with: limited to scopes, ended one by one.",
    "apps": "OAuth 2.1 for registered public clients: the system's browser, PKCE, rotating refresh tokens.",
    "enrolment": "How a device comes in, and how its certificate renews.",
    "devices": "Devices of the places where one has a role.",
    "device types": "What devices of each type can be asked to do.",
    "messages": "What devices say, and where they send it.",
    "commands": "What devices are asked to do, and how far that came.",
    "configuration": "What devices should run with, and what they run with.",
    "sessions": "A person's time-boxed access to one service of a device.",
    "links": "The one-time URL of a session, as its landing page sees it.",
    "support": "An engineer asks, the owner consents for a time, either side ends it.",
    "places": "Orgs and their sites.",
    "members": "Who has which role at a place, and invitations.",
    "users": "Everybody, for administrators of the installation.",
    "audit": "What was done, by whom; nobody can change it.",
    "events": "What changes, as it happens.",
    "health": "Public keys, health, this document.",
}

router = APIRouter(tags=["health"])


@router.get("/v1/openapi.json", openapi_extra=acts(ANYBODY))
async def openapi_document(request: Request) -> dict[str, Any]:
    """This API as an OpenAPI 3.1 document: every route, its bodies, and every problem that it may answer."""
    state = request.app.state
    made: dict[str, Any] | None = getattr(state, "openapi", None)
    if made is None:  # at the first asking: it reads the routes' own source
        # A thread: a few tenths of a second, in which others are served.
        made = state.openapi = await asyncio.to_thread(
            describe, state.documented, state.parts.settings.public_url
        )
    return made


def describe(routes: Sequence[BaseRoute], server: str) -> dict[str, Any]:
    """The document for these routes. `server`: the origin where they are answered."""
    shown = [route for route in routes if isinstance(route, APIRoute) and route.include_in_schema]
    made = get_openapi(
        title=TITLE, version=_version(), routes=shown, description=_DESCRIPTION, servers=[{"url": server}]
    )
    used = {str(tag) for route in shown for tag in route.tags}
    made["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    components = made.setdefault("components", {})
    components["securitySchemes"] = _SECURITY
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for route in shown:
        for method in route.methods or ():
            _complete(made["paths"][route.path_format][method.lower()], route)
    for unused in ("HTTPValidationError", "ValidationError"):  # the framework's, which no route answers
        schemas.pop(unused, None)
    return made


def problems_of(route: APIRoute) -> dict[HTTPStatus, list[str]]:
    """The codes that the route may answer, by status."""
    codes = set(codes_of_route(route))
    if route.body_field is not None:
        codes |= {"bad_json", "too_large", "unsupported_media_type", "invalid_field"}
    elif "requestBody" in (route.openapi_extra or {}):
        codes.add("too_large")  # a form, which says itself what is wrong with it
    elif (route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}:
        codes |= {"bad_json", "too_large", "unsupported_media_type"}
    flat = route.dependant
    if flat.path_params or flat.query_params or flat.header_params:
        codes.add("invalid_field")
    if any(d.query_params or d.header_params for d in flat.dependencies):
        codes.add("invalid_field")
    by_status: dict[HTTPStatus, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(CODES[code].status, []).append(code)
    return dict(sorted(by_status.items()))


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    access = operation.get("x-towline-access")
    if access not in {ANYBODY, DEVICE, None} and needs_login(route):
        operation["security"] = [{"cookie": []}, {"bearer": []}]
    elif access == DEVICE and "authorization" in {
        str(p["name"]).lower() for p in operation.get("parameters", ())
    }:
        operation["security"] = [{"bearer": []}]
    responses = operation["responses"]
    responses.pop("422", None)  # the framework's shape; ours follows
    for status, codes in problems_of(route).items():
        listed = ", ".join(f"`{code}`" for code in codes)
        answer = responses.setdefault(str(int(status)), {"description": f"{status.phrase}: {listed}"})
        problem = {
            "allOf": [{"$ref": "#/components/schemas/Problem"}, {"properties": {"code": {"enum": codes}}}]
        }
        answer.setdefault("content", {})["application/problem+json"] = {"schema": problem}


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("towline")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


_SECURITY: Final = {
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-towline_login",
        "description": "A browser's login; on plain loopback `towline_login`. Unsafe methods must come from"
        " the gateway's own pages.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token of 15 minutes, or a personal API token.",
    },
}
_PROBLEM: Final = cast(
    dict[str, Any],
    {
        "title": "Problem",
        "description": "RFC 9457, with the members `code` and, where one field is to blame, `field`.",
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "additionalProperties": False,
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable, for programs.", "enum": sorted(CODES)},
            "detail": {"type": "string", "description": "For people; its words may change."},
            "field": {"type": "string", "description": "The field to blame, its path with dots."},
        },
    },
)
