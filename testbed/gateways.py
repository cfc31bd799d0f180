"""A gateway of one or more replicas, with any settings, that tests start, break and talk to.

::

    with started(Gateways(folder, replicas=2, settings={"link_ttl_s": 5})) as gateways:
        owner = gateways.owner()
        owner.http.get("/v1/me")
        gateways.processes.kill("gateway-1")

Replicas share one database and one keys folder; nginx stands before them as soon as there are two, and in any
case where people come over TLS (`https_host`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from testbed import ops
from testbed.certificates import Authority
from testbed.nginx import gateways_behind, nginx_argv
from testbed.people import Person
from testbed.ports import LOOPBACK, free_port
from testbed.postgres_server import PostgresServer
from testbed.processes import Processes
from testbed.services import service_argv
from testbed.settings_tables import GatewayPorts, gateway_table, write_table
from testbed.waiting import eventually

TUNNEL_URL = (
    "wss://localhost:8082/tunnel"  # what agents are told to dial; nothing listens unless a test says so
)


class Gateways:
    """`start` it and `close` it; the processes are named gateway-0, gateway-1 …, and nginx."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        settings: Mapping[str, Any] | None = None,
        database_url: str | None = None,
        https_host: str | None = None,
    ) -> None:
        """`settings` are added to every replica's file and win. `database_url` of a server that runs; without
        one the run has an embedded PostgreSQL of its own, below `folder` (which needs a short path).
        `https_host` is its public name: nginx ends TLS for it, with a certificate of `authority`.
        """
        self.folder = folder
        self.processes = Processes(folder)
        self.ports = [GatewayPorts.free() for _ in range(replicas)]
        self.authority = Authority(folder)
        self._https_host = https_host
        self._has_front = replicas > 1 or https_host is not None
        self._front = free_port() if self._has_front else self.ports[0].public
        self._settings = dict(settings or {})
        self._database_url = database_url
        self._postgres: PostgresServer | None = None  # set when it is its own
        self._people = ExitStack()

    @property
    def names(self) -> list[str]:
        return [f"gateway-{number}" for number in range(len(self.ports))]

    @property
    def url(self) -> str:
        """Its public URL."""
        origin = "http://localhost" if self._https_host is None else f"https://{self._https_host}"
        return str(self._settings.get("public_url", f"{origin}:{self._front}"))

    def start(self) -> None:
        """One after the other: the first makes keys and tables, and finds nobody who does so too."""
        for name, ports in zip(self.names, self.ports, strict=True):
            config = write_table(self.folder / f"{name}.toml", self._table(ports))
            self.processes.run(name, service_argv("gateway", config))
            self.wait_ready(name)
        if self._has_front:
            self._start_front()

    def wait_ready(self, name: str) -> None:
        """As an operator sees it; after `processes.again(name)` too."""
        port = self.ports[self.names.index(name)].ops
        self.processes.wait_ready(name, lambda: ops.is_ready(port))

    def _start_front(self) -> None:
        backends = [f"{LOOPBACK}:{ports.public}" for ports in self.ports]
        certificate = None
        if self._https_host is not None:
            issued = self.authority.issue("front", self._https_host)
            certificate = (issued.chain, issued.key)
        site = gateways_behind(f"{LOOPBACK}:{self._front}", backends, certificate)
        self.processes.run("nginx", nginx_argv(self.folder, site))
        stranger = self.person()
        eventually("nginx leads to a gateway", lambda: stranger.http.get("/livez").status_code == 200)

    def config(self, name: str = "gateway-0") -> Path:
        """A replica's settings file, for the commands that take one."""
        return self.folder / f"{name}.toml"

    def person(self, name: str | None = None, *, address: str | None = None) -> Person:
        """A stranger with a browser, at one replica where it is named, from an address of 127/8; closed with
        the gateways.
        """
        assert name is None or self._https_host is None, "a replica itself speaks no TLS"
        port = self._front if name is None else self.ports[self.names.index(name)].public
        trust = None if self._https_host is None else self.trust
        made = Person(self.url, port=port, trust=trust, address=address)
        self._people.callback(made.close)
        return made

    def owner(self, name: str | None = None, *, address: str | None = None) -> Person:
        """The administrator, logged in."""
        made = self.person(name, address=address)
        made.log_in()
        return made

    @property
    def trust(self) -> ssl.SSLContext:
        """For clients of `https_host`."""
        return ssl.create_default_context(cafile=self.authority.ca)

    def metric(self, name: str, start: str) -> float:
        """The sum of a replica's samples that begin with ``start``."""
        return ops.metric(self.ports[self.names.index(name)].ops, start)

    def kill_database(self) -> None:
        """As a crash does; it is its own PostgreSQL."""
        assert self._postgres is not None, "the database is another's"
        self._postgres.kill()

    def logs(self) -> str:
        return self.processes.logs()

    def close(self) -> None:
        self._people.close()
        try:
            self.processes.close()
        finally:
            if self._postgres is not None:
                self._postgres.stop()

    def _table(self, ports: GatewayPorts) -> dict[str, Any]:
        if self._database_url is None:
            self._database_url = self._own_database()
        return gateway_table(
            self.folder,
            ports,
            public_url=self.url,
            database_url=self._database_url,
            tunnel_urls=[TUNNEL_URL],
            **{"tunnel_scheme": "http", "trusted_proxies": [LOOPBACK], **self._settings},
        )

    def _own_database(self) -> str:
        (self.folder / "pg").mkdir()
        self._postgres = PostgresServer(self.folder / "pg")
        asyncio.run(self._postgres.start())
        return self._postgres.url(self._postgres.create_database())
