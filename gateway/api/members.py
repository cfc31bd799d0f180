"""People at a place: who they are, what role they have, how they come and go. The same for orgs and sites."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permit, require
from gateway.api.idempotency import OnceOf
from gateway.api.models import Body, Secret, moment
from gateway.api.places import Kind, find_place
from gateway.errors import Problem, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, Resource, Role, RoleWord, giving, leaving, may_give
from gateway.randomness import digest, new_secret
from gateway.store import invitations, places, sessions, support, users
from gateway.store.invitations import Invitation
from gateway.store.places import Place
from gateway.store.transaction import AuditEvent, Transaction, utc

# Time to read a mail after a holiday; a forgotten one is worthless soon after.
INVITATION_TTL_S = 7 * 86_400
INVITATIONS_PER_PLACE = 100
# More people than a list can show are a mistake; roles for the whole org do for large ones.
MEMBERS_PER_PLACE = 500

PlaceId = Annotated[str, Path(description="of the org or site")]

router = APIRouter(tags=["members"])


class RoleBody(Body):
    role: RoleWord


class TokenBody(Body):
    token: Secret


class MemberAnswer(BaseModel):
    """`whole_org`: the role holds at every site of the org and is changed there."""

    user_id: UUID
    username: str
    role: RoleWord
    whole_org: bool
    since: str


class MemberList(BaseModel):
    items: list[MemberAnswer]


class InvitationAnswer(BaseModel):
    id: UUID
    org: str
    site: str | None
    role: RoleWord
    invited_by: str
    created_at: str
    expires_at: str


class InvitationCreated(InvitationAnswer):
    """`token` is shown once: whoever has it may accept."""

    token: str


class InvitationList(BaseModel):
    items: list[InvitationAnswer]


class JoinedAnswer(BaseModel):
    """Where the person is now somebody; `site_id` null: in the whole org."""

    org_id: str
    site_id: str | None
    role: RoleWord


async def list_members(
    place_id: PlaceId, request: Request, credential: CredentialOf, parts: Parts
) -> MemberList:
    """Everybody with a role there; for a site also those of its whole org."""
    async with parts.database.transaction() as tx:
        _, place = await _find(tx, parts, credential, request, place_id, Action.MEMBER_LIST)
        found = await places.members(tx, place, MEMBERS_PER_PLACE * 2)
    return MemberList(items=[_member(member) for member in found])


async def change_member(
    place_id: PlaceId, user_id: UUID, body: RoleBody, request: Request, credential: CredentialOf, parts: Parts
) -> MemberAnswer:
    """Another role. Sessions that it does not carry any more end within two seconds.

    To `admin` or `owner`, and back, by a login of an owner alone: no API token does it.
    """
    role = Role.of(body.role)
    async with parts.database.transaction() as tx:
        actor, place = await _find(tx, parts, credential, request, place_id, Action.MEMBER_MANAGE, lock=True)
        member = await _member_of(tx, place, user_id)
        _may_give(actor, place, member.role)
        _may_give(actor, place, role)
        if member.role is Role.OWNER and role is not Role.OWNER:
            await _keep_an_owner(tx, place, user_id)
        await places.put_membership(tx, place.org_id, place.site_id, user_id, role)
        await sessions.end_without_role(tx, user_id)
        await support.end_without_standing(tx, user_id, actor.user_id)
        _audit(tx, "member.changed", actor, place, user_id, role=role.word, old=member.role.word)
        return _member(await _member_of(tx, place, user_id))


async def remove_member(
    place_id: PlaceId, user_id: UUID, request: Request, credential: CredentialOf, parts: Parts
) -> None:
    """Take the role away, or leave. Sessions that it carried end within two seconds.

    Whoever is `admin` or `owner` leaves by a login alone, as they are removed by one.
    """
    async with parts.database.transaction() as tx:
        actor = await logged_in(tx, parts, credential)
        leaves = actor.user_id == user_id
        action = Action.MEMBER_LEAVE if leaves else Action.MEMBER_MANAGE
        actor, place = await _find(tx, parts, credential, request, place_id, action, lock=True, mine=leaves)
        member = await _member_of(tx, place, user_id)
        if leaves:
            permit(actor, leaving(member.role), Resource(place.role, mine=True))
        else:
            _may_give(actor, place, member.role)
        if member.role is Role.OWNER:
            await _keep_an_owner(tx, place, user_id)
        await places.remove_membership(tx, place, user_id)
        await sessions.end_without_role(tx, user_id)
        await support.end_without_standing(tx, user_id, actor.user_id)
        _audit(
            tx, "member.left" if leaves else "member.removed", actor, place, user_id, role=member.role.word
        )


async def invite(
    place_id: PlaceId, body: RoleBody, request: Request, credential: CredentialOf, parts: Parts, once: OnceOf
) -> InvitationCreated:
    """A secret that makes whoever accepts it a member: once, within a week, while one may give the role.

    One that an API token makes ends with that token, and is never to `admin` or `owner`: that needs a login.
    """
    token, role = new_secret(), Role.of(body.role)
    async with parts.database.transaction() as tx:
        actor, place = await _find(tx, parts, credential, request, place_id, Action.MEMBER_MANAGE, lock=True)
        _may_give(actor, place, role)
        earlier = await once.earlier(tx, actor.user_id, InvitationCreated)
        if earlier is not None:
            return earlier
        if len(await invitations.list_open(tx, place, INVITATIONS_PER_PLACE)) >= INVITATIONS_PER_PLACE:
            raise Problem(HTTPStatus.CONFLICT, "too_many_invitations", "Withdraw an open invitation first.")
        expires_at = utc(actor.within(tx.now + INVITATION_TTL_S))
        new = await invitations.add(tx, place, role, actor, digest(token), expires_at)
        _audit(tx, "member.invited", actor, place, None, role=role.word, invitation=str(new))
        made = await invitations.get(tx, new)
        assert made is not None  # the line above
        answer = InvitationCreated(token=token, **_invitation(made).model_dump())
        return await once.keep(tx, actor.user_id, answer)


async def list_invitations(
    place_id: PlaceId, request: Request, credential: CredentialOf, parts: Parts
) -> InvitationList:
    """The open invitations to exactly this place."""
    async with parts.database.transaction() as tx:
        _, place = await _find(tx, parts, credential, request, place_id, Action.MEMBER_MANAGE)
        found = await invitations.list_open(tx, place, INVITATIONS_PER_PLACE)
    return InvitationList(items=[_invitation(one) for one in found])


async def withdraw_invitation(
    place_id: PlaceId, invitation_id: UUID, request: Request, credential: CredentialOf, parts: Parts
) -> None:
    """Nobody can accept it any more."""
    async with parts.database.transaction() as tx:
        actor, place = await _find(tx, parts, credential, request, place_id, Action.MEMBER_MANAGE, lock=True)
        found = await invitations.get(tx, invitation_id)
        if found is None or (found.org_id, found.site_id) != (place.org_id, place.site_id):
            raise not_found("invitation")
        await invitations.withdraw(tx, invitation_id)
        _audit(tx, "member.invitation_withdrawn", actor, place, None, invitation=str(invitation_id))


for _kind in ("orgs", "sites"):
    _base = f"/v1/{_kind}/{{place_id}}"
    _list, _manage = acts(Action.MEMBER_LIST), acts(Action.MEMBER_MANAGE)
    router.get(_base + "/members", openapi_extra=_list)(list_members)
    router.patch(_base + "/members/{user_id}", openapi_extra=_manage)(change_member)
    router.delete(_base + "/members/{user_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=_manage)(
        remove_member
    )
    router.post(_base + "/invitations", status_code=HTTPStatus.CREATED, openapi_extra=_manage)(invite)
    router.get(_base + "/invitations", openapi_extra=_manage)(list_invitations)
    router.delete(
        _base + "/invitations/{invitation_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=_manage
    )(withdraw_invitation)


@router.post("/v1/invitations/inspect", openapi_extra=acts(Action.INVITATION_ACCEPT, frees=True))
async def inspect_invitation(body: TokenBody, credential: CredentialOf, parts: Parts) -> InvitationAnswer:
    """What one would accept. Changes nothing."""
    async with parts.database.transaction() as tx:
        await require(tx, parts, credential, Action.INVITATION_ACCEPT)
        return _invitation(await _open(tx, body.token))


@router.post("/v1/invitations/accept", openapi_extra=acts(Action.INVITATION_ACCEPT))
async def accept_invitation(body: TokenBody, credential: CredentialOf, parts: Parts) -> JoinedAnswer:
    """Become a member. The invitation is used up."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.INVITATION_ACCEPT)
        found, place = await _open_and_locked(tx, body.token)
        known = await places.member(tx, place, actor.user_id)
        if known is not None and known.role >= found.role:
            raise Problem(HTTPStatus.CONFLICT, "already_member", f"You are {known.role.word} there already.")
        if known is None and len(await places.members(tx, place, MEMBERS_PER_PLACE)) >= MEMBERS_PER_PLACE:
            raise Problem(HTTPStatus.CONFLICT, "too_many_members", "Nobody else fits in there.")
        await invitations.use(tx, found.id, actor.user_id)
        await places.put_membership(tx, place.org_id, place.site_id, actor.user_id, found.role)
        inviter = str(found.invited_by)
        _audit(tx, "member.joined", actor, place, actor.user_id, role=found.role.word, invited_by=inviter)
    return JoinedAnswer(org_id=found.org_id, site_id=found.site_id, role=found.role.word)


async def _find(
    tx: Transaction,
    parts: GatewayParts,
    credential: Credential,
    request: Request,
    place_id: str,
    action: Action,
    *,
    lock: bool = False,
    mine: bool = False,
) -> tuple[Actor, Place]:
    """As `find_place`; the path says which kind of place the id is of. `mine`: one's own membership."""
    kind: Kind = "org" if request.url.path.startswith("/v1/orgs/") else "site"
    return await find_place(tx, parts, credential, kind, place_id, action, lock=lock, mine=mine)


async def _member_of(tx: Transaction, place: Place, user_id: UUID) -> places.Member:
    found = await places.member(tx, place, user_id)
    if found is None:
        raise not_found("member")
    return found


def _may_give(actor: Actor, place: Place, role: Role) -> None:
    if place.role is None or not may_give(place.role, role):
        raise Problem(
            HTTPStatus.FORBIDDEN, "forbidden", f"Your role does not let you make or unmake an {role.word}."
        )
    permit(actor, giving(role), Resource(place.role))


async def _keep_an_owner(tx: Transaction, place: Place, user_id: UUID) -> None:
    """409 for the last owner of an org: a place that nobody owns is lost."""
    if place.site_id is None and not await places.is_owned_besides(tx, place.org_id, user_id):
        raise Problem(HTTPStatus.CONFLICT, "last_owner", "Make somebody else an owner first.")


async def _open(tx: Transaction, token: str) -> Invitation:
    found = await invitations.by_token(tx, digest(token))
    if found is None:
        raise Problem(
            HTTPStatus.GONE, "invitation_gone", "This invitation is unknown, used or too old.", field="token"
        )
    return found


async def _open_and_locked(tx: Transaction, token: str) -> tuple[Invitation, Place]:
    """The invitation that its author may still make, and its place as they see it, locked until commit."""
    found = await _open(tx, token)
    get = places.get_site if found.site_id else places.get_org
    place = await get(tx, found.site_id or found.org_id, found.invited_by, lock=True)
    # Looked at again behind the lock, which whoever withdraws it or deletes its place takes first as well.
    await _open(tx, token)
    author = await users.get(tx, found.invited_by)
    if (
        author is None
        or author.disabled
        or place is None
        or place.role is None
        or not may_give(place.role, found.role)
    ):
        raise Problem(HTTPStatus.GONE, "invitation_void", f"{found.inviter} may not give this role any more.")
    return found, place


def _audit(
    tx: Transaction, kind: str, actor: Actor, place: Place, user_id: UUID | None, **detail: object
) -> None:
    owner = None if user_id is None else str(user_id)
    detail["org"] = place.org_id
    tx.audit(AuditEvent(kind, str(actor.user_id), owner=owner, site=place.site_id, detail=detail))


def _member(member: places.Member) -> MemberAnswer:
    return MemberAnswer(
        user_id=member.user_id,
        username=member.username,
        role=member.role.word,
        whole_org=member.whole_org,
        since=moment(member.since),
    )


def _invitation(one: Invitation) -> InvitationAnswer:
    return InvitationAnswer(
        id=one.id,
        org=one.org,
        site=one.site,
        role=one.role.word,
        invited_by=one.inviter,
        created_at=moment(one.created_at),
        expires_at=moment(one.expires_at),
    )
