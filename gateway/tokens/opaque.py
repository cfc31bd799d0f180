"""Tokens that are looked up, not read: their prefix tells people and secret scanners what they found."""

from __future__ import annotations

import base64
import binascii
import secrets
from uuid import UUID

from gateway.errors import BadTokenError
from gateway.randomness import SECRET_BYTES, new_secret

API_TOKEN_PREFIX = "twl_"
REFRESH_TOKEN_PREFIX = "twr_"
_FAMILY_BYTES = 16


def new_api_token() -> str:
    return API_TOKEN_PREFIX + new_secret()


def new_refresh_token(family: UUID) -> str:
    """A refresh token of `family`: its id and 256 random bits."""
    data = family.bytes + secrets.token_bytes(SECRET_BYTES)
    return REFRESH_TOKEN_PREFIX + base64.urlsafe_b64encode(data).decode("ascii")


def family_of(token: str) -> UUID:
    """The family that a refresh token names; BadTokenError for anything that is none."""
    body = token.removeprefix(REFRESH_TOKEN_PREFIX)
    try:
        data = base64.b64decode(body, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadTokenError("refresh token") from error
    if body == token or len(data) != _FAMILY_BYTES + SECRET_BYTES:
        raise BadTokenError("refresh token")
    return UUID(bytes=data[:_FAMILY_BYTES])
