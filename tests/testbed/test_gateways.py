"""Real gateways as processes: with settings of the test's own, several behind nginx, one that dies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from testbed.gateways import Gateways
from testbed.processes import short_folder, started
from testbed.waiting import eventually


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    settings = {"link_ttl_s": 7, "database_pool_max": 3}
    with short_folder() as folder, started(Gateways(folder, replicas=2, settings=settings)) as running:
        yield running


def test_a_login_at_one_replica_holds_at_the_other(gateways: Gateways) -> None:
    one, other = gateways.person("gateway-0"), gateways.person("gateway-1")
    token = one.log_in()
    assert one.call("GET", "/v1/me")["username"] == "admin"
    assert other.http.get("/v1/me").status_code == 401
    program = other.bearer(token)
    assert program.call("GET", "/v1/me")["username"] == "admin"
    program.close()


def test_settings_of_the_test_win(gateways: Gateways) -> None:
    assert "link_ttl_s = 7\n" in gateways.config().read_text()


def test_behind_nginx_a_replica_may_die_and_come_back(gateways: Gateways) -> None:
    owner = gateways.owner()
    gateways.processes.kill("gateway-1")
    for _ in range(4):
        assert owner.call("GET", "/v1/devices")["items"] == []
    gateways.processes.again("gateway-1")
    gateways.wait_ready("gateway-1")
    again = gateways.owner("gateway-1")
    assert again.devices() == []
    eventually(
        "it counts its logins", lambda: gateways.metric("gateway-1", "towline_gateway_logins_total{") >= 1
    )


def test_a_failed_test_can_show_every_log(gateways: Gateways) -> None:
    shown = gateways.logs()
    assert "== gateway-0.log" in shown
    assert "== gateway-1.log" in shown


def test_people_come_from_addresses_of_their_own(gateways: Gateways) -> None:
    for address in ("127.0.0.21", "127.0.0.22"):
        gateways.owner(address=address)
        eventually("it is logged", partial(_is_logged, gateways, address))


def _is_logged(gateways: Gateways, address: str) -> bool:
    return f'"client": "{address}"' in gateways.logs()


def test_over_tls_with_a_name_of_its_own() -> None:
    name = "gateway.example.com"
    with short_folder() as folder, started(Gateways(folder, https_host=name)) as gateways:
        owner = gateways.owner()
        assert owner.gateway.startswith(f"https://{name}:")
        assert list(owner.http.cookies) == ["__Host-towline_login"]
        assert owner.devices() == []
