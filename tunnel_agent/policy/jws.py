"""Compact JWS (RFC 7515) read as strictly as the tunnel's specification asks (section 7).

A general JWT library is made to interoperate: it follows header keys, forgives sloppy base64 and ignores
`use`. A device takes tokens from one issuer in one shape, so everything else is refused here, before any
cryptography.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from device_protocol import strict_json
from device_protocol.strict_json import StrictJsonError

MAX_GRANT_BYTES = 1536  # specification, section 2 (GRANT)
MAX_KEY_LIST_BYTES = 16_000  # it travels in HELLO, whose payload is at most 16,384 bytes

_PART = re.compile(rb"[A-Za-z0-9_-]+")

# Everything that could name another key or another meaning of the signature (jku, jwk, x5u, x5c, crit,
# b64, zip, …) is refused by allowing only these.
_HEADER_NAMES = frozenset({"alg", "typ", "kid"})


class TokenRefused(Exception):
    """A token breaks a rule. The text names the rule and holds nothing of the token, so it may be logged."""


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A token whose form holds. Nothing in it may be believed before its signature was checked."""

    kid: str | None
    payload: dict[str, object]
    signing_input: bytes
    signature: bytes


def parse(token: bytes, *, alg: str, typ: str, max_bytes: int) -> UnverifiedJws:
    """Split and decode `token`; raises TokenRefused unless its form and its header are exactly as asked."""
    if len(token) > max_bytes:
        raise TokenRefused("longer than allowed")
    parts = token.split(b".")
    if len(parts) != 3:
        raise TokenRefused("not three parts")
    header = _json_object(_base64url(parts[0]), "header")
    if not header.keys() <= _HEADER_NAMES:
        raise TokenRefused("header holds a parameter that is not allowed")
    if header.get("alg") != alg:
        raise TokenRefused(f"alg is not {alg}")
    if header.get("typ") != typ:
        raise TokenRefused(f"typ is not {typ}")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenRefused("kid is not a string")
    return UnverifiedJws(
        kid=kid,
        payload=_json_object(_base64url(parts[1]), "payload"),
        signing_input=parts[0] + b"." + parts[1],
        signature=_base64url(parts[2]),
    )


def base64url_uint(value: object, name: str) -> int:
    """A JWK's unsigned integer (RFC 7518, 6.3.1); raises TokenRefused unless it is canonical."""
    if not isinstance(value, str) or not value.isascii():
        raise TokenRefused(f"{name} is not base64url")
    raw = _base64url(value.encode("ascii"))
    if raw[0] == 0:
        raise TokenRefused(f"{name} has a leading zero")
    return int.from_bytes(raw, "big")


def _base64url(part: bytes) -> bytes:
    if not _PART.fullmatch(part):
        raise TokenRefused("not base64url")
    try:
        raw = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error as error:
        raise TokenRefused("not base64url") from error
    # Stray bits in the last character would give one token many spellings, and revocation by text would
    # miss them.
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part:
        raise TokenRefused("base64url is not canonical")
    return raw


def _json_object(raw: bytes, name: str) -> dict[str, object]:
    try:
        value = strict_json.loads(raw)
    except StrictJsonError as error:
        raise TokenRefused(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise TokenRefused(f"{name} is not a JSON object")
    return value
