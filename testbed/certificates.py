"""Certificates for one run: of an authority in the place of a public one, or self-signed."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SKEW = timedelta(hours=1)  # clocks may differ


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM files; ``both`` holds chain and key, as haproxy wants them."""

    chain: Path
    key: Path
    both: Path


class Authority:
    """Writes into ``folder``; ``ca`` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Test authority")
        builder = _builder(self._name, self._name, self._key.public_key(), days=1)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = builder.add_extension(usage, critical=True).sign(self._key, SHA256())
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, file: str, *names: str, days: float = 1) -> Issued:
        """A leaf for DNS names and IP addresses; the same ``file`` again replaces it, as a renewal does."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _write(
            _leaf(names, key.public_key(), self._name, days).sign(self._key, SHA256()),
            key,
            self._folder / file,
        )


def self_signed(file: Path, *names: str) -> Issued:
    """FILE.crt, FILE.key and FILE.pem for DNS names and IP addresses, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(names, key.public_key(), _name(names[0]), days=1).sign(key, SHA256())
    return _write(leaf, key, file)


def spki_hash(certificate: Path) -> str:
    """What Chromium is told to trust: base64 of SHA-256 over the public key (SPKI, DER) of a PEM file."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(sha256(spki).digest()).decode()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _leaf(
    names: Sequence[str], public: ec.EllipticCurvePublicKey, issuer: x509.Name, days: float
) -> x509.CertificateBuilder:
    alternative = x509.SubjectAlternativeName([_alternative(name) for name in names])
    return _builder(_name(names[0]), issuer, public, days).add_extension(alternative, critical=False)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _write(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, file: Path) -> Issued:
    chain = certificate.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    issued = Issued(*(file.with_name(f"{file.name}.{end}") for end in ("crt", "key", "pem")))
    issued.chain.write_bytes(chain)
    issued.key.write_bytes(secret)
    issued.both.write_bytes(chain + secret)
    return issued
