"""A person's API tokens: what scripts and services act with, limited to scopes, ended one by one."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field

from gateway.api.credentials import CredentialOf, acts, hold, logged_in, permit, require
from gateway.api.idempotency import OnceOf
from gateway.api.limits import take
from gateway.api.models import Body, moment
from gateway.errors import Problem, not_found, wrong_field
from gateway.parts import Parts
from gateway.policy.access import Action, Scope
from gateway.policy.limits import Limit
from gateway.policy.names import clean_name
from gateway.program_logins import end_api_token
from gateway.randomness import digest
from gateway.store import api_tokens
from gateway.store.api_tokens import ApiToken
from gateway.store.transaction import AuditEvent, utc
from gateway.tokens.opaque import new_api_token

DAY_S = 86_400.0
# A secret that nobody looks at again must end by itself; a leap year fits.
LIFE_MAX_S = 366 * DAY_S
LIFE_DEFAULT_S = 90 * DAY_S
# One for each script or machine is many; a list of thousands is a mistake in one of them.
TOKENS_PER_PERSON = 50
CREATIONS_PER_USER = Limit("api_token_user", burst=20, refill_s=60.0)

router = APIRouter(tags=["api tokens"])


def _is_moment(text: str) -> str:
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise ValueError("must be a time with its zone, like 2027-01-31T12:00:00Z")
    return text


class ApiTokenBody(Body):
    name: Annotated[str, AfterValidator(clean_name), Field(description="For the person's own list.")]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]],
        Field(min_length=1, max_length=len(Scope), description="What the token may be used for, no more."),
    ]
    expires_at: Annotated[
        str | None,
        Field(max_length=40, description="RFC 3339, within 366 days; left out: in 90 days."),
        AfterValidator(lambda text: None if text is None else _is_moment(text)),
    ] = None


class ApiTokenAnswer(BaseModel):
    """`last_used_at` is right to the hour; null: never used."""

    id: UUID
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str
    last_used_at: str | None


class ApiTokenCreated(ApiTokenAnswer):
    """`token` is shown this once: the gateway keeps its hash alone."""

    token: str


class ApiTokenList(BaseModel):
    items: list[ApiTokenAnswer]


@router.post("/v1/me/api-tokens", status_code=HTTPStatus.CREATED, openapi_extra=acts(Action.API_TOKEN_MANAGE))
async def create_api_token(
    body: ApiTokenBody, request: Request, credential: CredentialOf, parts: Parts, once: OnceOf
) -> ApiTokenCreated:
    """Make a token for scripts. It may do what its scopes say and its person may, but make no other token."""
    secret = new_api_token()
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.API_TOKEN_MANAGE)
    await take(parts, request, (CREATIONS_PER_USER, str(actor.user_id)))
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.API_TOKEN_MANAGE)
        await hold(tx, actor)
        earlier = await once.earlier(tx, actor.user_id, ApiTokenCreated)
        if earlier is not None:
            return earlier
        expires_at = _expiry(body.expires_at, tx.now)
        if await api_tokens.count_live(tx, actor.user_id) >= TOKENS_PER_PERSON:
            raise Problem(HTTPStatus.CONFLICT, "too_many_api_tokens", "End one of your API tokens first.")
        scopes = frozenset(body.scopes)
        token = await api_tokens.add(tx, actor.user_id, digest(secret), body.name, scopes, utc(expires_at))
        user = str(actor.user_id)
        detail = {"token": str(token.id), "name": token.name, "scopes": list(token.scopes)}
        tx.audit(AuditEvent("api_token.created", user, owner=user, detail=detail))
        answer = ApiTokenCreated(**_answer(token).model_dump(), token=secret)
        return await once.keep(tx, actor.user_id, answer)


@router.get("/v1/me/api-tokens", openapi_extra=acts(Action.API_TOKEN_MANAGE))
async def list_api_tokens(credential: CredentialOf, parts: Parts) -> ApiTokenList:
    """The person's tokens that still work, newest first, without their secrets."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.API_TOKEN_MANAGE)
        found = await api_tokens.list_live(tx, actor.user_id, TOKENS_PER_PERSON)
    return ApiTokenList(items=[_answer(token) for token in found])


@router.delete(
    "/v1/me/api-tokens/{token_id}",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=acts(Action.API_TOKEN_MANAGE),
)
async def end_api_token_of_mine(token_id: UUID, credential: CredentialOf, parts: Parts) -> None:
    """End a token at once, and within two seconds the sessions that it opened."""
    async with parts.database.transaction() as tx:
        actor = await logged_in(tx, parts, credential)
        permit(actor, Action.API_TOKEN_MANAGE)
        if not await end_api_token(tx, token_id, actor.user_id, str(actor.user_id)):
            raise not_found("API token")


def _expiry(wanted: str | None, now: float) -> float:
    """Unix seconds."""
    if wanted is None:
        return now + LIFE_DEFAULT_S
    try:
        expires_at = datetime.fromisoformat(wanted).timestamp()
    except (ValueError, OverflowError) as error:  # the year 0001 in a zone before it
        raise wrong_field("expires_at", "is no time that exists") from error
    if not now < expires_at <= now + LIFE_MAX_S:
        raise wrong_field("expires_at", f"must be in the future, {LIFE_MAX_S / DAY_S:.0f} days at most")
    return expires_at


def _answer(token: ApiToken) -> ApiTokenAnswer:
    used = token.last_used_at
    return ApiTokenAnswer(
        id=token.id,
        name=token.name,
        scopes=list(token.scopes),
        created_at=moment(token.created_at),
        expires_at=moment(token.expires_at),
        last_used_at=None if used is None else moment(used),
    )
