"""The TCP door: a session's Bearer and nothing else opens it, and bytes, ends and refusals come through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from runtime.tcp_door import PATH, SUBPROTOCOL, DoorClose
from runtime.websocket_frames import MAX_FRAME, Opcode, close_frame, frame, frame_head
from tests.tunnel_server.conftest import LABEL, WAIT_S, Limits, Stage, Visitor, running, settings
from tests.tunnel_server.doubles import Script, Upstream, make_session
from tunnel_protocol import RefusedCode, ResetCode, Service
from tunnel_server.edge.tcp_splice import HOLLOW_BURST
from tunnel_server.settings import DeviceLimits, VisitorLimits

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


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    made = Door(stage)
    yield made
    await made.close()


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
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConnectionClosed) as end:
            while True:
                await connection.recv()
    close = end.value.rcvd
    assert close is not None, "the connection ended without a Close"
    return close.code, close.reason


async def test_bytes_pass_both_ways_and_each_direction_ends_by_itself(stage: Stage, door: Door) -> None:
    upstream, bearer = await tcp_device(stage)
    connection = await door.connect(bearer)
    assert connection.subprotocol == SUBPROTOCOL
    assert await received(connection, 6) == b"hello\n"  # the service may speak first
    for size in (1, 125, 126, 65_535, 65_536, 700_000):
        await connection.send(b"a" * size)
        assert await received(connection, size) == b"A" * size
    await connection.send([b"frag", b"", b"mented"])
    assert await received(connection, 10) == b"FRAGMENTED"
    await connection.send(b"")  # our FIN; the answer to it still comes
    assert await received(connection, 4) == b"bye\n"
    assert await received_end(connection)
    assert await closed(connection) == (1000, "")
    assert stage.devices[0].opened[0][1] == "ssh"
    await stage.until(lambda: not stage.devices[0].splices)
    assert stage.node.devices.tunnels()[0].in_use == 0
    assert stage.node.devices.tunnels()[0].live_streams == 0


async def received_end(connection: ClientConnection) -> bool:
    async with asyncio.timeout(WAIT_S):
        return await connection.recv() == b""
