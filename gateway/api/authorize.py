"""Where an app sends the person's browser (RFC 6749, section 4.1): our login, then a page that asks."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from gateway.api import pages
from gateway.api.credentials import ANYBODY, CredentialOf, acts, at_browser, permit
from gateway.api.limits import take
from gateway.api.models import Body
from gateway.api.oauth import TOKENS_PER_ADDRESS
from gateway.errors import Problem, login_needed
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor
from gateway.policy.authorization import (
    QUERY_MAX,
    AuthorizationRequest,
    BadRequestError,
    RefusedError,
    answer_uri,
    read_request,
)
from gateway.randomness import digest, new_secret
from gateway.store import codes
from gateway.store.transaction import AuditEvent, Transaction

# RFC 6749 recommends ten minutes at most; an app that waits for it needs a second.
CODE_TTL_S = 60.0

router = APIRouter(tags=["apps"])


class AnswerBody(Body):
    """The person's answer. `query` is the page's own, so that what is answered is what was shown."""

    query: Annotated[str, Field(min_length=1, max_length=QUERY_MAX)]
    allow: bool


class RedirectAnswer(BaseModel):
    """Where the browser goes now: to the app."""

    redirect_to: str


@router.get(
    "/v1/oauth/authorize",
    response_class=HTMLResponse,
    responses={
        303: {"description": "To the login, or back to the app."},
        400: {"description": "A page that says what is wrong.", "content": {"text/html": {}}},
    },
    openapi_extra=acts(ANYBODY)
    | {
        "parameters": [
            {"name": name, "in": "query", "required": required, "schema": {"type": "string"}}
            for name, required in (
                ("response_type", True),
                ("client_id", True),
                ("redirect_uri", True),
                ("code_challenge", True),
                ("code_challenge_method", True),
                ("state", False),
            )
        ]
    },
)
async def authorize(request: Request, credential: CredentialOf, parts: Parts) -> Response:
    """For the system's browser: log in, then say yes or no to an app. PKCE with S256 is required."""
    query = request.url.query
    try:
        wanted = read_request(query, parts.settings.native_clients)
    except BadRequestError as error:
        return pages.problem_page(Problem(HTTPStatus.BAD_REQUEST, "bad_authorization", str(error)))
    except RefusedError as error:
        return _redirect(_refusal(parts, error))
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
    if actor is None:
        return _redirect(f"/login?next={quote(f'{request.url.path}?{query}', safe='')}")
    return pages.page("consent.html", actor=actor, client=wanted.client, place=_place(wanted.redirect_uri))


@router.post("/v1/oauth/authorize", openapi_extra=acts(Action.APP_ALLOW))
async def answer(
    body: AnswerBody, request: Request, credential: CredentialOf, parts: Parts
) -> RedirectAnswer:
    """The click on that page, from that page alone (cookie and same origin): a code for the app, or not."""
    await take(parts, request, (TOKENS_PER_ADDRESS, None))
    try:
        wanted = read_request(body.query, parts.settings.native_clients)
    except BadRequestError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad_authorization", str(error)) from error
    except RefusedError as error:
        return RedirectAnswer(redirect_to=_refusal(parts, error))
    async with parts.database.transaction() as tx:
        actor = await at_browser(tx, parts, credential)
        if actor is None:
            raise login_needed()
        permit(actor, Action.APP_ALLOW)
        if body.allow:
            return RedirectAnswer(redirect_to=await _allow(tx, parts, actor, wanted))
    refused = RefusedError("access_denied", "the person said no", wanted.redirect_uri, wanted.state)
    return RedirectAnswer(redirect_to=_refusal(parts, refused))


async def _allow(tx: Transaction, parts: GatewayParts, actor: Actor, wanted: AuthorizationRequest) -> str:
    assert actor.login_id is not None  # at a browser
    code = new_secret()
    await codes.add(
        tx,
        digest(code),
        login_id=actor.login_id,
        client_id=wanted.client_id,
        redirect_uri=wanted.redirect_uri,
        code_challenge=wanted.code_challenge,
        ttl_s=CODE_TTL_S,
    )
    user = str(actor.user_id)
    tx.audit(AuditEvent("app.allowed", user, owner=user, detail={"client": wanted.client_id}))
    return answer_uri(wanted.redirect_uri, code=code, state=wanted.state, iss=parts.settings.public_url)


def _refusal(parts: GatewayParts, refused: RefusedError) -> str:
    return answer_uri(
        refused.redirect_uri,
        error=refused.error,
        error_description=refused.description,
        state=refused.state,
        iss=parts.settings.public_url,  # RFC 9207: errors say it too
    )


def _place(redirect_uri: str) -> str:
    """What a person should read of where the answer goes."""
    scheme, _, rest = redirect_uri.partition(":")
    if scheme == "https":
        return rest.removeprefix("//").partition("/")[0]
    return "a program on this device"


def _redirect(location: str) -> Response:
    """As it is: a client library compares what comes back, and quoting again would change it."""
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": location})
