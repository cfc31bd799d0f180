"""One's own logins and identities: who am I here, where am I logged in, and ending that."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.api.credentials import CredentialOf, acts, require
from gateway.api.models import moment
from gateway.errors import not_found
from gateway.parts import Parts
from gateway.policy.access import Action, Actor
from gateway.store import identities, logins
from gateway.store.transaction import AuditEvent, Row, Transaction, unix

router = APIRouter(tags=["login"])


class LoginAnswer(BaseModel):
    """One of the person's logins."""

    id: UUID
    kind: str = Field(description="`password`, `welcome`, `provider` or `app`.")
    provider: str | None = Field(description="The provider's id; null: not by a provider.")
    client: str | None = Field(description="The app's or program's client id; null: a browser.")
    address: str = Field(description="From where it began.")
    user_agent: str = Field(description='The browser in a few words, such as "Firefox on Linux".')
    since: str
    last_seen: str = Field(description="Right to the minute.")
    expires_at: str
    current: bool = Field(description="The one that asks.")


class LoginList(BaseModel):
    items: list[LoginAnswer]


class LoginsEnded(BaseModel):
    logins: int
    sessions: int


class IdentityAnswer(BaseModel):
    """`email_verified`: the provider vouches that the address is this person's; otherwise anybody may have
    typed it. It never decides who somebody is.
    """

    provider: str
    issuer: str
    email: str | None
    email_verified: bool
    since: str
    last_used: str


class IdentityList(BaseModel):
    items: list[IdentityAnswer]


@router.get("/v1/me/logins", openapi_extra=acts(Action.ACCOUNT))
async def list_logins(credential: CredentialOf, parts: Parts) -> LoginList:
    """Where one is logged in, the last used first, at most 200."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ACCOUNT)
        rows = await logins.list_live(tx, actor.user_id, parts.settings.login_idle_s)
    return LoginList(items=[_login(row, actor) for row in rows])


@router.delete("/v1/me/logins", openapi_extra=acts(Action.ACCOUNT))
async def end_other_logins(credential: CredentialOf, parts: Parts) -> LoginsEnded:
    """End all logins but the one that asks, with the sessions that they opened."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ACCOUNT)
        assert actor.login_id is not None  # an API token may not do this
        count, ended = await logins.end_others(tx, actor.user_id, actor.login_id)
        if count:
            _audit(tx, actor, {"logins": count, "sessions": ended})
    return LoginsEnded(logins=count, sessions=ended)


@router.delete(
    "/v1/me/logins/{login_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.ACCOUNT)
)
async def end_login(login_id: UUID, credential: CredentialOf, parts: Parts) -> None:
    """End one of one's logins with the sessions that it opened; it may be the one that asks."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ACCOUNT)
        ended = await logins.end_own(tx, actor.user_id, login_id)
        if ended is None:
            raise not_found("login")
        _audit(tx, actor, {"login": str(login_id), "sessions": ended})


@router.get("/v1/me/identities", openapi_extra=acts(Action.ACCOUNT))
async def list_identities(credential: CredentialOf, parts: Parts) -> IdentityList:
    """By which providers one may log in."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ACCOUNT)
        rows = await identities.of_user(tx, actor.user_id)
    return IdentityList(items=[_identity(row) for row in rows])


def _audit(tx: Transaction, actor: Actor, detail: dict[str, object]) -> None:
    user = str(actor.user_id)
    tx.audit(AuditEvent("login.ended", user, owner=user, detail=detail))


def _login(row: Row, actor: Actor) -> LoginAnswer:
    return LoginAnswer(
        id=row["id"],
        kind=row["kind"],
        provider=row["provider"],
        client=row["client_id"],
        address=row["address"],
        user_agent=row["user_agent"],
        since=moment(unix(row["created_at"])),
        last_seen=moment(unix(row["seen_at"])),
        expires_at=moment(unix(row["expires_at"])),
        current=row["id"] == actor.login_id,
    )


def _identity(row: Row) -> IdentityAnswer:
    return IdentityAnswer(
        provider=row["provider"],
        issuer=row["issuer"],
        email=row["email"],
        email_verified=row["email_verified"],
        since=moment(unix(row["created_at"])),
        last_used=moment(unix(row["used_at"])),
    )
