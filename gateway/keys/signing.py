"""RSA keys that sign tokens, with their public JWK form and key ids (RFC 7517, RFC 7638)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.errors import KeyFileError
from gateway.keys.files import read_private, write_private

# RFC 7518 asks for 2048 at least; larger ones make the grant pass its 1,536 bytes and cost a device more.
RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One RSA key. `kid` is the RFC 7638 thumbprint: it follows from the key, so it cannot be mixed up."""

    kid: str
    private: rsa.RSAPrivateKey

    def jwk(self) -> dict[str, Any]:
        """The public half as a JWK."""
        return {**_rsa_members(self.private.public_key()), "kid": self.kid, "alg": "RS256", "use": "sig"}


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one purpose, oldest first: all of them verify, the newest that may signs (planned rotation).

    `published`: kid → Unix seconds of its publication; it signs `wait_s` later. One not named may at once.
    """

    keys: tuple[SigningKey, ...]
    published: Mapping[str, float] = field(default_factory=dict)
    wait_s: float = 0.0
    _public: dict[str, rsa.RSAPublicKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: every request asks for them.
        object.__setattr__(self, "_public", {key.kid: key.private.public_key() for key in self.keys})

    def active(self, now: float) -> SigningKey:
        """The key that signs at `now`; while all of them wait, the one that waits the shortest."""
        ripe = [key for key in self.keys if self.signs_from(key.kid) <= now]
        return ripe[-1] if ripe else min(self.keys, key=lambda key: self.signs_from(key.kid))

    def signs_from(self, kid: str) -> float:
        """Unix seconds."""
        at = self.published.get(kid)
        return 0.0 if at is None else at + self.wait_s

    def jwks(self) -> list[dict[str, Any]]:
        return [key.jwk() for key in self.keys]

    def public_keys(self) -> Mapping[str, rsa.RSAPublicKey]:
        """kid → key, for the verifier."""
        return self._public

    def sign(self, typ: str, claims: dict[str, Any], now: float) -> str:
        """A compact RS256 JWT, made at `now` (Unix seconds), whose header holds exactly alg, typ and kid."""
        key = self.active(now)
        return jwt.encode(claims, key.private, algorithm="RS256", headers={"typ": typ, "kid": key.kid})


def key_files(directory: Path, purpose: str) -> list[Path]:
    """Every `{purpose}-*.pem` of the directory by name (it begins with the time), oldest first."""
    return sorted(directory.glob(f"{purpose}-*.pem"))


def load_key_set(directory: Path, purpose: str) -> KeySet:
    """The keys of all files of the purpose; the first is made here."""
    paths = key_files(directory, purpose) or [make_key(directory, purpose, datetime.now(UTC))]
    return KeySet(tuple(_load(path) for path in paths))


def make_key(directory: Path, purpose: str, at: datetime) -> Path:
    """A new key in a file whose name sorts behind all others of its purpose, also when a clock went back."""
    name = f"{purpose}-{at.strftime('%Y%m%dT%H%M%SZ')}"
    newest = max((path.stem for path in key_files(directory, purpose)), default="")
    path = directory / f"{name if name > newest else newest + '_'}.pem"  # "_" is greater than "."
    write_private(path, private_pem(rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)))
    return path


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def thumbprint(members: dict[str, Any]) -> str:
    """RFC 7638 over the required members (kty and the key's own), base64url."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(text.encode()).digest())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def sign_es256(key: ec.EllipticCurvePrivateKey, typ: str, claims: dict[str, Any], kid: str) -> str:
    """A compact ES256 JWS over JSON claims."""
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": typ, "kid": kid})


def ec_thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    numbers = key.public_numbers()
    return thumbprint(
        {
            "crv": "P-256",
            "kty": "EC",
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }
    )


def load_or_make_ec(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in `path`, made at the first start."""
    if not path.exists():
        write_private(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    key = _parse(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(f"{path}: must hold a P-256 key")
    return key


def _load(path: Path) -> SigningKey:
    key = _parse(path)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < RSA_BITS:
        raise KeyFileError(f"{path}: must hold an RSA key of {RSA_BITS} bits or more")
    return SigningKey(thumbprint(_rsa_members(key.public_key())), key)


def _parse(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_private(path), None)
    except ValueError as error:
        raise KeyFileError(f"{path}: is not a PEM private key") from error


def _rsa_members(key: rsa.RSAPublicKey) -> dict[str, Any]:
    numbers = key.public_numbers()
    modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
    exponent = numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")
    return {"kty": "RSA", "n": base64url(modulus), "e": base64url(exponent)}


def kids(keys: Sequence[dict[str, Any]]) -> list[str]:
    """The key ids of a JWK list, in order."""
    return [str(key.get("kid")) for key in keys]
