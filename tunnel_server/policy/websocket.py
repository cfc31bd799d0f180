"""The WebSocket handshake as a proxy checks it (RFC 6455 section 4)."""

from __future__ import annotations

import base64
import hashlib

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key; SHA-1 is what the RFC names, nothing is secured by it."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
