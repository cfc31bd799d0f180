"""Certificate authorities: for devices, for the internal listener's two sides, for the agents' listeners."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import KeyFileError
from gateway.keys.files import write_private
from gateway.keys.signing import load_or_make_ec, private_pem
from gateway.store.transaction import utc

CA_LIFETIME = timedelta(days=3650)
# Short enough that a forgotten device falls out, long enough that a quarter offline needs no one; renewal
# works after expiry too.
DEVICE_LIFETIME = timedelta(days=90)
NODE_LIFETIME = timedelta(days=365)
# Devices and nodes whose clocks lag a little must not see a certificate "from the future".
BACKDATE = timedelta(minutes=5)
# A broker refuses every device once its list is older: long enough for a keeper that is away over a holiday.
REVOCATION_LIST_LIFETIME = timedelta(days=7)
# The gateway makes its own internal certificate anew when less than this is left.
RENEW_BEFORE = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, with its private key when it was made here."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        if self.key is None:
            raise KeyFileError("the certificate's key is not ours")
        return private_pem(self.key)


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA: a P-256 key and its self-signed certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def issue_device(self, public: ec.EllipticCurvePublicKey, device_id: str, now: float) -> Issued:
        """A client certificate whose subject is the device id and nothing that the CSR asked for."""
        builder = self._leaf(
            public, _name(device_id), now, DEVICE_LIFETIME, [ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        return Issued(builder.sign(self.key, hashes.SHA256()), None)

    def revocation_list(self, serials: Iterable[int], now: float) -> bytes:
        """PEM (RFC 5280 section 5) of certificates that were revoked before they expire."""
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(utc(now) - BACKDATE)
            .next_update(utc(now) + REVOCATION_LIST_LIFETIME)
            .add_extension(issuer_key, critical=False)
            .add_extension(x509.CRLNumber(int(now)), critical=False)
        )
        entry = x509.RevokedCertificateBuilder().revocation_date(utc(now) - BACKDATE)
        for serial in serials:
            builder = builder.add_revoked_certificate(entry.serial_number(serial).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue_client(self, name: str, now: float, *, unit: str | None = None) -> Issued:
        """A fresh key and a client certificate with CN = name; `unit`, where given, is its OU."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._leaf(key.public_key(), _name(name, unit), now, NODE_LIFETIME, usages)
        return Issued(builder.sign(self.key, hashes.SHA256()), key)

    def issue_server(self, name: str, hosts: Sequence[str], now: float) -> Issued:
        """A fresh key and a server certificate for `hosts` (DNS names or IP addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(
            key.public_key(), _name(name), now, NODE_LIFETIME, [ExtendedKeyUsageOID.SERVER_AUTH]
        )
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return Issued(builder.add_extension(names, critical=False).sign(self.key, hashes.SHA256()), key)

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        now: float,
        lifetime: timedelta,
        usages: Sequence[x509.ObjectIdentifier],
    ) -> x509.CertificateBuilder:
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(utc(now) - BACKDATE)
            .not_valid_after(min(utc(now) + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(issuer_key, critical=False)
        )


def load_authority(directory: Path, name: str, common_name: str, now: float) -> Authority:
    """`{name}.key` and `{name}.crt` of the directory, made at the first start."""
    key_path, certificate_path = directory / f"{name}.key", directory / f"{name}.crt"
    if certificate_path.exists() and not key_path.exists():
        raise KeyFileError(f"{key_path}: is missing, but its certificate is there")
    key = load_or_make_ec(key_path)
    if not certificate_path.exists():
        certificate = _self_signed(key, common_name, now)
        write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except ValueError as error:
        raise KeyFileError(f"{certificate_path}: is not a PEM certificate") from error
    if certificate.public_key() != key.public_key():
        raise KeyFileError(f"{certificate_path}: does not belong to {key_path.name}")
    return Authority(key, certificate)


def server_certificate_is_fresh(certificate: x509.Certificate, hosts: Sequence[str], now: float) -> bool:
    """Whether the certificate serves exactly `hosts` and has RENEW_BEFORE left."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    served = {str(name.value) for name in names}
    return served == set(hosts) and certificate_is_fresh(certificate, now)


def certificate_is_fresh(certificate: x509.Certificate, now: float) -> bool:
    """Whether the certificate has RENEW_BEFORE left."""
    return certificate.not_valid_after_utc - utc(now) > RENEW_BEFORE


def _self_signed(key: ec.EllipticCurvePrivateKey, common_name: str, now: float) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(now) - BACKDATE)
        .not_valid_after(utc(now) + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(common_name: str, unit: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if unit is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(attributes)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
