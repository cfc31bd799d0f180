"""P-256 keys in the DER forms that everyone writes: PKCS #8 (RFC 5958, 5915) and SubjectPublicKeyInfo
(RFC 5480).

For this curve both have one length and fixed bytes around the numbers. Reading them here spares a small
device the 3 MiB of a general key parser, which would also take much that has no place in these files.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from tunnel_agent.errors import IdentityError

_SIZE: Final = 32  # bytes of a coordinate and of the private number
# SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING { uncompressed point
_PUBLIC: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
# SEQUENCE { 0, SEQUENCE { ecPublicKey, prime256v1 }, OCTET STRING { SEQUENCE { 1, OCTET STRING private
_PRIVATE: Final = bytes.fromhex("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420")
# …, [1] BIT STRING { uncompressed point
_PRIVATE_POINT: Final = bytes.fromhex("a14403420004")
_LINE: Final = 64  # characters of a PEM line (RFC 7468)


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key's SubjectPublicKeyInfo."""
    return _PUBLIC + _point(key)


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """The same as PEM."""
    return _to_pem("PUBLIC KEY", public_der(key))


def public_from_pem(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Raises IdentityError for anything but a P-256 public key."""
    der = _from_pem("PUBLIC KEY", pem)
    if len(der) != len(_PUBLIC) + 2 * _SIZE or not der.startswith(_PUBLIC):
        raise IdentityError("not a P-256 public key")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), der[len(_PUBLIC) - 1 :])
    except ValueError as error:
        raise IdentityError("not a point of P-256") from error


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS #8."""
    number = key.private_numbers().private_value.to_bytes(_SIZE, "big")
    return _to_pem("PRIVATE KEY", _PRIVATE + number + _PRIVATE_POINT + _point(key.public_key()))


def private_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises IdentityError for anything but a P-256 private key in the form above."""
    der = _from_pem("PRIVATE KEY", pem)
    number = der[len(_PRIVATE) : len(_PRIVATE) + _SIZE]
    try:
        key = ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
    except ValueError as error:
        raise IdentityError("not a private number of P-256") from error
    if der != _PRIVATE + number + _PRIVATE_POINT + _point(key.public_key()):
        raise IdentityError("not a P-256 private key")
    return key


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(_SIZE, "big") + numbers.y.to_bytes(_SIZE, "big")


def _to_pem(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode("ascii")


def _from_pem(label: str, pem: bytes) -> bytes:
    lines = pem.decode("ascii", "replace").split()
    text = " ".join(lines)
    start, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    if not text.startswith(start) or not text.endswith(end):
        raise IdentityError(f"not a PEM file with one {label}")
    try:
        return base64.b64decode(text[len(start) : -len(end)].replace(" ", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentityError("not base64") from error
