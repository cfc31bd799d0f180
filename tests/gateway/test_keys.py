"""Key files, the key list, certificates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from gateway.errors import KeyFileError
from gateway.keys import csr
from gateway.keys.files import write_private
from gateway.keys.key_list import GRANT_KEY_WAIT_S, KEY_LIST_MAX_BYTES
from gateway.keys.keyring import Keyring, internal_server_files, load_keyring
from gateway.keys.node_certificates import issue_gateway_certificate, issue_node_certificate
from gateway.keys.signing import load_key_set, private_pem
from tests.gateway.world import make_csr

NOW = 1_800_000_000.0
DAY_S = 86_400


def key_list(keyring: Keyring) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        keyring.key_list,
        keyring.device_root.public_key(),
        algorithms=["ES256"],
        options={"verify_iat": False},
    )
    return claims


def test_keys_are_private_and_stay(keys_dir: Path) -> None:
    first, second = load_keyring(keys_dir, NOW), load_keyring(keys_dir, NOW + DAY_S)
    assert keys_dir.stat().st_mode & 0o777 == 0o700
    for path in keys_dir.iterdir():
        expected = 0o644 if path.suffix == ".crt" else 0o600
        assert path.stat().st_mode & 0o777 == expected, path
    assert first.login.active(NOW).kid == second.login.active(NOW).kid
    assert first.key_list == second.key_list
    assert first.device_ca.pem() == second.device_ca.pem()


def test_files_that_others_may_read_are_refused(keys_dir: Path) -> None:
    (keys_dir / "device_root.pem").chmod(0o644)
    with pytest.raises(KeyFileError, match=r"device_root\.pem.*chmod 600"):
        load_keyring(keys_dir, NOW)
    (keys_dir / "device_root.pem").chmod(0o600)
    keys_dir.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        load_keyring(keys_dir, NOW)


@pytest.mark.parametrize("broken", ["device_root.pem", "device_ca.key", "device_ca.crt", "login-1.pem"])
def test_a_broken_file_is_named(keys_dir: Path, broken: str) -> None:
    write_private(keys_dir / broken, b"garbage")
    with pytest.raises(KeyFileError, match=broken):
        load_keyring(keys_dir, NOW)


def test_a_ca_key_that_vanished_is_not_made_anew(keys_dir: Path) -> None:
    (keys_dir / "device_ca.key").unlink()
    with pytest.raises(KeyFileError, match=r"device_ca\.key"):
        load_keyring(keys_dir, NOW)


def add_grant_key(keys_dir: Path, year: int = 9999) -> rsa.RSAPrivateKey:
    """An operator puts a new key file into the folder."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    write_private(keys_dir / f"grant-{year}0101T000000Z.pem", private_pem(key))
    return key


def test_a_new_grant_key_is_published_at_once_and_signs_after_the_wait(keys_dir: Path) -> None:
    before = load_keyring(keys_dir, NOW)
    old, number = before.grant.active(NOW).kid, key_list(before)["n"]
    new = add_grant_key(keys_dir)
    after = load_keyring(keys_dir, NOW)
    claims = key_list(after)
    assert number == 1
    assert claims["n"] == 2
    assert claims["keys"] == after.grant.jwks()
    assert len(after.grant.keys) == 2
    assert jwt.get_unverified_header(after.key_list)["typ"] == "keys+jwt"
    # The wait survives a restart, and runs out in a process that is never restarted.
    for keyring in (after, load_keyring(keys_dir, NOW + DAY_S / 2)):
        assert keyring.key_list == after.key_list
        assert keyring.grant.active(NOW + GRANT_KEY_WAIT_S - 1).kid == old
        ripe = keyring.grant.active(NOW + GRANT_KEY_WAIT_S)
        assert ripe.private.public_key() == new.public_key()
        header = jwt.get_unverified_header(keyring.grant.sign("x", {}, NOW + GRANT_KEY_WAIT_S - 1))
        assert header["kid"] == old


def test_the_only_grant_key_signs_at_once(keys_dir: Path) -> None:
    first = load_keyring(keys_dir, NOW)
    for path in keys_dir.glob("grant-*.pem"):
        path.unlink()  # leaked: it must not stay for a day
    new = add_grant_key(keys_dir)
    assert first.grant.active(NOW)
    assert load_keyring(keys_dir, NOW + 1).grant.active(NOW + 1).private.public_key() == new.public_key()


def test_a_grant_key_that_comes_back_waits_anew(keys_dir: Path) -> None:
    old = load_keyring(keys_dir, NOW).grant.active(NOW).kid
    new = add_grant_key(keys_dir)
    load_keyring(keys_dir, NOW)
    (keys_dir / "grant-99990101T000000Z.pem").unlink()
    load_keyring(keys_dir, NOW + 1)
    write_private(keys_dir / "grant-99990101T000000Z.pem", private_pem(new))
    again = load_keyring(keys_dir, NOW + 10 * DAY_S)
    assert again.grant.active(NOW + 10 * DAY_S).kid == old


def test_who_only_issues_certificates_publishes_no_grant_key(keys_dir: Path) -> None:
    load_keyring(keys_dir, NOW)
    add_grant_key(keys_dir)
    load_keyring(keys_dir, NOW, serves=False)
    later = load_keyring(keys_dir, NOW + 10 * DAY_S)
    assert key_list(later)["n"] == 2
    assert later.grant.active(NOW + 10 * DAY_S).kid == later.grant.keys[0].kid


def test_dates_of_publication_that_are_not_known_are_the_lists(keys_dir: Path) -> None:
    old = load_keyring(keys_dir, NOW).grant.active(NOW).kid
    add_grant_key(keys_dir)
    issued = int(NOW)
    load_keyring(keys_dir, issued)
    (keys_dir / "grant_published.json").unlink()  # a folder of an older version
    after = load_keyring(keys_dir, issued + DAY_S)
    assert after.grant.active(issued + GRANT_KEY_WAIT_S - 1).kid == old
    assert after.grant.active(issued + GRANT_KEY_WAIT_S).kid != old


def test_more_grant_keys_than_a_hello_carries_are_refused(keys_dir: Path) -> None:
    load_keyring(keys_dir, NOW)
    add_grant_key(keys_dir)
    assert len(load_keyring(keys_dir, NOW).key_list) <= KEY_LIST_MAX_BYTES
    add_grant_key(keys_dir, 9998)
    with pytest.raises(KeyFileError, match=r"3 grant keys .* remove the oldest"):
        load_keyring(keys_dir, NOW)


def test_a_key_list_of_another_root_is_refused(keys_dir: Path) -> None:
    (keys_dir / "device_root.pem").unlink()
    with pytest.raises(KeyFileError, match=r"key_list\.jws"):
        load_keyring(keys_dir, NOW)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    write_private(tmp_path / "login-1.pem", private_pem(weak))
    with pytest.raises(KeyFileError, match="2048"):
        load_key_set(tmp_path, "login")


def test_a_device_certificate_names_the_device_and_nothing_else(keys_dir: Path) -> None:
    keyring = load_keyring(keys_dir, NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    public = csr.read_csr(make_csr(key, "d_somebodyelse"))
    certificate = keyring.device_ca.issue_device(public, "d_" + "a" * 16, NOW).certificate
    assert certificate.subject.rfc4514_string() == "CN=d_" + "a" * 16
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [u.dotted_string for u in usage] == ["1.3.6.1.5.5.7.3.2"]  # client authentication alone
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(keyring.device_ca.certificate)
    assert 80 * DAY_S < certificate.not_valid_after_utc.timestamp() - NOW < 91 * DAY_S


def test_bad_certificate_requests_are_refused() -> None:
    good = make_csr(ec.generate_private_key(ec.SECP256R1()))
    body = good.splitlines()
    broken_signature = "\n".join([*body[:-2], body[-2][:-8] + "AAAAAAA=", body[-1]])
    for wrong in (
        "",
        "garbage",
        "ü" + good,
        good * 20,
        broken_signature,
        make_csr(ec.generate_private_key(ec.SECP384R1())),
        make_csr(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    ):
        with pytest.raises(csr.CsrError):
            csr.read_csr(wrong)


def test_internal_certificate_is_made_anew_for_other_names_and_near_its_end(keys_dir: Path) -> None:
    keyring = load_keyring(keys_dir, NOW)

    def serial(hosts: tuple[str, ...], now: float) -> int:
        path, _ = internal_server_files(keyring, hosts, now)
        return x509.load_pem_x509_certificate(path.read_bytes()).serial_number

    first = serial(("localhost", "127.0.0.1"), NOW)
    assert serial(("localhost", "127.0.0.1"), NOW + DAY_S) == first
    assert serial(("gateway.internal",), NOW) != first
    again = serial(("localhost",), NOW)
    assert serial(("localhost",), NOW + 330 * DAY_S) != again


def test_node_files(keys_dir: Path, tmp_path: Path) -> None:
    keyring = load_keyring(keys_dir, NOW)
    out = tmp_path / "node"
    issue_node_certificate(keyring, "node-a", ["tunnel.example.com", "192.0.2.7"], out, NOW)
    client = x509.load_pem_x509_certificate((out / "node.crt").read_bytes())
    listener = x509.load_pem_x509_certificate((out / "agents.crt").read_bytes())
    client.verify_directly_issued_by(keyring.internal_ca.certificate)
    listener.verify_directly_issued_by(keyring.server_ca.certificate)
    names = listener.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(n.value) for n in names} == {"tunnel.example.com", "192.0.2.7"}
    assert (out / "node.key").stat().st_mode & 0o777 == 0o600
    for name in ("", "Node", "a b", "-a", "a" * 64, "../x"):
        with pytest.raises(KeyFileError):
            issue_node_certificate(keyring, name, ["x"], out, NOW)


def test_a_half_written_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "key", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path / "key", b"new")
    assert (tmp_path / "key").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_key_list_file_is_json_inside(keys_dir: Path) -> None:
    shutil.rmtree(keys_dir)
    keyring = load_keyring(keys_dir, NOW)
    assert json.dumps(key_list(keyring)["keys"]) == json.dumps(keyring.grant.jwks())


def test_files_of_a_gateway_at_its_broker(keys_dir: Path, tmp_path: Path) -> None:
    keyring = load_keyring(keys_dir, NOW)
    files = issue_gateway_certificate(keyring, tmp_path / "broker", NOW)
    assert sorted(file.name for file in files) == ["gateway.crt", "gateway.key", "internal_ca.crt"]
    client = x509.load_pem_x509_certificate((tmp_path / "broker/gateway.crt").read_bytes())
    client.verify_directly_issued_by(keyring.internal_ca.certificate)
    subject = {part.oid: part.value for part in client.subject}
    assert subject == {NameOID.COMMON_NAME: "gateway", NameOID.ORGANIZATIONAL_UNIT_NAME: "gateway"}
