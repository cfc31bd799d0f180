"""The whole way of a request on loopback sockets: visitors' raw bytes, the node, a real agent, a service.

Node, agent and service live on a loop in a thread of their own; tests talk to the node with plain sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from runtime.clock import SYSTEM_CLOCK
from runtime.settings import from_table
from tests.conformance.service import RecordingService
from tests.tunnel_agent.authority import DEVICE, Authority, claims, grant_id, token
from tests.tunnel_server.conftest import LABEL, settings
from tests.tunnel_server.doubles import MemoryGateway, make_session
from tunnel_agent.app import Agent
from tunnel_agent.identity import IdentityStore
from tunnel_agent.settings import AgentSettings
from tunnel_server.app import Node
from tunnel_server.control.gateway import DeviceFacts
from tunnel_server.sessions import SessionFacts
from tunnel_server.settings import Settings

WAIT_S = 15.0  # far above anything these tests wait for; only a failure reaches it
HOST = f"{LABEL}.localhost".encode()
ORIGIN = b"http://" + HOST
T = TypeVar("T")

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class GatewayWithKeys(MemoryGateway):
    """Its key list is one that a device believes."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._authority = authority

    async def key_list(self) -> bytes:
        return self._authority.key_list_text(1)


class Visitor:
    """A browser's connection in raw bytes. ``cookie`` is the value of the session's own."""

    def __init__(self, port: int, cookie: bytes) -> None:
        self.cookie = cookie
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._buffer = b""

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def finish(self) -> None:
        """FIN: no byte more."""
        self._socket.shutdown(socket.SHUT_WR)

    def head_of(self, line: bytes, *headers: bytes) -> bytes:
        """A request head with this session's Host and Cookie in front."""
        own = (b"Host: " + HOST, b"Cookie: towline_session=" + self.cookie)
        return b"\r\n".join([line, *own, *headers, b"", b""])

    def get(self, path: bytes = b"/", *headers: bytes, method: bytes = b"GET") -> None:
        """One request; unsafe methods come from a page of this origin."""
        if method not in (b"GET", b"HEAD", b"OPTIONS") and not any(h.startswith(b"Origin") for h in headers):
            headers = (b"Origin: " + ORIGIN, *headers)
        self.send(self.head_of(method + b" " + path + b" HTTP/1.1", *headers))

    def _more(self) -> bool:
        data = self._socket.recv(65_536)
        self._buffer += data
        return bool(data)

    def readable(self, seconds: float) -> bool:
        """Whether there is something to read, or an end, within so many seconds."""
        return bool(self._buffer or select.select([self._socket], [], [], seconds)[0])

    def head(self) -> bytes:
        """One answer's head; AssertionError when the connection ends before it."""
        while b"\r\n\r\n" not in self._buffer:
            assert self._more(), f"ended: {self._buffer!r}"
        head, mark, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + mark

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            assert self._more(), f"ended: {self._buffer!r}"
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def response(self) -> tuple[bytes, bytes]:
        """(head, body) of an answer with a Content-Length or none."""
        head = self.head()
        length = _LENGTH.search(head)
        return head, self.exactly(int(length[1])) if length else b""

    def until_end(self) -> tuple[bytes, bool]:
        """Everything up to the connection's end, and whether that end was clean (FIN, not a reset)."""
        clean = True
        try:
            while self._more():
                pass
        except ConnectionResetError:
            clean = False
        data, self._buffer = self._buffer, b""
        return data, clean


class World:
    """``service`` is what the device serves; ``services`` of the agent all lead to it."""

    def __init__(self, directory: Path, config: Settings) -> None:
        self.service = RecordingService()
        self._directory = directory
        self._config = config
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world")
        self._sentinels = 0
        self.crashes: list[str] = []
        self.address = ""  # of the service, host:port
        self.node: Node
        self.gateway: GatewayWithKeys
        self._agent: Agent

    # Start and stop

    def start(self) -> World:
        self._thread.start()
        self.call(self._start())
        return self

    async def _start(self) -> None:
        self.address = await self.service.start()
        authority = Authority(time.time())
        identity = authority.identity(())
        self.gateway = GatewayWithKeys(authority)
        self.gateway.devices[DEVICE] = DeviceFacts(DEVICE, "Demo", identity.key.public_der)
        self.node = Node(self._config, self.gateway, clock=SYSTEM_CLOCK)
        await self.node.start()
        store = IdentityStore(self._directory / "state")
        store.save(identity)
        table = {
            "state_dir": str(store.directory),
            "server_urls": [f"ws://127.0.0.1:{self.node.tunnels.address.port}/tunnel"],
            "connections": 1,
            "services": {
                "web": {"address": self.address},
                "preserve": {"address": self.address, "host": "preserve"},
                "forwarded": {"address": self.address, "forwarded_headers": True},
                "both": {"address": self.address, "host": "preserve", "forwarded_headers": True},
            },
        }
        loaded = from_table(AgentSettings, table, source=self._directory / "agent.toml")
        self._agent = Agent(loaded, identity, store, on_crash=lambda: self.crashes.append("agent"))
        self._agent.run()
        await self._until(lambda: self.node.feed.is_fresh() and self.node.devices.tunnels())

    async def _until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - conditions span objects that know no events
                await asyncio.sleep(0.002)

    def stop(self) -> None:
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()
        assert not self.crashes

    async def _stop(self) -> None:
        self.node.visitors.close()
        await self._agent.close(0.0)
        await self.node.stop()
        self.service.close()

    # What tests ask for

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the world's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def until(self, condition: Callable[[], object]) -> None:
        """Until a condition on the world's own objects holds."""
        self.call(self._until(condition))

    def session(self, service: str = "web") -> bytes:
        """The cookie of a fresh session."""
        cookie = secrets.token_urlsafe(32).encode()
        body = claims(time.time(), svc=service)
        base = make_session(device_id=DEVICE, service=service)
        facts = SessionFacts(
            sid=base.sid,
            label=base.label,
            service=service,
            device_id=DEVICE,
            device_name="Demo",
            expires_at=time.time() + 600,
            grant=token(body),
            grant_id=grant_id(body),
        )
        self.call(self._add_session(facts, cookie))
        return cookie

    async def _add_session(self, facts: SessionFacts, cookie: bytes) -> None:
        self.gateway.sessions[facts.label, hashlib.sha256(cookie).digest()] = facts

    @contextlib.contextmanager
    def visitor(self, cookie: bytes | None = None) -> Iterator[Visitor]:
        """A connection; by default with the cookie of a fresh session."""
        with Visitor(self.node.visitors.address.port, cookie or self.session()) as visitor:
            yield visitor

    def settle(self) -> None:
        """Until whatever was sent to the device has arrived there: a later request's answer is back."""
        self.until(lambda: all(one.in_use == self._idle() for one in self.node.devices.tunnels()))
        self._sentinels += 1
        target = b"/sentinel-%d" % self._sentinels
        with self.visitor() as visitor:
            visitor.get(target)
            assert visitor.response()[1] == b"ok"
        (sentinel,) = [seen for seen in self.service.requests if seen.target == target]
        self.service.requests.remove(sentinel)

    def _idle(self) -> int:
        return sum(len(session.idle) for session in self.node.sessions)


def world_settings(**changes: Any) -> Settings:
    """A node's settings on free loopback ports; ``limits`` and ``devices`` as in tests of the node."""
    return settings(**changes)
