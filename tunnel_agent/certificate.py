"""The device's certificate as the agent needs it: text for MQTT's TLS, and from when to renew it."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel_agent.device_key import DeviceKey
from tunnel_agent.errors import IdentityError


@dataclass(frozen=True, slots=True)
class Certificate:
    """Its PEM text and its validity in Unix seconds."""

    pem: str
    not_before: int
    not_after: int


def read_certificate(pem: str, key: DeviceKey) -> Certificate:
    """Check that it is a certificate for `key`; raises IdentityError for anything else."""
    from cryptography import x509  # 4 MiB that only enrolment and renewal need
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        raise IdentityError("the certificate cannot be read") from error
    if public != key.public_der:
        raise IdentityError("the certificate is for another key")
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Certificate(pem, int(start.timestamp()), int(end.timestamp()))
