"""The public application: routes, and how problems become answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway.api import (
    api_tokens,
    audit,
    authorize,
    claims,
    commands,
    configuration,
    dead_letters,
    device_connection,
    device_messages,
    device_types,
    devices,
    enrolments,
    events,
    everywhere,
    hardware_ids,
    links,
    login,
    logins,
    members,
    oauth,
    openapi,
    pages,
    places,
    provider_login,
    sessions,
    support,
    telemetry,
    users,
    wellknown,
)
from gateway.api.bodies import Bodies
from gateway.api.edge import Edge, problem_headers, to_problem
from gateway.errors import Problem, StoreUnavailableError
from gateway.parts import GatewayParts

# The largest body is an enrolment with its certificate request, about 6 KB.
PUBLIC_BODY_MAX = 64 * 1024

# They take what RFC 6749 has, and say what is wrong with it as that does.
FORMS = frozenset({"/v1/oauth/token", "/v1/oauth/revoke"})
# What devices say goes on as bytes: what is wrong with one message becomes a dead letter, as by a broker.
AS_IT_IS = {device_messages.TELEMETRY_PATH: device_messages.MESSAGE_MEMBER}

ROUTERS = (
    login.router,
    provider_login.router,
    logins.router,
    api_tokens.router,
    everywhere.router,
    oauth.router,
    authorize.router,
    enrolments.router,
    hardware_ids.router,
    devices.router,
    claims.router,
    device_connection.router,
    device_messages.router,
    commands.router,
    device_types.router,
    configuration.router,
    telemetry.router,
    dead_letters.router,
    sessions.router,
    support.router,
    links.router,
    events.router,
    places.router,
    audit.router,
    members.router,
    users.router,
    wellknown.router,
    openapi.router,
    pages.router,
)


def documented_routes() -> list[APIRoute]:
    """Every public route that is no page: what the OpenAPI document and the reference describe."""
    routes = (route for router in ROUTERS for route in router.routes)
    return [route for route in routes if isinstance(route, APIRoute) and route.include_in_schema]


def public_app(parts: GatewayParts) -> ASGIApp:
    """Everything that browsers, programs and devices may ask."""
    app = new_app(parts, openapi.TITLE)
    app.state.documented = documented_routes()
    for router in ROUTERS:
        # As they are: routers that are included one in another look for each request's route twice.
        app.router.routes.extend(router.routes)
    return Edge(
        Bodies(app, forms=FORMS, as_it_is=AS_IT_IS),
        listener="public",
        metrics=parts.metrics,
        body_max=PUBLIC_BODY_MAX,
        secure=parts.settings.secure,
        trusted_proxies=parts.settings.trusted_proxies,
    )


def new_app(parts: GatewayParts, title: str) -> FastAPI:
    """An empty application with the gateway's way of telling problems."""
    # Its own document would lack the problems; the pages that show one load scripts from elsewhere.
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.parts = parts
    app.add_exception_handler(Problem, _on_error)
    app.add_exception_handler(StoreUnavailableError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_error)  # the edge logs it
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StoreUnavailableError):
        _parts(request).metrics.store_unavailable.inc()
    return answer(request, to_problem(error))


async def _on_invalid(request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    if first["type"] == "json_invalid":
        return answer(request, Problem(HTTPStatus.BAD_REQUEST, "bad_json", "The body is not JSON."))
    # The first part says where it was: in the body, the query, the path or the header.
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    detail = f"{field}: {first['msg']}"
    return answer(request, Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field", detail, field=field))


async def _on_http(request: Request, error: Exception) -> Response:
    status = HTTPStatus(cast(HTTPException, error).status_code)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return _other_method(request)
    codes = {
        HTTPStatus.NOT_FOUND: ("not_found", "There is nothing here."),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("too_large", "The request's body is too large."),
    }
    code, detail = codes.get(status, ("bad_request", status.phrase))
    return answer(request, Problem(status, code, detail))


def _other_method(request: Request) -> Response:
    """What the address does take. OPTIONS asks just that, and needs no login for it."""
    allow = ", ".join(sorted(_methods_at(request)))
    if request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"allow": allow})
    told = Problem(
        HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "This address does not take that method."
    )
    refused = answer(request, told)
    refused.headers["allow"] = allow
    return refused


def _methods_at(request: Request) -> set[str]:
    found = {"OPTIONS"}
    for route in (route for router in ROUTERS for route in router.routes):
        if isinstance(route, APIRoute) and route.path_regex.match(request.url.path):
            found |= route.methods or set()
    return found | ({"HEAD"} if "GET" in found else set())


def answer(request: Request, problem: Problem) -> Response:
    """A readable page for a browser that navigates, problem+json for everything else."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith(("/v1/", "/internal/")):
        return pages.problem_page(problem)
    return Response(json.dumps(problem.body()), int(problem.status), problem_headers(problem))


def _parts(request: Request) -> GatewayParts:
    parts: Any = request.app.state.parts
    return cast(GatewayParts, parts)
