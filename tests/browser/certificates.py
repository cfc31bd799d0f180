"""A certificate for `*.tunnel.test`: a name outside the Public Suffix List, where siblings are same-site."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True, slots=True)
class WildcardCertificate:
    """PEM files, and what Chromium is told to trust: base64 of SHA-256 over the public key (SPKI, DER)."""

    certificate: Path
    key: Path
    spki_hash: str


def spki_hash(certificate: Path) -> str:
    """What Chromium is told to trust: base64 of SHA-256 over the public key (SPKI, DER) of a PEM file."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(sha256(spki).digest()).decode()


def wildcard_certificate(folder: Path, domain: str) -> WildcardCertificate:
    """A certificate for `*.domain`, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"*.{domain}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}")]), critical=False)
        .sign(key, SHA256())
    )
    certificate_file, key_file = folder / "tunnel.crt", folder / "tunnel.key"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return WildcardCertificate(certificate_file, key_file, spki_hash(certificate_file))


def tls_options(certificate: WildcardCertificate, domain: str) -> tuple[str, ...]:
    """What gives `towline up` sessions on https://LABEL.DOMAIN."""
    files = (f"--tunnel-certificate={certificate.certificate}", f"--tunnel-key={certificate.key}")
    return (f"--tunnel-domain={domain}", *files)
