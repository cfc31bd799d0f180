"""Frames to bytes, control payloads to values (section 2). Parsers raise ProtocolViolation alone."""

from __future__ import annotations

from struct import Struct
from typing import Final

from tunnel_protocol.codes import (
    GRANT_ID_SIZE,
    MAX_REASON,
    MAX_SERVER_NAME,
    MAX_TOKEN,
    NONCE_SIZE,
    FrameType,
)
from tunnel_protocol.errors import Misuse, ProtocolViolation

HEADER: Final = Struct(">BBHI")  # type, flags, payload length, stream
CREDIT_FRAME: Final = Struct(">BBHIQ")
CODE: Final = Struct(">H")
_STREAM_CODE_FRAME: Final = Struct(">BBHIH")
_GOAWAY: Final = Struct(">IIH")  # last id, retry_after_ms, code

_NAME_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
MAX_NAME: Final = 64


def frame(kind: FrameType, payload: bytes = b"", stream_id: int = 0) -> bytes:
    """A whole frame."""
    return HEADER.pack(kind, 0, len(payload), stream_id) + payload


def credit_frame(stream_id: int, offset: int) -> bytes:
    return CREDIT_FRAME.pack(FrameType.CREDIT, 0, 8, stream_id, offset)


def reset_frame(stream_id: int, code: int) -> bytes:
    return _STREAM_CODE_FRAME.pack(FrameType.RESET, 0, 2, stream_id, code)


def refused_frame(stream_id: int, code: int, message: str) -> bytes:
    return frame(FrameType.REFUSED, CODE.pack(code) + utf8_prefix(message), stream_id)


def goaway_frame(last_id: int, retry_after_ms: int, code: int, reason: str) -> bytes:
    return frame(FrameType.GOAWAY, _GOAWAY.pack(last_id, retry_after_ms, code) + utf8_prefix(reason))


def challenge_frame(nonce: bytes, server_name: str) -> bytes:
    name = server_name.encode()
    if len(nonce) != NONCE_SIZE or not 1 <= len(name) <= MAX_SERVER_NAME:
        raise Misuse("challenge: a nonce of 32 bytes and a server name of 1..253 bytes are needed")
    return frame(FrameType.CHALLENGE, nonce + name)


def grant_frame(grant_id: bytes, token: bytes) -> bytes:
    if len(grant_id) != GRANT_ID_SIZE or not 1 <= len(token) <= MAX_TOKEN or not token.isascii():
        raise Misuse("grant: an id of 16 bytes and an ASCII token of 1..1536 bytes are needed")
    return frame(FrameType.GRANT, grant_id + token)


def open_frame(stream_id: int, device: str, service: str, grant_id: bytes) -> bytes:
    if len(grant_id) != GRANT_ID_SIZE or not is_name(device.encode()) or not is_name(service.encode()):
        raise Misuse(f"open: device {device!r}, service {service!r} or the grant id is malformed")
    payload = grant_id + bytes([len(device)]) + device.encode() + bytes([len(service)]) + service.encode()
    return frame(FrameType.OPEN, payload, stream_id)


def is_name(value: bytes) -> bool:
    """Whether value is a device id or service name: [a-z0-9_-]{1,64}."""
    return 1 <= len(value) <= MAX_NAME and _NAME_BYTES.issuperset(value)


def utf8_prefix(text: str) -> bytes:
    """At most MAX_REASON bytes of text in UTF-8, cut between characters."""
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_REASON:
        return raw
    return raw[:MAX_REASON].decode(errors="ignore").encode()


def parse_text(raw: bytes, what: str, longest: int) -> str:
    if len(raw) > longest:
        raise ProtocolViolation(f"{what}: over {longest} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(f"{what}: invalid UTF-8") from None


def parse_challenge(payload: bytes) -> tuple[bytes, str]:
    """(nonce, server name)."""
    if not NONCE_SIZE + 1 <= len(payload) <= NONCE_SIZE + MAX_SERVER_NAME:
        raise ProtocolViolation("CHALLENGE: wrong length")
    return payload[:NONCE_SIZE], parse_text(payload[NONCE_SIZE:], "server name", MAX_SERVER_NAME)


def parse_grant(payload: bytes) -> tuple[bytes, bytes]:
    """(grant id, token)."""
    if not GRANT_ID_SIZE + 1 <= len(payload) <= GRANT_ID_SIZE + MAX_TOKEN:
        raise ProtocolViolation("GRANT: wrong length")
    token = payload[GRANT_ID_SIZE:]
    if not token.isascii():
        raise ProtocolViolation("GRANT: token is not ASCII")
    return payload[:GRANT_ID_SIZE], token


def parse_open(payload: bytes) -> tuple[bytes, str, str]:
    """(grant id, device, service)."""
    device, rest = _parse_name(payload[GRANT_ID_SIZE:], "OPEN device")
    service, rest = _parse_name(rest, "OPEN service")
    if rest:
        raise ProtocolViolation("OPEN: bytes after the service")
    return payload[:GRANT_ID_SIZE], device, service


def _parse_name(raw: bytes, what: str) -> tuple[str, bytes]:
    if not raw or len(raw) <= raw[0]:
        raise ProtocolViolation(f"{what}: cut short")
    end = 1 + raw[0]
    if not is_name(raw[1:end]):
        raise ProtocolViolation(f"{what}: malformed")
    return raw[1:end].decode(), raw[end:]


def parse_refused(payload: bytes) -> tuple[int, str]:
    """(code, message)."""
    if len(payload) < CODE.size:
        raise ProtocolViolation("REFUSED: wrong length")
    return CODE.unpack_from(payload)[0], parse_text(payload[CODE.size :], "REFUSED message", MAX_REASON)


def parse_goaway(payload: bytes) -> tuple[int, int, int, str]:
    """(last id, retry_after_ms, code, reason)."""
    if len(payload) < _GOAWAY.size:
        raise ProtocolViolation("GOAWAY: wrong length")
    last_id, retry_after_ms, code = _GOAWAY.unpack_from(payload)
    return last_id, retry_after_ms, code, parse_text(payload[_GOAWAY.size :], "GOAWAY reason", MAX_REASON)
