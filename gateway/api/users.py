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
from gateway.errors import Problem, not_found, wrong_field
from gateway.parts import Parts
from gateway.passwords import PASSWORD_MAX
from gateway.policy.access import Action, Staff
from gateway.policy.usernames import USERNAME_RULE, is_username
from gateway.store import people, places, support, users
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


class OrgOwnedAlone(BaseModel):
    """An org that nobody else owns who may log in: while the person is shut out nobody there decides about
    support, releases devices or makes owners.
    """

    id: str
    name: str
    members: int = Field(description="People with a role there besides this one.")
    devices: int = Field(description="Pending or approved.")


class OrgsOwnedAlone(BaseModel):
    items: list[OrgOwnedAlone]


class UserChanged(UserFacts):
    """`without_owner`: orgs of somebody who is shut out now that nobody owns; pass them on."""

    without_owner: list[OrgOwnedAlone]


class SuccessorBody(Body):
    user_id: Annotated[UUID, Field(strict=False, description="Who becomes an owner; they may log in.")]


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


# It shuts people out: an administrator whose writes a found token used up must still be able to.
@router.patch("/{user_id}", openapi_extra=acts(Action.USER_MANAGE, frees=True))
async def change_user(
    user_id: UUID,
    body: UserChange,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> UserChanged:
    """Another standing or password, or shut out: logins, tokens and sessions end within two seconds.

    Nobody is too important to be shut out at once, but the last administrator. `without_owner` names the orgs
    that nobody owns now: `POST /v1/users/{user_id}/successor` gives them to somebody.
    """
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
        without_owner = await places.owned_alone(tx, user_id) if after.disabled else []
    facts = _facts(after)
    tagged(response, facts, after.version)
    return UserChanged(**facts.model_dump(), without_owner=list(map(_org, without_owner)))


@router.get("/{user_id}/orgs", openapi_extra=acts(Action.USER_MANAGE))
async def list_orgs_owned_alone(user_id: UUID, credential: CredentialOf, parts: Parts) -> OrgsOwnedAlone:
    """The orgs that nobody else owns: look before you shut the person out. Each has at least their home."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.USER_MANAGE)
        await _get(tx, user_id)
        found = await places.owned_alone(tx, user_id)
    return OrgsOwnedAlone(items=list(map(_org, found)))


@router.post("/{user_id}/successor", openapi_extra=acts(Action.USER_MANAGE))
async def pass_on(
    user_id: UUID, body: SuccessorBody, credential: CredentialOf, parts: Parts
) -> OrgsOwnedAlone:
    """Make somebody an owner of the orgs that a shut-out person owns alone: which those were.

    Both read of it in the audit log. Who may log in is never succeeded; who is let in again is an owner
    again, beside the successor.
    """
    async with parts.database.transaction() as tx:
        await users.lock_admins(tx)  # two people who are to succeed each other take turns
        actor = await require(tx, parts, credential, Action.USER_MANAGE)
        if not (await _get(tx, user_id, lock=True)).disabled:
            raise Problem(HTTPStatus.CONFLICT, "user_not_disabled", "Disable the person first.")
        if not await people.hold_person(tx, body.user_id):
            raise wrong_field("user_id", "there is nobody of this id who may log in")
        orgs = await places.pass_on(tx, user_id, body.user_id)
        for one in orgs:
            _audit(
                tx,
                "org.owner_appointed",
                actor.user_id,
                body.user_id,
                org=one.org_id,
                former=str(user_id),
            )
        if orgs:
            passed = [one.org_id for one in orgs]
            _audit(tx, "user.succeeded", actor.user_id, user_id, by=str(body.user_id), orgs=passed)
    return OrgsOwnedAlone(items=list(map(_org, orgs)))


async def _get(tx: Transaction, user_id: UUID, *, lock: bool = False) -> User:
    user = await users.get(tx, user_id, lock=lock)
    if user is None:
        raise not_found("user")
    return user


def _audit(tx: Transaction, kind: str, actor: UUID, user_id: UUID, **detail: object) -> None:
    tx.audit(AuditEvent(kind, str(actor), owner=str(user_id), detail=detail))


def _org(one: places.OwnedAlone) -> OrgOwnedAlone:
    return OrgOwnedAlone(id=one.org_id, name=one.org, members=one.others, devices=one.devices)


def _facts(user: User) -> UserFacts:
    return UserFacts(
        id=user.id,
        username=user.username,
        role=user.staff,
        disabled=user.disabled,
        created_at=moment(user.created_at),
    )
