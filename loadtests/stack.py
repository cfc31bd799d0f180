"""The product as a newcomer has it: `towline up --no-demo`, one enrolled agent, one open session.

The agent holds one tunnel instead of two, so that "one tunnel" in a figure is one.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.figures import TOWLINE
from loadtests.measure import Target
from loadtests.peers.programs import running
from towline.data_folder import DataFolder
from towline.gateway_client import Credentials, GatewayClient

START_DEADLINE_S = 90.0  # the first start makes a database cluster
STEP_DEADLINE_S = 20.0
ONLINE_DEADLINE_S = 60.0
PORTS = 7  # that `towline up` takes from its --port on
SESSION_S = 3600
AGENT_CONNECTIONS = 1


@dataclass(frozen=True, slots=True)
class TowlineStack:
    """A running product: the session as a benchmark target, and what the memory figure needs."""

    target: Target
    gateway: GatewayClient
    data: DataFolder
    agent_state: Path  # of the enrolled agent
    server_pid: int
    agent_pid: int
    gateway_pid: int


@dataclass(frozen=True, slots=True)
class Product:
    """A running `towline up`."""

    root: Path
    data: DataFolder
    gateway: GatewayClient
    launcher_pid: int

    def pid_of(self, module: str) -> int:
        """The launcher's child that runs `python -m module`."""
        found: int = wait_for(f"the process of {module}", lambda: pid_of(self.launcher_pid, module))
        return found

    def enrol_agent(self, name: str, services: dict[str, int]) -> Path:
        """Enrols a new device over the public API, as on a real one; returns its configuration file."""
        folder = self.root / name
        folder.mkdir()
        config = folder / "agent.toml"
        lines = ['state_dir = "state"', f"connections = {AGENT_CONNECTIONS}"]
        for service, port in services.items():
            lines += [f"[services.{service}]", f'address = "127.0.0.1:{port}"']
        config.write_text("\n".join(lines) + "\n")
        token = folder / "token"
        made = run_towline("token", "--approve", "--name", name, "--data", str(self.data.root))
        token.write_text(made + "\n")
        run_towline(
            "agent", "enrol", self.gateway.address, "--token-file", str(token), "--config", str(config),
            "--name", name, "--hardware-id", f"bench-{name}-{os.getpid()}",
        )  # fmt: skip
        return config


def wait_for(what: str, check: Callable[[], Any], deadline_s: float = STEP_DEADLINE_S) -> Any:
    """Polls until `check` gives something true; RuntimeError that names `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.05)


def run_towline(*args: str) -> str:
    """One `towline` command; its output, or RuntimeError with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "towline", *args],
        capture_output=True,
        text=True,
        timeout=STEP_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"towline {args[0]}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def pid_of(parent: int, module: str) -> int | None:
    """The child of `parent` that runs `python -m module`; None while there is none."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if module.encode() in command:
            return int(child)
    return None


def agent_argv(config: Path) -> list[str]:
    """The command of a real agent."""
    return [sys.executable, "-m", "towline", "agent", "--config", str(config)]


def redeem(link: str) -> tuple[str, str]:
    """Clicks a `click` link as a browser would: (Host header, Cookie header) of the open session.

    The edge asks the gateway only so often for one address; a 429 is waited for as it says.
    """
    deadline = time.monotonic() + STEP_DEADLINE_S
    while True:
        status, retry_after, cookie = _click(link)
        if status == http.HTTPStatus.TOO_MANY_REQUESTS and time.monotonic() < deadline:
            time.sleep(retry_after)
            continue
        if status != http.HTTPStatus.SEE_OTHER or cookie is None:
            raise RuntimeError(f"the link was refused: {status}")
        return urllib.parse.urlsplit(link).netloc, cookie


def _click(link: str) -> tuple[int, float, str | None]:
    url = urllib.parse.urlsplit(link)
    connection = http.client.HTTPConnection("127.0.0.1", url.port or 80, timeout=STEP_DEADLINE_S)
    connection.request(
        "POST",
        "/.towline/open",
        body=urllib.parse.urlencode({"token": url.fragment}),
        headers={
            "Host": url.netloc,
            "Origin": f"{url.scheme}://{url.netloc}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    answer = connection.getresponse()
    answer.read()
    cookie = re.match(r"[^;]+", answer.headers.get("Set-Cookie") or "")
    connection.close()
    return answer.status, float(answer.headers.get("Retry-After") or 1), cookie and cookie[0]


def open_session(gateway: GatewayClient, device_id: str) -> tuple[str, int, str]:
    """(Host header, port, Cookie header) of a new session to the device's web service."""
    body = {"service": "web", "binding": "click", "duration_s": SESSION_S}
    link = gateway.post(f"/v1/devices/{device_id}/sessions", body)["url"]
    host, cookie = redeem(link)
    return host, int(host.rsplit(":", 1)[1]), cookie


def base_port() -> int:
    """The first of PORTS free ports in a row, below those that the kernel gives to outgoing connections."""
    for _ in range(100):
        base = random.randrange(10_000, 30_000, PORTS)
        try:
            for port in range(base, base + PORTS):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError(f"no {PORTS} free ports in a row")


def wait_online(gateway: GatewayClient, device_ids: Iterable[str]) -> None:
    """Until the gateway has heard of a tunnel of each device."""
    wanted = set(device_ids)

    def online() -> bool:
        return wanted <= {one["id"] for one in gateway.items("/v1/devices") if one["online"]}

    wait_for(f"{len(wanted)} devices are online", online, ONLINE_DEADLINE_S)


@contextmanager
def running_product(root: Path) -> Iterator[Product]:
    """`towline up` without its demo device, on a folder below `root` and ports of its own."""
    data = DataFolder(root / "data")
    options = ["--no-demo", "--data", str(data.root), "--port", str(base_port())]
    log = root / "up.log"
    with running([sys.executable, "-m", "towline", "up", *options], log=log) as launcher:

        def ready() -> bool:
            if launcher.poll() is not None:
                raise RuntimeError(f"towline up ended:\n{log.read_text()}")
            return "/welcome#" in log.read_text()

        wait_for("towline up", ready, START_DEADLINE_S)
        yield Product(root, data, GatewayClient(Credentials.load(data.credentials)), launcher.pid)


@contextmanager
def towline_stack(root: Path, upstream_port: int) -> Iterator[TowlineStack]:
    """Starts everything, enrols one agent for the upstream, opens a session, and ends it all afterwards."""
    with running_product(root) as product:
        config = product.enrol_agent("bench", {"web": upstream_port})
        with running(agent_argv(config), log=root / "agent.log") as agent:
            device = product.gateway.device("bench")["id"]
            wait_online(product.gateway, [device])
            host, port, cookie = open_session(product.gateway, device)
            server = product.pid_of("tunnel_server")
            target = Target(
                TOWLINE, "127.0.0.1", port, (("Host", host), ("Cookie", cookie)),
                {"server": (server,), "agent": (agent.pid,)},
                (("Origin", f"http://{host}"),),
            )  # fmt: skip
            state = config.parent / "state"
            yield TowlineStack(
                target, product.gateway, product.data, state, server, agent.pid, product.pid_of("gateway")
            )
