"""The node's two neighbours in unit tests: a device that speaks the real protocol, a gateway in memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.tunnel_link import Link, Ticker, TunnelDriver, dial
from tunnel_protocol import (
    ChallengeReceived,
    ConnectionLost,
    Event,
    GoawayReceived,
    GrantReceived,
    GrantRevoked,
    Hello,
    Limits,
    PeerReady,
    RefusedCode,
    ResetCode,
    Service,
    Side,
    Stream,
    StreamRequested,
    auth_transcript,
)
from tunnel_server.control.gateway import DeviceFacts, Elsewhere
from tunnel_server.errors import GatewayRefused, GatewayUnavailable
from tunnel_server.sessions import SessionFacts

DEVICE = "d_aaaaaaaaaaaaaaaa"
LABEL = "a" * 26
DIAL_S = 5.0


class DeviceKey:
    """A P-256 key as a device holds it."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.public = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = hashlib.sha256(self.public).digest()[:16]

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


class MemoryGateway:
    """The internal API in memory: sessions, devices, one feed that tests write to."""

    def __init__(self) -> None:
        self.devices: dict[str, DeviceFacts] = {}
        self.revoked_devices: set[str] = set()
        self.checking: asyncio.Event | None = (
            None  # set when a device is asked about, whose answer then waits
        )
        self.may_answer = asyncio.Event()
        self.sessions: dict[tuple[str, bytes], SessionFacts] = {}
        self.links: dict[str, SessionFacts] = {}
        self.used_links: set[str] = set()
        self.knows_kinds = True  # False: an older gateway, which burns any link
        self.reports: list[dict[str, Any]] = []
        self.failed_reports = 0
        self.passed: list[dict[str, Any]] = []
        self.wants_full = False  # ask for a full report, once
        self.resolved = 0
        self.ended: set[str] = set()
        self.grants_asked = 0
        self.new_grant = b"header.newer.signature"
        self.key_list_number = 1
        self.elsewhere = Elsewhere(0, 0)
        self.silent = False
        self.down = False
        self._feeds: list[asyncio.Queue[bytes]] = []
        self._number = 0

    def add_device(self, key: DeviceKey, device_id: str = DEVICE) -> None:
        self.devices[device_id] = DeviceFacts(device_id, "Demo", key.public)

    def add_session(
        self,
        *,
        label: str = LABEL,
        device_id: str = DEVICE,
        life_s: float = 60.0,
        service: str = "web",
        kind: str = "web",
        act: str | None = None,
    ) -> tuple[str, bytes]:
        """(sid, cookie value, or bearer for kind "tcp") of a session whose link was redeemed already."""
        cookie = secrets.token_urlsafe(32).encode()
        facts = make_session(
            label=label, device_id=device_id, life_s=life_s, service=service, kind=kind, act=act
        )
        self.sessions[label, hashlib.sha256(cookie).digest()] = facts
        return facts.sid, cookie

    def publish(self, kind: str, target: str, **extra: Any) -> None:
        """One entry of the revocation feed."""
        self._number += 1
        self._send({"n": self._number, "kind": kind, "id": target, **extra})

    def _send(self, entry: dict[str, Any]) -> None:
        for feed in self._feeds:
            feed.put_nowait(json.dumps(entry).encode())

    async def redeem(
        self, *, token: str | None, code: str | None, label: str, cookie_hash: bytes, client: str, kind: str
    ) -> SessionFacts:
        self._check_up()
        link = token or code or ""
        if link in self.used_links:
            raise GatewayRefused(410, "link_used")
        facts = self.links.get(link)
        if facts is None or facts.label != label:
            raise GatewayRefused(400, "bad_link")
        if facts.service_kind != kind and self.knows_kinds:
            raise GatewayRefused(403, "wrong_kind")
        self.used_links.add(link)
        self.sessions[label, cookie_hash] = facts
        return facts

    async def resolve(self, *, label: str, cookie_hash: bytes) -> SessionFacts:
        self._check_up()
        self.resolved += 1
        facts = self.sessions.get((label, cookie_hash))
        if facts is None:
            raise GatewayRefused(404, "unknown_session")
        if facts.sid in self.ended:
            raise GatewayRefused(410, "session_ended")
        return facts

    async def grant(self, *, sid: str) -> bytes:
        self._check_up()
        self.grants_asked += 1
        if sid in self.ended:
            raise GatewayRefused(410, "session_ended")
        return self.new_grant

    async def end_session(self, *, sid: str, cookie_hash: bytes, client: str) -> None:
        self._check_up()
        if cookie_hash not in [known for (_, known), facts in self.sessions.items() if facts.sid == sid]:
            raise GatewayRefused(404, "not_found")
        self.ended.add(sid)
        self.publish("session", sid)

    async def authenticate(self, *, device_id: str, key_id: bytes) -> DeviceFacts:
        self._check_up()
        if device_id in self.revoked_devices:
            raise GatewayRefused(403, "revoked")
        if device_id not in self.devices:
            raise GatewayRefused(404, "unknown")
        if self.checking is not None:
            self.checking.set()
            await self.may_answer.wait()
        return self.devices[device_id]

    async def report_presence(self, report: dict[str, Any]) -> bool:
        if self.down:
            self.failed_reports += 1
        self._check_up()
        self.reports.append(report)
        wants_full, self.wants_full = self.wants_full, False
        return wants_full

    async def report_requests(self, entries: list[dict[str, Any]]) -> None:
        self._check_up()
        self.passed += entries

    async def devices_elsewhere(self) -> Elsewhere:
        self._check_up()
        return self.elsewhere

    async def key_list(self) -> bytes:
        return make_key_list(self.key_list_number)

    async def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        self._check_up()
        feed: asyncio.Queue[bytes] = asyncio.Queue()
        self._feeds.append(feed)
        try:
            yield json.dumps({"hello": 0, "head": self._number}).encode()
            while not self.silent:
                try:
                    async with asyncio.timeout(0.05):
                        yield await feed.get()
                except TimeoutError:
                    yield json.dumps({"heartbeat": self._number}).encode()
            raise GatewayUnavailable("silent")
        finally:
            self._feeds.remove(feed)

    def _check_up(self) -> None:
        if self.down or self.silent:
            raise GatewayUnavailable("down")


def make_key_list(number: int, filler: str = "") -> bytes:
    """The form of a key list, signed by nobody: nodes cannot check that."""
    payload = json.dumps({"n": number, "iat": 1, "keys": [filler]}).encode()
    return b"e30." + base64.urlsafe_b64encode(payload).rstrip(b"=") + b".c2ln"


def make_session(
    *,
    label: str = LABEL,
    device_id: str = DEVICE,
    life_s: float = 60.0,
    service: str = "web",
    kind: str = "web",
    act: str | None = None,
) -> SessionFacts:
    sid = uuid.uuid4()
    return SessionFacts(
        sid=str(sid),
        label=label,
        service=service,
        device_id=device_id,
        device_name="Demo",
        expires_at=time.time() + life_s,
        grant=b"header.grant.signature",
        grant_id=sid.bytes,
        service_kind=kind,
        act=act,
    )


class Splice(asyncio.Protocol):
    """One stream joined to a local TCP connection: the owner of the one, the protocol of the other."""

    def __init__(self, device: TestDevice, stream: Stream) -> None:
        self.device = device
        self.stream = stream
        self.transport: asyncio.Transport | None = None
        self.target_finished = False
        self.stream_finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self.stream.accept(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self.stream.send(data, self.device.now()) and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.target_finished = True
        self.stream.finish()
        return not self.stream_finished

    def connection_lost(self, exc: Exception | None) -> None:
        self.device.splices.discard(self)
        if exc is not None:
            self.stream.reset(ResetCode.UPSTREAM_RESET)
        else:
            self.stream.finish()

    def accepted(self) -> None:
        raise AssertionError("a device opens no streams")

    def refused(self, code: RefusedCode, message: str) -> None:
        raise AssertionError("a device opens no streams")

    def data(self, data: memoryview) -> None:
        if self.transport is not None:
            self.transport.write(bytes(data))
        self.stream.consumed(len(data), self.device.now())

    def finished(self) -> None:
        self.stream_finished = True
        if self.transport is None or self.transport.is_closing():
            return
        if self.target_finished:
            self.transport.close()
        else:
            self.transport.write_eof()

    def reset(self, code: ResetCode) -> None:
        self.device.resets.append(code)
        if self.transport is not None:
            self.transport.abort()

    def writable(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def lost(self, reason: str) -> None:
        if self.transport is not None:
            self.transport.abort()


class TestDevice(TunnelDriver):
    """The device side: every service leads to ``target``; grants are believed and recorded."""

    __slots__ = (
        "accepts_grant",
        "device_id",
        "ended",
        "goaways",
        "gone",
        "grants",
        "hello_received",
        "instance",
        "key",
        "opened",
        "ready",
        "refuse_with",
        "resets",
        "revoked",
        "server_name",
        "splices",
        "target",
        "tasks",
    )
    __test__ = False

    def __init__(
        self,
        key: DeviceKey,
        target: tuple[str, int],
        *,
        device_id: str = DEVICE,
        limits: Limits | None = None,
        services: tuple[Service, ...] = (Service("web", upstream="127.0.0.1:80"),),
        instance: bytes | None = None,
    ) -> None:
        self.key = key
        self.target = target
        self.device_id = device_id
        self.instance = instance or secrets.token_bytes(16)
        self.goaways: list[GoawayReceived] = []
        self.hello_received: Hello | None = None
        self.grants: dict[bytes, bytes] = {}
        self.revoked: list[bytes] = []
        self.resets: list[ResetCode] = []
        self.opened: list[tuple[str, str, bytes]] = []
        self.refuse_with: RefusedCode | None = None
        self.accepts_grant: bytes | None = None  # refuse the streams of any other, as another key's
        self.splices: set[Splice] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.ready = asyncio.Event()
        self.ended: asyncio.Future[ConnectionLost] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()  # the link itself: a GOAWAY ends the connection before
        super().__init__(
            Side.DEVICE, limits or Limits(), Ticker(), Hello(software="test/1", services=services)
        )

    async def dial(self, port: int) -> TestDevice:
        await dial(f"ws://127.0.0.1:{port}/tunnel", self, ssl=None, max_message=1 << 20, timeout_s=DIAL_S)
        return self

    async def wait_ready(self) -> TestDevice:
        async with asyncio.timeout(DIAL_S):
            await self.ready.wait()
        return self

    def on_event(self, event: Event) -> None:
        if isinstance(event, ChallengeReceived):
            transcript = auth_transcript(event.nonce, event.server_name, self.device_id, self.instance)
            self.connection.authenticate(
                self.device_id, self.instance, self.key.key_id, self.key.sign(transcript)
            )
        elif isinstance(event, PeerReady):
            self.hello_received = event.hello
            self.ready.set()
        elif isinstance(event, GoawayReceived):
            self.goaways.append(event)
        elif isinstance(event, GrantReceived):
            self.grants[event.grant_id] = event.token
        elif isinstance(event, GrantRevoked):
            self.revoked.append(event.grant_id)
        elif isinstance(event, StreamRequested):
            self._requested(event)
        elif isinstance(event, ConnectionLost) and not self.ended.done():
            self.ended.set_result(event)

    def _requested(self, event: StreamRequested) -> None:
        self.opened.append((event.device, event.service, event.grant_id))
        if self.refuse_with is not None:
            event.stream.refuse(self.refuse_with, "as the test wants")
        elif self.accepts_grant not in (None, self.grants.get(event.grant_id)):
            event.stream.refuse(RefusedCode.GRANT_INVALID)
        elif event.grant_id not in self.grants:
            event.stream.refuse(RefusedCode.NO_GRANT)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(event.stream))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _connect(self, stream: Stream) -> None:
        splice = Splice(self, stream)
        self.splices.add(splice)
        try:
            await asyncio.get_running_loop().create_connection(lambda: splice, *self.target)
        except OSError:
            stream.refuse(RefusedCode.UNREACHABLE)

    def link_closed(self, link: Link, status: int | None, reason: str) -> None:
        super().link_closed(link, status, reason)
        self.gone.set()

    async def close(self) -> None:
        for splice in list(self.splices):
            if splice.transport is not None:
                splice.transport.abort()
        for task in list(self.tasks):
            task.cancel()
        if self.link is not None:
            self.link.abort()
            async with asyncio.timeout(DIAL_S):
                await self.gone.wait()


Script = Callable[["Upstream", asyncio.StreamReader, asyncio.StreamWriter], Any]


class Upstream:
    """A byte-recording local web service; ``script`` serves each connection by hand."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.received = bytearray()
        self.connections = 0
        self.reached = asyncio.Event()  # set by scripts at the point a test waits for

    async def start(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return host, port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the test cut the connection
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        """One request head, recorded."""
        data = await reader.readuntil(b"\r\n\r\n")
        self.received += data
        return data

    async def body(self, reader: asyncio.StreamReader, size: int) -> bytes:
        """``size`` body bytes, recorded."""
        data = await reader.readexactly(size)
        self.received += data
        return data

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DIAL_S)


def answering(answer: bytes) -> Script:
    """Serves every request head without a body with the same bytes, and keeps the connection."""

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await upstream.head(reader)
            writer.write(answer)

    return script


def unused_path() -> Path:
    """For settings fields that the unit tests' node never reads."""
    return Path("/nonexistent")
