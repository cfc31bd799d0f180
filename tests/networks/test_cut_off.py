"""A gateway on a machine whose network is cut: its administrator logs in all the same (row B7)."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.login.provider import DEADLINE_S
from testbed.postgres_server import PostgresServer
from testbed.processes import Processes, short_folder
from testbed.services import service_argv
from testbed.settings_tables import ADMIN, PASSWORD, GatewayPorts, gateway_table, write_table
from tests.networks.topology import PREFIX, Namespace, remove_leftovers, require_root

# A namespace of its own has all ports. Its only device is loopback: whatever is asked for, no packet leaves.
PORTS = GatewayPorts(public=8080, internal=9443, ops=9001)
ORIGIN = f"http://localhost:{PORTS.public}"
CALL_S = 20.0


class Island:
    """A gateway that was started there, and lets people log in by Google as well."""

    def __init__(self, folder: Path) -> None:
        require_root()
        remove_leftovers()
        self.postgres = PostgresServer(folder)  # on a Unix socket
        self.processes = Processes(folder)
        self._folder = folder
        self.net = Namespace(f"{PREFIX}{os.getpid()}-island", {})
        self.database_url = ""

    def start(self) -> None:
        asyncio.run(self.postgres.start())
        self.database_url = self.postgres.url(self.postgres.create_database())
        (self._folder / "client-secret").write_text("of no use here")
        google = {
            "preset": "google",
            "client_id": "towline",
            "client_secret_file": self._folder / "client-secret",
        }
        table = gateway_table(
            self._folder,
            PORTS,
            public_url=ORIGIN,
            database_url=self.database_url,
            tunnel_urls=["wss://localhost:8082/tunnel"],
            login_providers={"google": google},
        )
        config = write_table(self._folder / "gateway.toml", table)
        self.processes.run("gateway", self.net.argv(*service_argv("gateway", config)))
        self.processes.wait_ready("gateway", lambda: self.ask("GET", "/readyz")[0] == 200)

    def close(self) -> None:
        try:
            self.processes.close()
            self.postgres.stop()
        finally:
            self.net.remove()

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Of somebody who sits at that machine."""
        connection = http.client.HTTPConnection("localhost", PORTS.public, timeout=CALL_S)
        connection.sock = self.net.connect("127.0.0.1", PORTS.public, CALL_S)
        sent = {"Content-Type": "application/json", "Origin": ORIGIN, **headers}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def island() -> Iterator[Island]:
    with short_folder("cut-") as folder:
        one = Island(folder)
        try:
            one.start()
            yield one
        finally:
            one.close()


def test_nothing_gets_out(island: Island) -> None:
    assert island.net.ip("route", "show", "table", "main") == ""
    with pytest.raises(OSError, match="Network is unreachable"):
        island.net.connect("192.0.2.1", 443, CALL_S)


def test_the_administrator_logs_in_without_a_network(island: Island) -> None:
    status, headers, _ = island.ask("POST", "/v1/login", {"username": ADMIN, "password": PASSWORD})
    assert status == 200
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, _, told = island.ask("GET", "/v1/me", Cookie=cookie)
    assert (status, json.loads(told)["username"]) == (200, ADMIN)
    assert island.ask("GET", "/v1/devices", Cookie=cookie)[0] == 200
    wrong = island.ask("POST", "/v1/login", {"username": ADMIN, "password": PASSWORD + "x"})
    assert (wrong[0], json.loads(wrong[2])["code"]) == (401, "wrong_login")


def test_what_the_password_is_compared_with_is_a_hash_on_this_machine(island: Island) -> None:
    async def stored() -> str:
        connection = await asyncpg.connect(island.database_url)
        try:
            kept: str = await connection.fetchval(
                "SELECT password_hash FROM users WHERE username = $1", ADMIN
            )
            return kept
        finally:
            await connection.close()

    kept = asyncio.run(stored())
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept


def test_a_provider_that_cannot_be_reached_is_told_and_keeps_nobody(island: Island) -> None:
    began = time.monotonic()
    status, _, told = island.ask("GET", "/login/with/google", Accept="application/json")
    assert (status, json.loads(told)["code"]) == (503, "provider_unavailable")
    assert time.monotonic() - began < DEADLINE_S
    assert island.ask("POST", "/v1/login", {"username": ADMIN, "password": PASSWORD})[0] == 200
