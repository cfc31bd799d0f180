"""A device that answers for ever, or byte by byte, to a visitor who has stopped reading."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.hostile.raw_tunnel import CREDIT, DATA, OPEN, OPENED, PING, PONG, RawTunnel, frame
from tests.hostile.scene import MB, Bounds, NodeProcess, Scene, staged
from tests.tunnel_server.doubles import DeviceKey

WINDOW = 1 << 20  # a stream's, from the start: what it would grow to while a visitor reads quickly
ENDLESS = 64 << 20
STALLED_S = 0.5  # so long without credit: the visitor has stopped
# The window, the visitor's buffer, and the tunnel's read buffer, which may be copied while it grows.
STALLED_MB = WINDOW / MB + 3.0
CRUMBS = 200_000  # bytes, each a frame: as objects they would cost twelve megabytes


@pytest.fixture(scope="module")
def wide_node() -> Iterator[NodeProcess]:
    folder = Path(tempfile.mkdtemp(prefix="towline-wide-"))
    node = NodeProcess(folder, stream_window=WINDOW)
    yield node
    node.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def scene(wide_node: NodeProcess, keys: dict[str, DeviceKey]) -> AsyncIterator[Scene]:
    for device, key in keys.items():
        await wide_node.call("add_device", device=device, public_key=key.public.hex())
    async with staged(wide_node, keys) as scene:
        yield scene


class Pourer:
    """A device's side of one answer without an end, which keeps to the credit it is given."""

    def __init__(self, tunnel: RawTunnel, stream: int) -> None:
        self.tunnel = tunnel
        self.stream = stream
        self.sent = 0

    async def begin(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
        await self.tunnel.send(frame(OPENED, b"", self.stream), frame(DATA, head, self.stream))
        self.sent = len(head)

    async def pour(self, most: int) -> None:
        """Half the credit at a time, until `most` bytes have left or no new credit comes for it."""
        while self.sent < most:
            before = self.credit()
            await self.send((before - self.sent) // 2 + 1, 60_000)
            try:
                async with asyncio.timeout(STALLED_S):
                    while self.credit() == before:
                        await self.tunnel.until_heard(CREDIT, len(self.tunnel.of(CREDIT)) + 1)
            except TimeoutError:
                return

    async def send(self, size: int, piece: int) -> None:
        """So many bytes in frames of `piece` bytes."""
        pieces = [min(piece, size - at) for at in range(0, size, piece)]
        # Small messages: what one costs while it is read is not what is kept.
        most = max(20_000 // (piece + 8), 1)
        for at in range(0, len(pieces), most):
            await self.tunnel.send(*(frame(DATA, bytes(n), self.stream) for n in pieces[at : at + most]))
            await self._read()
        self.sent += size

    async def _read(self) -> None:
        """The node has read all of it: what a busy machine reads late, at once, is not what is kept."""
        pongs = len(self.tunnel.of(PONG))
        await self.tunnel.send(frame(PING, bytes(8)))
        await self.tunnel.until_heard(PONG, pongs + 1)

    def credit(self) -> int:
        offsets = [int.from_bytes(data) for stream, data in self.tunnel.of(CREDIT) if stream == self.stream]
        return max([WINDOW, *offsets])


async def stalled(scene: Scene) -> Pourer:
    """An answer whose visitor reads nothing, as far as it goes; half the window is left."""
    tunnel = await scene.tunnel()
    reader, _ = await scene.visit(slowly=True)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    pourer = Pourer(tunnel, (await tunnel.until_heard(OPEN))[0][0])
    await pourer.begin()
    await pourer.pour(ENDLESS)
    assert pourer.sent < ENDLESS
    return pourer


async def test_an_endless_answer_costs_a_window(scene: Scene) -> None:
    bounds = Bounds(scene.node)
    pourer = await stalled(scene)
    await pourer.send(pourer.credit() - pourer.sent, 60_000)
    await scene.honest.more(3)
    await scene.over(bounds, mb=STALLED_MB, lines=8)


async def test_crumbs_cost_what_they_carry(scene: Scene) -> None:
    pourer = await stalled(scene)
    bounds = Bounds(scene.node)
    assert pourer.credit() - pourer.sent >= CRUMBS
    await pourer.send(CRUMBS, 1)
    await scene.honest.more(3)
    await scene.over(bounds, mb=STALLED_MB, lines=8)
