"""`towline up` as a person starts it, with a folder and ports of its own, and a visitor without a browser."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from towline.embedded.leftovers import PidFile, wait_gone

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0  # what the issue allows for the very first start; a loaded machine needs more than 10
STOP_TIMEOUT_S = 60.0  # each of five processes may drain
CALL_TIMEOUT_S = 20.0
RECOVERY_TIMEOUT_S = 30.0  # back-off, start and reconnect together take a few seconds
PARTS = ("gateway", "visitors", "agents", "internal", "gateway-ops", "server-ops", "demo")
PROCESSES = ("postgres", "gateway", "tunnel_server", "agent", "demo_device")

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Ports the kernel gives now; held together, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def eventually(what: str, check: Callable[[], T], timeout_s: float = RECOVERY_TIMEOUT_S) -> T:
    """The first truthy answer of ``check``; errors of a service that is away count as not yet."""
    pause, waited, last = threading.Event(), 0.0, "nothing"
    while waited < timeout_s:
        try:
            found = check()
        except (httpx.HTTPError, OSError) as error:
            last = repr(error)
        else:
            if found:
                return found
            last = repr(found)
        pause.wait(0.1)
        waited += 0.1
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s, last {last}")


class Stack:
    """One folder; `start` and `kill` may follow each other as they do in life."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ports = dict(zip(PARTS, free_ports(len(PARTS)), strict=True))
        self.address = ""
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
        return [sys.executable, "-m", "towline", "up", "--data", str(self.data), *port, *listen, *more]

    def start(self, *more: str) -> float:
        """Start and wait for the printed address; the seconds it says it took."""
        self._heard = queue.Queue()
        self._process = subprocess.Popen(
            self.command(*more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process, self._heard), daemon=True)
        self._listener.start()
        ready = self.wait_line("Towline is ready after", START_TIMEOUT_S)
        self.address = self.wait_line("/welcome#", CALL_TIMEOUT_S).strip()
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
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_TIMEOUT_S)
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

    def cli(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "towline", *argv, "--data", str(self.data)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=CALL_TIMEOUT_S, check=False
        )

    def log_ends(self) -> str:
        """The last lines of every log, for a failed test."""
        parts = [
            f"== {path.name}\n{path.read_text()[-1500:]}"
            for path in sorted((self.data / "logs").glob("*.log"))
        ]
        return "\n".join(parts)

    def _listen(self, process: subprocess.Popen[str], heard: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
                heard.put(line)
        heard.put(None)


class Person:
    """A newcomer who opened the printed address."""

    def __init__(self, stack: Stack) -> None:
        self.http = httpx.Client(
            base_url=stack.gateway, headers={"Origin": stack.gateway}, timeout=CALL_TIMEOUT_S, trust_env=False
        )
        secret = urlsplit(stack.address).fragment
        answer = self.http.post("/v1/login/welcome", json={"secret": secret})
        assert answer.status_code == 204, answer.text

    def devices(self) -> list[dict[str, Any]]:
        answer = self.http.get("/v1/devices")
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def device(self, name: str = "Demo device") -> dict[str, Any]:
        return next(one for one in self.devices() if one["name"] == name)

    def open_session(self, device: str, service: str = "web") -> dict[str, Any]:
        body = {"service": service, "binding": "click", "duration_s": 600}
        answer = self.http.post(f"/v1/devices/{device}/sessions", json=body)
        assert answer.status_code == 201, answer.text
        session: dict[str, Any] = answer.json()
        return session

    def close(self) -> None:
        self.http.close()


class Visitor:
    """Someone who clicked a link: a client of the session's own origin."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None) -> None:
        """`trust` is for links to https."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.token = parts.fragment
        self.origin = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self._host, self._port = f"{parts.hostname}:{parts.port}", parts.port
        self._name = parts.hostname
        # *.localhost is this machine (RFC 6761), whatever the system's resolver says; test domains are too.
        self.http = httpx.Client(
            base_url=f"{parts.scheme}://127.0.0.1:{parts.port}",
            headers={"Host": self._host},
            timeout=CALL_TIMEOUT_S,
            trust_env=False,
            verify=trust or True,
            event_hooks={"request": [self._name_server]},
        )

    def _name_server(self, request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = self._name

    def enter(self) -> httpx.Response:
        """The click on the landing page."""
        return self.http.post("/.towline/open", data={"token": self.token}, headers={"Origin": self.origin})

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    @contextmanager
    def websocket(self, path: str) -> Iterator[ClientConnection]:
        raw = socket.create_connection(("127.0.0.1", self._port), CALL_TIMEOUT_S)
        with connect(
            f"ws://{self._host}{path}",
            sock=raw,
            origin=Origin(self.origin),
            additional_headers={"Cookie": self.cookie},
            open_timeout=CALL_TIMEOUT_S,
            proxy=None,
        ) as connection:
            yield connection

    def first_event(self, path: str) -> Any:
        """The first event of an SSE stream."""
        with self.http.stream("GET", path) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended without an event")

    def close(self) -> None:
        self.http.close()
