"""`towline up` as a person starts it, with a folder and ports of its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

from testbed import ops
from testbed.people import Person
from testbed.ports import free_ports
from testbed.processes import ROOT, log_ends
from testbed.programs import ended
from testbed.services import CALL_S
from testbed.waiting import eventually
from towline.data_folder import DataFolder
from towline.embedded.leftovers import PidFile, wait_gone
from towline.gateway_client import Credentials, GatewayClient

START_TIMEOUT_S = 90.0  # what a very first start may take; a loaded machine needs more than 10
STOP_TIMEOUT_S = 60.0  # each of six processes may drain
PARTS = (
    *("gateway", "visitors", "agents", "internal", "gateway-ops", "server-ops", "demo"),
    *("mqtt", "ingest-ops", "ingest"),
)
PROCESSES = ("postgres", "gateway", "ingest", "tunnel_server", "agent", "demo_device")


class Stack:
    """One folder; `start` and `kill` may follow each other as they do in life."""

    def __init__(self, data: Path, *options: str) -> None:
        """`options` go with every start."""
        self.data = data
        self.options = options
        self.ports = dict(zip(PARTS, free_ports(len(PARTS)), strict=True))
        self.address = ""  # what a newcomer opens; known once it started
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._heard: queue.Queue[str | None] = queue.Queue()

    @property
    def gateway(self) -> str:
        return f"http://localhost:{self.ports['gateway']}"

    def command(self, *more: str) -> list[str]:
        listen = [f"--listen={part}={port}" for part, port in self.ports.items() if part != "gateway"]
        port = ["--port", str(self.ports["gateway"])]
        up = [sys.executable, "-m", "towline", "up", "--data", str(self.data), *port, *listen]
        return [*up, *self.options, *more]

    def start(self, *more: str) -> float:
        """Start and wait for the printed address; the seconds it says it took."""
        self._heard = queue.Queue()
        self._process = subprocess.Popen(
            self.command(*more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process, self._heard), daemon=True)
        self._listener.start()
        ready = self.wait_line("Towline is ready after", START_TIMEOUT_S)
        self.address = self.wait_line("/welcome#", CALL_S).strip()
        return float(ready.split("after ")[1].split(" s")[0])

    def wait_line(self, part: str, timeout_s: float) -> str:
        """The next line of its output with ``part``."""
        try:
            while (line := self._heard.get(timeout=timeout_s)) is not None:
                if part in line:
                    return line
        except queue.Empty:
            raise AssertionError(f"no {part!r} within {timeout_s} s:\n{''.join(self.lines)}") from None
        raise AssertionError(f"it ended without {part!r}:\n{''.join(self.lines)}\n{self.log_ends()}")

    def stop(self) -> int:
        """As Ctrl-C or an init system does; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """kill -9, and wait until the kernel took the children along."""
        assert self._process is not None
        children = {name: PidFile(self.data / "run" / f"{name}.pid").read() for name in PROCESSES}
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        for name, known in children.items():
            assert known is not None, name
            pid, marker = known
            assert wait_gone(pid, marker, STOP_TIMEOUT_S), name

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            ended(self._process, STOP_TIMEOUT_S)
        if self._listener is not None:
            self._listener.join(STOP_TIMEOUT_S)
        stuck = [line for line in self.lines if "did not end" in line]
        assert not stuck, f"{stuck}\n{self.log_ends()}"

    def pid(self, name: str) -> int:
        known = PidFile(self.data / "run" / f"{name}.pid").read()
        assert known is not None
        return known[0]

    def kill_process(self, name: str) -> None:
        """kill -9 one process and wait until another one has taken its place."""
        old = self.pid(name)
        os.kill(old, signal.SIGKILL)
        eventually(f"{name} started again", lambda: self.pid(name) != old)

    def restart_gateway(self) -> None:
        """kill -9; when this returns the node hears its successor, and lets people in."""
        log = self.data / "logs" / "tunnel_server.log"
        heard = ops.feeds_heard(log)
        self.kill_process("gateway")
        eventually("the node hears the gateway", lambda: ops.feeds_heard(log) > heard, START_TIMEOUT_S)

    def cli(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "towline", *argv, "--data", str(self.data)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CALL_S, check=False)

    def api(self) -> GatewayClient:
        """The public API as the commands of this folder use it."""
        return GatewayClient(Credentials.load(DataFolder(self.data).credentials))

    def newcomer(self) -> Person:
        """Who opened the printed address; to be closed."""
        person = Person(self.gateway)
        person.welcome(self.address)
        return person

    def logs(self) -> str:
        """Of every service; what `up` itself said stands in `lines`."""
        return log_ends(self.data / "logs")

    log_ends = logs

    def _listen(self, process: subprocess.Popen[str], heard: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
                heard.put(line)
        heard.put(None)
