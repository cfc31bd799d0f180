"""The state directory survives crashes, and says which of its files is wrong."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.tunnel_agent.authority import Authority
from tunnel_agent import p256
from tunnel_agent.errors import IdentityError
from tunnel_agent.identity import IdentityStore

AUTHORITY = Authority()


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    store = IdentityStore(tmp_path / "state")
    store.save(AUTHORITY.identity(("wss://tunnel.test/tunnel", "wss://[::1]:8/tunnel"), server_ca="PEM"))
    return store


def test_what_is_saved_is_loaded(store: IdentityStore) -> None:
    identity = store.load()
    assert identity.tunnel_urls == ("wss://tunnel.test/tunnel", "wss://[::1]:8/tunnel")
    assert identity.server_ca == "PEM"
    assert identity.gateway_ca is None


@pytest.mark.parametrize("crash_at", range(1, 12))
def test_a_crash_at_any_write_leaves_the_old_or_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    store = IdentityStore(tmp_path / "state")
    replace, count = Path.replace, 0

    class PowerCut(Exception):
        pass

    def cut(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == crash_at:
            raise PowerCut
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    identity = AUTHORITY.identity(("wss://tunnel.test/tunnel",), server_ca="PEM")
    try:
        store.save(identity)
        complete = True
    except PowerCut:
        complete = False
    assert store.is_enrolled() is complete
    monkeypatch.undo()
    store.save(identity)  # what the crash left is no obstacle
    assert store.load().device_id == identity.device_id


def test_a_renewal_and_a_new_key_list_wait_for_each_other(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewal_writes, may_go_on = threading.Event(), threading.Event()
    fsync, writers = os.fsync, set[threading.Thread]()

    def held(descriptor: int) -> None:
        writers.add(threading.current_thread())
        if not renewal_writes.is_set():
            renewal_writes.set()
            assert may_go_on.wait(10)
            assert len(writers) == 1, "another one wrote meanwhile"
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", held)
    renewed = AUTHORITY.identity(("wss://new.test/tunnel",))
    with ThreadPoolExecutor(2) as threads:
        renewal = threads.submit(store.save_renewed, renewed)
        assert renewal_writes.wait(10)
        newer = threads.submit(store.save_key_list, AUTHORITY.key_list(7))
        may_go_on.set()
        for done in (renewal, newer):
            done.result(10)
    assert store.load().key_list.number == 7
    assert store.load().tunnel_urls == ("wss://new.test/tunnel",)


def test_many_threads_leave_the_newest_key_list_and_nothing_beside(store: IdentityStore) -> None:
    lists = [AUTHORITY.key_list(number) for number in (3, 9, 5, 8, 2, 9, 4)]
    with ThreadPoolExecutor(len(lists)) as threads:
        for done in [threads.submit(store.save_key_list, one) for one in lists * 3]:
            done.result(10)
    assert store.load().key_list.number == 9
    assert not [path for path in store.directory.iterdir() if path.name.startswith(".")]


def test_a_renewal_that_ends_late_keeps_the_newer_key_list(store: IdentityStore) -> None:
    store.save_key_list(AUTHORITY.key_list(4))
    store.save_renewed(AUTHORITY.identity(("wss://new.test/tunnel",)))
    assert store.load().key_list.number == 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("identity.toml", "device_id = "),
        ("identity.toml", 'device_id = "../x"\ngateway_url = "https://g"\ntunnel_urls = []\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "http://g"\ntunnel_urls = []\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "https://g"\ntunnel_urls = ["ws://t/"]\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "https://g"\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "https://g"\ntunnel_urls = []\n'),
        ("keylist.jws", "a.b.c"),
        ("device.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("device.key", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n"),
        ("device.key", ""),
        ("device_root.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
    ],
)
def test_a_broken_file_is_named(store: IdentityStore, name: str, content: str) -> None:
    (store.directory / name).write_text(content)
    with pytest.raises(IdentityError, match=name):
        store.load()


@pytest.mark.parametrize("name", ["device.key", "device.crt", "device_root.pem", "keylist.jws"])
def test_a_missing_file_is_named(store: IdentityStore, name: str) -> None:
    (store.directory / name).unlink()
    with pytest.raises(IdentityError, match=name):
        store.load()


def test_without_an_identity_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="towline agent enrol"):
        IdentityStore(tmp_path).load()


def test_keys_are_in_the_forms_that_others_read_and_write() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert p256.private_pem(private) == pem
    assert p256.private_from_pem(pem).private_numbers() == private.private_numbers()
    public = private.public_key()
    assert p256.public_pem(public) == public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert p256.public_from_pem(p256.public_pem(public)) == public


def test_a_point_off_the_curve_is_no_key() -> None:
    der = bytearray(p256.public_der(ec.generate_private_key(ec.SECP256R1()).public_key()))
    der[-1] ^= 1
    with pytest.raises(IdentityError):
        p256.public_from_pem(p256._to_pem("PUBLIC KEY", bytes(der)))


def test_a_private_key_with_another_public_one_is_no_key() -> None:
    pem = p256.private_pem(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(p256._from_pem("PRIVATE KEY", pem))
    der[-1] ^= 1
    with pytest.raises(IdentityError):
        p256.private_from_pem(p256._to_pem("PRIVATE KEY", bytes(der)))
