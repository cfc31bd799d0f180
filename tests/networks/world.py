"""The whole product over networks of our own, as in production: TLS everywhere, everything on port 443.

In the cloud: PostgreSQL, the gateway with nginx for its TLS, one node. Behind the line: an agent with its
two tunnels, and the device's services on its loopback.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
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

from tests.deployment.authority import Authority
from tests.deployment.client import Client
from testbed.postgres_server import PostgresServer
from tests.integration.stack import eventually
from tests.networks.topology import GATEWAY, TUNNELS, VISITORS, Namespace, Topology, program, run
from towline.embedded.processes import launch_argv
from towline.toml_text import toml_text

ROOT = Path(__file__).resolve().parents[2]
GATEWAY_NAME, NODE_NAME, DOMAIN = "gateway.example.com", "node.example.com", "tunnel.example.net"
PASSWORD = "correct horse battery staple"
START_S = 60.0  # a loaded machine
STOP_S = 30.0
CALL_S = 20.0
HTTPS = 443
GATEWAY_OPS, NODE_OPS = 9001, 9002  # every namespace has all ports
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {gateway}:443 ssl;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:8080;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }}
    }}
}}
"""


class Person(Client):
    """The client of the deployment tests, in a network namespace of its own."""

    def __init__(self, ca: Path, namespace: Namespace, address: str, host: str) -> None:
        super().__init__(ca, HTTPS, host)
        self.namespace, self.target = namespace, address
        self.timeout_s = CALL_S

    def connection(self, name: str | None = None) -> ssl.SSLSocket:
        raw = self.namespace.connect(self.target, HTTPS, self.timeout_s)
        try:
            return self._tls.wrap_socket(raw, server_hostname=name or self.host)
        except BaseException:
            raw.close()
            raise

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
            sock=self.connection(),
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
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}

    # Start and end

    def start(self) -> None:
        (self.folder / "pg").mkdir()
        asyncio.run(self.postgres.start())
        self._start_gateway()
        self._start_node()
        self._start_device()
        self.owner = self.person(GATEWAY, GATEWAY_NAME, self.net.cloud)
        self._log_in()
        self._enrol()
        self.wait_online()

    def close(self) -> None:
        for name in self._processes:
            self.signal(name, signal.SIGCONT)
        if hasattr(self, "owner"):
            self.owner.close()
        for name in reversed(self._processes):
            self.signal(name, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        for process in self._processes.values():
            if process.stdout is not None:
                process.stdout.close()
        self.postgres.stop()
        self.net.close()
        shutil.rmtree(self.folder)

    def run(
        self, name: str, namespace: Namespace, argv: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a namespace; its stderr goes to NAME.log, and it ends with this one."""
        command = namespace.argv(*argv)
        self._commands[name] = (command, environment or {})
        return self._launch(name)

    def _launch(self, name: str) -> subprocess.Popen[bytes]:
        command, environment = self._commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                launch_argv(command, death_signal=signal.SIGKILL),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                stdout=subprocess.PIPE if name == "device" else log,
                stderr=log,
            )
        self._processes[name] = process
        return process

    def kill_9(self, name: str) -> None:
        """kill -9, and started again as its init system would."""
        self._processes[name].kill()
        self._processes[name].wait(STOP_S)
        self._launch(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the process; for `postgres` to every process of the database."""
        if name != "postgres":
            self._processes[name].send_signal(number)
            return
        running = self.postgres._process
        assert running is not None
        whole = psutil.Process(running.pid)
        for one in (whole, *whole.children(recursive=True)):
            one.send_signal(number)

    def fds(self, name: str) -> int:
        return len(os.listdir(f"/proc/{self._processes[name].pid}/fd"))

    def logs(self) -> str:
        """The end of every log, for a test that failed."""
        parts = [f"== {path.name}\n{path.read_text()[-2500:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(parts)

    def log(self, name: str) -> list[dict[str, Any]]:
        """The events of a service's log."""
        text = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    # The product

    def _write(self, name: str, table: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(toml_text(table))
        return path

    def _start_gateway(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "database").write_text(self.postgres.url(self.postgres.create_database()))
        table = {
            "public_url": f"https://{GATEWAY_NAME}",
            "public_listen": "127.0.0.1:8080",
            "internal_listen": "127.0.0.1:9443",
            "ops_listen": f"127.0.0.1:{GATEWAY_OPS}",
            "keys_dir": self.folder / "keys",
            "database_url_file": self.folder / "database",
            "agent_tunnel_urls": [f"wss://{NODE_NAME}/tunnel"],
            "tunnel_domain": DOMAIN,
            "admin_password_file": self.folder / "password",
            "trusted_proxies": ["127.0.0.1"],
        }
        config = str(self._write("gateway", table))
        argv = [sys.executable, "-m", "gateway", "--config", config]
        self.run("gateway", self.net.cloud, argv, self._clock("gateway"))
        self._wait_ready("gateway", GATEWAY_OPS)
        issued = self.authority.issue("gateway", GATEWAY_NAME, days=800)
        nginx = self.folder / "nginx.conf"
        files = {"folder": self.folder, "gateway": GATEWAY, "chain": issued.chain, "key": issued.key}
        nginx.write_text(_NGINX.format(**files))
        argv = [program("nginx", "nginx-light"), "-p", str(self.folder), "-c", str(nginx), "-e", "stderr"]
        self.run("nginx", self.net.cloud, argv)

    def _start_node(self) -> None:
        own = self.folder / "node"
        issue = [sys.executable, "-m", "gateway", "issue-node-certificate", "one", "--out", str(own)]
        config = ["--config", str(self.folder / "gateway.toml")]
        subprocess.run([*issue, *config, "--san", NODE_NAME], cwd=ROOT, check=True, capture_output=True)
        self.wildcard = self.authority.issue("wildcard", f"*.{DOMAIN}", days=800)
        visitors = {"certificate": self.wildcard.chain, "key": self.wildcard.key, "domain": DOMAIN}
        table = {
            "node": "one",
            "ops_listen": f"127.0.0.1:{NODE_OPS}",
            "visitors": {"listen": f"{VISITORS}:{HTTPS}", **visitors},
            "tunnels": {
                "listen": f"{TUNNELS}:{HTTPS}",
                "server_names": [NODE_NAME],
                "certificate": own / "agents.crt",
                "key": own / "agents.key",
            },
            "gateway": {
                "internal_url": "https://127.0.0.1:9443",
                "public_url": f"https://{GATEWAY_NAME}",
                "ca": own / "internal_ca.crt",
                "certificate": own / "node.crt",
                "key": own / "node.key",
            },
        }
        config_file = str(self._write("node", table))
        argv = [sys.executable, "-m", "tunnel_server", "--config", config_file]
        self.run("node", self.net.cloud, argv, self._clock("node"))
        self._wait_ready("node", NODE_OPS)

    def _start_device(self) -> None:
        process = self.run("device", self.net.device, [sys.executable, "-m", "tests.networks.device"])
        assert process.stdout is not None
        self.ports: dict[str, int] = json.loads(process.stdout.readline())

    def _enrol(self) -> None:
        services = {name: {"address": f"127.0.0.1:{port}"} for name, port in self.ports.items()}
        config = str(self._write("agent", {"state_dir": self.folder / "agent", "services": services}))
        token = self.folder / "token"
        token.write_text(self.call("POST", "/v1/registration-tokens", {"approve": True})["token"])
        token.chmod(0o600)
        command = [sys.executable, "-m", "tunnel_agent"]
        enrol = ["enrol", f"https://{GATEWAY_NAME}", "--token-file", str(token), "--config", config]
        trust = {"SSL_CERT_FILE": str(self.authority.ca)}
        done = subprocess.run(
            self.net.device.argv(*command, *enrol, "--hardware-id", "networks"),
            cwd=ROOT, env=os.environ | trust, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        self.device_id = done.stdout.split("enrolled as ")[1].split(";")[0]
        self.run("agent", self.net.device, [*command, "--config", config], trust | self._clock("agent"))

    def _wait_ready(self, name: str, port: int) -> None:
        def ready() -> bool:
            assert self._processes[name].poll() is None, f"{name} has ended\n{self.logs()}"
            return self.ops(port, "/readyz")[0] == 200

        eventually(f"{name} is ready", ready, START_S)

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
        lines = self.ops(NODE_OPS, "/metrics")[1].splitlines()
        return int(
            sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("towline_tunnels "))
        )

    def agent_sockets(self) -> int:
        """Connections of the agent to the node that its kernel still holds."""
        ss = self.net.device.argv(program("ss", "iproute2"), "-Htn", "state", "established", "dst", TUNNELS)
        return len(run(*ss).splitlines())

    # People

    def person(self, address: str, host: str, namespace: Namespace | None = None) -> Person:
        return Person(self.authority.ca, namespace or self.net.visitor, address, host)

    def _log_in(self) -> None:
        def answers() -> bool:
            return self.owner.get("/livez")[0] == 200

        eventually("the gateway's front answers", answers, START_S)
        body = json.dumps({"username": "admin", "password": PASSWORD}).encode()
        answer = self.owner.ask("POST", "/v1/login", body, {"Content-Type": "application/json"})
        assert answer.status == 200, answer.read()
        answer.read()
        self.owner.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The owner at the gateway; OSError when it does not answer with success."""
        data = None if body is None else json.dumps(body).encode()
        owner = self.owner.twin()
        try:
            answer = owner.ask(method, path, data, {"Content-Type": "application/json"})
            content = answer.read()
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error
        finally:
            owner.close()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content!r}")
        found: dict[str, Any] = json.loads(content)
        return found

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
        wish = {"service": service, "binding": "click", "duration_s": duration_s}
        url = str(self.call("POST", f"/v1/devices/{self.device_id}/sessions", wish)["url"])
        host, _, rest = url.removeprefix("https://").partition("/")
        return host, rest.partition("#")[2]

    def visitor(self, service: str = "web", duration_s: int = 3600) -> Person:
        """Somebody who opened a link."""
        host, token = self.link(service, duration_s)
        person = self.person(VISITORS, host)
        answer = person.enter(token)
        assert answer.status == 303, answer.status
        return person

    def settle(self, timeout_s: float = 90.0) -> None:
        """Good networks and right clocks, everything running, both tunnels up."""
        for name in (*self._processes, "postgres"):
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
