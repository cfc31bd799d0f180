"""`/.towline/tcp`: one WebSocket is one TCP connection to a service (docs/protocol/tcp-door.md)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from runtime.tcp_door import SUBPROTOCOL
from tunnel_server.edge import pages
from tunnel_server.edge.tcp_splice import TcpSplice
from tunnel_server.policy import tcp_door
from tunnel_server.policy.websocket import accept_value

if TYPE_CHECKING:
    from tunnel_server.edge.exchange import Exchange
    from tunnel_server.sessions import Session

KIND = "tcp"  # of the services behind this door


def serve(exchange: Exchange) -> None:
    """A GET of the door: check the handshake, then find the session of its bearer."""
    head = exchange.head
    wrong = _wrong(exchange)
    if wrong is not None:
        exchange.fail(wrong)
        return
    session_id = tcp_door.bearer(head)
    if session_id is None:
        exchange.fail(pages.BEARER_NEEDED)
        return
    exchange.wants_kind = KIND
    exchange.find_session(hashlib.sha256(session_id).digest())


def _wrong(exchange: Exchange) -> pages.Notice | None:
    """What of the handshake does not hold (RFC 6455 section 4.2.1, and the door's own rules)."""
    head = exchange.head
    if head.cookie is not None:
        return pages.COOKIE_AT_DOOR
    if not head.wants_upgrade:
        return pages.UPGRADE_NEEDED
    if not tcp_door.speaks_version(head):
        return pages.WEBSOCKET_VERSION
    if not tcp_door.offers_subprotocol(head):
        return pages.bad_request(400, f"this door speaks {SUBPROTOCOL}")
    return None


def has_room(exchange: Exchange, session: Session) -> bool:
    """Whether the session may have one more connection: all that it has are doors, open or asked for."""
    return len(session.exchanges) < exchange.visitor.edge.limits.doors_per_session


def enter(exchange: Exchange) -> None:
    """The device accepted the stream: answer 101, and splice from here on."""
    upstream, visitor, key = exchange.upstream, exchange.visitor, exchange.head.websocket_key
    assert upstream is not None
    assert key is not None
    splice = upstream.hand_over(visitor, TcpSplice)
    if splice is None:
        exchange.fail(pages.DEVICE_LIVE_LIMIT)
        return
    exchange.switched(splice)
    visitor.transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        % (accept_value(key), SUBPROTOCOL.encode())
    )
    visitor.become_raw(splice)
