"""Reading a device's certificate request (RFC 2986) and its key."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

# A P-256 request is about 500 bytes; one stuffed with attributes is nothing a device makes.
CSR_MAX_BYTES = 4096
SIGNATURE_BYTES = 64  # r ‖ s
KEY_ID_BYTES = 16


class CsrError(ValueError):
    """The request does not hold; the text says why."""


def read_csr(pem: str) -> ec.EllipticCurvePublicKey:
    """The P-256 key that the request proves possession of. Everything else in it is ignored."""
    if len(pem) > CSR_MAX_BYTES:
        raise CsrError(f"must have {CSR_MAX_BYTES} bytes at most")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CsrError("is not a PEM certificate request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CsrError("must be for a P-256 key")
    if not signed:
        raise CsrError("is not signed by its own key")
    return key


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(public_key: bytes) -> bytes:
    """The first 16 bytes of SHA-256 over the SubjectPublicKeyInfo (tunnel protocol, section 4)."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (r ‖ s, 64 bytes) over `message` is by the P-256 key in `public_key` (SPKI DER)."""
    key = serialization.load_der_public_key(public_key)
    if len(signature) != SIGNATURE_BYTES or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    half = SIGNATURE_BYTES // 2
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
