"""What nodes ask: links, sessions, devices, presence, keys, and the feed of revocations."""

from __future__ import annotations

import base64
from http import HTTPStatus
from uuid import UUID

from fastapi import APIRouter

from gateway.api.links import link_problem
from gateway.errors import BadTokenError, Problem, not_found, wrong_field
from gateway.internal.models import (
    AuthenticateBody,
    DeviceFacts,
    EndBody,
    GrantFacts,
    KeysAnswer,
    NodesAnswer,
    PassedBody,
    PresenceAnswer,
    PresenceBody,
    PresenceEvent,
    RedeemBody,
    ResolveBody,
    SessionFacts,
    UserFacts,
)
from gateway.internal.peer import Node
from gateway.parts import GatewayParts, Parts
from gateway.policy import links as link_policy
from gateway.policy import presence as presence_policy
from gateway.policy.links import LinkRefusal
from gateway.randomness import digest
from gateway.store import devices, presence, sessions, support
from gateway.store.sessions import Link, Session
from gateway.store.support import Passed
from gateway.store.transaction import AuditEvent, Transaction
from runtime.logs import get_logger

log = get_logger("gateway.internal")

router = APIRouter(prefix="/internal/v1", tags=["internal"])


@router.post("/links/redeem")
async def redeem(body: RedeemBody, node: Node, parts: Parts) -> SessionFacts:
    """Burn a link and let the new cookie open its session: one transaction, once."""
    try:
        session = await _redeem(body, node, parts)
    except Problem as problem:
        parts.metrics.links.labels(problem.code).inc()
        raise
    parts.metrics.links.labels("ok").inc()
    return session


async def _redeem(body: RedeemBody, node: str, parts: GatewayParts) -> SessionFacts:
    async with parts.database.transaction() as tx:
        link = await _find_link(tx, parts, body)
        if link is None or link.session.label != body.label:
            raise link_problem(LinkRefusal.BAD)
        presented: link_policy.Presented = "token" if body.code is None else "code"
        refusal = link_policy.refuse_redeem(link.facts, presented, body.kind, tx.now)
        if refusal is not None:
            raise link_problem(refusal)
        session = link.session
        await sessions.burn(tx, link, bytes.fromhex(body.cookie_sha256))
        tx.audit(
            AuditEvent(
                "session.redeemed",
                str(session.user_id),
                site=session.site_id,
                device=session.device_id,
                detail={"session": str(session.id), "node": node, "client": body.client},
            )
        )
        return _session_facts(parts, session, tx.now)


async def _find_link(tx: Transaction, parts: GatewayParts, body: RedeemBody) -> Link | None:
    if (body.token is None) == (body.code is None):
        raise wrong_field("token", "give either a token or a code")
    if body.code is not None:
        return await sessions.link_by_code(tx, digest(body.code))
    assert body.token is not None  # the line above
    try:
        claims = parts.tokens.read_link(body.token, tx.now)
    except BadTokenError as error:
        raise link_problem(LinkRefusal.BAD) from error
    return await sessions.link_by_jti(tx, claims.jti)


@router.post("/sessions/resolve")
async def resolve(body: ResolveBody, parts: Parts) -> SessionFacts:
    """The session of a cookie that this node has not seen. 410 when it has ended: the browser is to know."""
    async with parts.database.transaction() as tx:
        session = await sessions.find_by_cookie(tx, body.label, bytes.fromhex(body.cookie_sha256))
        if session is None:
            raise not_found("session")
        if not sessions.is_live(session, tx.now):
            raise link_problem(LinkRefusal.ENDED)
        return _session_facts(parts, session, tx.now)


@router.get("/sessions/{sid}/grant")
async def grant(sid: UUID, parts: Parts) -> GrantFacts:
    """The session's grant again, while nothing ended it and its link was used."""
    async with parts.database.transaction() as tx:
        session = await sessions.get(tx, sid)
        if session is None or session.redeemed_at is None:
            raise not_found("session")
        if not sessions.is_live(session, tx.now):
            raise link_problem(LinkRefusal.ENDED)
        return GrantFacts(grant=_grant(parts, session, tx.now))


@router.post("/sessions/{sid}/end", status_code=HTTPStatus.NO_CONTENT)
async def end(sid: UUID, body: EndBody, node: Node, parts: Parts) -> None:
    """The visitor closed it: it ends on every node. The cookie proves it; ending it again changes nothing."""
    async with parts.database.transaction() as tx:
        session = await sessions.get(tx, sid)
        if session is None or session.cookie_sha256 != bytes.fromhex(body.cookie_sha256):
            raise not_found("session")
        if await sessions.end(tx, session):
            tx.audit(
                AuditEvent(
                    "session.ended",
                    f"visitor of {node}",
                    site=session.site_id,
                    device=session.device_id,
                    detail={"session": str(session.id), "node": node, "client": body.client},
                )
            )


@router.post("/devices/authenticate")
async def authenticate(body: AuthenticateBody, parts: Parts) -> DeviceFacts:
    """The key that must have signed the tunnel's challenge."""
    async with parts.database.transaction() as tx:
        device = await devices.get(tx, body.device_id)
    if device is None or device.key_id != bytes.fromhex(body.key_id):
        raise not_found("device")
    if device.status != "approved":
        code = "pending" if device.status == "pending" else "revoked"
        raise Problem(HTTPStatus.FORBIDDEN, code, f"The device is {device.status}.")
    return DeviceFacts(
        device_id=device.id, name=device.name, public_key=base64.b64encode(device.public_key).decode("ascii")
    )


@router.post("/presence")
async def report_presence(body: PresenceBody, node: Node, parts: Parts) -> PresenceAnswer:
    """What connected and disconnected at this node; with no events it is a heartbeat."""
    if body.node != node:
        raise Problem(HTTPStatus.FORBIDDEN, "wrong_node", "The certificate names another node.", field="node")
    async with parts.database.transaction() as tx:
        restarted = await presence.heartbeat(tx, node, body.boot)
        full = body.full or restarted
        if full or body.events:
            named = {event.device_id for event in body.events}
            known = await presence.load_devices(tx, node, named, whole_node=full)
            reports = [_report(event) for event in body.events]
            changes = presence_policy.apply_reports(node, known, reports, full=full, now=tx.now)
            await presence.save(tx, changes)
    # A node that is new here without saying all it holds: another process reported under its name
    # meanwhile (a restart whose two ends overlap), or the database is an older one.
    return PresenceAnswer(full=restarted and not body.full)


@router.get("/devices/{device_id}/nodes")
async def nodes(device_id: str, parts: Parts) -> NodesAnswer:
    """The living nodes that hold a tunnel of the device."""
    async with parts.database.transaction() as tx:
        return NodesAnswer(nodes=await devices.nodes_of(tx, device_id))


@router.get("/keys")
async def keys(parts: Parts) -> KeysAnswer:
    """The root-signed grant key list that HELLO carries to devices."""
    return KeysAnswer(key_list=parts.keyring.key_list)


def _report(event: PresenceEvent) -> presence_policy.Report:
    services = None
    if event.services is not None:
        services = presence_policy.proper_services((s.name, s.kind) for s in event.services)
    return presence_policy.Report(
        device_id=event.device_id,
        instance=bytes.fromhex(event.instance),
        connection=event.connection,
        state=event.state,
        at=event.at,
        software=event.software,
        services=services,
        rtt_ms=event.rtt_ms,
        error=event.error,
    )


@router.post("/request-log", status_code=HTTPStatus.NO_CONTENT)
async def log_requests(body: PassedBody, node: Node, parts: Parts) -> None:
    """What passed in support sessions. Entries of other sessions are left out: nobody is told of a log.

    A consent whose log is full ends.
    """
    entries = [
        Passed(e.id, e.part, e.sid, e.at, e.method, e.path, e.status, e.received, e.sent, e.ms, e.lost)
        for e in body.entries
    ]
    async with parts.database.transaction() as tx:
        noted = await support.add_passed(tx, node, entries)
    parts.metrics.request_log_left_out.inc(noted.left_out)
    dropped = sum(entry.lost for entry in entries)
    if dropped or noted.foreign or noted.left_out:
        said = {"node": node, "dropped": dropped, "foreign": noted.foreign, "left_out": noted.left_out}
        log.warning("request log", extra={**said, "ended": [str(one) for one in noted.ended]})


def _session_facts(parts: GatewayParts, session: Session, now: float) -> SessionFacts:
    return SessionFacts(
        sid=session.id,
        label=session.label,
        service=session.service,
        service_kind=session.service_kind,
        device_id=session.device_id,
        device_name=session.device_name,
        user=UserFacts(id=session.user_id, name=session.username)
        if session.consented_by is None
        else UserFacts(id=session.consented_by, name=session.consenter or ""),
        act=None if session.support_id is None else UserFacts(id=session.user_id, name=session.username),
        expires_at=int(session.expires_at),
        grant=_grant(parts, session, now),
        grant_id=session.grant_id.bytes.hex(),
        gateway_url=parts.settings.public_url,
    )


def _grant(parts: GatewayParts, session: Session, now: float) -> str:
    return parts.tokens.grant(
        session.grant_id,
        session.id,
        session.consented_by or session.user_id,
        session.device_id,
        session.service,
        now,
        int(session.expires_at),
        act=None if session.support_id is None else session.user_id,
    )
