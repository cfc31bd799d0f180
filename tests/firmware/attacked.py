"""The simulator, enrolled by a small gateway whose keys the tests hold, at a server that means it ill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from tests.hostile.raw_server import RawPeer, RawServer, open_frame
from tests.hostile.raw_tunnel import DATA, FIN, HELLO, OPENED, WAIT_S, frame
from tests.hostile.scene import Watched
from tests.tunnel_agent.authority import DEVICE, Authority

PIN: Final = "12345678"
STOP_S: Final = 10.0
# Freed memory is not kept, so that what grows is ours.
_ASAN: Final = "quarantine_size_mb=1:malloc_context_size=5"
GET_PAGE: Final = b"GET / HTTP/1.1\r\nHost: d.local\r\n\r\n"


class SmallGateway:
    """Enrols whoever asks, at once, and answers 503 to everything else."""

    def __init__(self, tunnel_url: str, device: str = DEVICE, server_ca: str | None = None) -> None:
        self.device, self.server_ca = device, server_ca
        self.authority = Authority(time.time())
        self.asked: list[str] = []
        self._tunnel_url = tunnel_url
        self._request: x509.CertificateSigningRequest | None = None
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lengths = [int(n) for n in re.findall(r"content-length: *(\d+)", head.lower())]
            body = await reader.readexactly(lengths[0] if lengths else 0)
            status, answer = self._answer(" ".join(head.split(" ")[:2]), body)
            text = json.dumps(answer).encode()
            head_out = f"HTTP/1.1 {status} -\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write(head_out.encode() + text)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a device that was killed while it asked
        finally:
            writer.close()

    def _answer(self, asked: str, body: bytes) -> tuple[int, dict[str, object]]:
        self.asked.append(asked)
        if asked == "POST /v1/enrolments":
            self._request = x509.load_pem_x509_csr(json.loads(body)["csr"].encode())
            return 201, {"enrolment_id": "e1", "poll_secret": "s" * 43}
        if asked == "GET /v1/enrolments/e1" and self._request is not None:
            return 200, {
                "status": "approved",
                "device_id": self.device,
                "certificate": self.authority.certificate_for(self._request),
                "ca": self.authority.certificate_for(self._request),
                "device_root": self.authority.root_pem(),
                "key_list": self.authority.key_list_text().decode(),
                "tunnel_urls": [self._tunnel_url],
                "server_ca": self.server_ca,
            }
        return 503, {"title": "not now"}


class Simulator(Watched):
    """`towline-device`; what it keeps is in a folder, so it may be killed and started again."""

    def __init__(self, program: Path, folder: Path, gateway: str, *options: str) -> None:
        super().__init__(folder / "device.log")
        token = folder / "token"
        token.write_text("t" * 43 + "\n")
        token.chmod(0o600)
        self.data = folder / "data"
        self._command = [str(program), "--data", str(self.data), "--listen", "127.0.0.1:0", "--pin", PIN]
        self._command += [
            "--gateway",
            gateway,
            "--token-file",
            str(token),
            "--hardware-id",
            "attacked",
            *options,
        ]
        self.start()

    def lines(self) -> list[dict[str, Any]]:
        words = {"E": "error", "W": "warning", "I": "info", "D": "debug"}
        said = (line.split(" ", 2) for line in self.log.read_text().splitlines())
        return [{"level": words.get(one[0], "critical"), "event": one[-1]} for one in said]

    def start(self) -> None:
        environment = dict(os.environ, ASAN_OPTIONS=_ASAN)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
            )

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_S)

    def again(self) -> None:
        """kill -9 and a start: it dials at once, whatever a server did to it before."""
        self.kill()
        self.start()

    def end(self) -> None:
        """As a user ends it; the sanitizers have seen nothing, leaks too."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert code == 0, self.log.read_text()[-4000:]


@contextlib.asynccontextmanager
async def attacked(
    program: Path, folder: Path, *options: str, device: str = DEVICE
) -> AsyncIterator[tuple[Simulator, RawServer, SmallGateway]]:
    """The simulator enrols and dials a server by hand. At the end it still runs."""
    server = RawServer()
    gateway = SmallGateway(await server.start(), device)
    simulator = Simulator(program, folder, await gateway.start(), *options)
    try:
        yield simulator, server, gateway
        assert simulator.process.poll() is None, simulator.log.read_text()[-4000:]
        await asyncio.to_thread(simulator.end)
    finally:
        if simulator.process.poll() is None:
            simulator.kill()
        await gateway.close()
        await server.close()


async def greeted(server: RawServer, *fields: bytes) -> RawPeer:
    """The next connection of the device, open."""
    peer = await server.peer(WAIT_S)
    await peer.greet(frame(HELLO, b"".join(fields)))
    return peer


async def answered(peer: RawPeer, stream: int) -> bytes:
    """The answer to a request for the page on a stream that is open."""
    before = len(data_of(peer, stream))
    assert await peer.send(frame(DATA, GET_PAGE, stream))
    await peer.until(lambda: _is_whole(data_of(peer, stream)[before:]) or peer.ended.is_set())
    return data_of(peer, stream)[before:]


def data_of(peer: RawPeer, stream: int) -> bytes:
    return b"".join(payload for one, payload in peer.of(DATA) if one == stream)


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= lengths[0]


async def served(peer: RawPeer, stream: int, grant: bytes, device: str = DEVICE) -> None:
    """An honest visitor gets the page."""
    assert await peer.send(open_frame(stream, grant, device=device.encode()))
    await peer.until(lambda: stream in [one for one, _ in peer.of(OPENED)] or peer.ended.is_set())
    answer = await answered(peer, stream)
    assert answer.startswith(b"HTTP/1.1 200 "), (peer.status, answer[:200])
    assert await peer.send(frame(FIN, stream=stream))
    await peer.until(lambda: stream in [one for one, _ in peer.of(FIN)])
