"""What one visitor's request asks the gateway, with a deadline and an answer whatever happens."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING

from runtime.logs import get_logger
from tunnel_server.edge import pages
from tunnel_server.errors import GatewayRefused, GatewayUnavailable

if TYPE_CHECKING:
    from tunnel_server.edge.context import Edge
    from tunnel_server.edge.exchange import Exchange
    from tunnel_server.sessions import Session

# The call ends by itself; past this only a fault of ours can still keep the visitor waiting.
GRACE_S = 1.0
# A device that refuses the new grant too would refuse the next one: its requests must not each ask.
GRANT_AGAIN_S = 10.0

SESSION_ENDED = "session_ended"  # the gateway's problem code

_log = get_logger("tunnel_server.edge")


def ask(exchange: Exchange, call: Coroutine[None, None, None], name: str) -> None:
    """Let ``call`` decide about the exchange."""
    edge = exchange.visitor.edge
    exchange.asks_gateway = True
    exchange.visitor.deadline = edge.monotonic() + edge.gateway_call_s + GRACE_S
    edge.tasks.start(_answered(exchange, call), name)


async def _answered(exchange: Exchange, call: Coroutine[None, None, None]) -> None:
    try:
        await call
    except Exception:
        exchange.fail(pages.CONTROL_LOST)
        raise  # the task's owner logs it
    finally:
        exchange.asks_gateway = False


async def resolve(exchange: Exchange, label: str, cookie_hash: bytes) -> None:
    """Ask about a cookie that this node does not know, as after a restart."""
    edge = exchange.visitor.edge
    session = None
    try:
        facts = await edge.gateway.resolve(label=label, cookie_hash=cookie_hash)
        if facts.label == label:
            session = edge.sessions.add(facts, cookie_hash)
        what = pages.SESSION_ENDED
    except GatewayRefused as refused:
        what = _not_known(edge, cookie_hash, refused)
    except GatewayUnavailable:
        what = pages.CONTROL_LOST
    if exchange.done:
        return
    if session is None:
        exchange.fail(what)
    else:
        exchange.with_session(session)


def _not_known(edge: Edge, cookie_hash: bytes, refused: GatewayRefused) -> pages.Notice:
    """Remember what the gateway said of the cookie, and tell the visitor."""
    if refused.code == SESSION_ENDED:
        edge.sessions.remember_ended(cookie_hash, "revoked")
        return pages.SESSION_ENDED
    edge.unknown_cookies.remember(cookie_hash, edge.monotonic())
    return pages.NO_SESSION


async def renew_grant(exchange: Exchange, session: Session, used: int, otherwise: pages.Notice) -> None:
    """The device refused grant number ``used``: fetch it again, once for all requests of the session."""
    edge = exchange.visitor.edge
    async with session.grant_lock:
        if session.live and session.grant_number == used and edge.monotonic() >= session.grant_again_at:
            session.grant_again_at = edge.monotonic() + GRANT_AGAIN_S
            await _fetch_grant(edge, session)
    if exchange.done:
        return  # the session's end has answered, or the visitor left
    if session.grant_number == used:
        exchange.fail(otherwise)
    else:
        exchange.again()


async def _fetch_grant(edge: Edge, session: Session) -> None:
    facts = session.facts
    extra = {"sid": facts.sid, "device": facts.device_id}
    try:
        grant = await edge.gateway.grant(sid=facts.sid)
    except GatewayRefused as refused:
        _log.info("the refused grant's session has ended", extra={**extra, "code": refused.code})
        edge.sessions.revoke(facts.sid)
        return
    except GatewayUnavailable as error:
        _log.warning("a refused grant was not renewed", extra={**extra, "error": str(error)})
        return
    session.renew_grant(grant)
    device = edge.registry.find(facts.device_id)
    if device is not None:
        device.forget_grant(facts.grant_id)
    _log.info("a refused grant was renewed", extra=extra)


async def end_session(exchange: Exchange, label: str, cookie_hash: bytes) -> None:
    """The visitor closes the session: here at once, then everywhere, when the gateway can be asked."""
    edge = exchange.visitor.edge
    session = edge.sessions.find(cookie_hash, label, edge.monotonic())
    try:
        if session is not None:
            sid = session.facts.sid
            edge.sessions.revoke(sid)
        else:
            sid = (await edge.gateway.resolve(label=label, cookie_hash=cookie_hash)).sid
        await edge.gateway.end_session(sid=sid, cookie_hash=cookie_hash, client=exchange.client)
        edge.sessions.remember_ended(cookie_hash, "revoked")
    except GatewayRefused as refused:
        _not_known(edge, cookie_hash, refused)
    except GatewayUnavailable as error:
        extra = {"error": str(error), "label": label}
        _log.warning("a session was closed here but not at the gateway", extra=extra)
