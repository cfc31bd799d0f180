"""The device's P-256 key: made here, never leaves; it answers the tunnel's challenge and renews the
certificate.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from tunnel_agent.errors import IdentityError

_KEY_ID_BYTES = 16  # specification, section 4
_COORDINATE_BYTES = 32


class DeviceKey:
    """A private key and what is derived from it."""

    __slots__ = ("_private", "key_id", "public_der")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public_der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = sha256(self.public_der).digest()[:_KEY_ID_BYTES]

    @classmethod
    def generate(cls) -> DeviceKey:
        """A new key from the system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> DeviceKey:
        """Read what `to_pem` wrote; raises IdentityError for anything but a P-256 key."""
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise IdentityError("the device key cannot be read") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise IdentityError("the device key is not a P-256 key")
        return cls(private)

    def to_pem(self) -> bytes:
        """PKCS #8, unencrypted: the file's mode protects it, since a device starts with nobody there to
        type.
        """
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256 over `message`, 64 bytes r ‖ s."""
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")

    def signing_request(self) -> str:
        """A PEM certificate request. The gateway sets the subject itself, so the one here only says what
        it is.
        """
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "towline device")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._private, SHA256())
        return request.public_bytes(Encoding.PEM).decode("ascii")
