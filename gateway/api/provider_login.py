"""Logging in by a provider: the button's address, and the one where the provider sends the browser back.

Both are for a browser that navigates; what goes wrong is a page that people can read.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from gateway.api.browser_login import begin_login
from gateway.api.credentials import ANYBODY, acts, cookie_of, set_login_cookie
from gateway.api.limits import PROVIDER_ANSWER_PER_ADDRESS, PROVIDER_BEGIN_PER_ADDRESS, take
from gateway.api.login_refusals import note_refused, noting_limited
from gateway.errors import Problem, not_found
from gateway.login.admission import admit
from gateway.login.errors import (
    DeniedError,
    LoginError,
    NotAdmittedError,
    ProviderAwayError,
    StateError,
)
from gateway.login.flow import STATE_TTL_S, Answer
from gateway.login.provider import RULES, Provider
from gateway.parts import GatewayParts, Parts
from gateway.policy.return_path import return_path
from gateway.randomness import new_secret
from gateway.settings import Settings
from runtime.logs import get_logger

# 43 characters of base64url, as new_secret makes them.
_OUR_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")

log = get_logger("gateway.login")

router = APIRouter(tags=["login"])


class ProviderAnswer(BaseModel):
    """`url`: where a browser goes to log in by it; `?next=` and a path of the gateway's may be added."""

    id: str
    name: str
    url: str


class ProviderList(BaseModel):
    items: list[ProviderAnswer]


@router.get("/v1/login/providers", openapi_extra=acts(ANYBODY))
async def list_providers(parts: Parts) -> ProviderList:
    """The providers by whom one may log in, in the order of their buttons."""
    return ProviderList(
        items=[
            ProviderAnswer(id=one.id, name=one.name, url=f"{parts.settings.public_url}/login/with/{one.id}")
            for one in parts.providers.all()
        ]
    )


@router.get("/login/with/{provider_id}", include_in_schema=False, openapi_extra=acts(ANYBODY))
async def begin(provider_id: str, request: Request, parts: Parts) -> Response:
    """Send the browser to the provider; the login is bound to this browser and open for ten minutes."""
    provider = _provider(parts, provider_id)
    with noting_limited(parts, request, "provider", provider.id):
        await take(parts, request, (PROVIDER_BEGIN_PER_ADDRESS, None))
    wanted = return_path(_only(request, "next"))
    browser = _flow_cookie_of(request, parts.settings) or new_secret()
    try:
        address = await parts.providers.flow.begin(provider, browser, wanted)
    except LoginError as error:
        raise _refused(parts, request, provider, error) from error
    answer = RedirectResponse(address, HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        flow_cookie_name(parts.settings),
        browser,
        max_age=round(STATE_TTL_S),
        path="/",
        secure=parts.settings.secure,
        httponly=True,
        samesite="lax",  # the way back from the provider is a navigation from another site
    )
    return answer


@router.get("/login/from/{provider_id}", include_in_schema=False, openapi_extra=acts(ANYBODY))
async def finish(provider_id: str, request: Request, parts: Parts) -> Response:
    """The redirect URI: takes the provider's answer, logs in, goes on to where the person wanted to be."""
    provider = _provider(parts, provider_id)
    with noting_limited(parts, request, "provider", provider.id):
        await take(parts, request, (PROVIDER_ANSWER_PER_ADDRESS, None))
    answer = Answer(
        state=_only(request, "state"),
        code=_only(request, "code"),
        error=_only(request, "error"),
        issuer=_only(request, "iss"),
    )
    try:
        browser = _flow_cookie_of(request, parts.settings)
        person, wanted = await parts.providers.flow.finish(provider, browser, answer, parts.clock.wall())
        async with parts.database.transaction() as tx:
            reserved = {parts.settings.admin_username}
            user_id = await admit(tx, person, provider.id, provider.settings, reserved)
            login = await begin_login(tx, parts, request, user_id, "provider", provider.id)
    except LoginError as error:
        raise _refused(parts, request, provider, error) from error
    parts.metrics.logins.labels("ok").inc()
    response = RedirectResponse(wanted, HTTPStatus.SEE_OTHER)
    set_login_cookie(response, parts.settings, login.secret)
    response.delete_cookie(
        flow_cookie_name(parts.settings),
        path="/",
        secure=parts.settings.secure,
        httponly=True,
        samesite="lax",
    )
    return response


def flow_cookie_name(settings: Settings) -> str:
    """Names the browser while it logs in; one for all its tabs."""
    return "__Host-towline_flow" if settings.secure else "towline_flow"


def _flow_cookie_of(request: Request, settings: Settings) -> str | None:
    found = cookie_of(request, flow_cookie_name(settings))
    return found if found is not None and _OUR_SECRET.fullmatch(found) else None


def _provider(parts: GatewayParts, provider_id: str) -> Provider:
    provider = parts.providers.get(provider_id)
    if provider is None:
        raise not_found("login provider")
    return provider


def _only(request: Request, name: str) -> str | None:
    """A query parameter that is there once."""
    values = request.query_params.getlist(name)
    return values[0] if len(values) == 1 else None


def _refused(parts: GatewayParts, request: Request, provider: Provider, error: LoginError) -> Problem:
    """What the person reads. The reason goes to the log and the audit log, without anything secret."""
    log.warning("login refused", extra={"provider": provider.id, "reason": str(error)})
    problem = _told(provider, error)
    account = error.user_id if isinstance(error, NotAdmittedError) else None
    note_refused(
        parts,
        request,
        "provider",
        problem.code,
        result="refused",
        account=account,
        provider=provider.id,
        why=str(error),
    )
    return problem


def _told(provider: Provider, error: LoginError) -> Problem:
    if isinstance(error, NotAdmittedError):
        return Problem(HTTPStatus.FORBIDDEN, error.code, error.detail)
    if isinstance(error, StateError):
        return Problem(
            HTTPStatus.BAD_REQUEST,
            "login_not_open",
            "This login took too long, was used already, or began in another browser. Begin again.",
        )
    if isinstance(error, DeniedError):
        return Problem(HTTPStatus.FORBIDDEN, "login_denied", f"{provider.name} did not log you in.")
    if isinstance(error, ProviderAwayError):
        return Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "provider_unavailable",
            f"{provider.name} does not answer. Try again in a moment, or log in another way.",
            retry_after_s=round(RULES.open_s),
        )
    return Problem(
        HTTPStatus.BAD_GATEWAY,
        "provider_refused",
        f"{provider.name} gave an answer that cannot be trusted, so nobody was logged in.",
    )
