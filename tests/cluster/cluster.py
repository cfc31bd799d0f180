"""One gateway, two nodes, agents that hold a tunnel to both, and nginx with the shipped file in front.

::

    visitor ── nginx ──┬── node a ──┐
                       └── node b ──┴── agent ── device

Each process is started by its own command and settings file. Plain `*.localhost`: TLS is tested elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.randomness import new_label
from testbed import ops
from testbed.nginx import nginx_argv
from testbed.people import Visitor, entered, session_wish
from testbed.ports import LOOPBACK, free_ports
from testbed.postgres_server import PostgresServer
from testbed.processes import ROOT, Processes
from testbed.services import enrol, issue_node_certificate, service_argv
from testbed.settings_tables import (
    ADMIN,
    PASSWORD,
    GatewayPorts,
    NodePorts,
    agent_table,
    gateway_table,
    node_table,
    write_table,
)
from testbed.waiting import eventually
from tests.deployment.device import Device
from tests.deployment.fronts import replaced
from towline.gateway_client import Credentials, GatewayClient

NODES = ("a", "b")
MOST_SPREAD = 64  # people until each node has some: one chance in 2^60 or so to be too few
DRAIN_S = 20.0
ASK_S = 5.0


def front_file(front: int, backends: tuple[int, int], folder: Path) -> str:
    """nginx's http block: the visitors' part of the shipped file, without the TLS around it."""
    text = (ROOT / "infra" / "nginx" / "towline.conf").read_text()
    parts = []
    for start in ("map $http_upgrade", "limit_conn_zone", "upstream towline_visitors", "# Visitors"):
        pattern = (
            rf"^{re.escape(start)}[^;]*?;$" if start == "limit_conn_zone" else rf"^{re.escape(start)}.*?^}}$"
        )
        found = re.search(pattern, text, re.DOTALL | re.MULTILINE)
        assert found is not None, start
        parts.append(found[0])
    shipped = replaced(
        "\n".join(parts),
        {
            "10.0.0.11:8081": f"{LOOPBACK}:{backends[0]}",
            "10.0.0.12:8081": f"{LOOPBACK}:{backends[1]}",
            "*.tunnel.example.net": "*.localhost",
        },
    )
    shipped = re.sub(r"^ *(listen \[::\]|ssl_).*\n", "", shipped, flags=re.MULTILINE)
    shipped = re.sub(r"^( *listen) 443[^;]*;", rf"\1 {LOOPBACK}:{front};", shipped, flags=re.MULTILINE)
    return (
        "  log_format tried '$msec $status $request_method $host $uri $upstream_addr $upstream_status';\n"
        f"  access_log {folder}/nginx-access.log tried;\n{shipped}"
    )


class Cluster:
    """Start it once; what a test takes away it brings back."""

    def __init__(
        self,
        folder: Path,
        *,
        agents: int = 2,
        gateway: Mapping[str, Any] | None = None,
        tunnels: Mapping[str, Any] | None = None,
        node_program: str = "tunnel_server",
    ) -> None:
        """`gateway` and `tunnels` are added to their settings."""
        self.folder = folder
        self._settings = {"gateway": dict(gateway or {}), "tunnels": dict(tunnels or {})}
        self._node_program = node_program
        self.device = Device()
        self.device_ids: list[str] = []
        self._agents = agents
        self._enrolled = 0
        self._postgres = PostgresServer(folder / "pg")
        self.processes = Processes(folder)
        self.again, self.kill = self.processes.again, self.processes.kill
        ports = iter(free_ports(10))
        self.nodes = {name: NodePorts(next(ports), next(ports), next(ports)) for name in NODES}
        self._gateway, self.front = GatewayPorts(next(ports), next(ports), next(ports)), next(ports)
        self.gateway_ops = self._gateway.ops
        self.api = GatewayClient(Credentials(self.gateway_url, ADMIN, PASSWORD))

    @property
    def gateway_url(self) -> str:
        return f"http://localhost:{self._gateway.public}"

    # Processes

    def start(self) -> None:
        (self.folder / "pg").mkdir()
        asyncio.run(self._postgres.start())
        self._start_gateway()
        for name in NODES:
            self.processes.run(f"node-{name}", service_argv(self._node_program, self._node(name)))
        for name in NODES:
            self.wait_ready(name)
        backends = (self.nodes["a"].visitors, self.nodes["b"].visitors)
        self.processes.run("nginx", nginx_argv(self.folder, front_file(self.front, backends, self.folder)))
        for _ in range(self._agents):
            self.add_agent()
        self.wait_tunnels()

    def heal(self) -> None:
        """Start what a failed test left dead: the gateway, nodes, nginx."""
        names = ("gateway", *(f"node-{node}" for node in NODES), "nginx")
        dead = [name for name in names if self.processes[name].poll() is not None]
        for name in dead:
            self.again(name)
        if dead:
            self.wait_ops("gateway", self.gateway_ops)
            for node in NODES:
                self.wait_ready(node)
            self.wait_tunnels()

    def close(self) -> None:
        try:
            self.processes.close()
        finally:
            self._postgres.stop()
            self.device.close()

    def stop(self, name: str) -> float:
        """SIGTERM; the seconds until it was gone, in order."""
        begun = time.monotonic()
        assert self.processes.stop(name) == 0, self.logs()
        return time.monotonic() - begun

    def logs(self) -> str:
        return self.processes.logs()

    # The product

    def _start_gateway(self) -> None:
        table = gateway_table(
            self.folder,
            self._gateway,
            public_url=self.gateway_url,
            database_url=self._postgres.url(self._postgres.create_database()),
            tunnel_urls=[f"wss://localhost:{self.nodes[name].devices}/tunnel" for name in NODES],
            tunnel_scheme="http",
            tunnel_domain="localhost",
            tunnel_port=self.front,
            **self._settings["gateway"],
        )
        config = write_table(self.folder / "gateway.toml", table)
        self.processes.run("gateway", service_argv("gateway", config))
        self.wait_ops("gateway", self.gateway_ops)

    def _node(self, name: str) -> Path:
        own, ports = self.folder / f"node-{name}", self.nodes[name]
        table = node_table(
            issue_node_certificate(self.folder / "gateway.toml", name, own, ["localhost"]),
            name,
            ports.ops,
            internal_port=self._gateway.internal,
            gateway_url=self.gateway_url,
            visitors={
                "listen": f"{LOOPBACK}:{ports.visitors}",
                "domain": "localhost",
                "trusted_proxies": [LOOPBACK],
            },
            tunnels={
                "listen": f"{LOOPBACK}:{ports.devices}",
                "server_names": ["localhost"],
                **self._settings["tunnels"],
            },
            drain_s=DRAIN_S,
        )
        return write_table(self.folder / f"node-{name}.toml", table)

    def add_agent(self) -> None:
        """One more device; the list of them has its id."""
        name = f"agent-{self._enrolled}"
        self._enrolled += 1
        services = {"web": {"address": self.device.web}, "echo": {"address": self.device.echo}}
        table = agent_table(self.folder / f"{name}-state", services)
        config = write_table(self.folder / f"{name}.toml", table)
        token = self.api.post("/v1/registration-tokens", {"approve": True})["token"]
        self.device_ids.append(enrol(self.gateway_url, token, config, name=name, hardware_id=name))
        self.run_agent(name)

    def run_agent(self, name: str) -> None:
        self.processes.run(name, service_argv("tunnel_agent", self.folder / f"{name}.toml"))

    def copy_agent(self, name: str, copy: str, node: str) -> None:
        """Another machine with the same identity, which dials one node."""
        shutil.copytree(self.folder / f"{name}-state", self.folder / f"{copy}-state")
        table = agent_table(
            self.folder / f"{copy}-state",
            {"web": {"address": self.device.web}},
            server_urls=[f"wss://localhost:{self.nodes[node].devices}/tunnel"],
            connections=1,
        )
        write_table(self.folder / f"{copy}.toml", table)
        self.run_agent(copy)

    # What the operators see

    def wait_ops(self, name: str, port: int) -> None:
        self.processes.wait_ready(name, lambda: ops.is_ready(port))

    def wait_ready(self, node: str) -> None:
        self.wait_ops(f"node-{node}", self.nodes[node].ops)

    def restart(self, node: str) -> float:
        """As the runbook says: stop, start, wait until it is ready. The seconds that the stop took."""
        took = self.stop(f"node-{node}")
        self.again(f"node-{node}")
        self.wait_ready(node)
        return took

    def metric(self, node: str, name: str) -> float:
        """A sample's value; 0 while nothing was counted under its labels."""
        return ops.metric(self.nodes[node].ops, f"{name} ")

    def tunnels(self, node: str) -> int:
        return int(self.metric(node, "towline_tunnels"))

    def wait_visitors(self, node: str) -> None:
        """Until nginx leads visitors here again: it leaves a node that refused alone for fail_timeout.

        Those who are there may all belong to the other node, by the hash of their names: strangers with new
        names ask, each is led to the one node or the other.
        """
        strangers = 'towline_own_answers_total{code="no_session"}'
        before = self.metric(node, strangers)

        def led_here() -> bool:
            host = f"{new_label()}.localhost:{self.front}"
            url = f"http://{LOOPBACK}:{self.front}/"
            httpx.get(url, headers={"Host": host}, timeout=ASK_S, trust_env=False)
            return self.metric(node, strangers) > before

        eventually(f"visitors at node {node}", led_here)

    def wait_tunnels(self, *nodes: str) -> None:
        """Until every agent holds its tunnel to each of the nodes (all, when none is named)."""
        for node in nodes or NODES:
            eventually(f"all agents at node {node}", partial(self._all_agents_at, node))

    def _all_agents_at(self, node: str) -> bool:
        return self.tunnels(node) >= self._agents

    def is_online(self, device_id: str) -> bool:
        return bool(self.api.device(device_id)["online"])

    def wait_online(self, timeout_s: float) -> None:
        """Until the gateway says so of every device."""
        for device in self.device_ids:
            eventually(f"{device} is online", partial(self.is_online, device), timeout_s)

    # People

    def open_session(self, device_id: str, service: str = "web") -> dict[str, Any]:
        path = f"/v1/devices/{device_id}/sessions"
        session: dict[str, Any] = self.api.post(path, session_wish(service))
        return session

    def visitor(self, device_id: str, service: str = "web", node: str | None = None) -> Visitor:
        """Somebody who opened a link, through nginx or straight at a node."""
        url = self.open_session(device_id, service)["url"]
        return entered(url if node is None else self.at_node(url, node))

    def spread(self, service: str, each: int) -> list[Visitor]:
        """Visitors of all devices in turn, until nginx leads at least `each` to every node: it goes by the
        hash of their names, which are random.
        """
        came: list[Visitor] = []
        led_to = dict.fromkeys(NODES, 0)
        while min(led_to.values()) < each:
            assert len(came) < MOST_SPREAD, f"nginx led all of them one way: {led_to}"
            came.append(self.visitor(self.device_ids[len(came) % len(self.device_ids)], service))
            led_to[self._led_to(came[-1])] += 1
        return came

    def _led_to(self, visitor: Visitor) -> str:
        """The node that answered this visitor, by nginx's log, which it writes after the answer."""
        host = urlsplit(visitor.origin).hostname
        log = self.folder / "nginx-access.log"

        def lines() -> list[str]:
            return [line for line in log.read_text().splitlines() if f" {host} " in line]

        eventually("nginx logged the visitor", lambda: bool(lines()))
        port = int(lines()[-1].split()[-2].rpartition(":")[2])
        return next(name for name, ports in self.nodes.items() if ports.visitors == port)

    def at_node(self, url: str, node: str) -> str:
        """The same address as the node itself has it."""
        return url.replace(f":{self.front}/", f":{self.nodes[node].visitors}/")

    def moved(self, visitor: Visitor, node: str) -> Visitor:
        """The same browser, led to another node."""
        other = Visitor(f"{visitor.origin.rpartition(':')[0]}:{self.nodes[node].visitors}/#")
        for cookie in visitor.http.cookies.jar:
            other.http.cookies.set(cookie.name, cookie.value or "")
        return other
