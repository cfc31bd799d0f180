"""The key that signs heads. Its public half is kept for good: what it signed must be read for years."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.errors import KeyFileError
from gateway.keys.files import locked, write_private
from gateway.keys.signing import RSA_BITS, KeySet, key_files, load_key_set, make_key, thumbprint

PURPOSE = "audit"
PUBLIC_FILE = "audit-public.json"
EXPONENT = 65537

PublicKeys = Mapping[str, rsa.RSAPublicKey]


def load_audit_keys(directory: Path) -> KeySet:
    """The private key, made at the first use; its public half is published. KeyFileError names a file."""
    with locked(directory):
        keys = load_key_set(directory, PURPOSE)
        _publish(directory, keys)
        return keys


def rotate_audit_key(directory: Path, now: float) -> str:
    """A new key signs from now on and the old one is gone; the new one's id. `now` in Unix seconds.

    Nobody keeps this key but who verifies, and they need all that ever signed: there is nothing to wait for.
    """
    with locked(directory):
        _publish(directory, load_key_set(directory, PURPOSE))
        old = key_files(directory, PURPOSE)
        make_key(directory, PURPOSE, datetime.fromtimestamp(now, UTC))
        keys = load_key_set(directory, PURPOSE)
        _publish(directory, keys)
        for path in old:
            path.unlink()
        return keys.keys[-1].kid


def public_text(directory: Path) -> str:
    """The JWK set (RFC 7517) of every key that ever signed a head."""
    load_audit_keys(directory)
    return _read(directory / PUBLIC_FILE)


def read_public_keys(path: Path) -> PublicKeys:
    """kid → key of a file as `public_text` makes it. KeyFileError when it is none."""
    try:
        listed = json.loads(_read(path))["keys"]
        keys = dict(_public_key(member) for member in listed)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise KeyFileError(f"{path}: is no JWK set of RSA keys") from error
    if not keys:
        raise KeyFileError(f"{path}: holds no key")
    return keys


def _public_key(member: dict[str, Any]) -> tuple[str, rsa.RSAPublicKey]:
    """Its id follows from the key, so that an id cannot stand for another one."""
    modulus, exponent = _number(member["n"]), _number(member["e"])
    if exponent != EXPONENT or modulus.bit_length() < RSA_BITS:
        raise ValueError("a weak key")
    kid = thumbprint({"kty": member["kty"], "n": member["n"], "e": member["e"]})
    return kid, rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def _publish(directory: Path, keys: KeySet) -> None:
    """Add what is not there yet; the caller holds the folder's lock."""
    path = directory / PUBLIC_FILE
    try:
        listed: list[dict[str, Any]] = json.loads(_read(path))["keys"] if path.exists() else []
        known = {member["kid"] for member in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise KeyFileError(f"{path}: is no JWK set") from error
    fresh = [jwk for jwk in keys.jwks() if jwk["kid"] not in known]
    if fresh:
        write_private(path, (json.dumps({"keys": [*listed, *fresh]}, indent=1) + "\n").encode(), 0o644)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise KeyFileError(f"{path}: {reason}") from error
