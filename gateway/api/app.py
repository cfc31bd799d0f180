"""The public application: routes, and how problems become answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway.api import (
    api_tokens,
    authorize,
    claims,
    devices,
    enrolments,
    everywhere,
    links,
    login,
    logins,
    members,
    oauth,
    pages,
    places,
    provider_login,
    sessions,
    support,
    users,
    wellknown,
)
from gateway.api.edge import Edge, problem_headers, to_problem
from gateway.errors import Problem, StoreUnavailableError
from gateway.parts import GatewayParts

# The largest body is an enrolment with its certificate request, about 6 KB.
PUBLIC_BODY_MAX = 64 * 1024

ROUTERS = (
    login.router,
    provider_login.router,
    logins.router,
    api_tokens.router,
    everywhere.router,
    oauth.router,
    authorize.router,
    enrolments.router,
    devices.router,
    claims.router,
    sessions.router,
    support.router,
    links.router,
    places.router,
    members.router,
    users.router,
    wellknown.router,
    pages.router,
)


def public_app(parts: GatewayParts) -> ASGIApp:
    """Everything that browsers, programs and devices may ask."""
    app = new_app(parts, "Towline gateway")
    for router in ROUTERS:
        app.include_router(router)
    return Edge(
        app,
        listener="public",
        metrics=parts.metrics,
        body_max=PUBLIC_BODY_MAX,
        secure=parts.settings.secure,
        trusted_proxies=parts.settings.trusted_proxies,
    )


def new_app(parts: GatewayParts, title: str) -> FastAPI:
    """An empty application with the gateway's way of telling problems."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, redirect_slashes=False)
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
    path = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    field = ".".join(path) or "body"
    detail = f"{field}: {first['msg']}"
    return answer(request, Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field", detail, field=field))


async def _on_http(request: Request, error: Exception) -> Response:
    status = HTTPStatus(cast(HTTPException, error).status_code)
    codes = {
        HTTPStatus.NOT_FOUND: ("not_found", "There is nothing here."),
        HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "This address does not take that method."),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("too_large", "The request's body is too large."),
    }
    code, detail = codes.get(status, ("bad_request", status.phrase))
    return answer(request, Problem(status, code, detail))


def answer(request: Request, problem: Problem) -> Response:
    """A readable page for a browser that navigates, problem+json for everything else."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith(("/v1/", "/internal/")):
        return pages.problem_page(problem)
    return Response(json.dumps(problem.body()), int(problem.status), problem_headers(problem))


def _parts(request: Request) -> GatewayParts:
    parts: Any = request.app.state.parts
    return cast(GatewayParts, parts)
