"""How a device comes in: registration token, certificate request, approval; and how it renews."""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter, Header, Request

from gateway.api.credentials import DEVICE, Credential, CredentialOf, acts, logged_in, permitted
from gateway.api.device_types import refuse_unknown_type
from gateway.api.idempotency import OnceOf
from gateway.api.limits import (
    ENROL_PER_ADDRESS,
    RENEW_PER_ADDRESS,
    RENEW_PER_DEVICE,
    TOKENS_PER_USER,
    address_of,
    take,
)
from gateway.api.models import (
    CertificateAnswer,
    EnrolmentAnswer,
    EnrolmentBody,
    EnrolmentStatus,
    NonceAnswer,
    RegistrationTokenAnswer,
    RegistrationTokenBody,
    RenewalBody,
    moment,
)
from gateway.approval import approve
from gateway.errors import Problem, not_found, wrong_field
from gateway.keys import csr
from gateway.parts import GatewayParts, Parts
from gateway.policy.access import Action, Actor, Resource, Role
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.randomness import digest, new_device_id, new_secret
from gateway.store import devices, people, places
from gateway.store.devices import Device
from gateway.store.transaction import AuditEvent, Transaction, utc
from runtime.client_address import group_of

# Long enough to walk to the device, short enough that a forgotten note is worthless (DESIGN 4).
REGISTRATION_TOKEN_TTL_S = 15 * 60
# The device answers the challenge at once.
RENEWAL_NONCE_TTL_S = 120
RENEWAL_PURPOSE = b"towline-renew-v1"

_BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]{1,256})", re.IGNORECASE)

router = APIRouter(tags=["enrolment"])


@router.post(
    "/v1/registration-tokens", status_code=HTTPStatus.CREATED, openapi_extra=acts(Action.TOKEN_CREATE)
)
async def create_registration_token(
    body: RegistrationTokenBody, request: Request, credential: CredentialOf, parts: Parts, once: OnceOf
) -> RegistrationTokenAnswer:
    """A one-use token that lets one device ask to join. `approve` accepts it in advance.

    One that an API token makes ends with that token.
    """
    async with parts.database.transaction() as tx:
        actor, _ = await _author(tx, parts, credential, body.site_id)
    await take(parts, request, (TOKENS_PER_USER, str(actor.user_id)))
    token = new_secret()
    async with parts.database.transaction() as tx:
        # Again: the login, or the role, may have ended while the limit was asked.
        actor, site_id = await _author(tx, parts, credential, body.site_id)
        earlier = await once.earlier(tx, actor.user_id, RegistrationTokenAnswer)
        if earlier is not None:
            return earlier
        if body.type is not None:
            await refuse_unknown_type(tx, body.type)
        expires_at = actor.within(tx.now + REGISTRATION_TOKEN_TTL_S)
        await people.add_registration_token(
            tx,
            author=actor,
            site_id=site_id,
            token_sha256=digest(token),
            name=body.name,
            approve=body.approve,
            device_type=body.type,
            expires_at=utc(expires_at),
        )
        tx.audit(
            AuditEvent(
                "registration_token.created",
                str(actor.user_id),
                site=site_id,
                detail={"name": body.name, "approve": body.approve, "type": body.type},
            )
        )
        answer = RegistrationTokenAnswer(token=token, expires_at=moment(expires_at))
        return await once.keep(tx, actor.user_id, answer)


async def _author(
    tx: Transaction, parts: GatewayParts, credential: Credential, wanted: str | None
) -> tuple[Actor, str]:
    """Who makes a registration token, and for which site."""
    actor = await logged_in(tx, parts, credential)
    site_id = wanted or await places.first_site(tx, actor.user_id, Role.ADMIN)
    role = None if site_id is None else await places.role_at(tx, actor.user_id, site_id)
    seen = None if role is None else Resource(role)
    return actor, permitted(actor, Action.TOKEN_CREATE, site_id, seen, "site")


@router.post("/v1/enrolments", status_code=HTTPStatus.CREATED, openapi_extra=acts(DEVICE))
async def enrol(body: EnrolmentBody, request: Request, parts: Parts) -> EnrolmentAnswer:
    """A device asks to join with its registration token and a request for its own P-256 key."""
    await take(parts, request, (ENROL_PER_ADDRESS, None))
    public_key = csr.spki(_read_csr(body.csr))
    device_id, poll_secret = new_device_id(), new_secret()
    async with parts.database.transaction() as tx:
        token = await people.burn_registration_token(tx, digest(body.token))
        if token is None:
            return await _repeated(tx, body.token, public_key, poll_secret)
        status = "approved" if token["approve"] else "pending"
        name = token["name"] or body.name
        try:
            await devices.add(
                tx,
                device_id=device_id,
                site_id=token["site_id"],
                name=name,
                hardware_id=body.hardware_id,
                status=status,
                public_key=public_key,
                key_id=csr.key_id(public_key),
                software=body.software,
                type_id=token["device_type"],
            )
        except devices.HardwareIdTakenError as error:
            raise Problem(
                HTTPStatus.CONFLICT,
                "hardware_id_conflict",
                "A device with this hardware id is enrolled, here or at another site. Whoever runs that site"
                " revokes it first. If it is not the one that bears the id, an administrator of the"
                " installation can free the id.",
                field="hardware_id",
            ) from error
        enrolment_id = await devices.add_enrolment(tx, device_id, digest(poll_secret))
        site = token["site_id"]
        detail = {"name": name, "hardware_id": body.hardware_id}
        tx.audit(AuditEvent("device.enrolled", device_id, site=site, device=device_id, detail=detail))
        if token["approve"]:
            await approve(tx, parts.keyring, device_id, public_key)
            detail = {"name": name, "by": "registration_token"}
            approver = str(token["user_id"])
            tx.audit(AuditEvent("device.approved", approver, site=site, device=device_id, detail=detail))
    return EnrolmentAnswer(
        enrolment_id=enrolment_id, device_id=device_id, status=status, poll_secret=poll_secret
    )


async def _repeated(tx: Transaction, token: str, public_key: bytes, poll_secret: str) -> EnrolmentAnswer:
    """The same device again, whose first answer was lost; the problem of a token that serves no more else."""
    found = await devices.repeat_enrolment(tx, digest(token), public_key, digest(poll_secret))
    if found is None:
        raise await token_problem(tx, digest(token))
    device = found["device_id"]
    tx.audit(AuditEvent("device.enrolment_repeated", device, site=found["site_id"], device=device))
    return EnrolmentAnswer(
        enrolment_id=found["id"], device_id=device, status=found["status"], poll_secret=poll_secret
    )


@router.get("/v1/enrolments/{enrolment_id}", response_model_exclude_unset=True, openapi_extra=acts(DEVICE))
async def read_enrolment(
    enrolment_id: UUID, parts: Parts, authorization: Annotated[str, Header(max_length=300)] = ""
) -> EnrolmentStatus:
    """How far the enrolment is; Bearer is its poll secret. Approved: everything the device needs."""
    match = _BEARER.fullmatch(authorization.strip())
    async with parts.database.transaction() as tx:
        found = await devices.find_enrolment(tx, enrolment_id, digest(match[1])) if match else None
        if found is None:
            raise not_found("enrolment")
        status = "rejected" if found["status"] == "revoked" else found["status"]
        pem = await devices.newest_certificate(tx, found["device_id"]) if status == "approved" else None
    if pem is None:
        return EnrolmentStatus(status=status, device_id=found["device_id"])
    return EnrolmentStatus(
        status=status,
        device_id=found["device_id"],
        device_root=parts.keyring.device_root_pem(),
        gateway_url=parts.settings.public_url,
        **_certificate_answer(parts, pem).model_dump(),
    )


@router.post("/v1/devices/{device_id}/certificate/challenge", openapi_extra=acts(DEVICE))
async def renewal_challenge(device_id: str, request: Request, parts: Parts) -> NonceAnswer:
    """A nonce for the device's key to sign. Works after the certificate expired."""
    if DEVICE_ID_PATTERN.fullmatch(device_id) is None:
        raise not_found("device")
    own = f"{group_of(address_of(request))} {device_id}"
    await take(parts, request, (RENEW_PER_ADDRESS, None), (RENEW_PER_DEVICE, own))
    nonce = new_secret()
    async with parts.database.transaction() as tx:
        await renewable(tx, device_id)
        await devices.add_nonce(tx, device_id, digest(nonce), utc(tx.now + RENEWAL_NONCE_TTL_S))
    return NonceAnswer(nonce=nonce)


@router.post("/v1/devices/{device_id}/certificate", openapi_extra=acts(DEVICE))
async def renew_certificate(
    device_id: str, body: RenewalBody, request: Request, parts: Parts
) -> CertificateAnswer:
    """A new certificate for the device's own key, against the signed nonce."""
    await take(parts, request, (RENEW_PER_ADDRESS, None))
    public_key = csr.spki(_read_csr(body.csr))
    message = RENEWAL_PURPOSE + decode_base64url(body.nonce, "nonce") + device_id.encode()
    signature = decode_base64url(body.signature, "signature")
    async with parts.database.transaction() as tx:
        device = await renewable(tx, device_id)
        if not csr.signature_holds(device.public_key, signature, message):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_signature", "The signature is not by the device's key.")
        if public_key != device.public_key:
            raise wrong_field("csr", "must be for the key that the device enrolled with")
        if not await devices.burn_nonce(tx, device_id, digest(body.nonce)):
            raise Problem(HTTPStatus.FORBIDDEN, "bad_nonce", "The nonce is unknown, used or too old.")
        pem = await approve(tx, parts.keyring, device_id, public_key)
        tx.audit(AuditEvent("device.certificate_renewed", device_id, site=device.site_id, device=device_id))
    return _certificate_answer(parts, pem)


def _certificate_answer(parts: GatewayParts, certificate: str) -> CertificateAnswer:
    """The certificate with everything the device needs beside it."""
    return CertificateAnswer(
        certificate=certificate,
        ca=parts.keyring.device_ca.pem(),
        key_list=parts.keyring.key_list,
        tunnel_urls=list(parts.settings.agent_tunnel_urls),
        server_ca=parts.keyring.server_ca.pem() if parts.settings.agents_trust_server_ca else None,
    )


async def token_problem(tx: Transaction, token_sha256: bytes) -> Problem:
    """Why the registration token does not serve. Whoever holds its 256 bits may know."""
    state = await people.registration_token_state(tx, token_sha256)
    status = HTTPStatus.FORBIDDEN if state == "unknown" else HTTPStatus.GONE
    return Problem(
        status, f"registration_token_{state}", f"The registration token is {state}.", field="token"
    )


async def renewable(tx: Transaction, device_id: str) -> Device:
    """The approved device, held until the transaction ends; the problem that says why it is not that."""
    device = await devices.hold(tx, device_id)
    if device is None:
        raise not_found("device")
    if device.status != "approved":
        raise Problem(HTTPStatus.FORBIDDEN, f"device_{device.status}", f"The device is {device.status}.")
    return device


def _read_csr(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        return csr.read_csr(pem)
    except csr.CsrError as error:
        raise wrong_field("csr", str(error)) from error


def decode_base64url(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong_field(field, "is not base64url") from error
