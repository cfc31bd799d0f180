"""The device's P-256 key: made here, never leaves; it answers the tunnel's challenge and renews the
certificate.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tunnel_agent import p256

_KEY_ID_BYTES = 16  # specification, section 4
_COORDINATE_BYTES = 32


class DeviceKey:
    """A private key and what is derived from it."""

    __slots__ = ("_private", "key_id", "public_der")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public_der = p256.public_der(private.public_key())
        self.key_id = sha256(self.public_der).digest()[:_KEY_ID_BYTES]

    @classmethod
    def generate(cls) -> DeviceKey:
        """A new key from the system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> DeviceKey:
        """Read what `to_pem` wrote; raises IdentityError for anything but a P-256 key."""
        return cls(p256.private_from_pem(pem))

    def to_pem(self) -> bytes:
        """PKCS #8, unencrypted: the file's mode protects it, since a device starts with nobody there to
        type.
        """
        return p256.private_pem(self._private)

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256 over `message`, 64 bytes r ‖ s."""
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")

    def signing_request(self) -> str:
        """A PEM certificate request. The gateway sets the subject itself, so the one here only says what
        it is.
        """
        from cryptography import x509  # 4 MiB that only enrolment and renewal need
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509.oid import NameOID

        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "towline device")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._private, SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode("ascii")
