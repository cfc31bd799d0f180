"""All keys of one gateway, loaded (and at the first start made) from `keys_dir`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.keys.authority import Authority, load_authority, server_certificate_is_fresh
from gateway.keys.files import locked, write_private
from gateway.keys.key_list import GRANT_KEY_WAIT_S, publish
from gateway.keys.signing import KeySet, load_key_set, load_or_make_ec


@dataclass(frozen=True, slots=True)
class Keyring:
    """`login` signs access and link tokens, `grant` what devices verify, the root what devices trust."""

    directory: Path
    login: KeySet
    grant: KeySet
    device_root: ec.EllipticCurvePrivateKey
    device_ca: Authority
    internal_ca: Authority
    server_ca: Authority
    key_list: str
    """The root-signed grant key list (compact JWS), the same text that devices get."""

    def device_root_pem(self) -> str:
        """The pinned root's public half, SPKI PEM."""
        return (
            self.device_root.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )


def load_keyring(
    directory: Path, now: float, *, grant_wait_s: float = GRANT_KEY_WAIT_S, serves: bool = True
) -> Keyring:
    """KeyFileError names the file that does not fit. `now` in Unix seconds dates what is made.

    `grant_wait_s`: from a grant key's first publication until it signs. `serves` False: this process hands
    nothing to nodes, so it publishes no key either.
    """
    with locked(directory):
        root = load_or_make_ec(directory / "device_root.pem")
        key_list, grant = publish(
            directory, root, load_key_set(directory, "grant"), now, grant_wait_s, keep=serves
        )
        return Keyring(
            directory=directory,
            login=load_key_set(directory, "login"),
            grant=grant,
            device_root=root,
            device_ca=load_authority(directory, "device_ca", "Towline device CA", now),
            internal_ca=load_authority(directory, "internal_ca", "Towline internal CA", now),
            server_ca=load_authority(directory, "server_ca", "Towline server CA", now),
            key_list=key_list,
        )


def internal_server_files(keyring: Keyring, hosts: Sequence[str], now: float) -> tuple[Path, Path]:
    """(certificate, key) files of the internal listener; made anew when `hosts` change or the end is near."""
    certificate_path = keyring.directory / "internal_server.crt"
    key_path = keyring.directory / "internal_server.key"
    with locked(keyring.directory):
        if certificate_path.exists() and key_path.exists():
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
            issued_here = certificate.issuer == keyring.internal_ca.certificate.subject
            if issued_here and server_certificate_is_fresh(certificate, hosts, now):
                return certificate_path, key_path
        issued = keyring.internal_ca.issue_server("towline-gateway", hosts, now)
        write_private(key_path, issued.key_pem())
        write_private(certificate_path, issued.certificate_pem(), 0o644)
    return certificate_path, key_path
