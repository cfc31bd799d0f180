"""Orgs and their sites: making, naming, deleting them, and finding one for who asks."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permitted, require
from gateway.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, refuse_other_version, tagged, unless_known
from gateway.api.idempotency import OnceOf
from gateway.api.models import Body, moment
from gateway.api.paging import PageQuery
from gateway.errors import Problem
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, RoleWord, place_seen
from gateway.policy.names import clean_name
from gateway.store import places
from gateway.store.places import Place
from gateway.store.transaction import AuditEvent, Transaction

# A chain of shops fits; a script gone wild does not.
SITES_PER_ORG = 1000
ORGS_PER_PERSON = 50

Kind = Literal["org", "site"]
PlaceName = Annotated[str, AfterValidator(clean_name)]
Wanted = Annotated[PageQuery, Query()]

router = APIRouter(prefix="/v1", tags=["places"])


class PlaceBody(Body):
    name: PlaceName


class OrgAnswer(BaseModel):
    """`role`: of the person who asks in the whole org; null: at some of its sites alone."""

    id: str
    name: str
    role: RoleWord | None
    created_at: str


class SiteAnswer(BaseModel):
    """`role`: of the person who asks at the site; null when nothing gives them one (they just deleted it)."""

    id: str
    name: str
    org: str
    org_id: str
    role: RoleWord | None
    created_at: str


class OrgList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[OrgAnswer]
    next_cursor: str | None


class SiteList(BaseModel):
    """`next_cursor` null: that was all."""

    items: list[SiteAnswer]
    next_cursor: str | None


@router.get("/orgs", openapi_extra=acts(Action.SITE_LIST))
async def list_orgs(credential: CredentialOf, parts: Parts, wanted: Wanted) -> OrgList:
    """The orgs where the person has any role, by id."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.SITE_LIST)
        found = await places.list_orgs(tx, actor.user_id, wanted.after("orgs"), wanted.asked)
    page, next_cursor = wanted.cut(found, "orgs", lambda place: place.org_id)
    return OrgList(items=[_org(place) for place in page], next_cursor=next_cursor)


@router.post("/orgs", status_code=HTTPStatus.CREATED, openapi_extra=acts(Action.ORG_CREATE))
async def create_org(body: PlaceBody, credential: CredentialOf, parts: Parts, once: OnceOf) -> OrgAnswer:
    """A new org without sites; the person owns it."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.ORG_CREATE)
        earlier = await once.earlier(tx, actor.user_id, OrgAnswer)
        if earlier is not None:
            return earlier
        if await places.count_owned_orgs(tx, actor.user_id) >= ORGS_PER_PERSON:
            raise Problem(
                HTTPStatus.CONFLICT, "too_many_orgs", f"A person owns at most {ORGS_PER_PERSON} orgs."
            )
        org_id = await places.add_org(tx, actor.user_id, body.name)
        _audit(tx, "org.created", actor, None, org=org_id, name=body.name)
        return await once.keep(tx, actor.user_id, _org(await _fresh(tx, actor, "org", org_id)))


@router.get(
    "/orgs/{org_id}",
    openapi_extra=acts(Action.ORG_READ),
    response_model=OrgAnswer,
    responses=NOT_MODIFIED,
)
async def read_org(
    org_id: str,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """One org, for everybody with a role at any of its sites."""
    async with parts.database.transaction() as tx:
        _, place = await find_place(tx, parts, credential, "org", org_id, Action.ORG_READ)
    return unless_known(if_none_match, response, _org(place), place.version)


@router.patch("/orgs/{org_id}", openapi_extra=acts(Action.ORG_CHANGE))
async def rename_org(
    org_id: str,
    body: PlaceBody,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> OrgAnswer:
    """Give it another name."""
    async with parts.database.transaction() as tx:
        actor, place = await find_place(tx, parts, credential, "org", org_id, Action.ORG_CHANGE, lock=True)
        refuse_other_version(if_match, place.version)
        renamed = await _rename(tx, actor, place, body.name)
    answer = _org(renamed)
    tagged(response, answer, renamed.version)
    return answer


@router.delete("/orgs/{org_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.ORG_CHANGE))
async def delete_org(org_id: str, credential: CredentialOf, parts: Parts, if_match: IfMatch = None) -> None:
    """Only an org without sites."""
    async with parts.database.transaction() as tx:
        actor, place = await find_place(tx, parts, credential, "org", org_id, Action.ORG_CHANGE, lock=True)
        refuse_other_version(if_match, place.version)
        if await places.count_sites(tx, org_id):
            raise Problem(HTTPStatus.CONFLICT, "org_not_empty", "Delete the org's sites first.")
        await places.delete(tx, place)
        _audit(tx, "org.deleted", actor, None, org=org_id, name=place.org)


@router.post("/orgs/{org_id}/sites", status_code=HTTPStatus.CREATED, openapi_extra=acts(Action.SITE_CREATE))
async def create_site(
    org_id: str, body: PlaceBody, credential: CredentialOf, parts: Parts, once: OnceOf
) -> SiteAnswer:
    """A new site of the org."""
    async with parts.database.transaction() as tx:
        actor, _ = await find_place(tx, parts, credential, "org", org_id, Action.SITE_CREATE, lock=True)
        earlier = await once.earlier(tx, actor.user_id, SiteAnswer)
        if earlier is not None:
            return earlier
        if await places.count_sites(tx, org_id) >= SITES_PER_ORG:
            raise Problem(HTTPStatus.CONFLICT, "too_many_sites", f"An org has at most {SITES_PER_ORG} sites.")
        site_id = await places.add_site(tx, org_id, body.name)
        _audit(tx, "site.created", actor, site_id, name=body.name)
        return await once.keep(tx, actor.user_id, _site(await _fresh(tx, actor, "site", site_id)))


@router.get("/sites", openapi_extra=acts(Action.SITE_LIST))
async def list_sites(credential: CredentialOf, parts: Parts, wanted: Wanted) -> SiteList:
    """The sites where the person has a role, by id."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.SITE_LIST)
        found = await places.list_sites(tx, actor.user_id, wanted.after("sites"), wanted.asked)
    page, next_cursor = wanted.cut(found, "sites", lambda place: place.site_id)
    return SiteList(items=[_site(place) for place in page], next_cursor=next_cursor)


@router.get(
    "/sites/{site_id}",
    openapi_extra=acts(Action.SITE_READ),
    response_model=SiteAnswer,
    responses=NOT_MODIFIED,
)
async def read_site(
    site_id: str,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """One site, for everybody with a role there."""
    async with parts.database.transaction() as tx:
        _, place = await find_place(tx, parts, credential, "site", site_id, Action.SITE_READ)
    return unless_known(if_none_match, response, _site(place), place.version)


@router.patch("/sites/{site_id}", openapi_extra=acts(Action.SITE_CHANGE))
async def rename_site(
    site_id: str,
    body: PlaceBody,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> SiteAnswer:
    """Give it another name."""
    async with parts.database.transaction() as tx:
        actor, place = await find_place(tx, parts, credential, "site", site_id, Action.SITE_CHANGE, lock=True)
        refuse_other_version(if_match, place.version)
        renamed = await _rename(tx, actor, place, body.name)
    answer = _site(renamed)
    tagged(response, answer, renamed.version)
    return answer


@router.delete("/sites/{site_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.SITE_DELETE))
async def delete_site(site_id: str, credential: CredentialOf, parts: Parts, if_match: IfMatch = None) -> None:
    """Only a site whose devices are revoked or rejected."""
    async with parts.database.transaction() as tx:
        actor, place = await find_place(tx, parts, credential, "site", site_id, Action.SITE_DELETE, lock=True)
        refuse_other_version(if_match, place.version)
        if await places.has_devices(tx, site_id):
            raise Problem(
                HTTPStatus.CONFLICT, "site_not_empty", "Revoke the site's devices or release them first."
            )
        await places.delete(tx, place)
        _audit(tx, "site.deleted", actor, site_id, name=place.site)


async def find_place(
    tx: Transaction,
    parts: GatewayParts,
    credential: Credential,
    kind: Kind,
    place_id: str,
    action: Action,
    *,
    lock: bool = False,
    mine: bool = False,
) -> tuple[Actor, Place]:
    """The person and the org or site they may do `action` to; 401, 403, or one 404 for both unknown
    and not theirs.

    `lock` holds the org until commit: what changes its people, or depends on them, takes turns.
    `mine`: the action is about their own membership there.
    """
    actor = await logged_in(tx, parts, credential)
    return actor, await _permitted(tx, actor, kind, place_id, action, lock=lock, mine=mine)


async def _permitted(
    tx: Transaction,
    actor: Actor,
    kind: Kind,
    place_id: str,
    action: Action,
    *,
    lock: bool = False,
    mine: bool = False,
) -> Place:
    place = await _get(tx, actor, kind, place_id, lock=lock)
    seen = None if place is None else place_seen(place.role, sees=place.sees, mine=mine)
    return permitted(actor, action, place, seen, kind)


async def _fresh(tx: Transaction, actor: Actor, kind: Kind, place_id: str) -> Place:
    """As it is after the actor's own change, which was permitted: telling it needs no other scope."""
    place = await _get(tx, actor, kind, place_id)
    assert place is not None  # just written in this transaction
    return place


async def _get(
    tx: Transaction, actor: Actor, kind: Kind, place_id: str, *, lock: bool = False
) -> Place | None:
    read = places.get_org if kind == "org" else places.get_site
    return await read(tx, place_id, actor.user_id, lock=lock)


async def _rename(tx: Transaction, actor: Actor, place: Place, name: str) -> Place:
    kind: Kind = "org" if place.site_id is None else "site"
    old = place.org if place.site_id is None else place.site
    await places.rename(tx, place, name)
    _audit(tx, f"{kind}.renamed", actor, place.site_id, org=place.org_id, name=name, old=old)
    return await _fresh(tx, actor, kind, place.site_id or place.org_id)


def _audit(tx: Transaction, kind: str, actor: Actor, site: str | None, **detail: object) -> None:
    user = str(actor.user_id)
    tx.audit(AuditEvent(kind, user, owner=user if site is None else None, site=site, detail=detail))


def _org(place: Place) -> OrgAnswer:
    role = None if place.role is None else place.role.word
    return OrgAnswer(id=place.org_id, name=place.org, role=role, created_at=moment(place.created_at))


def _site(place: Place) -> SiteAnswer:
    assert place.site_id is not None  # an org is told by _org
    assert place.site is not None  # both or none
    return SiteAnswer(
        id=place.site_id,
        name=place.site,
        org=place.org,
        org_id=place.org_id,
        role=None if place.role is None else place.role.word,
        created_at=moment(place.created_at),
    )
