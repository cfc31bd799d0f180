"""Logging in and out, and who one is."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from gateway import program_logins
from gateway.api.browser_login import begin_login
from gateway.api.credentials import (
    ANYBODY,
    CredentialOf,
    acts,
    clear_login_cookie,
    logged_in,
    permit,
    refuse_cross_origin,
    require,
    set_login_cookie,
)
from gateway.api.limits import WELCOME_PER_ADDRESS, address_of, take, take_login
from gateway.api.login_refusals import note_refused, noting_limited
from gateway.api.models import AccessAnswer, LoginBody, UserAnswer, WelcomeBody
from gateway.errors import Problem, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action
from gateway.policy.clients import OWN_CLIENT
from gateway.randomness import digest
from gateway.store import people, sessions
from gateway.store.transaction import AuditEvent, Row, Transaction

router = APIRouter(tags=["login"])


@router.post("/v1/login", openapi_extra=acts(ANYBODY), response_model_exclude_none=True)
async def log_in(body: LoginBody, request: Request, response: Response, parts: Parts) -> AccessAnswer:
    """Password login: sets the browser's login cookie and gives an access token.

    With `refresh` it is a program's login: a refresh token for `POST /v1/oauth/token` in place of the cookie.
    """
    refuse_cross_origin(request, parts.settings, strict=False)
    with noting_limited(parts, request, "password"):
        await take_login(parts, request, body.username)
    async with parts.database.transaction() as tx:
        user = await people.find_user(tx, body.username)
    # Outside any transaction: the check takes tens of milliseconds and would hold a connection. Up to the
    # refusal the same is asked and computed for every name: known, unknown, disabled, without a password.
    stored = None if user is None else user["password_hash"]
    right = await parts.passwords.check(stored, body.password)
    if not right or user is None or user["disabled"]:
        raise _refused(parts, request, user)
    if body.refresh:
        return await _begin_program(parts, request, user)
    async with parts.database.transaction() as tx:
        await _hold_password(tx, parts, request, user)
        login = await begin_login(tx, parts, request, user["id"], "password")
        ttl = parts.settings.access_token_ttl_s
        access = parts.tokens.access(user["id"], login.id, tx.now, ttl)
    parts.metrics.logins.labels("ok").inc()
    set_login_cookie(response, parts.settings, login.secret)
    return AccessAnswer(access_token=access, expires_in=ttl)


@router.post("/v1/login/welcome", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(ANYBODY))
async def log_in_welcome(body: WelcomeBody, request: Request, response: Response, parts: Parts) -> None:
    """Log in with the secret of the address that `towline up` printed. 404 where that is off."""
    refuse_cross_origin(request, parts.settings, strict=False)
    with noting_limited(parts, request, "welcome"):
        await take(parts, request, (WELCOME_PER_ADDRESS, None))
    if parts.welcome_sha256 is None:
        raise not_found("login")
    if not hmac.compare_digest(parts.welcome_sha256, digest(body.secret)):
        note_refused(parts, request, "welcome", "wrong_login", result="wrong")
        raise Problem(HTTPStatus.UNAUTHORIZED, "wrong_login", "This welcome address is not valid.")
    async with parts.database.transaction() as tx:
        user = await people.find_user(tx, parts.settings.admin_username)
        if user is None or not await people.hold_person(tx, user["id"]):
            raise not_found("login")
        login = await begin_login(tx, parts, request, user["id"], "welcome")
    parts.metrics.logins.labels("ok").inc()
    set_login_cookie(response, parts.settings, login.secret)


@router.post("/v1/logout", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.ACCOUNT, frees=True))
async def log_out(credential: CredentialOf, response: Response, parts: Parts) -> None:
    """End this login, its cookie, its access tokens and the sessions that it opened."""
    async with parts.database.transaction() as tx:
        actor = await logged_in(tx, parts, credential)
        permit(actor, Action.ACCOUNT)
        assert actor.login_id is not None  # an API token has no account of its own to end
        await people.end_login(tx, actor.login_id)
        ended = await sessions.end_of_login(tx, actor.login_id)
        user = str(actor.user_id)
        tx.audit(AuditEvent("login.ended", user, owner=user, detail={"sessions": ended}))
    clear_login_cookie(response, parts.settings)


@router.get("/v1/me", openapi_extra=acts(Action.WHO_AM_I))
async def me(credential: CredentialOf, parts: Parts) -> UserAnswer:
    """Who is logged in, or whose API token this is."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.WHO_AM_I)
    return UserAnswer(id=actor.user_id, username=actor.name, role=actor.staff)


def _refused(parts: GatewayParts, request: Request, user: Row | None) -> Problem:
    """One answer, whatever was wrong; the audit log alone says more."""
    reason = "account_disabled" if user is not None and user["disabled"] else "wrong_login"
    account = None if user is None else user["id"]
    note_refused(parts, request, "password", reason, result="wrong", account=account)
    return Problem(HTTPStatus.UNAUTHORIZED, "wrong_login", "The name or the password is wrong.")


async def _hold_password(tx: Transaction, parts: GatewayParts, request: Request, user: Row) -> None:
    """401 when the password that was right is not the person's any more: checks wait behind each other, and
    a change meanwhile has already ended the logins that there were.
    """
    if not await people.hold_password(tx, user["id"], user["password_hash"]):
        raise _refused(parts, request, user)


async def _begin_program(parts: GatewayParts, request: Request, user: Row) -> AccessAnswer:
    address = address_of(request)
    async with parts.database.transaction() as tx:
        await _hold_password(tx, parts, request, user)
        _, given = await program_logins.begin(tx, parts, user["id"], "password", OWN_CLIENT, address)
    parts.metrics.logins.labels("ok").inc()
    return AccessAnswer(
        access_token=given.access_token,
        expires_in=given.expires_in,
        refresh_token=given.refresh_token,
        client_id=OWN_CLIENT,
    )
