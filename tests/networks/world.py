"""The whole product over networks of our own, as in production: TLS everywhere, everything on port 443.

In the cloud: PostgreSQL, the gateway with nginx for its TLS, one node. Behind the line: an agent with its
two tunnels, and the device's services on its loopback.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from testbed import ops
from testbed.certificates import Authority
from testbed.nginx import gateways_behind, nginx_argv
from testbed.people import Link, session_wish
from testbed.postgres_server import PostgresServer
from testbed.processes import START_S, Processes
from testbed.programs import program
from testbed.services import enrol, issue_node_certificate, service_argv
from testbed.settings_tables import GatewayPorts, agent_table, gateway_table, node_table, write_table
from testbed.waiting import eventually
from tests.deployment.client import Client
from tests.networks.topology import GATEWAY, TUNNELS, VISITORS, Namespace, Topology, run

GATEWAY_NAME, NODE_NAME, DOMAIN = "gateway.example.com", "node.example.com", "tunnel.example.net"
CALL_S = 20.0
HTTPS = 443
PORTS = GatewayPorts(public=8080, internal=9443, ops=9001)  # every namespace has all ports
NODE_OPS = 9002


class Person(Client):
    """The client of the deployment tests, in a network namespace of its own."""

    def __init__(self, ca: Path, namespace: Namespace, address: str, host: str) -> None:
        super().__init__(ca, HTTPS, host)
        self.namespace, self.target = namespace, address
        self.timeout_s = CALL_S

    def _dialled(self) -> socket.socket:
        return self.namespace.connect(self.target, HTTPS, self.timeout_s)

    def twin(self) -> Person:
        """The same person's next connection."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._http = None
        return twin

    def talk(self) -> ClientConnection:
        """A WebSocket to the echo service; no keepalive of its own, the product's is under test."""
        return connect(
            f"ws://{self.host}/",
            sock=self.connection_for_two(),
            origin=Origin(self.origin),
            additional_headers={"Cookie": self.cookie},
            open_timeout=self.timeout_s,
            ping_interval=None,
            compression=None,
            proxy=None,
        )


class World:
    """Start it once; a test leaves it as it found it (`settle`)."""

    def __init__(self, name: str, *, seed: int = 0, fake_clocks: bool = False) -> None:
        """`fake_clocks`: agent, node and gateway read their wall clock through libfaketime (`set_clock`)."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"towline-n-{name}-"))  # short: the database's socket
        self.folder.chmod(0o755)
        self.fake_clocks = fake_clocks
        hosts = {GATEWAY_NAME: GATEWAY, NODE_NAME: TUNNELS}
        self.net = Topology(name, hosts, seed)
        self.authority = Authority(self.folder)
        self.postgres = PostgresServer(self.folder / "pg")
        self.device_id = ""
        self.processes = Processes(self.folder, death_signal=signal.SIGKILL)
        self.logs, self.log, self.fds = self.processes.logs, self.processes.events, self.processes.fds

    # Start and end

    def start(self) -> None:
        (self.folder / "pg").mkdir()
        asyncio.run(self.postgres.start())
        self._start_gateway()
        self._start_node()
        self._start_device()
        self.owner = self.person(GATEWAY, GATEWAY_NAME, self.net.cloud)
        eventually("the gateway's front answers", lambda: self.owner.get("/livez")[0] == 200, START_S)
        self.owner.log_in()
        self._enrol()
        self.wait_online()

    def close(self) -> None:
        if hasattr(self, "owner"):
            self.owner.close()
        try:
            self.processes.close()
        finally:
            self.postgres.stop()
            self.net.close()
            shutil.rmtree(self.folder)

    def kill_9(self, name: str) -> None:
        """kill -9, and started again as its init system would."""
        self.processes.kill(name)
        self.processes.again(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the process; for `postgres` to every process of the database."""
        if name != "postgres":
            self.processes.signal(name, number)
            return
        running = self.postgres._process
        assert running is not None
        whole = psutil.Process(running.pid)
        for one in (whole, *whole.children(recursive=True)):
            one.send_signal(number)

    # The product

    def _start_gateway(self) -> None:
        table = gateway_table(
            self.folder,
            PORTS,
            public_url=f"https://{GATEWAY_NAME}",
            database_url=self.postgres.url(self.postgres.create_database()),
            tunnel_urls=[f"wss://{NODE_NAME}/tunnel"],
            tunnel_domain=DOMAIN,
            trusted_proxies=["127.0.0.1"],
        )
        self._service("gateway", "gateway", table, PORTS.ops)
        issued = self.authority.issue("gateway", GATEWAY_NAME, days=800)
        backends = [f"127.0.0.1:{PORTS.public}"]
        site = gateways_behind(f"{GATEWAY}:{HTTPS}", backends, (issued.chain, issued.key))
        self.processes.run("nginx", self.net.cloud.argv(*nginx_argv(self.folder, site)))

    def _start_node(self) -> None:
        self.wildcard = self.authority.issue("wildcard", f"*.{DOMAIN}", days=800)
        visitors = {"certificate": self.wildcard.chain, "key": self.wildcard.key, "domain": DOMAIN}
        table = node_table(
            issue_node_certificate(self.folder / "gateway.toml", "one", self.folder / "node", [NODE_NAME]),
            "one",
            NODE_OPS,
            internal_port=PORTS.internal,
            gateway_url=f"https://{GATEWAY_NAME}",
            visitors={"listen": f"{VISITORS}:{HTTPS}", **visitors},
            tunnels={"listen": f"{TUNNELS}:{HTTPS}", "server_names": [NODE_NAME]},
        )
        self._service("node", "tunnel_server", table, NODE_OPS)

    def _service(self, name: str, module: str, table: dict[str, Any], port: int) -> None:
        """In the cloud, until it is ready."""
        argv = service_argv(module, write_table(self.folder / f"{name}.toml", table))
        self.processes.run(name, self.net.cloud.argv(*argv), self._clock(name))
        self.processes.wait_ready(name, lambda: self.ops(port, "/readyz")[0] == 200)

    def _start_device(self) -> None:
        argv = self.net.device.argv(sys.executable, "-m", "tests.networks.device")
        process = self.processes.run("device", argv, heard=True)
        assert process.stdout is not None
        self.ports: dict[str, int] = json.loads(process.stdout.readline())

    def _enrol(self) -> None:
        config = write_table(self.folder / "agent.toml", agent_table(self.folder / "agent", self.ports))
        token = self.call("POST", "/v1/registration-tokens", {"approve": True})["token"]
        trust = {"SSL_CERT_FILE": str(self.authority.ca)}
        self.device_id = enrol(
            f"https://{GATEWAY_NAME}",
            token,
            config,
            hardware_id="networks",
            within=self.net.device.argv,
            environment=trust,
        )
        argv = self.net.device.argv(*service_argv("tunnel_agent", config))
        self.processes.run("agent", argv, trust | self._clock("agent"))

    # Clocks

    def _clock(self, name: str) -> dict[str, str]:
        if not self.fake_clocks:
            return {}
        program("faketime", "faketime")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        self.set_clock(name, 0)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / f"{name}.clock"),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, name: str, offset_s: int) -> None:
        """The wall clock of `agent`, `node` or `gateway` is off by so much, at once."""
        (self.folder / f"{name}.clock").write_text(f"{offset_s:+d}\n")

    # What operators see

    def ops(self, port: int, path: str) -> tuple[int, str]:
        """A GET at an operators' listener, in the cloud."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_S)
        try:
            connection.sock = self.net.cloud.connect("127.0.0.1", port, CALL_S)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error
        finally:
            connection.close()

    def tunnels(self) -> int:
        """What the node holds."""
        return int(ops.sum_of(self.ops(NODE_OPS, "/metrics")[1], "towline_tunnels "))

    def agent_sockets(self) -> int:
        """Connections of the agent to the node that its kernel still holds."""
        ss = self.net.device.argv(program("ss", "iproute2"), "-Htn", "state", "established", "dst", TUNNELS)
        return len(run(*ss).splitlines())

    # People

    def person(self, address: str, host: str, namespace: Namespace | None = None) -> Person:
        return Person(self.authority.ca, namespace or self.net.visitor, address, host)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The owner at the gateway; OSError when it does not answer with success."""
        owner = self.owner.twin()
        try:
            return owner.call(method, path, body)
        finally:
            owner.close()

    def is_online(self) -> bool:
        """What the gateway tells the owner."""
        return bool(self.call("GET", f"/v1/devices/{self.device_id}")["online"])

    def wait_online(self, timeout_s: float = START_S) -> None:
        """Both tunnels are up, and the gateway says so."""
        eventually("two tunnels", lambda: self.tunnels() == 2, timeout_s)
        eventually("the gateway says online", self.is_online, timeout_s)

    def wait_dialled(self, timeout_s: float = START_S) -> None:
        """Both tunnels of an agent that was started anew are up, and none of the old one."""
        begun = len(self.log("node"))

        def opened() -> bool:
            return len([one for one in self.log("node")[begun:] if one["event"] == "tunnel open"]) >= 2

        eventually("the new agent's tunnels", opened, timeout_s)
        self.wait_online(timeout_s)

    def link(self, service: str = "web", duration_s: int = 3600) -> tuple[str, str]:
        """(host, token) of a new session."""
        path = f"/v1/devices/{self.device_id}/sessions"
        link = Link.parse(self.call("POST", path, session_wish(service, duration_s))["url"])
        return link.host, link.token

    def visitor(self, service: str = "web", duration_s: int = 3600) -> Person:
        """Somebody who opened a link."""
        host, token = self.link(service, duration_s)
        person = self.person(VISITORS, host)
        answer = person.enter(token)
        assert answer.status == 303, answer.status
        return person

    def settle(self, timeout_s: float = 90.0) -> None:
        """Good networks and right clocks, everything running, both tunnels up."""
        for name in (*self.processes, "postgres"):
            self.signal(name, signal.SIGCONT)
        for name in ("agent", "node", "gateway") if self.fake_clocks else ():
            self.set_clock(name, 0)
        self.net.mend()
        self.wait_online(timeout_s)


@contextmanager
def stopped(world: World, name: str) -> Iterator[None]:
    """SIGSTOP, and SIGCONT in any case."""
    world.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        world.signal(name, signal.SIGCONT)


def seconds_until(check: Callable[[], object], timeout_s: float, what: str) -> float:
    """How long it took; AssertionError after the timeout."""
    started = time.monotonic()
    eventually(what, check, timeout_s)
    return time.monotonic() - started
