"""The handshake of the TCP door (docs/protocol/tcp-door.md): who asks, and in which language."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runtime.tcp_door import SUBPROTOCOL

if TYPE_CHECKING:
    from tunnel_server.policy.request_head import RequestHead

VERSION = b"13"  # RFC 6455 section 4.1
_BEARER = re.compile(rb"[Bb]earer +([A-Za-z0-9_-]{16,128})")  # a session id is 43 characters of base64url


def values(lines: list[bytes], name: bytes) -> list[bytes]:
    """The values of a header among the lines that pass as they are, in order."""
    found = []
    for line in lines:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            found.append(value.strip(b" \t\r\n"))
    return found


def bearer(head: RequestHead) -> bytes | None:
    """The session id of the one Authorization header; None when there is none, or it is another scheme's."""
    given = values(head.lines, b"authorization")
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return None if match is None else match[1]


def speaks_version(head: RequestHead) -> bool:
    """Whether the one Sec-WebSocket-Version is ours."""
    return values(head.lines, b"sec-websocket-version") == [VERSION]


def offers_subprotocol(head: RequestHead) -> bool:
    """Whether ours is among the offered ones."""
    offered = b",".join(values(head.lines, b"sec-websocket-protocol"))
    return SUBPROTOCOL.encode() in [name.strip(b" \t") for name in offered.split(b",")]
