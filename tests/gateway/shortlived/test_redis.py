"""What is Redis's alone: its URL, TLS, secrets that stay secret, several sites in one server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailableError
from gateway.metrics import gateway_metrics
from gateway.policy.limits import Limit
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.shortlived.in_redis import RedisShortLived
from gateway.shortlived.interface import Heard
from gateway.shortlived.redis_url import parse_redis_url
from gateway.store.database import Database
from runtime.clock import FakeClock
from runtime.metrics import Registry
from runtime.settings import SettingsError
from testbed.certificates import Authority
from testbed.processes import ROOT
from testbed.redis_server import RedisServer
from tests.gateway.world import settings_for


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """One whose certificate names localhost alone, and the CA that signed it."""
    folder = tmp_path_factory.mktemp("tls-redis")
    authority = Authority(folder)
    leaf = authority.issue("redis", "localhost")
    server = RedisServer(folder, (leaf.chain, leaf.key))
    server.start()
    yield server, authority.ca
    server.stop()


def store(url: str, clock: FakeClock, ca: Path | None = None, prefix: str = "t") -> RedisShortLived:
    """Without Postgres: nothing here is durable."""
    nowhere = PostgresShortLived(Database("postgresql:///nowhere", pool_max=1, wall=clock.wall))
    address = parse_redis_url(url, ca)
    return RedisShortLived(address, prefix, clock, nowhere, gateway_metrics(Registry()))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", ("localhost", 6379, 0, False, None, None)),
        ("redis://10.0.0.1:7000/3", ("10.0.0.1", 7000, 3, False, None, None)),
        ("rediss://user:p%40ss%2F@r.example.com", ("r.example.com", 6379, 0, True, "user", "p@ss/")),
        ("redis://:secret@[::1]:6380/", ("::1", 6380, 0, False, None, "secret")),
    ],
)
def test_urls_are_read(url: str, shown: tuple[Any, ...]) -> None:
    got = parse_redis_url(url)
    assert (got.host, got.port, got.database, got.tls, got.username, got.password) == shown


def test_a_unix_socket_is_read() -> None:
    assert parse_redis_url("unix://:secret@/run/redis.sock").options()["path"] == "/run/redis.sock"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://localhost",
        "redis://",
        "redis:///0",
        "redis://:topsecret@localhost/x",
        "redis://:topsecret@localhost/-1",
        "redis://:topsecret@localhost/1/2",
        "redis://:topsecret@localhost/99999",
        "redis://:topsecret@localhost/0?ssl_cert_reqs=none",
        "redis://:topsecret@localhost/0#x",
        "redis://:topsecret@localhost:port",
        "redis://:topsecret/x@localhost:99999",
        "unix://host/path",
        "unix://",
    ],
)
def test_bad_urls_say_what_is_wrong_and_repeat_no_secret(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must|names no host|no URL") as told:
        parse_redis_url(url)
    assert "topsecret" not in str(told.value)
    settings = settings_for(tmp_path, "postgresql:///x", tmp_path, redis_url=url)
    with pytest.raises(SettingsError, match="redis_url: ") as said:
        settings.redis()
    assert "topsecret" not in str(said.value)


def test_both_places_for_the_url_are_one_too_many(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "postgresql:///x", tmp_path, redis_url="redis://localhost")
    with pytest.raises(ValueError, match="redis_url"):
        replace(settings, redis_url_file=tmp_path / "url")


def test_the_file_holds_the_url_and_a_missing_ca_is_named(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("rediss://:secret@localhost/2\n")
    settings = settings_for(tmp_path, "postgresql:///x", tmp_path, redis_url_file=tmp_path / "url")
    address = settings.redis()
    assert address is not None
    assert (address.database, address.password) == (2, "secret")
    with pytest.raises(SettingsError, match="redis_ca"):
        replace(settings, redis_ca=tmp_path / "none").redis()


def test_no_password_is_shown() -> None:
    clock = FakeClock()
    url = "redis://:topsecret@localhost"
    assert "topsecret" not in repr(parse_redis_url(url))
    assert "topsecret" not in repr(store(url, clock))


async def test_a_wrong_password_is_away_and_not_logged(
    redis_server: RedisServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one = store(redis_server.url().replace(redis_server.password, "topsecret"), clock)
    with pytest.raises(StoreUnavailableError) as told:
        await one.burn("state", "k")
    running = asyncio.ensure_future(one.run())
    with one.follow("news") as following:
        async with asyncio.timeout(10):
            await anext(following)  # LOST
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await one.close()
    assert "topsecret" not in str(told.value) + caplog.text


async def test_sites_with_prefixes_of_their_own_do_not_meet(
    redis_server: RedisServer, clock: FakeClock
) -> None:
    one, other = (store(redis_server.url(), clock, prefix="t" + secrets.token_hex(4)) for _ in range(2))
    limit = Limit("t", burst=1, refill_s=100.0)
    await one.put("state", "key", b"x", 60.0)
    assert await other.burn("state", "key") is None
    assert (await one.take([(limit, "x")])).refused is None
    assert (await other.take([(limit, "x")])).refused is None
    assert (await one.take([(limit, "x")])).refused is not None
    await one.close()
    await other.close()


async def test_every_key_dies_by_itself_and_shows_no_secret(
    redis_server: RedisServer, clock: FakeClock
) -> None:
    prefix = "t" + secrets.token_hex(4)
    one = store(redis_server.url(), clock, prefix=prefix)
    await one.put("state", "very-secret-state", b"x", 60.0)
    await one.take([(Limit("t", burst=3, refill_s=10.0), "x")])
    keys = [key.decode() async for key in one._client.scan_iter(match=f"{prefix}:*")]
    assert len(keys) == 2
    for key in keys:
        assert "very-secret-state" not in key
        life_ms = await one._client.pttl(key)
        assert 0 < life_ms <= 125_000
    await one.close()


async def test_a_full_redis_refuses_and_is_away(redis_server: RedisServer, clock: FakeClock) -> None:
    one = store(redis_server.url(), clock)
    try:
        assert redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction") == "+OK"
        assert redis_server.ask("CONFIG", "SET", "maxmemory", "1") == "+OK"
        with pytest.raises(StoreUnavailableError):
            await one.put("state", "key", b"x", 60.0)
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory", "64mb")
        redis_server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    await one.put("state", "key", b"x", 60.0)
    await one.close()


async def test_over_tls_with_a_ca_of_its_own(tls_redis: tuple[RedisServer, Path], clock: FakeClock) -> None:
    server, ca = tls_redis
    one = store(server.url(tls=True, host="localhost"), clock, ca)
    await one.put("state", "key", b"x", 60.0)
    assert await one.burn("state", "key") == b"x"
    await one.close()
    for url, trusted in ((server.url(tls=True, host="localhost"), None), (server.url(tls=True), ca)):
        stranger = store(url, clock, trusted)  # an unknown CA; a name that the certificate does not hold
        with pytest.raises(StoreUnavailableError):
            await stranger.burn("state", "key")
        await stranger.close()


RIGHTS = "+set +getdel +get +eval +evalsha +script|load +publish +psubscribe +ping +auth +select"


def test_the_runbook_names_the_rights() -> None:
    assert RIGHTS in (ROOT / "docs/runbook.md").read_text("utf-8")


async def test_a_user_with_the_rights_of_the_runbook_is_enough(
    redis_server: RedisServer, clock: FakeClock
) -> None:
    """The commands, keys and channels that docs/runbook.md names, and nothing else."""
    prefix = "t" + secrets.token_hex(4)
    user = (
        "ACL",
        "SETUSER",
        prefix,
        "on",
        ">secret",
        "resetkeys",
        f"~{prefix}:*",
        f"&{prefix}:wake:*",
        "-@all",
    )
    assert redis_server.ask(*user, *RIGHTS.split()) == "+OK"
    url = redis_server.url(database=1).replace(f":{redis_server.password}@", f"{prefix}:secret@")
    one = store(url, clock, prefix=prefix)
    running = asyncio.ensure_future(one.run())
    await one.put("state", "key", b"x", 60.0)
    assert await one.burn("state", "key") == b"x"
    assert (await one.take([(Limit("t", burst=1, refill_s=10.0), "x")])).refused is None
    with one.follow("news") as following:
        async with asyncio.timeout(10):
            assert await anext(following) is Heard.LIVE
            await one.wake("news")
            assert await anext(following) is Heard.WAKE
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await one.close()
