"""Whom the simulator takes for its tunnel server: the CA that the gateway named, the name that it dialled."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.certificates import Authority
from tests.firmware.attacked import Simulator, SmallGateway
from tests.hostile.raw_tunnel import WAIT_S

NAME = "localhost"


@dataclass
class TlsServer:
    """Says what came of each TLS handshake: the request's first bytes, or nothing."""

    context: ssl.SSLContext
    came: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(self.context)
            self.came.put_nowait(await reader.read(11))
        except (OSError, EOFError):
            self.came.put_nowait(b"")
        finally:
            writer.close()

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@pytest.mark.parametrize(
    ("name", "trusted", "wanted"),
    [(NAME, True, b"GET /tunnel"), ("other.example", True, b""), (NAME, False, b"")],
    ids=["the named CA and the dialled name", "another name", "another CA"],
)
async def test_a_server_is_known_by_its_ca_and_its_name(
    asan: Path, tmp_path: Path, name: str, trusted: bool, wanted: bytes
) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    issued = authority.issue("server", name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    server = TlsServer(context)
    ca = (authority if trusted else other).ca.read_text()
    gateway = SmallGateway(f"wss://{NAME}:{await server.start()}/tunnel", server_ca=ca)
    simulator = Simulator(asan / "port" / "towline-device", tmp_path, await gateway.start())
    try:
        async with asyncio.timeout(WAIT_S):
            assert await server.came.get() == wanted
        await asyncio.to_thread(simulator.end)
    finally:
        if simulator.process.poll() is None:
            simulator.kill()
        await gateway.close()
        await server.close()
