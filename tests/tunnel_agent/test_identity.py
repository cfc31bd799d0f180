"""The state directory survives crashes, and says which of its files is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tunnel_agent.authority import Authority
from tunnel_agent.device_key import DeviceKey
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("identity.toml", "device_id = "),
        ("identity.toml", 'device_id = "../x"\ngateway_url = "https://g"\ntunnel_urls = []\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "http://g"\ntunnel_urls = []\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "https://g"\ntunnel_urls = ["ws://t/"]\n'),
        ("identity.toml", 'device_id = "d_1"\ngateway_url = "https://g"\n'),
        ("device.crt", "rubbish"),
        ("keylist.jws", "a.b.c"),
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


def test_a_key_of_somebody_else_does_not_fit(store: IdentityStore) -> None:
    (store.directory / "device.key").write_bytes(DeviceKey.generate().to_pem())
    with pytest.raises(IdentityError, match="another key"):
        store.load()


def test_without_an_identity_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="towline agent enrol"):
        IdentityStore(tmp_path).load()


def test_a_planted_link_is_not_written_through(store: IdentityStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (store.directory / ".keylist.jws.new").symlink_to(victim)
    store.save_key_list(AUTHORITY.key_list(3))
    assert victim.read_text() == "untouched"
    assert not os.path.islink(store.directory / "keylist.jws")
