"""The token side of OAuth 2.1 for registered public clients: tokens, revocation, what a client can ask for.

Errors are told as RFC 6749, section 5.2, has them; limits and a store that is away as everywhere else.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from gateway import program_logins
from gateway.api.credentials import ANYBODY, acts
from gateway.api.limits import address_of, take
from gateway.errors import BadTokenError
from gateway.parts import GatewayParts, Parts
from gateway.policy.authorization import fields_of
from gateway.policy.clients import OWN_CLIENT
from gateway.policy.limits import Limit
from gateway.program_logins import Given
from gateway.randomness import digest
from gateway.store import api_tokens, people, refresh
from gateway.store.transaction import Transaction
from gateway.tokens.opaque import API_TOKEN_PREFIX, REFRESH_TOKEN_PREFIX, family_of

# An office full of apps behind one address: each refreshes once in a quarter of an hour.
TOKENS_PER_ADDRESS = Limit("oauth_address", burst=120, refill_s=0.5)
FORM_TYPE: Final = "application/x-www-form-urlencoded"
# The longest form holds an access token (revocation) or a code with its verifier and redirect URI.
FORM_MAX = 8192

router = APIRouter(tags=["apps"])


class OAuthError(Exception):
    """`error` is one of RFC 6749, section 5.2, or RFC 7009, section 2.2.1."""

    def __init__(self, error: str, description: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status

    def answer(self) -> Response:
        body = {"error": self.error, "error_description": self.description}
        return JSONResponse(body, self.status, _HEADERS)


class Refusal(BaseModel):
    """As RFC 6749, section 5.2, has it."""

    error: str
    error_description: str


class TokenAnswer(BaseModel):
    """As RFC 6749, section 5.1, has it."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str


# For a route's `responses`.
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Refusal, "description": "The request, the code or the token is not good."},
    401: {"model": Refusal, "description": "The client is not registered, or is not public."},
}
_HEADERS: Final = {"cache-control": "no-store", "pragma": "no-cache"}


def _form(required: list[str], fields: dict[str, str]) -> dict[str, Any]:
    """For the OpenAPI document: a form's fields with what they are."""
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {FORM_TYPE: {"schema": schema}}}}


@router.post(
    "/v1/oauth/token",
    response_model=TokenAnswer,
    responses=REFUSALS,
    openapi_extra=acts(ANYBODY)
    | _form(
        ["grant_type", "client_id"],
        {
            "grant_type": "authorization_code or refresh_token",
            "client_id": f"as registered; {OWN_CLIENT} for logins of POST /v1/login",
            "code": "authorization_code: from the redirection; one use, 60 s",
            "redirect_uri": "authorization_code: the same as in the authorization request",
            "code_verifier": "authorization_code: what the code_challenge was made of (S256)",
            "refresh_token": "refresh_token: the newest one; a used one ends the login",
        },
    ),
)
async def token(request: Request, parts: Parts) -> Response:
    """Trade an authorization code, or the newest refresh token, for an access and a refresh token.

    `application/x-www-form-urlencoded` in, `{access_token, token_type, expires_in, refresh_token}` out.
    """
    await take(parts, request, (TOKENS_PER_ADDRESS, None))
    try:
        fields = await _read_form(request)
        client_id = _client(parts, fields)
        given = await _grant(parts, fields, client_id, address_of(request))
    except OAuthError as error:
        return error.answer()
    if given is None:
        return OAuthError("invalid_grant", "This code or token is not good, or not any more.").answer()
    body = {
        "access_token": given.access_token,
        "token_type": "Bearer",
        "expires_in": given.expires_in,
        "refresh_token": given.refresh_token,
    }
    return JSONResponse(body, headers=_HEADERS)


@router.post(
    "/v1/oauth/revoke",
    response_class=Response,
    responses=REFUSALS,
    openapi_extra=acts(ANYBODY)
    | _form(
        ["token"],
        {
            "token": "a refresh, access or API token",
            "token_type_hint": "not needed: the token says what it is",
            "client_id": "of a refresh token",
        },
    ),
)
async def revoke(request: Request, parts: Parts) -> Response:
    """End what a token stands for (RFC 7009): the login and its sessions, or the API token and its sessions.

    Whoever holds a secret may make it worthless. A token that is unknown or has ended gives 200 as well.
    """
    await take(parts, request, (TOKENS_PER_ADDRESS, None))
    try:
        fields = await _read_form(request)
        secret = _field(fields, "token")
        async with parts.database.transaction() as tx:
            await _revoke(tx, parts, secret, fields.get("client_id"), address_of(request))
    except OAuthError as error:
        return error.answer()
    return Response(headers=_HEADERS)


@router.get("/.well-known/oauth-authorization-server", openapi_extra=acts(ANYBODY))
async def metadata(parts: Parts) -> dict[str, Any]:
    """What this authorization server offers, and where (RFC 8414)."""
    origin = parts.settings.public_url
    return {
        "issuer": origin,
        "authorization_endpoint": f"{origin}/v1/oauth/authorize",
        "token_endpoint": f"{origin}/v1/oauth/token",
        "revocation_endpoint": f"{origin}/v1/oauth/revoke",
        "jwks_uri": f"{origin}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
    }


async def _grant(parts: GatewayParts, fields: dict[str, str], client_id: str, address: str) -> Given | None:
    kind = _field(fields, "grant_type")
    if kind == "refresh_token":
        secret = _field(fields, "refresh_token")
        async with parts.database.transaction() as tx:
            return await program_logins.trade(tx, parts, secret, client_id, address)
    if kind != "authorization_code":
        raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")
    if client_id == OWN_CLIENT:
        raise OAuthError("unauthorized_client", "this client logs in by POST /v1/login")
    code, redirect_uri = _field(fields, "code"), _field(fields, "redirect_uri")
    # Left out, it is as wrong as a wrong one: the code is used up either way.
    verifier = fields.get("code_verifier", "")
    async with parts.database.transaction() as tx:
        return await program_logins.redeem(tx, parts, code, client_id, redirect_uri, verifier, address)


async def _revoke(
    tx: Transaction, parts: GatewayParts, secret: str, client_id: str | None, address: str
) -> None:
    if secret.startswith(REFRESH_TOKEN_PREFIX):
        await _revoke_refresh(tx, secret, client_id, address)
        return
    if secret.startswith(API_TOKEN_PREFIX):
        actor = await api_tokens.actor(tx, digest(secret))
        if actor is not None and actor.api_token_id is not None:
            await program_logins.end_api_token(tx, actor.api_token_id, actor.user_id, "anonymous")
        return
    try:
        claims = parts.tokens.read_access(secret, tx.now)
    except BadTokenError:
        return
    actor = await people.actor_by_login(tx, claims.login_id)
    if actor is not None:
        await program_logins.end(tx, claims.login_id, actor.user_id, "login.revoked", address)


async def _revoke_refresh(tx: Transaction, secret: str, client_id: str | None, address: str) -> None:
    try:
        row = await refresh.lock_family(tx, family_of(secret))
    except BadTokenError:
        return
    if row is None:
        return
    if client_id != row.family.client_id:
        raise OAuthError("invalid_grant", "the token is another client's")
    await program_logins.end(tx, row.login_id, row.user_id, "login.revoked", address)


def _client(parts: GatewayParts, fields: dict[str, str]) -> str:
    client_id = _field(fields, "client_id")
    if client_id != OWN_CLIENT and client_id not in parts.settings.native_clients:
        raise OAuthError("invalid_client", "this client is not registered", HTTPStatus.UNAUTHORIZED)
    if "client_secret" in fields:
        raise OAuthError("invalid_client", "a public client has no secret", HTTPStatus.UNAUTHORIZED)
    return client_id


def _field(fields: dict[str, str], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise OAuthError("invalid_request", f"{name} is missing")
    return value


async def _read_form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise OAuthError("invalid_request", f"the body must be {FORM_TYPE}")
    if "authorization" in request.headers:
        raise OAuthError("invalid_client", "a public client has no secret", HTTPStatus.UNAUTHORIZED)
    body = await request.body()
    try:
        if len(body) > FORM_MAX:
            raise ValueError("too long")
        return fields_of(body.decode("ascii"))
    except ValueError as error:
        raise OAuthError("invalid_request", "the form cannot be read, or has a field twice") from error
