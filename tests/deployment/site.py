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
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.randomness import new_label
from tests.deployment import fronts
from tests.deployment.authority import Authority
from tests.deployment.client import TIMEOUT_S, Client
from tests.deployment.device import Device
from testbed.postgres_server import PostgresServer
from tests.integration.stack import eventually
from towline.embedded.processes import launch_argv
from towline.toml_text import toml_text

ROOT = Path(__file__).resolve().parents[2]
GATEWAY, NODES, DOMAIN = (
    "gateway.example.com",
    ("node-a.example.com", "node-b.example.com"),
    "tunnel.example.net",
)
PASSWORD = "correct horse battery staple"
START_S = 60.0  # a loaded machine starts twelve processes
STOP_S = 30.0
RECOVERY_S = 80.0  # agents draw their pause from up to 2 s, then 4, 8, 16, 32, as long as a node is away
FRONTS = ("nginx", "caddy", "haproxy", "nginx-stream")
# Which device comes in through which front: two devices of three tunnels each.
DEVICE_OF = {"nginx": "one", "haproxy": "one", "caddy": "two", "nginx-stream": "two"}
LOOPBACK = "127.0.0.1"


# The files name ports, so they must be known before anything listens: they lie below those that the kernel
# gives to outgoing connections meanwhile (net.ipv4.ip_local_port_range).
PORTS = range(10_000, 32_000)


def quiet_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held together, so that they differ."""
    found: list[int] = []
    with ExitStack() as holding:
        for port in random.sample(PORTS, len(PORTS)):
            one = holding.enter_context(socket.socket())
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free ports")


@dataclass(frozen=True, slots=True)
class NodePorts:
    visitors: int
    devices: int
    ops: int


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
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._ports()

    def _ports(self) -> None:
        found = iter(quiet_ports(24))
        for front in FRONTS:
            self.https[front], self.http[front] = next(found), next(found)
        for node in "abc":
            self.nodes[node] = NodePorts(next(found), next(found), next(found))
        self.public, self.internal, self.gateway_ops = next(found), next(found), next(found)
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
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        self.postgres.stop()
        self.device.close()

    def run(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> None:
        """Start a process; its output goes to NAME.log, and it ends with this one."""
        self._commands[name] = (argv, environment or {})
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                launch_argv(argv, death_signal=signal.SIGTERM),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
                stdout=log,
                stderr=log,
            )

    @contextmanager
    def away(self, node: str) -> Iterator[None]:
        """Without one node, for a while; afterwards it is back, and proxies lead people there."""
        assert self.stop(f"node-{node}") == 0
        try:
            yield
        finally:
            self.run(f"node-{node}", *self._commands[f"node-{node}"])
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

    def stop(self, name: str) -> int:
        self.signal(name, signal.SIGTERM)
        return self._processes[name].wait(STOP_S)

    def check_runs(self, name: str) -> None:
        assert self._processes[name].poll() is None, f"{name} has ended"

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def logs(self) -> str:
        """The end of every log, for a test that failed."""
        parts = [f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(parts)

    # The product

    def _write(self, name: str, table: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(toml_text(table))
        return path

    def _start_gateway(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "database").write_text(self.postgres.url(self.postgres.create_database()))
        config = self._write(
            "gateway",
            {
                "public_url": f"https://{GATEWAY}",
                "public_listen": f"{LOOPBACK}:{self.public}",
                "internal_listen": f"{LOOPBACK}:{self.internal}",
                "ops_listen": f"{LOOPBACK}:{self.gateway_ops}",
                "keys_dir": self.folder / "keys",
                "database_url_file": self.folder / "database",
                "agent_tunnel_urls": [f"wss://{name}/tunnel" for name in NODES],
                "agents_trust_server_ca": False,
                "tunnel_domain": DOMAIN,
                "admin_password_file": self.folder / "password",
                "trusted_proxies": [LOOPBACK],
            },
        )
        self.run("gateway", [sys.executable, "-m", "gateway", "--config", str(config)])
        self._wait_ready("gateway", self.gateway_ops)

    def _start_nodes(self) -> None:
        for name in self.nodes:
            config = self._node_config(name)
            self.run(f"node-{name}", [sys.executable, "-m", "tunnel_server", "--config", str(config)])
        for name, ports in self.nodes.items():
            self._wait_ready(f"node-{name}", ports.ops)

    def _node_config(self, name: str) -> Path:
        own, ports = self.folder / f"node-{name}", self.nodes[name]
        issue = [sys.executable, "-m", "gateway", "issue-node-certificate", name, "--out", str(own)]
        config = ["--config", str(self.folder / "gateway.toml")]
        subprocess.run([*issue, *config, "--san", *NODES], cwd=ROOT, check=True, capture_output=True)
        visitors: dict[str, Any] = {"behind_tls": True}
        tunnels: dict[str, Any] = {"certificate": own / "agents.crt", "key": own / "agents.key"}
        if name == "c":
            visitors = {"certificate": self.wildcard.chain, "key": self.wildcard.key, "proxy_protocol": True}
            tunnels = {"certificate": self.node_certificate.chain, "key": self.node_certificate.key}
            tunnels["proxy_protocol"] = True
        proxies = {"trusted_proxies": [LOOPBACK]}
        return self._write(
            f"node-{name}",
            {
                "node": name,
                "ops_listen": f"{LOOPBACK}:{ports.ops}",
                "visitors": {"listen": f"{LOOPBACK}:{ports.visitors}", "domain": DOMAIN} | proxies | visitors,
                "tunnels": {"listen": f"{LOOPBACK}:{ports.devices}", "server_names": list(NODES)}
                | proxies
                | tunnels,
                "gateway": {
                    "internal_url": f"https://{LOOPBACK}:{self.internal}",
                    "public_url": f"https://{GATEWAY}",
                    "ca": own / "internal_ca.crt",
                    "certificate": own / "node.crt",
                    "key": own / "node.key",
                },
            },
        )

    def _wait_ready(self, name: str, ops: int) -> None:
        def ready() -> bool:
            self.check_runs(name)
            answer = httpx.get(f"http://{LOOPBACK}:{ops}/readyz", timeout=TIMEOUT_S, trust_env=False)
            return answer.status_code == 200

        eventually(f"{name} is ready", ready, START_S)

    # The proxies

    def _backends(self, first: str, second: str) -> fronts.Backends:
        pair = [self.nodes[first], self.nodes[second]]
        return fronts.Backends(
            gateway=f"{LOOPBACK}:{self.public}",
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
        self.run("nginx", argv)
        self.run(
            "haproxy",
            fronts.haproxy_argv(
                self.folder / "haproxy", passing, http=http["haproxy"], https=https["haproxy"]
            ),
        )
        environment = fronts.caddy_environment(
            self.folder / "caddy", ending, http=http["caddy"], https=https["caddy"], admin=self.caddy_admin
        )
        self.run("caddy", fronts.caddy_argv(), environment)
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
        self.owner_cookie = self.log_in(owner)
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
        services = {
            "web": {"address": self.device.web, "forwarded_headers": True},
            "echo": {"address": self.device.echo},
        }
        table = {"state_dir": self.folder / f"agent-{name}", "server_urls": urls, "services": services}
        config = self._write(f"agent-{name}", table)
        token = self.call(owner, "POST", "/v1/registration-tokens", '{"approve": true}')["token"]
        file = self.folder / f"token-{name}"
        file.write_text(token)
        file.chmod(0o600)
        command = [sys.executable, "-m", "tunnel_agent"]
        enrol = [
            "enrol",
            gateway,
            "--token-file",
            str(file),
            "--config",
            str(config),
            "--hardware-id",
            f"test-{name}",
        ]
        done = subprocess.run(
            self._with_hosts([*command, *enrol]),
            cwd=ROOT,
            env=os.environ | self._trust(),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.device_ids[name] = done.stdout.split("enrolled as ")[1].split(";")[0]
        self.run(f"agent-{name}", self._with_hosts([*command, "--config", str(config)]), self._trust())

    def _trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.trusted)}

    def _with_hosts(self, argv: list[str]) -> list[str]:
        """The names of the shipped files lead here, for this process alone: a mount namespace of its own."""
        assert os.geteuid() == 0, "this test needs root: a process gets an /etc/hosts of its own"
        script = f'mount --bind "{self.folder / "hosts"}" /etc/hosts && exec "$@"'
        return [fronts.program("unshare", "util-linux"), "-m", "sh", "-c", script, "sh", *argv]

    def tunnels(self, node: str) -> int:
        return int(self.metric(node, "towline_tunnels "))

    def metric(self, node: str, start: str) -> float:
        """The sum of a node's samples that begin with ``start``."""
        url = f"http://{LOOPBACK}:{self.nodes[node].ops}/metrics"
        lines = httpx.get(url, timeout=TIMEOUT_S, trust_env=False).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    # People

    def client(self, front: str, host: str, **options: Any) -> Client:
        return Client(self.trusted, self.https[front], host, **options)

    def log_in(self, owner: Client) -> str:
        kind = {"Content-Type": "application/json"}
        body = f'{{"username": "admin", "password": "{PASSWORD}"}}'.encode()
        answer = owner.ask("POST", "/v1/login", body, kind)
        assert answer.status == 200, answer.read()
        answer.read()
        owner.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return owner.cookie

    def call(self, owner: Client, method: str, path: str, body: str = "") -> dict[str, Any]:
        answer = owner.ask(method, path, body.encode(), {"Content-Type": "application/json"})
        content = answer.read()
        assert answer.status < 300, content
        found: dict[str, Any] = json.loads(content)
        return found

    def link(self, front: str, service: str = "web") -> tuple[str, str]:
        """(host, token) of a fresh session with the device behind ``front``."""
        owner = self.client(front, GATEWAY, address="127.0.0.6")
        owner.cookie = self.owner_cookie
        path = f"/v1/devices/{self.device_ids[DEVICE_OF[front]]}/sessions"
        session = self.call(
            owner, "POST", path, f'{{"service": "{service}", "binding": "click", "duration_s": 600}}'
        )
        owner.close()
        host, _, rest = session["url"].removeprefix("https://").partition("/")
        return host, rest.partition("#")[2]

    def visitor(self, front: str, service: str = "web", **options: Any) -> Client:
        """Somebody who opened a link."""
        host, token = self.link(front, service)
        client = self.client(front, host, **options)
        answer = client.enter(token)
        assert answer.status == 303, answer.status
        return client
