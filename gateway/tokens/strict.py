"""Verification that accepts one form of a token and no other (RFC 8725).

PyJWT checks the signature; around it stand the checks that it does not make: canonical base64url, an
exact header, keys whose `use` and `key_ops` fit, and no duplicate JSON members.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from device_protocol import strict_json
from device_protocol.strict_json import StrictJsonError
from gateway.errors import BadTokenError

# Our largest token is the grant with 1,536 bytes; 4 KB is also what a header line can carry everywhere.
TOKEN_MAX_BYTES = 4096
# Two machines on NTP differ by far less; more would stretch a 60 s link too far.
LEEWAY_S = 30.0
# A header with anything else (jku, jwk, x5u, x5c, crit, b64, zip …) is not one of ours.
_HEADER = frozenset({"alg", "typ", "kid"})
# Made once: it sets up every algorithm that PyJWT knows.
_SIGNATURES = jwt.PyJWS(algorithms=["RS256"])


def verify(
    token: str,
    keys: Mapping[str, rsa.RSAPublicKey],
    *,
    typ: str,
    audience: str,
    issuer: str,
    now: float,
) -> dict[str, Any]:
    """The claims of an RS256 token. BadTokenError otherwise; `now` in Unix seconds, leeway LEEWAY_S."""
    claims = signed_claims(token, keys, typ=typ)
    _check_claims(claims, audience, issuer, now)
    return claims


def signed_claims(token: str, keys: Mapping[str, rsa.RSAPublicKey], *, typ: str) -> dict[str, Any]:
    """What somebody with one of the keys signed as `typ`, whenever, for whomever; else BadTokenError."""
    if len(token) > TOKEN_MAX_BYTES or not token.isascii():
        raise BadTokenError("too long or not ASCII")
    parts = token.split(".")
    if len(parts) != 3:
        raise BadTokenError("must have three parts")
    header, claims = _json(_canonical(parts[0])), _json(_canonical(parts[1]))
    _canonical(parts[2])
    if header.keys() != _HEADER or header["alg"] != "RS256" or header["typ"] != typ:
        raise BadTokenError("header")
    kid = header["kid"]
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise BadTokenError("unknown key")
    _check_signature(token, key)
    return claims


def _canonical(part: str) -> bytes:
    """Decoded base64url; only the one spelling that the encoder makes (no padding, no stray low bits)."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadTokenError("base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != part:
        raise BadTokenError("base64url is not canonical")
    return data


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = strict_json.loads(data)
    except StrictJsonError as error:
        raise BadTokenError("JSON") from error
    if not isinstance(value, dict):
        raise BadTokenError("JSON is not an object")
    return value


def _check_signature(token: str, key: rsa.RSAPublicKey) -> None:
    try:
        # Times, audience and issuer are checked below against the caller's clock, not the machine's.
        _SIGNATURES.decode(token, key, algorithms=["RS256"])
    except jwt.PyJWTError as error:
        raise BadTokenError("signature") from error


def _check_claims(claims: dict[str, Any], audience: str, issuer: str, now: float) -> None:
    if claims.get("iss") != issuer or claims.get("aud") != audience:
        raise BadTokenError("issuer or audience")
    expiry, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if now >= expiry + LEEWAY_S:
        raise BadTokenError("expired")
    if issued > now + LEEWAY_S:
        raise BadTokenError("from the future")
    if "nbf" in claims and _seconds(claims, "nbf") > now + LEEWAY_S:
        raise BadTokenError("not valid yet")


def _seconds(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadTokenError(f"{name} is missing or no whole number")
    return value
