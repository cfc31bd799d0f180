"""A whole site as in production, each process by its own command and settings file, behind real proxies.

::

    nginx (http)   ─┐                    ┌─ node a   plain HTTP for visitors, behind_tls; devices over TLS
    caddy          ─┴─ X-Forwarded-For ──┴─ node b   the same
    nginx (stream) ─┐
    haproxy        ─┴─ PROXY v1, v2 ─────── node c   its own TLS on both listeners

Two agents, each a device: one dials through nginx and haproxy, the other through caddy and nginx's stream.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.randomness import new_label
from testbed import ops
from testbed.certificates import Authority
from testbed.people import Link, session_wish
from testbed.ports import LOOPBACK, free_ports
from testbed.postgres_server import PostgresServer
from testbed.processes import START_S, Processes
from testbed.programs import program
from testbed.services import enrol, issue_node_certificate, service_argv
from testbed.settings_tables import (
    GatewayPorts,
    NodePorts,
    agent_table,
    gateway_table,
    node_table,
    write_table,
)
from testbed.waiting import eventually
from tests.deployment import fronts
from tests.deployment.client import Client
from tests.deployment.device import Device

GATEWAY, NODES, DOMAIN = (
    "gateway.example.com",
    ("node-a.example.com", "node-b.example.com"),
    "tunnel.example.net",
)
RECOVERY_S = 80.0  # agents draw their pause from up to 2 s, then 4, 8, 16, 32, as long as a node is away
FRONTS = ("nginx", "caddy", "haproxy", "nginx-stream")
# Which device comes in through which front: two devices of three tunnels each.
DEVICE_OF = {"nginx": "one", "haproxy": "one", "caddy": "two", "nginx-stream": "two"}


class Site:
    """Start it once; tests leave it as they found it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = Device()
        self.authority = Authority(folder)
        self.postgres = PostgresServer(folder / "pg")
        self.https: dict[str, int] = {}
        self.http: dict[str, int] = {}
        self.nodes: dict[str, NodePorts] = {}
        self.device_ids: dict[str, str] = {}
        self.trusted = folder / "trusted.pem"
        self.processes = Processes(folder)
        self.check_runs, self.pid = self.processes.check_runs, self.processes.pid
        self.signal, self.stop = self.processes.signal, self.processes.stop
        self._ports()

    def _ports(self) -> None:
        found = iter(free_ports(24))
        for front in FRONTS:
            self.https[front], self.http[front] = next(found), next(found)
        for node in "abc":
            self.nodes[node] = NodePorts(next(found), next(found), next(found))
        self.gateway = GatewayPorts(next(found), next(found), next(found))
        self.caddy_admin, self.gateway_tls = next(found), next(found)

    # Start and end

    def start(self) -> None:
        (self.folder / "pg").mkdir()
        asyncio.run(self.postgres.start())
        self.certificate = self.authority.issue("gateway", GATEWAY)
        self.wildcard = self.authority.issue("wildcard", f"*.{DOMAIN}")
        self.node_certificate = self.authority.issue("nodes", *NODES)
        self._start_gateway()
        self._start_nodes()
        self._start_fronts()
        self._start_agents()

    def close(self) -> None:
        try:
            self.processes.close()
        finally:
            self.postgres.stop()
            self.device.close()

    @contextmanager
    def away(self, node: str) -> Iterator[None]:
        """Without one node, for a while; afterwards it is back, and proxies lead people there."""
        assert self.stop(f"node-{node}") == 0
        try:
            yield
        finally:
            self.processes.again(f"node-{node}")
            self._wait_ready(f"node-{node}", self.nodes[node].ops)
            eventually("both devices are back", lambda: self.tunnels(node) == 2, RECOVERY_S)
            for front in ("nginx", "caddy"):
                eventually(f"{front} trusts {node} again", lambda: self._leads(front, node), RECOVERY_S)  # noqa: B023

    def _leads(self, front: str, node: str) -> bool:
        """Whether a stranger with a new name, who is led to any node, came to this one."""
        strangers = 'towline_own_answers_total{code="no_session"}'
        before = self.metric(node, strangers)
        stranger = self.client(front, f"{new_label()}.{DOMAIN}")
        try:
            stranger.get("/")
        finally:
            stranger.close()
        return self.metric(node, strangers) > before

    def logs(self) -> str:
        return self.processes.logs()

    # The product

    def _start_gateway(self) -> None:
        table = gateway_table(
            self.folder,
            self.gateway,
            public_url=f"https://{GATEWAY}",
            database_url=self.postgres.url(self.postgres.create_database()),
            tunnel_urls=[f"wss://{name}/tunnel" for name in NODES],
            agents_trust_server_ca=False,
            tunnel_domain=DOMAIN,
            trusted_proxies=[LOOPBACK],
        )
        config = write_table(self.folder / "gateway.toml", table)
        self.processes.run("gateway", service_argv("gateway", config))
        self._wait_ready("gateway", self.gateway.ops)

    def _start_nodes(self) -> None:
        for name in self.nodes:
            config = write_table(self.folder / f"node-{name}.toml", self._node_table(name))
            self.processes.run(f"node-{name}", service_argv("tunnel_server", config))
        for name, ports in self.nodes.items():
            self._wait_ready(f"node-{name}", ports.ops)

    def _node_table(self, name: str) -> dict[str, Any]:
        own, ports = self.folder / f"node-{name}", self.nodes[name]
        visitors: dict[str, Any] = {"behind_tls": True}
        tunnels: dict[str, Any] = {}
        if name == "c":
            visitors = {"certificate": self.wildcard.chain, "key": self.wildcard.key, "proxy_protocol": True}
            tunnels = {"certificate": self.node_certificate.chain, "key": self.node_certificate.key}
            tunnels["proxy_protocol"] = True
        proxies = {"trusted_proxies": [LOOPBACK]}
        visitors |= {"listen": f"{LOOPBACK}:{ports.visitors}", "domain": DOMAIN} | proxies
        tunnels |= {"listen": f"{LOOPBACK}:{ports.devices}", "server_names": list(NODES)} | proxies
        return node_table(
            issue_node_certificate(self.folder / "gateway.toml", name, own, NODES),
            name,
            ports.ops,
            internal_port=self.gateway.internal,
            gateway_url=f"https://{GATEWAY}",
            visitors=visitors,
            tunnels=tunnels,
        )

    def _wait_ready(self, name: str, port: int) -> None:
        self.processes.wait_ready(name, lambda: ops.is_ready(port))

    # The proxies

    def _backends(self, first: str, second: str) -> fronts.Backends:
        pair = [self.nodes[first], self.nodes[second]]
        return fronts.Backends(
            gateway=f"{LOOPBACK}:{self.gateway.public}",
            visitors=(f"{LOOPBACK}:{pair[0].visitors}", f"{LOOPBACK}:{pair[1].visitors}"),
            devices=(f"{LOOPBACK}:{pair[0].devices}", f"{LOOPBACK}:{pair[1].devices}"),
            server_ca=self.folder / "keys" / "server_ca.crt",
            gateway_certificate=self.certificate,
            wildcard=self.wildcard,
            node_certificate=self.node_certificate,
        )

    def _start_fronts(self) -> None:
        ending, passing = self._backends("a", "b"), self._backends("c", "c")
        http, https = self.http, self.https
        for name in ("nginx", "haproxy", "caddy"):
            (self.folder / name).mkdir()
        argv = fronts.nginx_argv(
            self.folder / "nginx",
            fronts.nginx_http(ending, http=http["nginx"], https=https["nginx"]),
            fronts.nginx_stream(passing, https=https["nginx-stream"], gateway_tls=self.gateway_tls),
            fronts.gateway_tls_server(passing, self.gateway_tls),
        )
        self.processes.run("nginx", argv)
        self.processes.run(
            "haproxy",
            fronts.haproxy_argv(
                self.folder / "haproxy", passing, http=http["haproxy"], https=https["haproxy"]
            ),
        )
        environment = fronts.caddy_environment(
            self.folder / "caddy", ending, http=http["caddy"], https=https["caddy"], admin=self.caddy_admin
        )
        self.processes.run("caddy", fronts.caddy_argv(), environment)
        root = eventually("caddy has a CA", lambda: self._caddy_root(), START_S)
        self.trusted.write_text(self.authority.ca.read_text() + root)
        for front in FRONTS:
            eventually(f"{front} answers", lambda front=front: self._answers(front), START_S)  # type: ignore[misc]

    def _caddy_root(self) -> str:
        return fronts.caddy_ca(self.folder / "caddy").read_text()

    def _answers(self, front: str) -> bool:
        self.check_runs(front.partition("-")[0])
        client = self.client(front, GATEWAY)
        try:
            return client.get("/livez")[0] == 200
        finally:
            client.close()

    # The devices

    def _start_agents(self) -> None:
        owner = self.client("nginx", GATEWAY, address="127.0.0.6")
        self.owner_cookie = owner.log_in()
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"{LOOPBACK} {name}\n" for name in ("localhost", GATEWAY, *NODES)))
        for name in ("one", "two"):
            ending, passing = [front for front, device in DEVICE_OF.items() if device == name]
            urls = [
                f"wss://{NODES[0]}:{self.https[ending]}/tunnel",
                f"wss://{NODES[1]}:{self.https[ending]}/tunnel",
            ]
            urls.append(f"wss://{NODES[0]}:{self.https[passing]}/tunnel")
            self._enrol(owner, name, urls, gateway=f"https://{GATEWAY}:{self.https[ending]}")
        owner.close()
        for name in ("a", "b"):
            eventually(f"both devices at node {name}", lambda name=name: self.tunnels(name) == 2, START_S)  # type: ignore[misc]
        eventually("both devices at node c", lambda: self.tunnels("c") == 2, START_S)

    def _enrol(self, owner: Client, name: str, urls: list[str], *, gateway: str) -> None:
        services: dict[str, dict[str, Any]] = {
            "web": {"address": self.device.web, "forwarded_headers": True},
            "echo": {"address": self.device.echo},
        }
        table = agent_table(self.folder / f"agent-{name}", services, server_urls=urls)
        config = write_table(self.folder / f"agent-{name}.toml", table)
        token = owner.call("POST", "/v1/registration-tokens", {"approve": True})["token"]
        self.device_ids[name] = enrol(
            gateway,
            token,
            config,
            hardware_id=f"test-{name}",
            within=self._with_hosts,
            environment=self._trust(),
        )
        argv = self._with_hosts(*service_argv("tunnel_agent", config))
        self.processes.run(f"agent-{name}", argv, self._trust())

    def _trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.trusted)}

    def _with_hosts(self, *argv: str) -> list[str]:
        """The names of the shipped files lead here, for this process alone: a mount namespace of its own."""
        assert os.geteuid() == 0, "this test needs root: a process gets an /etc/hosts of its own"
        script = f'mount --bind "{self.folder / "hosts"}" /etc/hosts && exec "$@"'
        return [program("unshare", "util-linux"), "-m", "sh", "-c", script, "sh", *argv]

    def tunnels(self, node: str) -> int:
        return int(self.metric(node, "towline_tunnels "))

    def metric(self, node: str, start: str) -> float:
        """The sum of a node's samples that begin with ``start``."""
        return ops.metric(self.nodes[node].ops, start)

    # People

    def client(self, front: str, host: str, **options: Any) -> Client:
        return Client(self.trusted, self.https[front], host, **options)

    def link(self, front: str, service: str = "web") -> tuple[str, str]:
        """(host, token) of a fresh session with the device behind ``front``."""
        owner = self.client(front, GATEWAY, address="127.0.0.6")
        owner.cookie = self.owner_cookie
        path = f"/v1/devices/{self.device_ids[DEVICE_OF[front]]}/sessions"
        link = Link.parse(owner.call("POST", path, session_wish(service))["url"])
        owner.close()
        return link.host, link.token

    def visitor(self, front: str, service: str = "web", **options: Any) -> Client:
        """Somebody who opened a link."""
        host, token = self.link(front, service)
        client = self.client(front, host, **options)
        answer = client.enter(token)
        assert answer.status == 303, answer.status
        return client
