"""Devices of the places where the person has a role: list, look, approve, reject, revoke."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permit, permitted, require
from gateway.api.device_types import refuse_unknown_type
from gateway.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, refuse_other_version, tagged, unless_known
from gateway.api.models import DeviceAnswer, DeviceChange, DeviceList, SiteId, Tag, device_answer
from gateway.api.paging import PageQuery
from gateway.approval import approve
from gateway.commands.outcome import count
from gateway.errors import Problem, not_found, wrong_field
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, Resource, consent_decides
from gateway.policy.commands import DEVICE_MOVED, DEVICE_RETYPED, DEVICE_REVOKED
from gateway.policy.names import TAGS_MAX
from gateway.store import commands, devices, places, sessions, support
from gateway.store.commands import Ended
from gateway.store.devices import Device, Wanted
from gateway.store.transaction import AuditEvent, Reading, Revocation, Transaction

SEARCH_MAX = 64  # as long as a name

router = APIRouter(prefix="/v1/devices", tags=["devices"])


class DeviceQuery(PageQuery):
    """Which devices, and which page of them."""

    site_id: SiteId | None = None
    status: Literal["pending", "approved", "revoked"] | None = None
    online: bool | None = None
    q: Annotated[str, Field(max_length=SEARCH_MAX, pattern=r"^[^\x00]*$")] = ""
    tag: Annotated[list[Tag], Field(max_length=TAGS_MAX)] = Field(default=[])


@router.get("", openapi_extra=acts(Action.DEVICE_LIST))
async def list_devices(
    credential: CredentialOf,
    parts: Parts,
    wanted: Annotated[DeviceQuery, Query()],
) -> DeviceList:
    """The devices that the person sees, by id.

    `q` is part of a name, an id or a hardware id; of several `tag` all must be there.
    """
    async with parts.database.reading() as tx:
        actor = await require(tx, parts, credential, Action.DEVICE_LIST)
        chosen = Wanted(wanted.site_id, wanted.status, wanted.online, wanted.q, wanted.tag)
        after = wanted.after("devices")
        found = await devices.list_seen(tx, actor.user_id, after, wanted.asked, chosen)
    page, next_cursor = wanted.cut(found, "devices", lambda device: device.id)
    return DeviceList(items=[device_answer(device) for device in page], next_cursor=next_cursor)


@router.get(
    "/{device_id}",
    openapi_extra=acts(Action.DEVICE_READ),
    response_model=DeviceAnswer,
    responses=NOT_MODIFIED,
)
async def read_device(
    device_id: str,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_none_match: IfNoneMatch = None,
) -> BaseModel | Response:
    """One device: what people set, and whether it is online."""
    async with parts.database.reading() as tx:
        _, device = await look(tx, parts, credential, device_id, Action.DEVICE_READ)
    return unless_known(if_none_match, response, device_answer(device), device.version)


@router.patch("/{device_id}", openapi_extra=acts(Action.DEVICE_CHANGE))
async def change_device(
    device_id: str,
    body: DeviceChange,
    response: Response,
    credential: CredentialOf,
    parts: Parts,
    if_match: IfMatch = None,
) -> DeviceAnswer:
    """Name it, tag it, say what type it is, or move it to another site. Who has no role over it there loses
    their sessions. Of a device that moves or becomes another type's the commands that have not ended fail.
    """
    over: list[Ended] = []
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_CHANGE)
        refuse_other_version(if_match, device.version)
        name = device.name if body.name is None else body.name
        tags = device.tags if body.tags is None else tuple(sorted(set(body.tags)))
        site_id = device.site_id if body.site_id is None else body.site_id
        if site_id != device.site_id:
            await _may_move(tx, actor, device, site_id)
        type_id = device.type if body.type is None else body.type
        if type_id != device.type:
            await refuse_unknown_type(tx, type_id)
        if (name, tags, site_id, type_id) == (device.name, device.tags, device.site_id, device.type):
            tagged(response, device_answer(device), device.version)
            return device_answer(device)
        await devices.change(tx, device_id, name=name, tags=tags, site_id=site_id, type_id=type_id)
        changed = {"new_name": name, "tags": list(tags), "new_site": site_id, "new_type": type_id}
        tx.audit(_event("device.changed", actor, device, **changed))
        if site_id != device.site_id:
            await sessions.end_on_device_without_role(tx, device_id, device.site_id)
            await support.end_of_device(tx, device_id, actor.user_id)
            user, moved = str(actor.user_id), {"name": name, "from": device.site_id}
            tx.audit(AuditEvent("device.moved_in", user, site=site_id, device=device_id, detail=moved))
        # What people of the former place, or of what it was, asked for must not be done any more.
        if site_id != device.site_id or type_id != device.type:
            why = DEVICE_MOVED if site_id != device.site_id else DEVICE_RETYPED
            over = await commands.end_of_device(tx, device_id, why, str(actor.user_id))
        answer = await _fresh(tx, actor, device_id)
    count(parts.metrics, over)
    tagged(response, answer, device.version + 1)
    return answer


async def _may_move(tx: Transaction, actor: Actor, device: Device, site_id: str) -> None:
    permit(actor, Action.DEVICE_RELEASE, Resource(device.role), "device")
    await places.hold_site(tx, site_id)
    role = await places.role_at(tx, actor.user_id, site_id)
    try:
        permit(actor, Action.TOKEN_CREATE, None if role is None else Resource(role), "site")
    except Problem as problem:
        raise wrong_field("site_id", problem.detail) from problem


@router.post("/{device_id}/approve", openapi_extra=acts(Action.DEVICE_APPROVE))
async def approve_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """Accept a pending device: it gets its certificate. Repeating it changes nothing."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_APPROVE)
        if device.status != "approved":
            if not await devices.set_status(tx, device_id, "approved", allowed_from=["pending"]):
                raise _wrong_status(device, "approved")
            await approve(tx, parts.keyring, device_id, device.public_key)
            tx.audit(_event("device.approved", actor, device))
        return await _fresh(tx, actor, device_id)


@router.post("/{device_id}/reject", openapi_extra=acts(Action.DEVICE_REJECT, frees=True))
async def reject_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """Refuse a pending device for good."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_REJECT)
        if device.status != "rejected":
            if not await devices.set_status(tx, device_id, "rejected", allowed_from=["pending"]):
                raise _wrong_status(device, "rejected")
            tx.audit(_event("device.rejected", actor, device))
        return await _fresh(tx, actor, device_id)


@router.post("/{device_id}/revoke", openapi_extra=acts(Action.DEVICE_REVOKE, frees=True))
async def revoke_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """End the device: its tunnels and sessions are cut on every node, its certificate renews no more, and its
    commands that have not ended fail.
    """
    over: list[Ended] = []
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_REVOKE)
        if device.status != "revoked":
            if not await devices.set_status(tx, device_id, "revoked", allowed_from=["approved", "pending"]):
                raise _wrong_status(device, "revoked")
            tx.revoke(Revocation("device", device_id))
            # The consents first, as whoever ends one does.
            ended = await support.end_of_device(tx, device_id, actor.user_id)
            ended += await sessions.end_of_device(tx, device_id, device.site_id)
            await devices.drop_tunnels(tx, device_id)
            over = await commands.end_of_device(tx, device_id, DEVICE_REVOKED, str(actor.user_id))
            tx.audit(_event("device.revoked", actor, device, sessions=ended))
        answer = await _fresh(tx, actor, device_id)
    count(parts.metrics, over)
    return answer


async def look(
    tx: Reading, parts: GatewayParts, credential: Credential, device_id: str, action: Action
) -> tuple[Actor, Device]:
    """The person and the device they may do `action` to; 401, 403, or one 404 for unknown and not theirs."""
    actor = await logged_in(tx, parts, credential)
    device = await devices.get(tx, device_id, actor.user_id)
    return actor, permitted(actor, action, device, await device_seen(tx, actor, action, device), "device")


async def find(
    tx: Transaction, parts: GatewayParts, credential: Credential, device_id: str, action: Action
) -> tuple[Actor, Device]:
    """As `look`, and the device stays as it is until commit."""
    actor = await logged_in(tx, parts, credential)
    return actor, await find_for(tx, actor, device_id, action)


async def find_for(tx: Transaction, actor: Actor, device_id: str, action: Action) -> Device:
    """As `find`, for a person who is known already."""
    device = await devices.hold(tx, device_id, actor.user_id)
    return permitted(actor, action, device, await device_seen(tx, actor, action, device), "device")


async def device_seen(tx: Reading, actor: Actor, action: Action, device: Device | None) -> Resource | None:
    """The device as the actor sees it; None: there is none. A consent is looked up only where it decides."""
    if device is None:
        return None
    resource = Resource(device.role)
    if consent_decides(actor, action, resource):
        return Resource(device.role, consented=await support.has_consent(tx, device.id, actor.user_id))
    return resource


async def _fresh(tx: Transaction, actor: Actor, device_id: str) -> DeviceAnswer:
    device = await devices.get(tx, device_id, actor.user_id)
    if device is None:
        raise not_found("device")
    return device_answer(device)


def _event(kind: str, actor: Actor, device: Device, **detail: object) -> AuditEvent:
    return AuditEvent(
        kind,
        str(actor.user_id),
        site=device.site_id,
        device=device.id,
        detail={"name": device.name, **detail},
    )


def _wrong_status(device: Device, wanted: str) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT, "wrong_status", f"A device that is {device.status} cannot become {wanted}."
    )
