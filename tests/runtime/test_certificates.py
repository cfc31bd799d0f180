"""Certificates that are renewed under a running listener."""

from __future__ import annotations

import logging
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from runtime.certificates import CertificateError, CertificateWatch, LiveCertificate, read_pair
from runtime.metrics import Registry

NAME = "tunnel.test"


def write(folder: Path, *, begins_h: float = -1, ends_h: float = 1, password: bytes | None = None) -> int:
    """Write chain.pem and key.pem; the serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now, serial = datetime.now(UTC), x509.random_serial_number()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + timedelta(hours=begins_h))
        .not_valid_after(now + timedelta(hours=ends_h))
        .sign(key, SHA256())
    )
    secret = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    )
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, secret))
    return serial


class Shown:
    """What a client sees of a context, by a handshake in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def serial(self) -> int:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = client.wrap_bio(to_client, to_server)
        there = self.context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):  # flights of a handshake
            for side in (here, there):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        der = here.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


@pytest.fixture
def shown() -> Shown:
    return Shown(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def live(shown: Shown, folder: Path) -> LiveCertificate:
    return LiveCertificate("visitors", shown.context, folder / "chain.pem", folder / "key.pem")


def test_a_new_pair_is_shown_from_then_on(shown: Shown, tmp_path: Path) -> None:
    first = write(tmp_path)
    certificate = live(shown, tmp_path)
    assert shown.serial() == first
    assert certificate.look(time.time()) is None
    second = write(tmp_path, ends_h=5)
    assert shown.serial() == first
    assert certificate.look(time.time()) is True
    assert shown.serial() == second
    assert certificate.expires_at == pytest.approx(time.time() + 5 * 3600, abs=60)
    assert certificate.look(time.time()) is None


def half(folder: Path) -> None:
    """Renewal in two steps: the chain is new, the key still the old one."""
    old = (folder / "key.pem").read_bytes()
    write(folder)
    (folder / "key.pem").write_bytes(old)


BAD = {
    "mismatch": (half, "MISMATCH"),
    "garbage": (lambda folder: (folder / "chain.pem").write_text("garbage"), "no certificate in PEM"),
    "empty": (lambda folder: (folder / "chain.pem").write_text(""), "no certificate in PEM"),
    "cut": (lambda folder: (folder / "key.pem").write_bytes((folder / "key.pem").read_bytes()[:-60]), "PEM"),
    "gone": (lambda folder: (folder / "key.pem").unlink(), "No such file"),
    "expired": (lambda folder: write(folder, begins_h=-2, ends_h=-1), "expired"),
    "early": (lambda folder: write(folder, begins_h=1, ends_h=2), "not valid yet"),
    "password": (lambda folder: write(folder, password=b"secret"), ""),
}


@pytest.mark.parametrize("how", BAD)
def test_files_that_cannot_serve_change_nothing_and_are_told_once(
    shown: Shown, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, said = BAD[how]
    first = write(tmp_path)
    certificate = live(shown, tmp_path)
    expires_at = certificate.expires_at
    spoil(tmp_path)
    with caplog.at_level(logging.ERROR):
        assert certificate.look(time.time()) is False
        assert certificate.look(time.time()) is False
    (record,) = caplog.records
    assert record.getMessage() == "certificate not loaded, the old one stays"
    assert said in record.__dict__["error"]
    assert shown.serial() == first
    assert certificate.expires_at == expires_at
    second = write(tmp_path)
    assert certificate.look(time.time()) is True
    assert shown.serial() == second


def test_at_the_start_a_bad_pair_is_an_error(shown: Shown, tmp_path: Path) -> None:
    write(tmp_path)
    half(tmp_path)
    with pytest.raises(CertificateError, match="MISMATCH"):
        live(shown, tmp_path)


def test_a_chain_is_shown_whole(tmp_path: Path) -> None:
    write(tmp_path)
    leaf = (tmp_path / "chain.pem").read_bytes()
    pair = read_pair(tmp_path / "chain.pem", tmp_path / "key.pem")
    assert pair.chain == leaf
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", ends_h=9)
    (tmp_path / "chain.pem").write_bytes(leaf + (tmp_path / "other" / "chain.pem").read_bytes())
    assert read_pair(tmp_path / "chain.pem", tmp_path / "key.pem").expires_at == pair.expires_at  # the leaf's


def test_the_watch_counts_and_tells_the_seconds_left(shown: Shown, tmp_path: Path) -> None:
    write(tmp_path, ends_h=10)
    registry = Registry()
    wall = time.time()
    watch = CertificateWatch(registry, wall=lambda: wall)
    renewed: list[int] = []
    watch.add(
        "visitors",
        shown.context,
        tmp_path / "chain.pem",
        tmp_path / "key.pem",
        renew=lambda: renewed.append(1),
    )
    text = registry.render().decode()
    line = next(line for line in text.splitlines() if line.startswith("towline_certificate_expires"))
    assert line.startswith('towline_certificate_expires_in_seconds{listener="visitors"} ')
    assert float(line.split()[1]) == pytest.approx(36_000, abs=60)
    wall += 40_000
    assert 'expires_in_seconds{listener="visitors"} -' in registry.render().decode()
    write(tmp_path, ends_h=20)
    watch.reload()
    (tmp_path / "key.pem").write_text("garbage")
    watch.reload()
    text = registry.render().decode()
    assert 'towline_certificate_reloads_total{listener="visitors",outcome="loaded"} 1' in text
    assert 'towline_certificate_reloads_total{listener="visitors",outcome="refused"} 1' in text
    assert renewed == [1, 1]


def test_a_live_connection_goes_on(shown: Shown, tmp_path: Path) -> None:
    write(tmp_path)
    certificate = live(shown, tmp_path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server)
    there = shown.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    write(tmp_path)
    assert certificate.look(time.time()) is True
    here.write(b"still here")
    assert there.read() == b"still here"
