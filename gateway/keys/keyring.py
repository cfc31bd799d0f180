"""All keys of one gateway, loaded (and at the first start made) from `keys_dir`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import KeyFileError
from gateway.keys.authority import (
    Authority,
    certificate_is_fresh,
    load_authority,
    server_certificate_is_fresh,
)
from gateway.keys.files import locked, write_private
from gateway.keys.key_list import GRANT_KEY_WAIT_S, publish
from gateway.keys.published import put_dates, read_dates
from gateway.keys.signing import KeySet, load_key_set, load_or_make_ec

# Who keeps our JWKS keeps it five minutes, and gateways that share the folder see a new key in seconds.
LOGIN_KEY_WAIT_S = 900
# In the certificate by which a gateway speaks to ingest: ingest takes messages of nobody else.
GATEWAY_UNIT = "gateway"


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys that rotate, as the folder has them at one moment."""

    login: KeySet
    grant: KeySet
    key_list: str


@dataclass(slots=True)
class Keyring:
    """`login` signs access and link tokens, `grant` what devices verify, the root what devices trust.

    Ask it each time: the keys of tokens change while the process runs (`use`).
    """

    directory: Path
    login: KeySet
    grant: KeySet
    device_root: ec.EllipticCurvePrivateKey
    device_ca: Authority
    internal_ca: Authority
    server_ca: Authority
    key_list: str
    """The root-signed grant key list (compact JWS), the same text that devices get."""

    def use(self, keys: TokenKeys) -> None:
        """Sign and verify with these from now on."""
        self.login, self.grant, self.key_list = keys.login, keys.grant, keys.key_list

    def device_root_pem(self) -> str:
        """The pinned root's public half, SPKI PEM."""
        return (
            self.device_root.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )


def load_token_keys(
    directory: Path, now: float, waits: Mapping[str, float], *, serves: bool = True
) -> TokenKeys:
    """The keys that rotate; the caller holds the folder's lock. `waits`: seconds, for login and grant."""
    root = load_or_make_ec(directory / "device_root.pem")
    key_list, grant = publish(
        directory, root, load_key_set(directory, "grant"), now, waits["grant"], keep=serves
    )
    login = load_key_set(directory, "login")
    known = read_dates(directory, "login")
    if len({key.kid for key in login.keys}) != len(login.keys):
        raise KeyFileError(f"{directory}: two login key files hold the same key")
    return TokenKeys(
        put_dates(directory, "login", login, known, now, waits["login"], keep=serves), grant, key_list
    )


def load_keyring(
    directory: Path,
    now: float,
    *,
    grant_wait_s: float = GRANT_KEY_WAIT_S,
    login_wait_s: float = LOGIN_KEY_WAIT_S,
    serves: bool = True,
) -> Keyring:
    """KeyFileError names the file that does not fit. `now` in Unix seconds dates what is made.

    The waits are from a key's first publication until it signs. `serves` False: this process hands nothing
    to nodes, so it publishes no key either.
    """
    with locked(directory):
        waits = {"grant": grant_wait_s, "login": login_wait_s}
        keys = load_token_keys(directory, now, waits, serves=serves)
        return Keyring(
            directory=directory,
            login=keys.login,
            grant=keys.grant,
            device_root=load_or_make_ec(directory / "device_root.pem"),
            device_ca=load_authority(directory, "device_ca", "Towline device CA", now),
            internal_ca=load_authority(directory, "internal_ca", "Towline internal CA", now),
            server_ca=load_authority(directory, "server_ca", "Towline server CA", now),
            key_list=keys.key_list,
        )


def internal_client_files(keyring: Keyring, now: float) -> tuple[Path, Path]:
    """(certificate, key) files by which this gateway speaks to ingest; made anew when the end is near."""
    certificate_path = keyring.directory / "internal_client.crt"
    key_path = keyring.directory / "internal_client.key"
    with locked(keyring.directory):
        if certificate_path.exists() and key_path.exists():
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
            issued_here = certificate.issuer == keyring.internal_ca.certificate.subject
            if issued_here and certificate_is_fresh(certificate, now):
                return certificate_path, key_path
        issued = keyring.internal_ca.issue_client("towline-gateway", now, unit=GATEWAY_UNIT)
        write_private(key_path, issued.key_pem())
        write_private(certificate_path, issued.certificate_pem(), 0o644)
    return certificate_path, key_path


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
