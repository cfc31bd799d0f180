"""A small tunnel server for tests: admits one device, opens streams, keeps what it hears. It can also be
hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from runtime.tunnel_link import Link, Listener, Ticker, TunnelDriver, UpgradeRequest, listen
from tests.tunnel_agent.authority import DEVICE
from tunnel_protocol import (
    AuthReceived,
    CloseCode,
    ConnectionLost,
    Event,
    Hello,
    Limits,
    PeerReady,
    RefusedCode,
    ResetCode,
    Side,
    Stream,
)

WAIT_S = 10.0


class Changing:
    """Something tests wait for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Visitor(Changing):
    """The server's end of a stream. `takes` False: reads nothing, so gives no credit."""

    def __init__(self, tunnel: NodeTunnel, *, takes: bool = True) -> None:
        super().__init__()
        self.takes = takes
        self.received = bytearray()
        self.heard: list[str] = []
        self.refusal: RefusedCode | None = None
        self.stream: Stream
        self._tunnel = tunnel
        self._room = asyncio.Event()

    def _note(self, word: str) -> None:
        self.heard.append(word)
        self._room.set()
        self.changed()

    def accepted(self) -> None:
        self._note("accepted")

    def refused(self, code: RefusedCode, message: str) -> None:
        self.refusal = code
        self._note(f"refused {code.name}: {message}")

    def data(self, data: memoryview) -> None:
        self.received += data
        if self.takes:
            self.stream.consumed(len(data), self._tunnel.now())
        self.changed()

    def finished(self) -> None:
        self._note("finished")

    def reset(self, code: ResetCode) -> None:
        self._note(f"reset {code.name}")

    def writable(self) -> None:
        self._room.set()

    def lost(self, reason: str) -> None:
        self._note("lost")

    def send(self, data: bytes) -> bool:
        return self.stream.send(data, self._tunnel.now())

    async def send_all(self, data: bytes, piece: int = 60_000) -> None:
        """Send much, at the pace the stream allows."""
        for start in range(0, len(data), piece):
            self._room.clear()
            if not self.send(data[start : start + piece]):
                async with asyncio.timeout(WAIT_S):
                    await self._room.wait()

    def finish(self) -> None:
        self.stream.finish()

    async def until_heard(self, word: str) -> None:
        await self.until(lambda: any(entry.startswith(word) for entry in self.heard))

    async def until_received(self, size: int) -> bytes:
        await self.until(lambda: len(self.received) >= size)
        return bytes(self.received)


class NodeTunnel(TunnelDriver):
    """One agent's connection."""

    def __init__(self, node: Node, host: str) -> None:
        super().__init__(Side.SERVER, node.limits, node.ticker)
        self.node = node
        self.host = host
        self.hello: Hello | None = None
        self.lost: ConnectionLost | None = None
        self.instance = b""

    def on_open(self) -> None:
        self.connection.challenge(self.node.nonce, self.node.name or self.host)

    def on_event(self, event: Event) -> None:
        if isinstance(event, AuthReceived):
            self.instance = event.auth.instance
            self._check(event)
        elif isinstance(event, PeerReady):
            self.hello = event.hello
        elif isinstance(event, ConnectionLost):
            self.lost = event
        self.node.changed()

    def _check(self, event: AuthReceived) -> None:
        refuse = self.node.refuse_with
        if refuse is not None:
            self.connection.refuse_peer(refuse, "as the test wants")
            return
        signature = event.auth.signature
        der = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
        try:
            self.node.device_key.verify(der, event.auth.transcript, ec.ECDSA(SHA256()))
        except InvalidSignature:
            self.connection.refuse_peer(CloseCode.AUTH_FAILED, "signature")
            return
        self.connection.admit(Hello(software="test node", key_list=self.node.key_list))

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        super().link_closed(link, status, reason)
        self.node.changed()

    def open(
        self, grant_id: bytes, service: str = "web", device: str = DEVICE, *, takes: bool = True
    ) -> Visitor:
        visitor = Visitor(self, takes=takes)
        visitor.stream = self.connection.open_stream(device, service, grant_id, visitor)
        return visitor


class Node(Changing):
    """Listens on loopback, plain; `tunnels` are all that ever came."""

    def __init__(self, device_key: ec.EllipticCurvePublicKey, limits: Limits | None = None) -> None:
        super().__init__()
        self.device_key = device_key
        self.limits = limits or Limits()
        self.ticker = Ticker()
        self.tunnels: list[NodeTunnel] = []
        self.nonce = b"n" * 32
        self.name: str | None = None  # None: what was dialled
        self.key_list: bytes | None = None
        self.refuse_with: CloseCode | None = None
        self.turn_away: int | None = None  # an HTTP status for the upgrade
        self._listener: Listener

    async def start(self) -> str:
        self._listener = await listen("127.0.0.1", 0, self._on_request, ssl=None, max_message=1 << 20)
        return f"ws://127.0.0.1:{self._listener.port}/tunnel"

    def _on_request(self, request: UpgradeRequest) -> NodeTunnel | int:
        if self.turn_away is not None:
            self.changed()
            return self.turn_away
        tunnel = NodeTunnel(self, request.host.rpartition(":")[0])
        self.tunnels.append(tunnel)
        return tunnel

    def ready(self) -> list[NodeTunnel]:
        return [t for t in self.tunnels if t.hello is not None and t.lost is None]

    async def until_ready(self, count: int = 1) -> list[NodeTunnel]:
        await self.until(lambda: len(self.ready()) >= count)
        return self.ready()

    async def close(self) -> None:
        self._listener.close()
        for tunnel in self.tunnels:
            tunnel.connection.close(CloseCode.NORMAL, "the test is over")
        await self.until(lambda: all(tunnel.link is None for tunnel in self.tunnels))
        async with asyncio.timeout(WAIT_S):
            await self._listener.wait_closed()
