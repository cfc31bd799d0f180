"""Sessions: opening one, seeing what is open, ending it."""

from __future__ import annotations

from http import HTTPStatus
from uuid import UUID, uuid4

from fastapi import APIRouter

from gateway.api.credentials import CredentialOf, acts, hold, logged_in, permit, permitted, require
from gateway.api.devices import find_for, look
from gateway.api.idempotency import OnceOf
from gateway.api.models import (
    SessionBody,
    SessionCreated,
    SessionList,
    moment,
    session_answer,
)
from gateway.errors import Problem, wrong_field
from gateway.parts import Parts
from gateway.policy import durations
from gateway.policy.access import Action, Actor, Resource, may
from gateway.randomness import new_label
from gateway.store import places, sessions, support
from gateway.store.devices import Device
from gateway.store.sessions import Session
from gateway.store.transaction import AuditEvent, Transaction, utc

# More people than look at one device at a time.
DEVICE_SESSIONS_MAX = 200

router = APIRouter(tags=["sessions"])


@router.post(
    "/v1/devices/{device_id}/sessions",
    status_code=HTTPStatus.CREATED,
    openapi_extra=acts(Action.SESSION_CREATE),
)
async def create_session(
    device_id: str, body: SessionBody, credential: CredentialOf, parts: Parts, once: OnceOf
) -> SessionCreated:
    """Open one service of a device for a while; `url` is the one-time link."""
    settings = parts.settings
    session_id, jti, label = uuid4(), uuid4(), new_label()
    async with parts.database.transaction() as tx:
        # What carries the session is locked, in this order: login, device, role or consent. Whoever ends one
        # of them meanwhile would not see, and so not end, this session.
        actor = await logged_in(tx, parts, credential)
        await hold(tx, actor)
        device = await find_for(tx, actor, device_id, Action.SESSION_CREATE)
        earlier = await once.earlier(tx, actor.user_id, SessionCreated)
        if earlier is not None:
            return earlier
        kind = _openable(device, body.service)
        role = await places.hold_role(tx, actor.user_id, device.site_id)
        by_role = may(actor, Action.SESSION_CREATE, Resource(role))
        consent = None if by_role else await support.consent_for(tx, device_id, actor.user_id)
        permit(actor, Action.SESSION_CREATE, Resource(role, consented=consent is not None), "device")
        try:
            expires_at = durations.session_expiry(body.duration_s, settings.session_duration_max_s, tx.now)
        except durations.DurationError as error:
            raise wrong_field("duration_s", str(error)) from error
        if consent is not None and consent.until is not None:
            expires_at = min(expires_at, int(consent.until))
        if await sessions.count_live(tx, actor.user_id) >= settings.sessions_per_user:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "too_many_sessions", "End one of your open sessions first."
            )
        expires_at = int(actor.within(expires_at))
        link_expires_at = durations.link_expiry(settings.link_ttl_s, expires_at, tx.now)
        await sessions.add(
            tx,
            session_id=session_id,
            label=label,
            device_id=device.id,
            user_id=actor.user_id,
            login_id=actor.login_id,
            api_token_id=actor.api_token_id,
            service=body.service,
            service_kind=kind,
            grant_id=session_id,  # one id for both: a session has one grant (decision 0002)
            expires_at=utc(expires_at),
            support_id=None if consent is None else consent.id,
        )
        await sessions.add_link(tx, jti, session_id, body.binding, utc(link_expires_at))
        token = parts.tokens.link(
            jti, session_id, label, body.binding, tx.now, link_expires_at, support=consent is not None
        )
        tx.audit(
            AuditEvent(
                "session.created",
                str(actor.user_id),
                site=device.site_id,
                device=device.id,
                detail={
                    "session": str(session_id),
                    "service": body.service,
                    "binding": body.binding,
                    "expires_at": expires_at,
                    "support": None if consent is None else str(consent.id),
                },
            )
        )
        answer = SessionCreated(
            id=session_id,
            url=f"{settings.session_url(label)}#{token}",
            expires_at=moment(expires_at),
            link_expires_at=moment(link_expires_at),
        )
        return await once.keep(tx, actor.user_id, answer)


@router.get("/v1/sessions", openapi_extra=acts(Action.SESSION_LIST))
async def list_sessions(credential: CredentialOf, parts: Parts) -> SessionList:
    """The person's sessions that have not ended, newest first."""
    async with parts.database.reading() as tx:
        actor = await require(tx, parts, credential, Action.SESSION_LIST)
        found = await sessions.list_live(tx, actor.user_id, parts.settings.sessions_per_user)
    return SessionList(items=[session_answer(session) for session in found])


@router.get("/v1/devices/{device_id}/sessions", openapi_extra=acts(Action.SESSION_LIST_DEVICE))
async def list_device_sessions(device_id: str, credential: CredentialOf, parts: Parts) -> SessionList:
    """Everybody's sessions on the device that have not ended, newest first: for those who run its site."""
    async with parts.database.reading() as tx:
        await look(tx, parts, credential, device_id, Action.SESSION_LIST_DEVICE)
        found = await sessions.list_of_device(tx, device_id, DEVICE_SESSIONS_MAX)
    return SessionList(items=[session_answer(session) for session in found])


@router.delete(
    "/v1/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT, openapi_extra=acts(Action.SESSION_END)
)
async def end_session(session_id: UUID, credential: CredentialOf, parts: Parts) -> None:
    """End it on every node within two seconds. Ending it again changes nothing."""
    async with parts.database.transaction() as tx:
        actor = await logged_in(tx, parts, credential)
        session = await sessions.get(tx, session_id)
        seen = None if session is None else await resource_of(tx, actor, session)
        session = permitted(actor, Action.SESSION_END, session, seen, "session")
        if await sessions.end(tx, session):
            tx.audit(
                AuditEvent(
                    "session.ended",
                    str(actor.user_id),
                    site=session.site_id,
                    device=session.device_id,
                    detail={"session": str(session_id)},
                )
            )


async def resource_of(tx: Transaction, actor: Actor, session: Session) -> Resource:
    """The session as the actor sees it."""
    role = await places.role_at(tx, actor.user_id, session.site_id)
    return Resource(role, mine=session.user_id == actor.user_id)


def _openable(device: Device, service: str) -> str:
    """The kind of the service; a problem that says why it cannot be opened."""
    if device.status != "approved":
        raise Problem(HTTPStatus.CONFLICT, "device_not_approved", f"The device is {device.status}.")
    kind = device.service_kind(service)
    if kind is None and (device.services or device.online):
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "unknown_service",
            f"The device has no service {service!r}.",
            field="service",
        )
    if not device.online or kind is None:
        raise Problem(HTTPStatus.CONFLICT, "device_offline", "The device is offline.")
    return kind
