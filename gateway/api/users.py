"""People, for those who keep the installation: who there is, what they are, shutting them out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, Field

from gateway.api.credentials import CredentialOf, acts, require
from gateway.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, refuse_other_version, tagged, unless_known
from gateway.api.idempotency import OnceOf
from gateway.api.models import Body, moment
from gateway.api.paging import PageQuery
from gateway.errors import Problem, not_found
from gateway.parts import Parts
from gateway.passwords import PASSWORD_MAX
from gateway.policy.access import Action, Staff
from gateway.policy.usernames import USERNAME_RULE, is_username
from gateway.store import people, support, users
from gateway.store.transaction import AuditEvent, Transaction
from gateway.store.users import User

# NIST SP 800-63B-4: fifteen where the password stands alone. No rules about its letters.
PASSWORD_MIN = 15


def _username(text: str) -> str:
    if not is_username(text):
        raise ValueError(USERNAME_RULE)
    return text


Username = Annotated[str, AfterValidator(_username)]
Password = Annotated[str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)]

router = APIRouter(prefix="/v1/users", tags=["users"])


class UserBody(Body):
    username: Username
    password: Password
    role: Annotated[Staff, Field(strict=False)] = Staff.USER


class UserChange(Body):
    """What is left out stays."""

    role: Annotated[Staff | None, Field(strict=False)] = None
    disabled: bool | None = None
    password: Password | None = None


class UserFacts(BaseModel):
    id: UUID
    username: str
    role: Staff
    disabled: bool
    created_at: str


class UserList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[UserFacts]
    next_cursor: str | None


@router.get("", openapi_extra=acts(Action.USER_MANAGE))
async def list_users(
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[PageQuery, Query()],
) -> UserList:
    """Everybody, by name."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.USER_MANAGE)
        found = await users.list_all(tx, wanted.after("users"), wanted.asked)
    page, next_cursor = wanted.cut(found, "users", lambda user: user.username)
    return UserList(items=[_facts(user) for user in page], next_cursor=next_cursor)


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra=acts(Action.USER_MANAGE))
async def create_user(body: UserBody, credential: CredentialOf, parts: Parts, once: OnceOf) -> UserFacts:
    """Somebody who logs in with a password, with an org of their own."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.USER_MANAGE)
    # Outside any transaction: it takes tens of milliseconds and would hold a connection.
    password_hash = await parts.passwords.hash(body.password)
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.USER_MANAGE)
        earlier = await once.earlier(tx, actor.user_id, UserFacts)
        if earlier is not None:
            return earlier
        user_id = await people.add_user(tx, body.username, password_hash, body.role)
        if user_id is None:
            raise Problem(HTTPStatus.CONFLICT, "username_taken", "Somebody has this name.", field="username")
        _audit(tx, "user.created", actor.user_id, user_id, username=body.username, role=body.role.value)
        return await once.keep(tx, actor.user_id, _facts(await _get(tx, user_id)))


@router.get(
    "/{user_id}",
    openapi_extra=acts(Action.USER_MANAGE),
    response_model=UserFacts,
    responses=NOT_MODIFIED,
)
async def read_user(
    user_id: UUID,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """One person's account."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.USER_MANAGE)
        user = await _get(tx, user_id)
    return unless_known(if_none_match, response, _facts(user), user.version)


@router.patch("/{user_id}", openapi_extra=acts(Action.USER_MANAGE))
async def change_user(
    user_id: UUID,
    body: UserChange,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> UserFacts:
    """Another standing or password, or shut out: logins, tokens and sessions end within two seconds."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.USER_MANAGE)
    password_hash = None if body.password is None else await parts.passwords.hash(body.password)
    async with parts.database.transaction() as tx:
        admins = await users.lock_admins(tx)
        # Behind the lock: somebody else may just have made them none.
        actor = await require(tx, parts, credential, Action.USER_MANAGE)
        user = await _get(tx, user_id, lock=True)
        refuse_other_version(if_match, user.version)
        falls = body.disabled is True or (body.role is not None and body.role is not Staff.ADMIN)
        if user.staff is Staff.ADMIN and not user.disabled and falls and admins <= 1:
            raise Problem(HTTPStatus.CONFLICT, "last_admin", "Make somebody else an administrator first.")
        changed: dict[str, object] = {}
        if body.role is not None and body.role is not user.staff:
            await users.set_staff(tx, user_id, body.role)
            changed["role"] = body.role.value
        if body.disabled is not None and body.disabled is not user.disabled:
            await users.set_disabled(tx, user_id, disabled=body.disabled)
            changed["disabled"] = body.disabled
        if password_hash is not None:
            await users.set_password(tx, user_id, password_hash)
            changed["password"] = "changed"
        if body.disabled or password_hash is not None:
            await people.end_all_of_user(tx, user_id)
        if changed:
            await support.end_without_standing(tx, user_id, actor.user_id)
        if changed:
            _audit(tx, "user.changed", actor.user_id, user_id, **changed)
        after = await _get(tx, user_id)
    tagged(response, _facts(after), after.version)
    return _facts(after)


async def _get(tx: Transaction, user_id: UUID, *, lock: bool = False) -> User:
    user = await users.get(tx, user_id, lock=lock)
    if user is None:
        raise not_found("user")
    return user


def _audit(tx: Transaction, kind: str, actor: UUID, user_id: UUID, **detail: object) -> None:
    tx.audit(AuditEvent(kind, str(actor), owner=str(user_id), detail=detail))


def _facts(user: User) -> UserFacts:
    return UserFacts(
        id=user.id,
        username=user.username,
        role=user.staff,
        disabled=user.disabled,
        created_at=moment(user.created_at),
    )
