"""How a device changes hands: its owner lets go of it, and it proves itself that the new one holds it."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import BaseModel

from gateway.api.credentials import DEVICE, CredentialOf, acts
from gateway.api.devices import find
from gateway.api.enrolments import decode_base64url, token_problem
from gateway.api.limits import ENROL_PER_ADDRESS, take
from gateway.api.models import Body, Secret, SiteNamed, moment
from gateway.commands.outcome import count
from gateway.errors import Problem, not_found
from gateway.keys import csr
from gateway.parts import Parts
from gateway.policy.access import Action
from gateway.policy.commands import DEVICE_MOVED
from gateway.randomness import digest
from gateway.store import commands, devices, people, places, sessions, support
from gateway.store.transaction import AuditEvent, utc

# Long enough to hand the thing over and to set it up again in the new place.
RELEASE_TTL_S = 24 * 3600
CLAIM_PURPOSE = b"towline-claim-v1"  # keeps this signature apart from the tunnel's and the renewal's

router = APIRouter(prefix="/v1/devices", tags=["devices"])


class ReleaseAnswer(BaseModel):
    released_until: str


class ClaimBody(Body):
    """`signature`: by the device's key over purpose, nonce, device id and SHA-256 of the token."""

    token: Secret
    nonce: Secret
    signature: Secret


class ClaimAnswer(BaseModel):
    """Where the device belongs now."""

    device_id: str
    name: str
    site: SiteNamed


@router.post("/{device_id}/release", openapi_extra=acts(Action.DEVICE_RELEASE))
async def release_device(device_id: str, credential: CredentialOf, parts: Parts) -> ReleaseAnswer:
    """Let go of it for a day: whoever holds the device may claim it into a site of theirs."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_RELEASE)
        if device.status != "approved":
            raise Problem(HTTPStatus.CONFLICT, "device_not_approved", f"The device is {device.status}.")
        until = tx.now + RELEASE_TTL_S
        await devices.set_released(tx, device_id, utc(until))
        detail = {"name": device.name, "until": until}
        user, site = str(actor.user_id), device.site_id
        tx.audit(AuditEvent("device.released", user, site=site, device=device_id, detail=detail))
    return ReleaseAnswer(released_until=moment(until))


@router.delete(
    "/{device_id}/release", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.DEVICE_RELEASE)
)
async def keep_device(device_id: str, credential: CredentialOf, parts: Parts) -> None:
    """Take the release back. Repeating it changes nothing."""
    async with parts.database.transaction() as tx:
        actor, device = await find(tx, parts, credential, device_id, Action.DEVICE_RELEASE)
        if device.released_until is not None:
            await devices.set_released(tx, device_id, None)
            user, site = str(actor.user_id), device.site_id
            tx.audit(AuditEvent("device.release_withdrawn", user, site=site, device=device_id))


@router.post("/{device_id}/claim", openapi_extra=acts(DEVICE))
async def claim_device(device_id: str, body: ClaimBody, request: Request, parts: Parts) -> ClaimAnswer:
    """By the device: a registration token of the new site and a signature by its own key over a challenge.

    The token must approve in advance: this is the new owner's yes. Every session on the device ends.
    """
    await take(parts, request, (ENROL_PER_ADDRESS, None))
    nonce = decode_base64url(body.nonce, "nonce")
    signature = decode_base64url(body.signature, "signature")
    message = CLAIM_PURPOSE + nonce + device_id.encode() + digest(body.token)
    async with parts.database.transaction() as tx:
        device = await devices.hold(tx, device_id)
        if device is None:
            raise not_found("device")
        if not csr.signature_holds(device.public_key, signature, message):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_signature", "The signature is not by the device's key.")
        if not await devices.burn_nonce(tx, device_id, digest(body.nonce)):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_nonce", "The nonce is unknown, used or too old.")
        if device.status != "approved":
            raise Problem(HTTPStatus.FORBIDDEN, f"device_{device.status}", f"The device is {device.status}.")
        token = await people.burn_registration_token(tx, digest(body.token))
        if token is None:
            raise await token_problem(tx, digest(body.token))
        if not token["approve"]:
            raise Problem(
                HTTPStatus.CONFLICT,
                "token_does_not_approve",
                "Make the registration token with approve: it is your yes to this device.",
                field="token",
            )
        if token["site_id"] == device.site_id:
            raise Problem(HTTPStatus.CONFLICT, "already_there", "The device is in this site.")
        if device.released_until is None or device.released_until <= tx.now:
            raise Problem(
                HTTPStatus.CONFLICT,
                "not_released",
                "The device has an owner, who must release it first.",
            )
        name = token["name"] or device.name
        await devices.move_claimed(tx, device_id, token["site_id"], name)
        # The consents first, as whoever ends one does.
        ended = await support.end_of_device(tx, device_id, token["user_id"])
        ended += await sessions.end_of_device(tx, device_id, device.site_id)
        new_owner = str(token["user_id"])
        over = await commands.end_of_device(tx, device_id, DEVICE_MOVED, new_owner)
        # Each side reads what is its own: the name that it gave, and the sessions that it had.
        handed = {"name": device.name, "sessions": ended}
        for kind, site, detail in (
            ("device.handed_over", device.site_id, handed),
            ("device.claimed", token["site_id"], {"name": name}),
        ):
            tx.audit(AuditEvent(kind, new_owner, site=site, device=device_id, detail=detail))
        place = await places.get_site(tx, token["site_id"], token["user_id"])
        assert place is not None  # the token names it, and its site is not deleted
        assert place.site is not None  # it is a site
    count(parts.metrics, over)
    return ClaimAnswer(device_id=device_id, name=name, site=SiteNamed(id=token["site_id"], name=place.site))
