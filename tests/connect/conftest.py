"""One `towline up` with a device of its own whose services are a real sshd and a page."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from testbed.ports import free_port
from testbed.processes import ROOT, short_folder, started
from testbed.up import Stack
from tests.browser.devices import Local, device_at
from tests.connect.sshd import Running, SshServer, program, ssh_server

NAME = "Pump"


@dataclass
class Bench:
    """What the tests share: the stack, the device's id, its sshd."""

    stack: Stack
    device: str
    server: SshServer
    folder: Path
    open: list[Running]

    def run(self, argv: list[str]) -> Running:
        """A program that ends with the test."""
        running = Running(argv, ROOT)
        self.open.append(running)
        return running

    def towline(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "towline", *argv, "--data", str(self.stack.data)]

    def connect(self, device: str = NAME, service: str = "ssh", *more: str) -> Connect:
        """A `towline connect` that listens."""
        running = self.run(self.towline("connect", device, service, *more))
        line = running.heard(b"Ctrl-C").decode()
        found = re.match(r"127\.0\.0\.1:(\d+) leads to \S+ of ", line)
        assert found is not None, line
        return Connect(running, int(found[1]))

    def ssh(self, port: int, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        there = [f"{self.server.user}@127.0.0.1", *command]
        return [program("ssh"), *self.server.options(), "-p", str(port), *options, *there]

    @contextmanager
    def another_device(self, name: str) -> Iterator[str]:
        """A device with the same sshd, for tests after which it is gone; its id."""
        folder = self.folder / f"device-{name}"
        folder.mkdir()
        more = {"ssh": Local(self.server.port, ('kind = "tcp"',))}
        page = free_port()
        with device_at(self.stack, folder, name, page, more) as device:
            yield device

    def line_of(self, name: str) -> str:
        """What `towline devices` says of it."""
        return next(line for line in self.stack.cli("devices").stdout.splitlines() if name in line.split())

    def sessions(self) -> list[str]:
        """Ids of the sessions that have not ended."""
        lines = self.stack.cli("sessions").stdout.splitlines()
        return [line.split()[0] for line in lines[1:]]


def writers_of(path: Path) -> list[int]:
    """Processes that hold the file open."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(file.path == str(path) for file in process.open_files()):
                found.append(process.pid)
    return found


@dataclass
class Connect:
    running: Running
    port: int

    def stop(self) -> int:
        """Ctrl-C."""
        self.running.process.send_signal(signal.SIGINT)
        return self.running.ended()


@pytest.fixture(scope="package")
def served() -> Iterator[tuple[Stack, Path, SshServer, str]]:
    with (
        short_folder() as folder,
        started(Stack(folder / "data", "--no-demo")) as stack,
        ssh_server(folder / "sshd") as server,
    ):
        page = free_port()  # nobody listens: only its kind matters here
        more = {"ssh": Local(server.port, ('kind = "tcp"',)), "shut": Local(page, ('kind = "tcp"',))}
        device_folder = folder / "device"
        device_folder.mkdir()
        with device_at(stack, device_folder, NAME, page, more) as device:
            yield stack, folder, server, device


@pytest.fixture
def bench(served: tuple[Stack, Path, SshServer, str], tmp_path: Path) -> Iterator[Bench]:
    stack, _, server, device = served
    made = Bench(stack, device, server, tmp_path, [])
    yield made
    for running in made.open:
        running.close()
