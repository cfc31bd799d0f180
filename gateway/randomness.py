"""Random secrets and ids. Secrets are handed out once and kept as SHA-256."""

from __future__ import annotations

import hashlib
import secrets

from gateway.policy.links import LABEL_LENGTH

SECRET_BYTES = 32
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_secret() -> str:
    """256 random bits, base64url (43 characters)."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> bytes:
    """What is stored of a secret. No salt: 256 random bits cannot be guessed from a hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_label() -> str:
    """A session's host label."""
    return _random(LABEL_LENGTH)


def new_device_id() -> str:
    """d_ and 16 characters: 80 bits, not secret but not to be guessed either."""
    return "d_" + _random(16)


def new_org_id() -> str:
    return "o_" + _random(16)


def new_site_id() -> str:
    return "s_" + _random(16)


def new_name_end() -> str:
    """Makes a user's name one that nobody has: 35 bits."""
    return _random(7)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
