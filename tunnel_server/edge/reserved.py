"""The addresses below /.towline/: where links arrive and sessions are closed (DESIGN 3.3)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from runtime.logs import get_logger
from tunnel_server.edge import gateway_calls, pages, tcp_door
from tunnel_server.errors import GatewayRefused, GatewayUnavailable
from tunnel_server.policy import origin
from tunnel_server.policy.cookies import expired_cookie, session_cookie

if TYPE_CHECKING:
    from tunnel_server.edge.exchange import Exchange

COOKIE_BYTES = 32  # 256 random bits
MAX_SECRET = 4_096  # a link token is far shorter; the gateway refuses longer ones too
_SECRET = re.compile(r"[A-Za-z0-9_.-]+")  # base64url parts and dots

_REFUSALS = {
    "link_used": pages.LINK_USED,
    "link_expired": pages.LINK_EXPIRED,
    "session_ended": pages.SESSION_ENDED,
    "binding": pages.LINK_BINDING,
    "wrong_kind": pages.LINK_KIND,
}

_log = get_logger("tunnel_server.links")


def serve(exchange: Exchange) -> None:
    """Answer a request for a reserved address."""
    path = exchange.head.target.partition(b"?")[0]
    method = exchange.head.method
    if path == b"/.towline/open" and method in (b"GET", b"HEAD"):
        keep = _keep(exchange)
        exchange.answer(200, *pages.open_page(exchange.visitor.edge.gateway_url, keep=keep), keep=keep)
    elif path == b"/.towline/open.js" and method in (b"GET", b"HEAD"):
        keep = _keep(exchange)
        exchange.answer(200, *pages.open_script(keep=keep), keep=keep)
    elif path == pages.DOOR and method == b"GET":
        tcp_door.serve(exchange)
    elif path in (b"/.towline/open", b"/.towline/end", pages.DOOR) and method == b"POST":
        _post(exchange)
    elif path in (b"/.towline/open", b"/.towline/open.js", b"/.towline/end", pages.DOOR):
        exchange.fail(pages.METHOD)
    else:
        exchange.fail(pages.NOT_FOUND)


def _keep(exchange: Exchange) -> bool:
    return exchange.visitor_keeps and exchange.request_done_or_bodyless and not exchange.visitor.edge.draining


def _post(exchange: Exchange) -> None:
    head, site = exchange.head, exchange.site
    assert site is not None
    same = origin.is_allowed(
        head.method,
        upgrade=False,
        fetch_site=head.fetch_site,
        fetch_mode=head.fetch_mode,
        fetch_dest=head.fetch_dest,
        origin=head.origin,
        own_origin=site.origin,
    )
    if not same:
        exchange.visitor.edge.metrics.foreign_origin.inc()
        exchange.fail(pages.FOREIGN_ORIGIN)
    elif (head.content_length or 0) > exchange.visitor.edge.limits.link_post_bytes:
        exchange.fail(pages.bad_request(413, "the form is too long"))
    else:
        exchange.local_body = bytearray()


def collect(exchange: Exchange, data: bytes) -> None:
    """Body bytes of a POST."""
    body = exchange.local_body
    if body is None or exchange.done:
        return
    body += data
    if len(body) > exchange.visitor.edge.limits.link_post_bytes:
        exchange.fail(pages.bad_request(413, "the form is too long"))


def complete(exchange: Exchange) -> None:
    """The POST is here whole."""
    if exchange.done:
        return
    edge = exchange.visitor.edge
    if exchange.head.target.startswith(b"/.towline/end"):
        _end(exchange)
        return
    token, code = _secrets_of(exchange)
    if (token is None) == (code is None):
        exchange.fail(pages.LINK_BAD)
    elif not edge.accepts_sessions():
        exchange.fail(pages.CONTROL_LOST)
    elif not edge.may_ask_gateway(exchange.client):
        exchange.fail(pages.TOO_MANY)
    else:
        gateway_calls.ask(exchange, _redeem(exchange, token, code), "redeem")


def _end(exchange: Exchange) -> None:
    """Close the session, when the cookie is one's: here, and through the gateway everywhere."""
    edge, site, cookie_hash = exchange.visitor.edge, exchange.site, exchange.cookie_hash
    assert site is not None
    if (
        cookie_hash is None
        or edge.sessions.why_ended(cookie_hash) is not None
        or edge.unknown_cookies.is_known_bad(cookie_hash, edge.monotonic())
        or not edge.may_ask_gateway(exchange.client)
    ):
        _closed(exchange)
    else:
        gateway_calls.ask(exchange, _end_session(exchange, site.label, cookie_hash), "end")


async def _end_session(exchange: Exchange, label: str, cookie_hash: bytes) -> None:
    await gateway_calls.end_session(exchange, label, cookie_hash)
    _closed(exchange)


def _closed(exchange: Exchange) -> None:
    keep = _keep(exchange)
    cookie = expired_cookie(exchange.visitor.edge.cookie_name)
    head, body = pages.notice(pages.CLOSED_HERE, exchange.head.accept, keep=keep, cookie=cookie)
    exchange.answer(200, head, body, keep=keep)


def _secrets_of(exchange: Exchange) -> tuple[str | None, str | None]:
    """(token, code) of the form; None for what is missing or malformed."""
    kind = (exchange.head.content_type or b"").partition(b";")[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        return None, None
    try:
        fields = parse_qs(bytes(exchange.local_body or b"").decode("ascii"), max_num_fields=4)
    except ValueError:
        return None, None
    return _only(fields.get("token")), _only(fields.get("code"))


def _only(values: list[str] | None) -> str | None:
    if values is None or len(values) != 1 or len(values[0]) > MAX_SECRET or not _SECRET.fullmatch(values[0]):
        return None
    return values[0]


async def _redeem(exchange: Exchange, token: str | None, code: str | None) -> None:
    """Burn the link at the gateway; a fresh secret whatever the browser sent (no fixation)."""
    edge, site = exchange.visitor.edge, exchange.site
    kind = tcp_door.KIND if exchange.head.target.partition(b"?")[0] == pages.DOOR else "web"
    assert site is not None
    value = base64.urlsafe_b64encode(secrets.token_bytes(COOKIE_BYTES)).rstrip(b"=")
    cookie_hash = hashlib.sha256(value).digest()
    session = None
    what = pages.SESSION_ENDED
    outcome = "session_ended"
    try:
        facts = await edge.gateway.redeem(
            token=token,
            code=code,
            label=site.label,
            cookie_hash=cookie_hash,
            client=exchange.client,
            kind=kind,
        )
        if facts.label == site.label and facts.service_kind == kind:
            session = edge.sessions.add(facts, cookie_hash)
    except GatewayRefused as refused:
        what = _REFUSALS.get(refused.code, pages.LINK_BAD)
        outcome = what.code
    except GatewayUnavailable:
        what, outcome = pages.CONTROL_LOST, "unavailable"
    if session is not None:
        outcome = "opened"
    edge.metrics.links.labels(outcome).inc()
    _log.info("link presented", extra={"outcome": outcome, "label": site.label, "address": exchange.client})
    if exchange.done:
        return
    if session is None:
        exchange.fail(what)
        return
    keep = _keep(exchange)
    if kind == tcp_door.KIND:
        facts = session.facts
        exchange.answer(200, *pages.tcp_session(value, facts.sid, facts.expires_at, keep=keep), keep=keep)
        return
    left_s = max(1, int(session.facts.expires_at - edge.wall()))
    exchange.answer(
        303, *pages.redirect(session_cookie(edge.cookie_name, value, left_s), keep=keep), keep=keep
    )
