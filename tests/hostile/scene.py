"""A running node, an honest device with traffic that is checked byte by byte, and room for an attacker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runtime.tunnel_link import dial
from testbed.certificates import self_signed
from tests.hostile.raw_tunnel import WAIT_S, Ended, RawTunnel, auth_frame
from tests.tunnel_server.doubles import DeviceKey, TestDevice, Upstream

ROOT = Path(__file__).parents[2]
HONEST, HOSTILE = "d_honest00000000", "d_hostile0000000"
HONEST_LABEL, HOSTILE_LABEL = "h" * 26, "x" * 26
START_S = 20.0
STOP_S = 10.0
PAGE_BYTES = 20_000
UPLOAD_BYTES = 30_000
# "Not stuck behind somebody": a request takes milliseconds; the rest is a machine that others use too.
HONEST_ANSWER_S = 3.0
MB = 1 << 20


def write_certificate(folder: Path) -> None:
    """chain.pem and key.pem for 127.0.0.1."""
    made = self_signed(folder / "node", "127.0.0.1")
    made.chain.rename(folder / "chain.pem")
    made.key.rename(folder / "key.pem")


class Watched:
    """A process whose memory, files and log are looked at from outside (proc(5))."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str]

    @property
    def rss(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def lines(self) -> list[dict[str, Any]]:
        """The log's events."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
            raise


class NodeProcess(Watched):
    """`node_process` as its tests see it."""

    def __init__(
        self,
        folder: Path,
        *,
        visitors: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        **tunnels: Any,
    ) -> None:
        super().__init__(folder / "node.log")
        write_certificate(folder)
        self.context = ssl.create_default_context(cafile=folder / "chain.pem")
        overrides = {"tunnels": tunnels, "visitors": visitors or {}, "limits": limits or {}}
        command = [sys.executable, "-m", "tests.hostile.node_process", str(folder), json.dumps(overrides)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.ports: dict[str, int] = json.loads(line)

    def stop(self) -> None:
        super().stop()
        assert self.process.stdout is not None
        self.process.stdout.close()

    async def call(self, what: str, **arguments: Any) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["control"])
        try:
            writer.write(json.dumps({"call": what, **arguments}).encode() + b"\n")
            async with asyncio.timeout(WAIT_S):
                return json.loads(await reader.readline())
        finally:
            writer.close()

    async def until(self, condition: Callable[[dict[str, Any]], object], seconds: float = WAIT_S) -> None:
        """Until the node's own view of itself is so."""
        state: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while not condition(state := await self.call("state")):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"the node stays at {state}") from None

    async def metric(self, name: str, **labels: str) -> float:
        """A counter's value; 0 before it was counted."""
        text = await self.call("metrics")
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        wanted = re.escape(name + (f"{{{inside}}}" if inside else ""))
        found = re.search(rf"^{wanted} ([0-9.e+]+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def until_metric(self, name: str, value: float, **labels: str) -> None:
        """Until a counter has come so far, or a gauge is 0."""
        async with asyncio.timeout(WAIT_S):
            # Another process: there is no event to wait for.
            while (now := await self.metric(name, **labels)) < value or (now and not value):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def serve_pages(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET /N is N's page, any POST answers with the SHA-256 of its body."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        if head.startswith(b"POST"):
            assert length is not None
            body = hashlib.sha256(await reader.readexactly(int(length[1]))).hexdigest().encode()
        else:
            body = page(int(head.split()[1].strip(b"/")))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


def page(n: int) -> bytes:
    seed = hashlib.sha256(b"%d" % n).digest()
    return (seed * (PAGE_BYTES // len(seed) + 1))[:PAGE_BYTES]


class HonestTraffic:
    """A visitor of the honest device who never stops, and compares what came with what was due."""

    def __init__(self, node: NodeProcess, cookie: str) -> None:
        self._node = node
        self._cookie = cookie
        self.rounds = 0
        self.slowest_s = 0.0
        self.fault: Exception | None = None

    async def run(self) -> None:
        """Until cancelled, or the first fault."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._node.ports["visitors"])
        try:
            while True:
                started = time.monotonic()
                async with asyncio.timeout(HONEST_ANSWER_S):
                    await self._download(reader, writer)
                    await self._upload(reader, writer)
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                self.rounds += 1
                await asyncio.sleep(0.005)
        except (AssertionError, TimeoutError, EOFError, OSError) as fault:
            self.fault = fault
        finally:
            writer.transport.abort()

    def _head(self, method: str, path: str, *more: str) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {HONEST_LABEL}.localhost",
            "Sec-Fetch-Site: same-origin",
        ]
        return "\r\n".join([*lines, f"Cookie: towline_session={self._cookie}", *more, "", ""]).encode()

    async def _download(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head("GET", f"/{self.rounds}"))
        body = await self._answer(reader)
        assert body == page(self.rounds), "a wrong byte in a download"

    async def _upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = os.urandom(UPLOAD_BYTES)
        writer.write(self._head("POST", "/", f"Content-Length: {len(body)}") + body)
        answer = await self._answer(reader)
        assert answer == hashlib.sha256(body).hexdigest().encode(), "a wrong byte in an upload"

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        return await reader.readexactly(int(length[1]))

    async def more(self, rounds: int) -> None:
        """That many rounds from now, all right."""
        wanted = self.rounds + rounds
        async with asyncio.timeout(2 * HONEST_ANSWER_S * rounds):
            while self.rounds < wanted:
                assert self.fault is None, self.fault
                await asyncio.sleep(0.01)


class Scene:
    """What an attack gets to play with."""

    def __init__(self, node: NodeProcess, honest: HonestTraffic, key: DeviceKey) -> None:
        self.node = node
        self.honest = honest
        self.key = key
        self.tunnels: list[RawTunnel] = []
        self.sockets: list[asyncio.StreamWriter] = []
        # A long test sets it: thousands of sessions would be memory of its own. Streams are then pooled, too.
        self.one_session = False
        self._cookie: str | None = None  # of the latest session

    async def connect(self, *, listens: bool = True) -> RawTunnel:
        """A WebSocket on which nothing was said yet."""
        tunnel = await RawTunnel.connect(self.node.ports["tunnels"], self.node.context)
        self.tunnels.append(tunnel)
        if listens:
            tunnel.listen()
        return tunnel

    async def tunnel(
        self, hello_frame: bytes | None = None, *, instance: bytes | None = None, device: str = HOSTILE
    ) -> RawTunnel:
        """An open tunnel of the hostile device."""
        known = (await self.node.call("state"))["tunnels"].get(device, 0)
        tunnel = await self.connect()
        await tunnel.say_hello(self.key, device, instance=instance, hello_frame=hello_frame)
        if instance is None:
            await self.node.until(lambda state: state["tunnels"].get(device) == 1)
        else:
            await self.node.until(lambda state: state["tunnels"].get(device, 0) > known)
        return tunnel

    def auth(self, challenge: bytes, **changes: Any) -> bytes:
        """The hostile device's AUTH for this CHALLENGE."""
        return auth_frame(self.key, HOSTILE, challenge, **changes)

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to the devices' listener, without TLS."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.node.ports["tunnels"])
        self.sockets.append(writer)
        return reader, writer

    async def visit(
        self, path: str = "/", *more: str, method: str = "GET", slowly: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request to the hostile device by an accomplice; the answer is the caller's to read, or not.

        `slowly`: with a receive buffer so small that the kernels between take little.
        """
        if self._cookie is None or not self.one_session:
            session = await self.node.call("add_session", device=HOSTILE, label=HOSTILE_LABEL)
            self._cookie = session["cookie"]
        raw = socket.socket()
        if slowly:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        raw.connect(("127.0.0.1", self.node.ports["visitors"]))
        reader, writer = await asyncio.open_connection(sock=raw)
        self.sockets.append(writer)
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {HOSTILE_LABEL}.localhost",
            "Sec-Fetch-Site: same-origin",
        ]
        lines += [f"Cookie: towline_session={self._cookie}", *more, "", ""]
        writer.write("\r\n".join(lines).encode())
        return reader, writer

    async def over(self, bounds: Bounds, *, mb: float, lines: int) -> None:
        """The attack is over: nothing of it may stay."""
        await self.close()
        await bounds.check(mb=mb, lines=lines)

    async def close(self) -> None:
        for tunnel in self.tunnels:
            await tunnel.close()
        for writer in self.sockets:
            writer.transport.abort()


class Bounds:
    """Samples the node's memory while an attack runs, and compares all of it with what it was before."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._rss = watched.rss
        self._fds = watched.fds
        self._lines = len(watched.lines())
        self.peak = self._rss
        self._sampling = asyncio.get_running_loop().create_task(self._sample())

    async def _sample(self) -> None:
        while self._watched.process.poll() is None:
            self.peak = max(self.peak, self._watched.rss)
            await asyncio.sleep(0.02)

    @property
    def growth_mb(self) -> float:
        """Of the peak over the start."""
        return (max(self.peak, self._watched.rss) - self._rss) / MB

    def stop(self) -> None:
        """Look no more."""
        self._sampling.cancel()

    async def check(self, *, mb: float, lines: int) -> None:
        """Memory under its ceiling, every file closed, few lines and none of them a fault of ours."""
        self.stop()
        assert self.growth_mb <= mb, f"{self.growth_mb:.1f} MB more than before"
        try:
            async with asyncio.timeout(WAIT_S):
                while self._watched.fds > self._fds:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self._watched.fds} files open, {self._fds} before") from None
        new = self._watched.lines()[self._lines :]
        bad = [line for line in new if line["level"] in ("error", "critical") or "traceback" in line]
        assert not bad, bad[:3]
        assert len(new) <= lines, (len(new), new[:3], new[-3:])


@asynccontextmanager
async def staged(node: NodeProcess, keys: dict[str, DeviceKey]) -> AsyncIterator[Scene]:
    """The honest device is up and busy; afterwards everything is as it was."""
    upstream = Upstream(serve_pages)
    target = await upstream.start()
    device = TestDevice(keys[HONEST], target, device_id=HONEST)
    url = f"wss://127.0.0.1:{node.ports['tunnels']}/tunnel"
    await dial(url, device, ssl=node.context, max_message=1 << 20, timeout_s=WAIT_S)
    await device.wait_ready()
    await node.until(lambda state: state["tunnels"].get(HONEST) == 1)
    session = await node.call("add_session", device=HONEST, label=HONEST_LABEL)
    honest = HonestTraffic(node, session["cookie"])
    running = asyncio.get_running_loop().create_task(honest.run())
    scene = Scene(node, honest, keys[HOSTILE])
    try:
        await honest.more(3)
        yield scene
        await honest.more(3)
        assert device.connection.live, "the honest device lost its tunnel"
    finally:
        running.cancel()
        await scene.close()
        await device.close()
        await upstream.close()
        await node.until(lambda state: not state["connections"] and not state["visitors"])


__all__ = ["HONEST", "HOSTILE", "MB", "Bounds", "Ended", "NodeProcess", "Scene", "Watched", "staged"]
