"""The edge without sockets: its own connection, exchange, registry and serialiser between two ends in memory.

The visitor's end is a transport that keeps what is written; the device's end is a tunnel whose streams keep
what is sent, and answer every request that a strict reader finds whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import h11

from runtime.clock import SYSTEM_CLOCK
from runtime.metrics import Registry
from runtime.tasks import TaskOwner
from tests.fuzz.edge.inputs import COOKIE, HOST, LABEL
from tests.tunnel_server.doubles import DEVICE, MemoryGateway, make_session
from tunnel_protocol import ConnectionState, ResetCode, Service
from tunnel_server.control.request_log import RequestLog
from tunnel_server.edge.context import Edge
from tunnel_server.edge.upstream import UpstreamStream
from tunnel_server.edge.visitor import VisitorConnection
from tunnel_server.metrics import Metrics
from tunnel_server.policy.services import service_options
from tunnel_server.sessions import Session, SessionTable
from tunnel_server.settings import DeviceLimits, VisitorLimits, VisitorSettings
from tunnel_server.tunnels.registry import DeviceTunnels, TunnelRegistry
from tunnel_server.tunnels.streams import NewUser
from tunnel_server.tunnels.tunnel import Tunnel

# A status that no page of ours has: it marks the answers that came from the device.
ANSWER = b"HTTP/1.1 299 Seen\r\nContent-Length: 0\r\n\r\n"
HEAD_LIMIT = 1 << 20
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_REASON = re.compile(rb"<h1>The request could not be read</h1><p>(.*?)</p>")
STRICT_HEAD = re.compile(
    rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.1\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*\r\n)+\r\n"
)


class Finding(AssertionError):
    """The edge and the strict reader disagree."""


@dataclass
class Seen:
    """A request at the device."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)


class DeviceStream:
    """One stream's device side: a strict HTTP server."""

    def __init__(self, device: MemoryDevice, owner: UpstreamStream) -> None:
        self.device = device
        self.owner = owner
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self.raw = b""
        self.seen: Seen | None = None
        self.ended = False

    # What the edge calls (tunnel_protocol.Stream)

    def send(self, data: bytes, now: float) -> bool:
        if self.ended:
            raise Finding("bytes on a stream that has ended")
        self.raw += data
        try:
            self._read(data)
        except h11.RemoteProtocolError as error:
            raise Finding(f"the device got what is no HTTP ({error}): {self.raw!r}") from error
        return True

    def consumed(self, size: int, now: float) -> None:
        """Credit has no part in this."""

    def finish(self) -> None:
        self.ended = True

    def reset(self, code: ResetCode) -> None:
        self.ended = True

    def _read(self, data: bytes) -> None:
        self.parser.receive_data(data)
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                head = self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                if not STRICT_HEAD.fullmatch(head):
                    raise Finding(f"not canonical: {head!r}")
                self.seen = Seen(event.method, event.target, list(event.headers))
            elif isinstance(event, h11.Data):
                assert self.seen is not None
                self.seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._whole()
                return
            else:
                return

    def _whole(self) -> None:
        rest, _ = self.parser.trailing_data
        if rest:
            raise Finding(f"bytes behind a request that has no answer yet: {self.raw!r}")
        assert self.seen is not None
        self.device.requests.append(self.seen)
        self.device.unanswered.append(self)
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self.raw = b""
        self.seen = None


class MemoryDevice:
    """A tunnel as the registry sees it."""

    class _Connection:
        state = ConnectionState.OPEN
        last_rtt_s = 0.001
        peer_max_streams = 100

    def __init__(self) -> None:
        self.device_id = DEVICE
        self.instance = b"i" * 16
        self.connection = self._Connection()
        self.in_use = 0
        self.live_streams = 0
        self.requests: list[Seen] = []
        self.unanswered: list[DeviceStream] = []
        self.streams: list[DeviceStream] = []

    def open(
        self, device: DeviceTunnels, session: Session, new_user: NewUser[UpstreamStream]
    ) -> UpstreamStream:
        upstream = new_user(device, cast(Tunnel, self), session)
        stream = DeviceStream(self, upstream)
        upstream.stream = cast(Any, stream)
        upstream.is_open = True
        self.streams.append(stream)
        self.in_use += 1
        return upstream

    def has_room_for_live(self) -> bool:
        return True

    def answer(self) -> bool:
        """Answer what is whole; whether there was anything."""
        unanswered, self.unanswered = self.unanswered, []
        for stream in unanswered:
            if not stream.ended:
                stream.owner.data(memoryview(ANSWER))
        return bool(unanswered)


class MemoryTransport:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.paused = False
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    write_eof = close

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It has none."""

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None


def _starts(visitor: VisitorConnection) -> bool:
    """Whether a request that waited has its turn as soon as the loop turns."""
    return visitor.current is not None and not visitor.current.started


@dataclass(frozen=True)
class Outcome:
    """``answers``: (status, whether the device gave it) in order. ``requests``: what the device saw whole.

    ``reason``: why the edge found the last one unreadable, "" when it did not.
    """

    answers: list[tuple[int, bool]]
    requests: list[Seen]
    closed: bool
    reason: str


class MemoryEdge:
    """One process's edge; ``run`` is one visitor's connection from its first byte to its end."""

    def __init__(self) -> None:
        clock = SYSTEM_CLOCK
        metrics = Metrics(Registry())
        settings = VisitorSettings(
            listen="127.0.0.1:0", domain="localhost", limits=VisitorLimits(connections_per_address=1_000_000)
        )
        sessions = SessionTable(clock, idle_streams=32, on_end=lambda session, reason: None)
        registry = TunnelRegistry(
            DeviceLimits(),
            sessions=sessions,
            metrics=metrics,
            monotonic=clock.monotonic,
            report=lambda tunnel, state: None,
        )
        gateway = MemoryGateway()
        self.edge = Edge(
            settings,
            DeviceLimits(),
            gateway=gateway,
            gateway_url="http://127.0.0.1:8080",
            gateway_call_s=5.0,
            sessions=sessions,
            registry=registry,
            request_log=RequestLog(gateway, clock, metrics),
            metrics=metrics,
            clock=clock,
            tasks=TaskOwner("fuzz"),
            accepts_sessions=lambda: False,  # a cookie that is not ours is answered here, not asked about
        )
        self.device = MemoryDevice()
        service = service_options(Service("web", upstream="device.test:8080"))
        registry.add(cast(Tunnel, self.device), [service])
        facts = make_session(label=LABEL.decode(), device_id=DEVICE, life_s=86_400.0)
        session = sessions.add(facts, hashlib.sha256(COOKIE).digest())
        assert session is not None
        self.session = session

    async def run(self, pieces: Iterable[bytes]) -> Outcome:
        """Feed the pieces, at the edge's pace."""
        visitor, transport, device = VisitorConnection(self.edge), MemoryTransport(), self.device
        device.requests, device.unanswered, device.streams = [], [], []
        visitor.connection_made(cast(asyncio.Transport, transport))
        for piece in pieces:
            if not await self._quiet(visitor, transport):
                break
            visitor.get_buffer(-1)[: len(piece)] = piece
            visitor.buffer_updated(len(piece))
            device.answer()
        await self._quiet(visitor, transport)
        visitor.connection_lost(None)
        self._leave_clean()
        return self._outcome(transport)

    async def relay(self, pieces: Iterable[bytes], *, ended: bool) -> tuple[bytes, bool]:
        """One GET whose answer comes in these pieces, then perhaps a FIN: what the visitor gets, and whether
        his connection ended by a FIN then.
        """
        visitor, transport, device = VisitorConnection(self.edge), MemoryTransport(), self.device
        device.requests, device.unanswered, device.streams = [], [], []
        visitor.connection_made(cast(asyncio.Transport, transport))
        request = b"GET / HTTP/1.1\r\nHost: %b\r\nCookie: towline_session=%b\r\n\r\n" % (HOST, COOKIE)
        visitor.get_buffer(-1)[: len(request)] = request
        visitor.buffer_updated(len(request))
        (stream,) = device.streams
        for piece in pieces:
            if not stream.ended:
                stream.owner.data(memoryview(piece))
        if ended and not stream.ended:
            stream.owner.finished()
        out, closed = b"".join(transport.written), transport.closed and not transport.aborted
        visitor.connection_lost(None)
        self._leave_clean()
        return out, closed

    async def _quiet(self, visitor: VisitorConnection, transport: MemoryTransport) -> bool:
        """Until nothing more happens by itself; whether the edge reads on."""
        while self.device.answer() or visitor.waiting or _starts(visitor):
            if transport.closed:
                break
            await asyncio.sleep(0)
        return not transport.closed and not transport.paused

    def _leave_clean(self) -> None:
        if self.session.exchanges:
            raise Finding("an exchange outlives its visitor")
        for upstream in self.session.idle.take_all():
            upstream.close_idle()
        if self.device.in_use:
            raise Finding("a stream outlives its visitor")

    def _outcome(self, transport: MemoryTransport) -> Outcome:
        out = b"".join(transport.written)
        answers = [(int(status), status == b"299") for status in _STATUS.findall(out)]
        reasons = _REASON.findall(out)
        return Outcome(
            answers, self.device.requests, transport.closed, reasons[-1].decode() if reasons else ""
        )
