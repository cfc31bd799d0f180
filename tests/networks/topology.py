"""Network namespaces of a test's own: a cloud, a visitor beside it, and a device behind a bad line.

::

    visitor 10.71.0.2 ──veth── 10.71.0.1 cloud 10.70.0.1 ──wire (two TUNs and a process)── 10.70.0.2 device

The services of the cloud listen on addresses of their own (`GATEWAY`, `VISITORS`, `TUNNELS`). Addresses may
be the same in every run, since no namespace is joined to the machine's own; names hold the process's id, and
what a dead process left is removed at the next start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from testbed.programs import program
from tests.networks.wire import DEVICE as WIRE_DEVICE
from tests.networks.wire import enter

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "towline-n"
CLOUD_SIDE, DEVICE_SIDE, VISITOR_SIDE = "10.70.0.1", "10.70.0.2", "10.71.0.2"
GATEWAY, VISITORS, TUNNELS = "10.80.0.1", "10.80.0.2", "10.80.0.3"
COMMAND_S = 20.0
NAMES_FOLDER = Path("/etc/netns")  # ip-netns(8): NAME/hosts lies over /etc/hosts for what runs there

T = TypeVar("T")


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def require_root() -> None:
    """These tests make network namespaces, which the kernel allows root alone."""
    assert os.geteuid() == 0, "tests/networks need root (network namespaces, TUN): run them with sudo"
    assert Path("/dev/net/tun").exists(), "/dev/net/tun is missing: modprobe tun"
    program("ip", "iproute2")
    program("nft", "nftables")


def remove_leftovers() -> None:
    """What a run that was killed left: namespaces named after processes that are gone."""
    for name in re.findall(
        rf"^{PREFIX}\d+-\S+", run(program("ip", "iproute2"), "netns", "list"), re.MULTILINE
    ):
        owner = int(re.sub(r"\D.*", "", name.removeprefix(PREFIX)))
        if not Path(f"/proc/{owner}").exists():
            _remove(name)


def _remove(name: str) -> None:
    for pid in run("ip", "netns", "pids", name, check=False).split():
        os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "delete", name, check=False)
    shutil.rmtree(NAMES_FOLDER / name, ignore_errors=True)


class Namespace:
    """A named network namespace."""

    def __init__(self, name: str, hosts: Mapping[str, str]) -> None:
        self.name = name
        folder = NAMES_FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{address} {host}\n" for host, address in {"localhost": "127.0.0.1", **hosts}.items()]
        (folder / "hosts").write_text("".join(lines))
        run("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def argv(self, *command: str) -> list[str]:
        """`command` inside."""
        return [program("ip", "iproute2"), "netns", "exec", self.name, *command]

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.name, *words)

    def nft(self, rules: str) -> None:
        """Replace all rules; an empty text lets everything through."""
        text = f"flush ruleset\n{rules}"
        done = subprocess.run(
            self.argv(program("nft", "nftables"), "-f", "-"),
            input=text, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def limit(self, device: str, rate: str | None, *, latency: str = "400ms") -> None:
        """tc-tbf(8) on what leaves through `device`, with a queue of `latency`; None lifts it."""
        tc = self.argv(program("tc", "iproute2"), "qdisc")
        run(*tc, "del", "dev", device, "root", check=False)
        if rate is not None:
            run(*tc, "add", "dev", device, "root", "tbf", "rate", rate, "burst", "4kb", "latency", latency)

    def inside(self, make: Callable[[], T]) -> T:
        """`make()` by a thread that is in the namespace: a socket stays where it was made."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                enter(self.name)
                results.append(make())
            except BaseException as error:  # carried to the caller
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection out of the namespace."""
        raw = self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            raw.settimeout(timeout_s)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.connect((address, port))
        except BaseException:
            raw.close()
            raise
        return raw

    def remove(self) -> None:
        _remove(self.name)


class Line:
    """The wire between cloud and device."""

    def __init__(self, cloud: Namespace, device: Namespace, seed: int) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.networks.wire", cloud.name, device.name, str(seed)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the wire did not start"

    def set(self, **order: float | str) -> dict[str, Any]:
        """Fields of `wire.Quality`, and `to` ("a" cloud, "b" device, else both); the counts so far."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            counts: dict[str, Any] = json.loads(stdout.readline())
        return counts

    def clear(self) -> dict[str, Any]:
        """A good line again."""
        return self.set(delay_ms=0, jitter_ms=0, loss=0, duplicate=0, reorder=0)

    @contextmanager
    def partition(self) -> Iterator[None]:
        """Nothing passes, and nobody is told."""
        self.set(loss=100)
        try:
            yield
        finally:
            self.set(loss=0)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(COMMAND_S)
        self._process.stdout.close()


class Topology:
    """The three namespaces and the line, until `close`."""

    def __init__(self, name: str, hosts: Mapping[str, str], seed: int = 0) -> None:
        """`name` tells the topologies of one process apart."""
        require_root()
        remove_leftovers()
        self._made: list[Namespace] = []
        try:
            self.cloud, self.device, self.visitor = (
                self._make(f"{PREFIX}{os.getpid()}-{name}-{part}", hosts)
                for part in ("cloud", "device", "visitor")
            )
            self.line = Line(self.cloud, self.device, seed)
            self._join()
        except BaseException:
            self.close()
            raise

    def _make(self, name: str, hosts: Mapping[str, str]) -> Namespace:
        made = Namespace(name, hosts)
        self._made.append(made)
        return made

    def _join(self) -> None:
        for address in (GATEWAY, VISITORS, TUNNELS):
            self.cloud.ip("address", "add", f"{address}/32", "dev", "lo")
        for namespace, address in ((self.cloud, CLOUD_SIDE), (self.device, DEVICE_SIDE)):
            # No IPv6: the kernel would say something on the line by itself.
            namespace.ip("link", "set", WIRE_DEVICE, "addrgenmode", "none")
            namespace.ip("address", "add", f"{address}/24", "dev", WIRE_DEVICE)
            namespace.ip("link", "set", WIRE_DEVICE, "up", "txqueuelen", "2000")
        self.device.ip("route", "add", "default", "dev", WIRE_DEVICE)
        self.cloud.ip(
            "link", "add", "people", "type", "veth", "peer", "name", "out", "netns", self.visitor.name
        )
        self.cloud.ip("address", "add", "10.71.0.1/24", "dev", "people")
        self.visitor.ip("address", "add", f"{VISITOR_SIDE}/24", "dev", "out")
        self.cloud.ip("link", "set", "people", "up")
        self.visitor.ip("link", "set", "out", "up")
        self.visitor.ip("route", "add", "default", "via", "10.71.0.1")

    def mend(self) -> None:
        """Every rule, limit and fault away."""
        self.line.clear()
        for namespace in self._made:
            namespace.nft("")
        self.cloud.limit(WIRE_DEVICE, None)
        self.device.limit(WIRE_DEVICE, None)

    def close(self) -> None:
        if hasattr(self, "line"):
            self.line.close()
        for namespace in self._made:
            namespace.remove()
