"""Renewal: when, by challenge, long after expiry, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.clock import FakeClock
from tests.tunnel_agent.authority import DEVICE, NOW, OTHER_KEY, Authority
from tests.tunnel_agent.gateway_double import GatewayDouble, foreign_certificate
from tunnel_agent.certificate import read_certificate
from tunnel_agent.errors import AgentError
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.policy import renewal as policy
from tunnel_agent.renewal import keep_renewed, renew

DAY = 86400.0


@pytest.fixture
def gateway() -> Iterator[GatewayDouble]:
    double = GatewayDouble(Authority())
    yield double
    double.close()


def enrolled(
    gateway: GatewayDouble, tmp_path: Path, start: float, end: float
) -> tuple[Identity, IdentityStore]:
    identity = gateway.authority.identity(("wss://old.test/tunnel",))
    pem = gateway.authority.certificate(identity.key, start, end)
    certificate = read_certificate(pem, identity.key)
    identity = replace(identity, gateway_url=gateway.url, certificate=certificate)
    gateway.public = identity.key._private.public_key()
    store = IdentityStore(tmp_path)
    store.save(identity)
    return identity, store


def test_two_thirds_of_the_lifetime_and_a_spread() -> None:
    assert policy.renewal_time(0, 90, 0.0) == 60
    assert policy.renewal_time(0, 90, 1.0) == pytest.approx(69)
    assert policy.renewal_time(100, 50, 0.5) == 100


def test_retries_slow_down_to_an_hour() -> None:
    delays = [policy.retry_delay(failures, 1.0) for failures in range(1, 12)]
    assert delays[0] == 60
    assert delays == sorted(delays)
    assert delays[-1] == 3600


@pytest.mark.parametrize("end", [10 * DAY, -400 * DAY], ids=["in time", "a year in a drawer"])
def test_a_certificate_is_renewed_by_challenge(gateway: GatewayDouble, tmp_path: Path, end: float) -> None:
    identity, store = enrolled(gateway, tmp_path, -500 * DAY, end)
    gateway.changes = {"tunnel_urls": ["wss://new.test/tunnel"], "server_ca": "PEM of a CA"}
    renewed = renew(identity, store, GatewayClient(gateway.url))
    assert renewed.certificate.not_after == NOW + DAY
    stored = store.load()
    assert stored.certificate == renewed.certificate
    assert stored.tunnel_urls == ("wss://new.test/tunnel",)
    assert stored.server_ca == "PEM of a CA"
    assert stored.key.to_pem() == identity.key.to_pem()


def test_a_newer_key_list_comes_with_it_and_an_older_one_does_not(
    gateway: GatewayDouble, tmp_path: Path
) -> None:
    identity, store = enrolled(gateway, tmp_path, -9 * DAY, DAY)
    gateway.changes = {"key_list": gateway.authority.key_list_text(5, [OTHER_KEY.jwk()]).decode()}
    renewed = renew(identity, store, GatewayClient(gateway.url))
    assert renewed.key_list.number == 5
    gateway.changes = {"key_list": gateway.authority.key_list_text(4).decode()}
    assert renew(renewed, store, GatewayClient(gateway.url)).key_list.number == 5
    assert store.load().key_list.number == 5


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("", (403, {"code": "revoked", "detail": "The device was revoked."})),
        ("/challenge", (404, {"code": "not_found", "detail": "There is no such device."})),
        ("/challenge", (200, {"nonce": "short"})),
        ("/challenge", (200, {"nonce": 7})),
        ("/challenge", (200, {"nonce": "ü"})),
        ("", (200, {"certificate": foreign_certificate(Authority())})),
        ("", (200, {})),
        ("", (500, {})),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    gateway: GatewayDouble, tmp_path: Path, path: str, answer: tuple[int, dict[str, object]]
) -> None:
    identity, store = enrolled(gateway, tmp_path, -9 * DAY, DAY)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    gateway.answers[f"/v1/devices/{DEVICE}/certificate{path}"] = answer
    with pytest.raises(AgentError):
        renew(identity, store, GatewayClient(gateway.url))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


async def test_the_agent_waits_for_its_time_and_tries_again(gateway: GatewayDouble, tmp_path: Path) -> None:
    identity, store = enrolled(gateway, tmp_path, 0, 9 * DAY)
    clock, slept = FakeClock(wall=NOW), 0.0
    gateway.answers[f"/v1/devices/{DEVICE}/certificate"] = 503, {}
    done: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        clock.advance(seconds)
        if len(gateway.requests) >= 6:  # challenge and renewal, three times
            gateway.answers.clear()
        await asyncio.sleep(0)

    def take(renewed: Identity) -> None:
        done.set_result(renewed)
        raise asyncio.CancelledError  # the loop is for ever

    with pytest.raises(asyncio.CancelledError):
        await keep_renewed(lambda: identity, store, clock, take, sleep=sleep, draw=lambda: 0.5)
    expected = policy.renewal_time(0, 9 * DAY, 0.5)
    assert expected <= slept <= expected + 3 * 120
    assert done.result().certificate != identity.certificate
    assert len(gateway.requests) == 8
