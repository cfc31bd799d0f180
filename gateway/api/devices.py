"""Devices of the places where the person has a role: list, look, approve, reject, revoke."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from gateway.api.credentials import Credential, CredentialOf, acts, logged_in, permit, require
from gateway.api.models import DeviceAnswer, DeviceList, device_answer
from gateway.approval import approve
from gateway.errors import Problem, not_found
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, Resource
from gateway.store import devices, sessions
from gateway.store.database import AuditEvent, Revocation, Transaction
from gateway.store.devices import Device

# One page of a list; nobody reads more at once, and an answer stays under 100 KB.
PAGE_MAX = 200

router = APIRouter(prefix="/v1/devices", tags=["devices"])


@router.get("", openapi_extra=acts(Action.DEVICE_LIST))
async def list_devices(
    credential: CredentialOf,
    parts: Parts,
    cursor: Annotated[str, Query(pattern="^[a-z0-9_]{0,64}$")] = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
) -> DeviceList:
    """The devices that the person sees, by id; `cursor` is the `next_cursor` of the page before."""
    async with parts.database.transaction() as tx:
        actor = await require(tx, parts, credential, Action.DEVICE_LIST)
        found = await devices.list_seen(tx, actor.user_id, cursor, limit + 1)
    items = [device_answer(device) for device in found[:limit]]
    return DeviceList(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/{device_id}", openapi_extra=acts(Action.DEVICE_READ))
async def read_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    async with parts.database.transaction() as tx:
        _, device = await find(tx, parts, credential, device_id, Action.DEVICE_READ)
    return device_answer(device)


@router.post("/{device_id}/approve", openapi_extra=acts(Action.DEVICE_APPROVE))
async def approve_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """Accept a pending device: it gets its certificate. Repeating it changes nothing."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_APPROVE, lock=True)
        if device.status != "approved":
            if not await devices.set_status(tx, device_id, "approved", allowed_from=["pending"]):
                raise _wrong_status(device, "approved")
            await approve(tx, parts.keyring, device_id, device.public_key)
            tx.audit(_event("device.approved", actor, device))
        return await _fresh(tx, actor, device_id)


@router.post("/{device_id}/reject", openapi_extra=acts(Action.DEVICE_REJECT))
async def reject_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """Refuse a pending device for good."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_REJECT, lock=True)
        if device.status != "rejected":
            if not await devices.set_status(tx, device_id, "rejected", allowed_from=["pending"]):
                raise _wrong_status(device, "rejected")
            tx.audit(_event("device.rejected", actor, device))
        return await _fresh(tx, actor, device_id)


@router.post("/{device_id}/revoke", openapi_extra=acts(Action.DEVICE_REVOKE))
async def revoke_device(device_id: str, credential: CredentialOf, parts: Parts) -> DeviceAnswer:
    """End the device: its tunnels and sessions are cut on every node, its certificate renews no more."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_REVOKE, lock=True)
        if device.status != "revoked":
            if not await devices.set_status(tx, device_id, "revoked", allowed_from=["approved", "pending"]):
                raise _wrong_status(device, "revoked")
            tx.revoke(Revocation("device", device_id))
            ended = await sessions.end_of_device(tx, device_id)
            await devices.drop_tunnels(tx, device_id)
            tx.audit(_event("device.revoked", actor, device, sessions=ended))
        return await _fresh(tx, actor, device_id)


async def find(
    tx: Transaction,
    parts: GatewayParts,
    credential: Credential,
    device_id: str,
    action: Action,
    *,
    lock: bool = False,
) -> tuple[Actor, Device]:
    """The person and the device they may do `action` to; 401, 403, or one 404 for unknown and not theirs."""
    actor = await logged_in(tx, parts, credential)
    device = await devices.get(tx, device_id, actor.user_id, lock=lock)
    permit(actor, action, None if device is None else Resource(device.role), "device")
    assert device is not None  # nothing is permitted about what does not exist
    return actor, device


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
