"""A broker in this process: amqtt behind a door of our own, for `towline up` and small sites.

The door reads every packet whole before amqtt does. amqtt alone would let a stranger end the connection of
the device whose id it names, never look whether the sender of a will may write to its topic, keep retained
messages and sessions without bound, take packets of 256 MB, and wait for ever for who went silent. Behind the
door it routes, and nothing else. What it loses (all of it, at a restart) devices send again: they keep what
was not `accepted`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from device_protocol.topics import TOKEN
from ingest.brokers.packets import (
    AFTER_CONNECT,
    NOT_ALLOWED,
    PUBLISH,
    QOS_2,
    REFUSED_CLIENT_ID,
    RETAIN,
    UNAVAILABLE,
    BadPacketError,
    Connect,
    RefusedError,
    connack,
    parse_connect,
    read_packet,
)
from ingest.brokers.topic_rule import SERVICES, may_publish, may_receive, may_subscribe
from ingest.refusals import What
from runtime.logs import get_logger
from runtime.tasks import TaskOwner

Check = Callable[[str, str], Awaitable[bool]]
"""Asked with device id and password; True lets it in. An exception: nobody can tell now."""
Refused = Callable[[str, What, str], None]
"""Told which device was refused what, and on which topic."""

CONNECT_S: Final = 10.0  # from TCP to a login that was checked
KEEPALIVE_MAX_S: Final = 300  # who promised none, or more, counts as this; infra/mosquitto says the same
# Written and not read. amqtt must never wait for its writes: it would miss a PUBACK that comes meanwhile, and
# then wait 5 s for it. Devices rest while a service has more than the first before it, as a bridge has whose
# log is away; who has more than the others reads nothing, and is cut.
SERVICE_WAITING_MAX: Final = 1 << 20
SERVICE_BUFFER_MAX: Final = 8 << 20
DEVICE_BUFFER_MAX: Final = 256 << 10
ROOM_S: Final = 30.0  # a device whose message finds no room for so long is cut, and sends it again
ROOM_LOOK_S: Final = 0.02
END_S: Final = 5.0  # a connection that was cut is gone by then
END_LOOK_S: Final = 0.02

_LISTENER: Final = "default"
_log = get_logger("ingest.brokers.embedded")
# It logs each timeout with a traceback, and packets at its lower levels; the door says what matters.
logging.getLogger("amqtt").setLevel(logging.CRITICAL + 1)
logging.getLogger("transitions").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one embedded broker; a machine that runs everything beside it."""

    connections: int = 1000
    """Devices, bridges and those that have not logged in yet."""
    logins: int = 32
    """Being checked at once: each is a question to the gateway."""
    packet_bytes: int = 32 * 1024
    """A whole packet, with its topic; device_protocol says what a message may have, which is less."""
    connect_bytes: int = 4 * 1024
    queued: int = 2000
    """Messages between devices and who hears them; beyond it devices are not read. 64 MB at the largest."""
    queued_device: int = 64
    """Of one device; as many as it has under way by itself."""


class EmbeddedBroker:
    """Listens from `start` to `close`. Plain TCP: for loopback alone."""

    def __init__(
        self,
        check: Check,
        secrets: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        refused: Refused | None = None,
    ) -> None:
        """`secrets`: passwords of the users of topic_rule.SERVICES; one without cannot log in."""
        self.host = host
        self.port = port  # the one in use, once it was started
        self._check = check
        self._refused = refused or _nobody
        self._secrets = {user: secret for user, secret in secrets.items() if user in SERVICES and secret}
        self._limits = limits or Limits()
        self._tasks = TaskOwner("embedded-broker")
        self._logins = asyncio.Semaphore(self._limits.logins)
        self._connections = 0
        self._lines: dict[str, _Line] = {}
        self._services: dict[str, _Line] = {}  # those of them that are no devices'
        self._seen_at = float("-inf")  # when was looked who has how much before it, and what came of that
        self._rests = False
        self._broker: Broker | None = None
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedBroker {self.host}:{self.port}, {len(self._lines)} connected>"

    def __len__(self) -> int:
        """Connections that logged in."""
        return len(self._lines)

    async def start(self) -> None:
        """OSError when the port is taken."""
        here = f"{__name__}."
        self._broker = Broker(
            {
                "listeners": {_LISTENER: {"type": "external", "bind": "ours"}},
                "plugins": {f"{here}{Admitted.__name__}": {}, f"{here}{TopicRule.__name__}": {}},
            }
        )
        _RULES[self._broker] = self._may_not
        await self._broker.start()
        try:
            self._server = await asyncio.start_server(self._accept, self.host, self.port)
        except OSError:
            await self._broker.shutdown()
            raise
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Everybody is cut; devices come again."""
        if self._server is not None:
            self._server.close()
        lines = list(self._lines.values())
        for line in lines:
            line.cut("the broker stops")
        for line in lines:
            await line.wait_gone()
        await self._tasks.close(END_S)
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None

    async def kick(self, device: str) -> bool:
        """End the device's connection; False when it has none. It comes again unless `check` says no."""
        line = self._lines.get(device)
        if line is None:
            return False
        line.cut("kicked")
        await line.wait_gone()
        return True

    def _may_not(self, user: str, what: What, topic: str) -> None:
        if user not in SERVICES:
            self._refused(user, what, topic)

    async def shut_out(self, devices: Sequence[str]) -> list[str]:
        """They are revoked: `check` lets none of them in again. For ingest.keeper; whom amqtt holds on to."""
        stuck = []
        for device in devices:
            try:
                if await self.kick(device):
                    _log.warning("a revoked device was cut", extra={"device": device})
            except TimeoutError:
                stuck.append(device)
        return stuck

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= self._limits.connections:
            writer.transport.abort()
            return
        self._connections += 1
        self._tasks.start(self._serve(reader, writer), "connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await self._let_in(reader, writer)
            if line is not None:
                await self._carry(line)
        finally:
            self._connections -= 1
            writer.close()
            try:
                async with asyncio.timeout(END_S):
                    await writer.wait_closed()
            except (TimeoutError, OSError):
                writer.transport.abort()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Line | None:
        """None: it was refused, or went away."""
        try:
            async with asyncio.timeout(CONNECT_S):
                asks = parse_connect(await read_packet(reader, self._limits.connect_bytes))
                await self._log_in(asks)
                await self._take_over(asks.client_id)
        except RefusedError as error:
            _log.info("a login was refused", extra={"why": str(error)})
            writer.write(connack(error.code))
            return None
        except (BadPacketError, OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            _log.info("a connection without login", extra={"why": str(error) or type(error).__name__})
            return None
        line = _Line(self, asks, reader, writer)
        self._lines[asks.client_id] = line
        if line.service:
            self._services[asks.client_id] = line
        return line

    async def _log_in(self, asks: Connect) -> None:
        """RefusedError says why not."""
        user = asks.username
        service = user in SERVICES
        if not (asks.client_id == user or (service and asks.client_id.startswith(f"{user}-"))):
            raise RefusedError(REFUSED_CLIENT_ID, "another one's client id")
        if service:
            secret = self._secrets.get(user, "")
            good = bool(secret) and hmac.compare_digest(secret.encode(), asks.password.encode())
        else:
            good = TOKEN.fullmatch(user) is not None and await self._ask(user, asks.password)
        if not good:
            raise RefusedError(NOT_ALLOWED, "a wrong password")
        if asks.will_topic is not None and not may_publish(user, asks.will_topic):
            self._may_not(user, "will", asks.will_topic)  # after the login: it was the device itself
            raise RefusedError(NOT_ALLOWED, "a will to another one's topic")

    async def _ask(self, device: str, password: str) -> bool:
        async with self._logins:
            try:
                return await self._check(device, password)
            except TimeoutError:
                raise
            except Exception as error:
                _log.warning("a login could not be checked", extra={"device": device, "error": repr(error)})
                raise RefusedError(UNAVAILABLE, "it cannot be checked now") from error

    async def _take_over(self, client_id: str) -> None:
        """The newest connection of a client is the one (section 3.1.4)."""
        while (old := self._lines.get(client_id)) is not None:
            old.cut("taken over")
            await old.wait_gone()

    async def _carry(self, line: _Line) -> None:
        """From the login to the end."""
        assert self._broker is not None, "it was started"
        _log.info("connected", extra={"client_id": line.client_id})
        served = self._broker.external_connected(line.reader, line.writer, _LISTENER)
        session = self._tasks.start(served, "session")
        session.add_done_callback(lambda _: line.cut("it left"))
        try:
            await line.ended.wait()
            await self._finish(line, session)
        finally:
            session.cancel()
            line.cut("the broker stops")
            del self._lines[line.client_id]
            self._services.pop(line.client_id, None)
            line.gone.set()
            _log.info("disconnected", extra={"client_id": line.client_id, "why": line.why})

    async def _finish(self, line: _Line, session: asyncio.Task[None]) -> None:
        """Until amqtt is done with it. An end that comes while it begins with a client is lost on it: it is
        told until it heard.
        """
        assert self._broker is not None, "it was started"
        deadline = asyncio.get_running_loop().time() + END_S
        while not session.done():
            _, handler = self._broker.sessions.get(line.client_id, (None, None))
            if handler is not None:
                await handler.handle_connection_closed()
            await asyncio.wait({session}, timeout=END_LOOK_S)
            if asyncio.get_running_loop().time() > deadline:
                _log.error("a session did not end", extra={"client_id": line.client_id})
                return

    def full(self, client_id: str) -> bool:
        """No room for another message of this client. Reads amqtt's own queues: pinned below 0.13."""
        broker = self._broker
        if broker is None:
            return True
        session, _ = broker.sessions.get(client_id, (None, None))
        own = session.delivered_message_queue.qsize() if session is not None else 0
        return (
            own >= self._limits.queued_device
            or self._full_for_all(broker)
            or any(line.unread > SERVICE_WAITING_MAX for line in self._services.values())
        )

    def _full_for_all(self, broker: Broker) -> bool:
        """As many messages as may be are between devices and who hears them."""
        waiting: int = broker._broadcast_queue.qsize() + len(broker._tasks_queue)
        if waiting < self._limits.queued:
            return False
        # It clears away what is done only with its next message. All devices that wait ask, and each answer
        # looks through the queue: one is good for as long as each of them waits for its next.
        now = asyncio.get_running_loop().time()
        if now >= self._seen_at + ROOM_LOOK_S:
            self._seen_at = now
            done = sum(task.done() for task in broker._tasks_queue)
            self._rests = waiting - done >= self._limits.queued
        return self._rests

    @property
    def limits(self) -> Limits:
        return self._limits


class _Line:
    """One connection that logged in, as amqtt sees it."""

    def __init__(
        self,
        broker: EmbeddedBroker,
        asks: Connect,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.client_id = asks.client_id
        self.ended = asyncio.Event()  # it was cut, or left: the connection carries nothing more
        self.gone = asyncio.Event()  # and amqtt is done with it
        self.why = ""
        self._broker = broker
        self.service = asks.username in SERVICES
        self._keepalive_s = 1.5 * min(
            asks.keepalive_s or KEEPALIVE_MAX_S, KEEPALIVE_MAX_S
        )  # section 3.1.2.10
        self._stream = reader
        self._transport = writer.transport
        self.reader = _Reader(asks.passed_on, self._next)
        self.writer = _Writer(writer, SERVICE_BUFFER_MAX if self.service else DEVICE_BUFFER_MAX, self.cut)

    def cut(self, why: str) -> None:
        """At once; the first reason is the one that is told."""
        self.why = self.why or why
        self.ended.set()
        self._transport.abort()

    @property
    def unread(self) -> int:
        """Bytes that were written and have not left."""
        return self._transport.get_write_buffer_size()

    async def wait_gone(self) -> None:
        """TimeoutError when amqtt holds on to what was cut."""
        async with asyncio.timeout(END_S):
            await self.gone.wait()

    async def _next(self) -> bytes:
        """The next packet that may pass, b"" at the end."""
        try:
            async with asyncio.timeout(self._keepalive_s):
                packet = await read_packet(self._stream, self._broker.limits.packet_bytes)
            if packet.type not in AFTER_CONNECT:
                raise BadPacketError("a packet that has no place here")
            if packet.type == PUBLISH:
                if packet.flags & (RETAIN | QOS_2):
                    raise BadPacketError("a retained message, or one of QoS 2")
                if not self.service:
                    await self._wait_room()
            return packet.raw
        except TimeoutError:
            self.cut("silent")
        except BadPacketError as error:
            self.cut(str(error))
        except (OSError, asyncio.IncompleteReadError):
            self.cut("it left")
        return b""

    async def _wait_room(self) -> None:
        deadline = asyncio.get_running_loop().time() + ROOM_S
        while self._broker.full(self.client_id):
            if asyncio.get_running_loop().time() > deadline:
                raise BadPacketError("no room: who hears it rests")
            await asyncio.sleep(ROOM_LOOK_S)


class _Reader(ReaderAdapter):  # type: ignore[misc]  # amqtt is not known to mypy
    """Whole packets, in the pieces that amqtt asks for; never a byte of the next one for this one."""

    def __init__(self, first: bytes, following: Callable[[], Awaitable[bytes]]) -> None:
        self._packet = first
        self._at = 0
        self._following = following
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        if n == 0:
            return b""
        if not self._ended and self._at == len(self._packet):
            self._packet, self._at = await self._following(), 0
            self._ended = not self._packet
        end = len(self._packet) if n < 0 else self._at + n
        if self._ended or end > len(self._packet):
            self._ended = True  # its lengths contradict each other: nothing after it can be trusted
            return b""
        piece = self._packet[self._at : end]
        self._at = end
        return piece

    def feed_eof(self) -> None:
        self._ended = True


class _Writer(WriterAdapter):  # type: ignore[misc]  # amqtt is not known to mypy
    """Keeps so much for who does not read, and no more."""

    def __init__(self, writer: asyncio.StreamWriter, buffer_max: int, cut: Callable[[str], None]) -> None:
        self._writer = writer
        self._buffer_max = buffer_max
        self._cut = cut

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Called after each packet."""
        if self._writer.transport.get_write_buffer_size() > self._buffer_max:
            self._cut("it reads nothing")
            raise ConnectionResetError("it reads nothing")

    def get_peer_info(self) -> tuple[str, int] | None:
        """amqtt serves nobody without: a peer that is gone already has none."""
        peer = self._writer.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()


class Admitted(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is not known to mypy
    """Named to amqtt by its path. The door let in whoever is here."""

    async def authenticate(self, *, session: Session) -> bool | None:
        return bool(session.username)


class TopicRule(BaseTopicPlugin):  # type: ignore[misc]  # amqtt is not known to mypy
    """Named to amqtt by its path. The door saw that the username is proven."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        user: Any = session.username if session is not None else None
        if not user or topic is None or action is None:
            return False
        if action is Action.RECEIVE:
            return may_receive(user, topic)
        what: What = "publish" if action is Action.PUBLISH else "subscribe"
        allowed = may_publish(user, topic) if what == "publish" else may_subscribe(user, topic)
        if not allowed:
            _RULES[self.context._broker_instance](user, what, topic)
        return allowed


def _nobody(_device: str, _what: What, _topic: str) -> None:
    """Nobody wants to know."""


# amqtt makes its plugins itself, and tells them of its broker alone.
_RULES: Final = WeakKeyDictionary[Broker, Refused]()
