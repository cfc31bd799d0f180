"""One gateway, two nodes, agents that hold a tunnel to both, and nginx with the shipped file in front.

::

    visitor ── nginx ──┬── node a ──┐
                       └── node b ──┴── agent ── device

Each process is started by its own command and settings file. Plain `*.localhost`: TLS is tested elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.randomness import new_label
from tests.deployment.device import Device
from tests.deployment.fronts import program, replaced
from testbed.postgres_server import PostgresServer
from tests.integration.stack import Visitor, eventually, free_ports
from towline.embedded.processes import launch_argv
from towline.gateway_client import Credentials, GatewayClient
from towline.toml_text import toml_text

ROOT = Path(__file__).resolve().parents[2]
NODES = ("a", "b")
LOOPBACK = "127.0.0.1"
START_S = 60.0  # a loaded machine starts eight processes
STOP_S = 45.0  # a node may drain for DRAIN_S
DRAIN_S = 20.0
ASK_S = 5.0
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class NodePorts:
    visitors: int
    devices: int
    ops: int


def front_file(front: int, backends: tuple[int, int], folder: Path) -> str:
    """nginx's configuration: the visitors' part of the shipped file, without the TLS around it."""
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
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return (
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-error.log;\nworker_processes 1;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\n{temporary}"
        "  log_format tried '$msec $status $request_method $uri $upstream_addr $upstream_status';\n"
        f"  access_log {folder}/nginx-access.log tried;\n{shipped}\n}}\n"
    )


class Cluster:
    """Start it once; what a test takes away it brings back."""

    def __init__(self, folder: Path, *, agents: int = 2) -> None:
        self.folder = folder
        self.device = Device()
        self.device_ids: list[str] = []
        self._agents = agents
        self._enrolled = 0
        self._postgres = PostgresServer(folder / "pg")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        ports = iter(free_ports(10))
        self.nodes = {name: NodePorts(next(ports), next(ports), next(ports)) for name in NODES}
        self.public, self.internal, self.gateway_ops, self.front = (next(ports) for _ in range(4))
        self.api = GatewayClient(Credentials(self.gateway_url, "admin", PASSWORD))

    @property
    def gateway_url(self) -> str:
        return f"http://localhost:{self.public}"

    # Processes

    def start(self) -> None:
        (self.folder / "pg").mkdir()
        asyncio.run(self._postgres.start())
        self._start_gateway()
        for name in NODES:
            self.run(
                f"node-{name}", [sys.executable, "-m", "tunnel_server", "--config", str(self._node(name))]
            )
        for name in NODES:
            self.wait_ready(name)
        (self.folder / "nginx.conf").write_text(
            front_file(self.front, (self.nodes["a"].visitors, self.nodes["b"].visitors), self.folder)
        )
        argv = [
            program("nginx", "nginx-light"),
            "-p",
            str(self.folder),
            "-c",
            str(self.folder / "nginx.conf"),
        ]
        self.run("nginx", argv)
        for _ in range(self._agents):
            self.add_agent()
        self.wait_tunnels()

    def close(self) -> None:
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
        stuck = []
        for name, process in self._processes.items():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                stuck.append(name)
                process.kill()
                process.wait(STOP_S)
        self._postgres.stop()
        self.device.close()
        assert not stuck, f"{stuck} did not end"

    def run(self, name: str, argv: list[str]) -> None:
        """Start a process; its output goes to NAME.log. Call it in the main thread: the kernel ends the
        process together with the thread that began it.
        """
        self._commands[name] = argv
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                launch_argv(argv, death_signal=signal.SIGTERM),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def again(self, name: str) -> None:
        """The same process, after it ended."""
        self.run(name, self._commands[name])

    def stop(self, name: str) -> float:
        """SIGTERM; the seconds until it was gone, in order."""
        started = time.monotonic()
        self._processes[name].send_signal(signal.SIGTERM)
        assert self._processes[name].wait(STOP_S) == 0, self.logs()
        return time.monotonic() - started

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait(STOP_S)

    def logs(self) -> str:
        """The end of every log, for a test that failed."""
        parts = [f"== {path.name}\n{path.read_text()[-2500:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(parts)

    # The product

    def _write(self, name: str, table: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(toml_text(table))
        return path

    def _start_gateway(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "database").write_text(self._postgres.url(self._postgres.create_database()))
        config = self._write(
            "gateway",
            {
                "public_url": self.gateway_url,
                "public_listen": f"{LOOPBACK}:{self.public}",
                "internal_listen": f"{LOOPBACK}:{self.internal}",
                "ops_listen": f"{LOOPBACK}:{self.gateway_ops}",
                "keys_dir": self.folder / "keys",
                "database_url_file": self.folder / "database",
                "agent_tunnel_urls": [f"wss://localhost:{self.nodes[name].devices}/tunnel" for name in NODES],
                "tunnel_scheme": "http",
                "tunnel_domain": "localhost",
                "tunnel_port": self.front,
                "admin_password_file": self.folder / "password",
            },
        )
        self.run("gateway", [sys.executable, "-m", "gateway", "--config", str(config)])
        self.wait_ops("gateway", self.gateway_ops)

    def _node(self, name: str) -> Path:
        own, ports = self.folder / f"node-{name}", self.nodes[name]
        issue = [sys.executable, "-m", "gateway", "issue-node-certificate", name, "--out", str(own)]
        config = ["--config", str(self.folder / "gateway.toml"), "--san", "localhost"]
        subprocess.run([*issue, *config], cwd=ROOT, check=True, capture_output=True, timeout=START_S)
        return self._write(
            f"node-{name}",
            {
                "node": name,
                "drain_s": DRAIN_S,
                "ops_listen": f"{LOOPBACK}:{ports.ops}",
                "visitors": {
                    "listen": f"{LOOPBACK}:{ports.visitors}",
                    "domain": "localhost",
                    "trusted_proxies": [LOOPBACK],
                },
                "tunnels": {
                    "listen": f"{LOOPBACK}:{ports.devices}",
                    "server_names": ["localhost"],
                    "certificate": own / "agents.crt",
                    "key": own / "agents.key",
                },
                "gateway": {
                    "internal_url": f"https://{LOOPBACK}:{self.internal}",
                    "public_url": self.gateway_url,
                    "ca": own / "internal_ca.crt",
                    "certificate": own / "node.crt",
                    "key": own / "node.key",
                },
            },
        )

    def _enrol(self, name: str) -> str:
        services = {"web": {"address": self.device.web}, "echo": {"address": self.device.echo}}
        config = self._write(name, {"state_dir": self.folder / f"{name}-state", "services": services})
        token = self.folder / f"{name}-token"
        token.write_text(self.api.post("/v1/registration-tokens", {"approve": True})["token"])
        token.chmod(0o600)
        command = [sys.executable, "-m", "towline", "agent", "enrol", self.gateway_url]
        options = ["--token-file", str(token), "--config", str(config), "--name", name, "--hardware-id", name]
        done = subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.split("enrolled as ")[1].split(";")[0]

    def add_agent(self) -> None:
        """One more device; the list of them has its id."""
        name = f"agent-{self._enrolled}"
        self._enrolled += 1
        self.device_ids.append(self._enrol(name))
        self.run_agent(name)

    def run_agent(self, name: str) -> None:
        config = str(self.folder / f"{name}.toml")
        self.run(name, [sys.executable, "-m", "towline", "agent", "--config", config])

    def copy_agent(self, name: str, copy: str, node: str) -> None:
        """Another machine with the same identity, which dials one node."""
        shutil.copytree(self.folder / f"{name}-state", self.folder / f"{copy}-state")
        table = {
            "state_dir": self.folder / f"{copy}-state",
            "server_urls": [f"wss://localhost:{self.nodes[node].devices}/tunnel"],
            "connections": 1,
            "services": {"web": {"address": self.device.web}},
        }
        self._write(copy, table)
        self.run_agent(copy)

    # What the operators see

    def wait_ops(self, name: str, port: int) -> None:
        def ready() -> bool:
            assert self._processes[name].poll() is None, f"{name} has ended\n{self.logs()}"
            answer = httpx.get(f"http://{LOOPBACK}:{port}/readyz", timeout=ASK_S, trust_env=False)
            return answer.status_code == 200

        eventually(f"{name} is ready", ready, START_S)

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
        url = f"http://{LOOPBACK}:{self.nodes[node].ops}/metrics"
        text = httpx.get(url, timeout=ASK_S, trust_env=False).text
        found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", text, re.MULTILINE)
        return float(found[1]) if found is not None else 0.0

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
            eventually(
                f"all agents at node {node}",
                lambda node=node: self.tunnels(node) >= self._agents,  # type: ignore[misc]
            )

    def is_online(self, device_id: str) -> bool:
        return bool(self.api.device(device_id)["online"])

    # People

    def open_session(self, device_id: str, service: str = "web") -> dict[str, Any]:
        body = {"service": service, "binding": "click", "duration_s": 600}
        session: dict[str, Any] = self.api.post(f"/v1/devices/{device_id}/sessions", body)
        return session

    def visitor(self, device_id: str, service: str = "web", node: str | None = None) -> Visitor:
        """Somebody who opened a link, through nginx or straight at a node."""
        url = self.open_session(device_id, service)["url"]
        one = Visitor(url if node is None else self.at_node(url, node))
        answer = one.enter()
        assert answer.status_code == 303, answer.text
        return one

    def at_node(self, url: str, node: str) -> str:
        """The same address as the node itself has it."""
        return url.replace(f":{self.front}/", f":{self.nodes[node].visitors}/")

    def moved(self, visitor: Visitor, node: str) -> Visitor:
        """The same browser, led to another node."""
        other = Visitor(f"{visitor.origin.rpartition(':')[0]}:{self.nodes[node].visitors}/#")
        for cookie in visitor.http.cookies.jar:
            other.http.cookies.set(cookie.name, cookie.value or "")
        return other
