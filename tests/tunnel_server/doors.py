"""Clients of the TCP door, by another library and in raw bytes, and the device behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from runtime.tcp_door import PATH, SUBPROTOCOL
from tests.tunnel_server.conftest import LABEL, WAIT_S, Stage, Visitor
from tests.tunnel_server.doubles import Script, Upstream
from tunnel_protocol import Service

SERVICES = (Service("web", upstream="127.0.0.1:80"), Service("ssh", kind="tcp"))
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x11\x22\x33\x44"


async def shout(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets as sshd does, echoes in capitals, and answers the end with its own."""
    writer.write(b"hello\n")
    while data := await reader.read(65_536):
        upstream.received += data
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"bye\n")
    writer.write_eof()
    upstream.reached.set()


class Door:
    """A client that another library speaks for."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._open: list[ClientConnection] = []

    async def connect(self, bearer: bytes | None, *, label: str = LABEL, **headers: str) -> ClientConnection:
        sent = {} if bearer is None else {"Authorization": f"Bearer {bearer.decode()}"}
        made = await connect(
            f"ws://{label}.localhost{PATH}",
            host="127.0.0.1",
            port=self.stage.node.visitors.address.port,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Accept": "application/json", **sent, **headers},
            origin=Origin(f"http://{label}.localhost"),
            compression=None,
            proxy=None,
            ping_interval=None,
            max_size=None,
            open_timeout=WAIT_S,
            close_timeout=WAIT_S,
        )
        self._open.append(made)
        return made

    async def refused(self, bearer: bytes | None, **options: Any) -> tuple[int, str]:
        """(status, problem code) of a handshake that is not let in."""
        with pytest.raises(InvalidStatus) as refusal:
            await self.connect(bearer, **options)
        response = refusal.value.response
        return response.status_code, str(json.loads(response.body or b"{}")["code"])

    async def close(self) -> None:
        for one in self._open:
            one.transport.abort()
            await one.wait_closed()


async def tcp_device(stage: Stage, script: Script = shout, **options: Any) -> tuple[Upstream, bytes]:
    """A device with a TCP service, and the Bearer of a session for it."""
    upstream = await stage.serve(script, services=SERVICES, **options)
    return upstream, stage.gateway.add_session(service="ssh", kind="tcp")[1]


async def received(connection: ClientConnection, size: int) -> bytes:
    got = b""
    async with asyncio.timeout(WAIT_S):
        while len(got) < size:
            message = await connection.recv()
            assert isinstance(message, bytes)
            got += message
    return got


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """The Close that ends it, whatever comes before."""

    async def drain() -> None:
        while True:
            await connection.recv()

    with pytest.raises(ConnectionClosed) as end:
        await asyncio.wait_for(drain(), WAIT_S)
    close = end.value.rcvd
    assert close is not None, "the connection ended without a Close"
    return close.code, close.reason


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
    "Origin": f"http://{LABEL}.localhost",
}


async def raw_door(stage: Stage, bearer: bytes, **changes: str | None) -> Visitor:
    """A handshake in raw bytes; None leaves a header out."""
    visitor = await stage.visitor(b"")
    headers: dict[str, str | None] = {
        "Authorization": f"Bearer {bearer.decode()}",
        "Accept": "application/json",
    }
    headers |= HANDSHAKE
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    visitor.get(PATH, *(f"{name}: {value}" for name, value in headers.items() if value is not None))
    return visitor


async def entered(stage: Stage, script: Script = shout) -> tuple[Upstream, Visitor]:
    upstream, bearer = await tcp_device(stage, script)
    visitor = await raw_door(stage, bearer)
    assert (await visitor.head()).startswith(b"HTTP/1.1 101 ")
    assert await visitor.exactly(8) == b"\x82\x06hello\n"
    return upstream, visitor


def close_code(rest: bytes) -> int:
    """Of the last frame."""
    at = rest.rindex(b"\x88")
    assert rest[at + 1] == len(rest) - at - 2
    return int.from_bytes(rest[at + 2 : at + 4], "big")
