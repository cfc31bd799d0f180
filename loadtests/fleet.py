"""A whole fleet loses its node: `python -m loadtests.fleet`.

Thousands of devices with the agent's own reconnect rules hold a tunnel each; the node is killed (kill -9),
its supervisor starts it again, and all come back. Told: the seconds until the last one was back, the node's
memory, and what a person's login took meanwhile. Devices are written straight into the database, since the
gateway lets one address enrol one device a second (loadtests.seeding).
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.figures import percentile
from loadtests.lab import say
from loadtests.measure import cpu_ns, rss_kib
from loadtests.seeding import SeededDevice, seed_devices
from loadtests.stack import Product, running_product
from runtime import open_files
from towline.gateway_client import Credentials, GatewayClient
from tunnel_agent.identity import IdentityStore

FIRST_DIAL_S = 300.0  # all at once and from one address: the door lets so many of one in at a time
RETURN_S = 240.0  # far above the goal, so that a miss is a figure
LOGIN_EVERY_S = 2.0  # the gateway takes ten in a row of one account and address, then one each 10 s
LOGINS = 10
END_S = 60.0
NOBODY = 9  # the port of a service that nobody visits


@dataclass(frozen=True, slots=True)
class Return:
    """One kill and the way back. Seconds since the kill; RSS of the node with all tunnels open."""

    devices: int
    half_back_s: float
    all_back_s: float
    server_rss_mib: float
    login_p95_s: float
    server_cpu_s: float
    gateway_cpu_s: float


class Agents:
    """The fleet's process; `wait_open` follows what it says."""

    def __init__(self, product: Product, devices: list[SeededDevice]) -> None:
        state = product.enrol_agent("trust", {"web": NOBODY}).parent / "state"
        order = {
            "devices": [one.to_json() for one in devices],
            "urls": IdentityStore(state).load().tunnel_urls,
            "state": str(state),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.fleet_agents"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def wait_open(self, number: int, deadline_s: float, *, at_most: bool = False) -> float:
        """The monotonic time at which so many tunnels (or, `at_most`, no more) were open."""
        end, last = time.monotonic() + deadline_s, 0
        while (left := end - time.monotonic()) > 0:
            try:
                said = self._said.get(timeout=left)
            except queue.Empty:
                break
            if said is None:
                raise RuntimeError("the fleet's process ended")
            last = said["open"]
            if last <= number if at_most else last >= number:
                return float(said["at"])
        raise RuntimeError(f"{last} tunnels open instead of {number} after {deadline_s:.0f} s")

    def close(self) -> None:
        try:
            self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
            raise
        finally:
            self._listener.join(END_S)


@contextmanager
def fleet(product: Product, number: int) -> Iterator[Agents]:
    """So many devices, all connected."""
    agents = Agents(product, seed_devices(product.data, number))
    try:
        started = time.monotonic()
        at = agents.wait_open(number, FIRST_DIAL_S)
        say(f"  {number} devices connected after {at - started:.1f} s")
        yield agents
    finally:
        agents.close()


class Logins(threading.Thread):
    """A person logs in now and then; `took` in seconds."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(daemon=True)
        self.took: list[float] = []
        self._credentials = credentials
        self._enough = threading.Event()

    def run(self) -> None:
        for _ in range(LOGINS):
            started = time.monotonic()
            GatewayClient(self._credentials).get("/v1/devices?limit=1")
            self.took.append(time.monotonic() - started)
            if self._enough.wait(LOGIN_EVERY_S):
                return

    def end(self) -> list[float]:
        self._enough.set()
        self.join(END_S)
        return self.took


def kill_and_return(product: Product, agents: Agents, number: int) -> Return:
    """kill -9 of the node, and all devices back."""
    old, gateway = product.stack.pid("tunnel_server"), product.stack.pid("gateway")
    gateway_before = cpu_ns([gateway])
    logins = Logins(Credentials.load(product.data.credentials))
    killed = time.monotonic()
    os.kill(old, signal.SIGKILL)
    logins.start()
    agents.wait_open(number // 10, RETURN_S, at_most=True)
    half = agents.wait_open(number // 2, RETURN_S)
    whole = agents.wait_open(number, RETURN_S)
    took = logins.end()
    server = product.stack.pid("tunnel_server")
    return Return(
        devices=number,
        half_back_s=half - killed,
        all_back_s=whole - killed,
        server_rss_mib=rss_kib(server) / 1024,
        login_p95_s=percentile(took, 0.95),
        server_cpu_s=cpu_ns([server]) / 1e9,
        gateway_cpu_s=(cpu_ns([gateway]) - gateway_before) / 1e9,
    )


def run(number: int, rounds: int) -> list[Return]:
    """Start everything, connect the fleet, kill and return `rounds` times."""
    open_files.raise_limit()
    with tempfile.TemporaryDirectory(prefix="towline-fleet-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        with running_product(root) as product, fleet(product, number) as agents:
            found = []
            for _ in range(rounds):
                found.append(kill_and_return(product, agents, number))
                say(f"  {asdict(found[-1])}")
            return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.fleet", description=__doc__)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps([asdict(one) for one in run(arguments.devices, arguments.rounds)], indent=1))


if __name__ == "__main__":
    main()
