"""One MQTT connection, on gmqtt's wire: a device's, a bridge's, the gateway's.

One object is one connection and is never used again: what was not acknowledged on it never is on another. Who
wants to be connected again makes a new one, and chooses the wait. QoS 0 and 1; QoS 2 and retained publishes
are not used. gmqtt's own client is not used either, only its packets and its framing: the client reconnects
by itself, acknowledges late on the next connection, in the order in which handlers end, drops the reason
codes of PUBACK, and leaves tasks behind that nobody owns.

MQTT 3.1.1 (version 4) and 5.0 (version 5); section numbers are 3.1.1's unless they say otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from gmqtt import Message as _Publish
from gmqtt import Subscription as _Subscription
from gmqtt.mqtt.constants import MQTTCommands
from gmqtt.mqtt.package import Package
from gmqtt.mqtt.property import Property
from gmqtt.mqtt.protocol import MQTTProtocol
from gmqtt.mqtt.utils import ConnectionState, IdGenerator, unpack_variable_byte_integer

from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.logs import get_logger

NO_SUBSCRIBER: Final = 16
"""PUBACK's reason code (5.0 section 3.4.2.1): the broker has it, and nobody to give it to."""
REFUSED: Final = 128
"""Reason codes from here on say no."""

CONNECT_S: Final = 10.0  # TCP, TLS and CONNACK together, over a bad mobile line
CLOSE_S: Final = 2.0  # what was written may still leave, then the line is cut
ANSWER_S: Final = 30.0  # PUBACK and SUBACK: brokers answer at once, an overloaded one within seconds
KEEPALIVE_S: Final = 30  # below the 60 s after which home routers forget a line
UNACKED_MAX: Final = 4000  # infra/mosquitto has as many in flight to a bridge
INFLIGHT_MAX: Final = (
    1000  # publishes without PUBACK: a second's worth, 32 MB at the brokers' largest message
)
PACKET_MAX: Final = 64 * 1024  # twice the largest message that our brokers pass on

GATHER_MAX: Final = 64 * 1024  # bytes that wait for the end of a turn of the loop, to leave as one write

_PUBACK: Final = b"\x40\x02"
_PARTS: Final = 4  # looks at its timers so often in a keepalive

_log = get_logger("runtime.mqtt_link")
# It would tell, with a traceback, what `reason` tells once to whoever owns the connection.
logging.getLogger("gmqtt").setLevel(logging.CRITICAL + 1)


class MqttError(Exception):
    """Of the broker or the way to it."""


class MqttGoneError(MqttError):
    """The connection ended or never came about; the text says why."""


class MqttRefusedError(MqttError):
    """The broker said no: `code` of CONNACK (section 3.2.2.3; 5.0: 3.2.2.2) or SUBACK (3.9.3)."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} refused with code {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes at QoS 1 when the connection ends without a goodbye."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """How one connection is made. `version` 5 brings PUBACK's reason codes, where the broker speaks it."""

    host: str
    port: int
    client_id: str
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = KEEPALIVE_S
    """Nothing heard for so long: the connection is given up."""
    will: Will | None = None
    version: Literal[4, 5] = 4
    session_s: int = 0
    """How long the broker keeps what is sent here while nobody is connected; 0: not at all. Version 4 cannot
    say how long: anything above 0 is as long as the broker likes."""
    unacked_max: int = UNACKED_MAX
    """Messages that were not acknowledged yet: above it reading rests until half of them are."""
    inflight_max: int = INFLIGHT_MAX
    """Publishes without PUBACK: above it `publish` and `send` wait."""


class MqttMessage(NamedTuple):
    """What came. `packet_id` is for `acknowledge`; None: QoS 0, nothing to acknowledge."""

    topic: str
    payload: bytes
    packet_id: int | None
    repeated: bool
    retained: bool


class MqttLink:
    """A connection that stands, until `closed` is set; `reason` then says why it ended.

    `on_message` is called for each message in the order of receipt. It must not raise: that is taken as the
    end of the connection.
    """

    def __init__(self, options: MqttOptions, on_message: Callable[[MqttMessage], None], clock: Clock) -> None:
        """Not for callers: `connect` is."""
        self.closed = asyncio.Event()
        self.reason = ""
        self._options = options
        self._on_message = on_message
        self._clock = clock
        self._wire = _Wire(options.version, clock, self._receive, self._lost)
        self._connack: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks = _Acks()
        self._asked: dict[int, _Asked] = {}
        self._inflight_max = options.inflight_max
        self._space = asyncio.Event()
        self._space.set()
        self._sending = asyncio.Lock()  # its waiters are first come, first served: publishes keep their order
        self._keepalive_s = options.keepalive_s
        self._timer: asyncio.TimerHandle | None = None
        self._takes: dict[int, Callable[[int, bytes], None]] = {
            int(command): take
            for command, take in (
                (MQTTCommands.CONNACK, self._take_connack),
                (MQTTCommands.PUBLISH, self._take_publish),
                (MQTTCommands.PUBACK, self._take_puback),
                (MQTTCommands.SUBACK, self._take_suback),
                (MQTTCommands.PINGRESP, self._take_pingresp),
                (MQTTCommands.DISCONNECT, self._take_disconnect),
            )
        }

    def __repr__(self) -> str:
        state = f"closed: {self.reason}" if self.closed.is_set() else "open"
        return f"<MqttLink {self._options.client_id} {state}, {self.unacked} in, {len(self._asked)} out>"

    @classmethod
    async def connect(
        cls,
        options: MqttOptions,
        on_message: Callable[[MqttMessage], None],
        *,
        timeout_s: float = CONNECT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> MqttLink:
        """Stands when the broker said yes. MqttRefusedError when it says no, MqttGoneError for all else."""
        link = cls(options, on_message, clock)
        try:
            async with asyncio.timeout(timeout_s):
                await link._open()
        except TimeoutError as error:
            await link._give_up(f"no connection within {timeout_s:g} s")
            raise MqttGoneError(link.reason) from error
        except OSError as error:  # ssl.SSLError is one
            await link._give_up(_text(error))
            raise MqttGoneError(link.reason) from error
        except MqttError as error:
            await link._give_up(str(error))
            raise
        except BaseException:
            link._end("cancelled")
            raise
        return link

    async def subscribe(self, filters: Sequence[str], qos: Literal[0, 1] = 1) -> None:
        """All or MqttRefusedError. Mosquitto says yes to what its ACL forbids, and delivers nothing."""
        asked = self._ask(
            lambda: self._wire.send_subscribe_packet([_Subscription(f, qos=qos) for f in filters])
        )
        for code in await asked:
            if code >= REFUSED:
                raise MqttRefusedError("subscription", code)

    async def publish(self, topic: str, payload: bytes, qos: Literal[0, 1] = 1) -> int:
        """The reason code of its PUBACK; 0 with QoS 0 and with version 4, which has none. MqttGoneError: it
        may have arrived or not.
        """
        asked = await self._hand_over(topic, payload, qos)
        return 0 if asked is None else (await asked)[0]

    async def send(self, topic: str, payload: bytes, qos: Literal[0, 1] = 1) -> None:
        """As `publish`, but returns when it is on its way: for many in a row."""
        await self._hand_over(topic, payload, qos)

    def acknowledge(self, packet_id: int | None) -> None:
        """Once for each message, in any order: PUBACKs leave in the order of receipt (section 4.6). Nothing
        happens after the end, nor for None.
        """
        if packet_id is None or self.closed.is_set():
            return
        ids = self._acks.acknowledge(packet_id)
        if ids:
            # Both versions' shortest form: without reason code it is a success (5.0 section 3.4.2.1).
            self._wire.write_data(b"".join(_PUBACK + i.to_bytes(2, "big") for i in ids))
        if self.unacked <= self._options.unacked_max // 2:
            self._wire.resume("unacked")

    @property
    def unacked(self) -> int:
        """Messages whose PUBACK has not left."""
        return len(self._acks)

    def pause(self) -> None:
        """Bring no more messages; those of the read that is being taken apart still come (64 KiB). While it
        rests, nothing notices that the broker is silent.
        """
        self._wire.pause("caller")

    def resume(self) -> None:
        self._wire.resume("caller")

    async def wait_closed(self) -> str:
        """The reason."""
        await self.closed.wait()
        return self.reason

    async def close(self) -> None:
        """Says goodbye (no will) and waits until the line is gone, CLOSE_S at most. May be called again."""
        self.reason = self.reason or "closed here"
        if not self.closed.is_set():
            self._wire.say_goodbye()
            self._finish()
        await self._wire.wait_lost()

    async def _open(self) -> None:
        options = self._options
        await asyncio.get_running_loop().create_connection(
            lambda: self._wire,
            options.host,
            options.port,
            ssl=options.tls,
            ssl_shutdown_timeout=CLOSE_S if options.tls else None,
        )
        will = options.will
        properties = {}
        if options.version == 5:  # what 3.1.1 cannot say
            properties = {
                "session_expiry_interval": options.session_s,
                "receive_maximum": options.unacked_max,
            }
        await self._wire.send_auth_package(
            options.client_id.encode(),
            None if options.username is None else options.username.encode(),
            None if options.password is None else options.password.encode(),
            options.session_s == 0,
            options.keepalive_s,
            will_message=_Publish(will.topic, will.payload, qos=1) if will else None,
            **properties,
        )
        code = await self._connack
        if code != 0:
            raise MqttRefusedError("connection", code)
        self._look()

    async def _give_up(self, reason: str) -> None:
        self._end(reason)
        await self._wire.wait_lost()

    async def _hand_over(self, topic: str, payload: bytes, qos: int) -> asyncio.Future[bytes] | None:
        """Its answer to come; None with QoS 0."""
        async with self._sending:
            while not self.closed.is_set() and not (self._space.is_set() and self._wire.may_write.is_set()):
                await self._space.wait()
                await self._wire.may_write.wait()
            if qos == 0:
                self._check_open()
                self._wire.send_publish(_Publish(topic, payload))
                return None
            return self._ask(lambda: self._wire.send_publish(_Publish(topic, payload, qos=1))[0])

    def _ask(self, send: Callable[[], int]) -> asyncio.Future[bytes]:
        """`send` returns the packet id; the future gets the reason codes of the answer, or MqttGoneError."""
        self._check_open()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_heard)
        self._asked[send()] = _Asked(answer, self._clock.monotonic())
        if len(self._asked) >= self._inflight_max:
            self._space.clear()
        return answer

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise MqttGoneError(self.reason)

    def _answered(self, packet_id: int, codes: bytes) -> None:
        self._wire.id_generator.free_id(packet_id)
        asked = self._asked.pop(packet_id, None)
        if asked is not None and not asked.answer.done():  # done: who waited was cancelled
            asked.answer.set_result(codes)
        if len(self._asked) < self._inflight_max:
            self._space.set()

    def _receive(self, package: Package) -> None:
        """One packet. Whatever is wrong with it ends the connection (section 4.8)."""
        if self.closed.is_set():
            return
        try:
            self._takes[package.cmd & 0xF0](package.cmd & 0x0F, package.data)
        except (KeyError, ValueError, IndexError, struct.error) as error:
            self._end(f"the broker broke MQTT: {type(error).__name__}")

    def _take_connack(self, _flags: int, body: bytes) -> None:
        if self._connack.done():
            raise ValueError("a second CONNACK")
        if body[1] == 0 and self._options.version == 5:
            said = _properties(body[2:])
            self._inflight_max = min(self._inflight_max, said.get("receive_maximum", self._inflight_max))
            self._keepalive_s = said.get("server_keep_alive", 0) or self._keepalive_s
        self._connack.set_result(body[1])

    def _take_publish(self, flags: int, body: bytes) -> None:
        (size,) = struct.unpack_from("!H", body)
        rest = 2 + size
        # A topic that is no UTF-8 is no topic either: its receiver will say so.
        topic = body[2:rest].decode("utf-8", "replace")
        packet_id = None
        if flags & 0b0110:
            (packet_id,) = struct.unpack_from("!H", body, rest)
            rest += 2
        if rest > len(body) or flags & 0b0100 or packet_id == 0:
            raise ValueError("no PUBLISH that was asked for")
        payload = body[rest:]
        if self._options.version == 5:
            length, payload = unpack_variable_byte_integer(payload)
            payload = payload[length:]
        if packet_id is not None and not self._acks.received(packet_id):
            return  # the same again before its PUBACK: it is here already
        message = MqttMessage(topic, payload, packet_id, bool(flags & 0b1000), bool(flags & 1))
        if self.unacked >= self._options.unacked_max:
            self._wire.pause("unacked")
        try:
            self._on_message(message)
        except Exception:
            _log.exception("a message's receiver failed", extra={"client_id": self._options.client_id})
            self._end("a message's receiver failed")

    def _take_puback(self, _flags: int, body: bytes) -> None:
        (packet_id,) = struct.unpack_from("!H", body)
        self._answered(packet_id, body[2:3] or b"\0")

    def _take_suback(self, _flags: int, body: bytes) -> None:
        (packet_id,) = struct.unpack_from("!H", body)
        codes = body[2:]
        if self._options.version == 5:
            length, codes = unpack_variable_byte_integer(codes)
            codes = codes[length:]
        self._answered(packet_id, codes)

    def _take_pingresp(self, _flags: int, _body: bytes) -> None:
        """That it came is all it says."""

    def _take_disconnect(self, _flags: int, body: bytes) -> None:
        """5.0 section 3.14; brokers of 3.1.1 just leave."""
        self._end(f"the broker ended it with code {body[0] if body else 0}")

    def _look(self) -> None:
        """Ask whether the broker is there, and give it up when it is not; again in a while."""
        if self.closed.is_set():
            return
        now = self._clock.monotonic()
        oldest = next(iter(self._asked.values()), None)
        if not self._wire.paused:  # what waits unread may be the answer
            if oldest is not None and now - oldest.at > ANSWER_S:
                return self._end(f"no answer within {ANSWER_S:g} s")
            if self._wire.unanswered_s(now) >= self._keepalive_s / 2:
                return self._end("the broker is silent")
        if self._wire.idle_s(now) >= self._keepalive_s / 2:
            self._wire.ping(now)
        self._timer = asyncio.get_running_loop().call_later(self._keepalive_s / _PARTS, self._look)
        return None

    def _end(self, reason: str) -> None:
        """The first reason stays."""
        self.reason = self.reason or reason
        self._wire.cut()
        self._finish()

    def _lost(self, error: Exception | None) -> None:
        self.reason = self.reason or ("the broker closed it" if error is None else _text(error))
        self._finish()

    def _finish(self) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        self._space.set()
        if self._timer is not None:
            self._timer.cancel()
        waiting: list[asyncio.Future[bytes] | asyncio.Future[int]] = [a.answer for a in self._asked.values()]
        for future in (self._connack, *waiting):
            if not future.done():
                future.set_exception(MqttGoneError(self.reason))
                future.exception()  # heard: nobody may be waiting any more
        self._asked.clear()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A packet whose answer is to come; `at`: monotonic seconds."""

    answer: asyncio.Future[bytes]
    at: float


class _Acks:
    """Received packet ids in order, and which of them may be acknowledged."""

    def __init__(self) -> None:
        self._waiting: dict[int, bool] = {}
        # Beside the dict: finding the first of a dict passes over all that were taken from its front.
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def received(self, packet_id: int) -> bool:
        """False: it waits already."""
        if packet_id in self._waiting:
            return False
        self._waiting[packet_id] = False
        self._order.append(packet_id)
        return True

    def acknowledge(self, packet_id: int) -> list[int]:
        """The ids whose PUBACK may leave now. ValueError for one that does not wait."""
        if self._waiting.get(packet_id, True):
            raise ValueError(f"{packet_id} was acknowledged before, or never came")
        self._waiting[packet_id] = True
        free: list[int] = []
        while self._order and self._waiting[self._order[0]]:
            free.append(self._order.popleft())
            del self._waiting[free[-1]]
        return free


class _Wire(MQTTProtocol):  # type: ignore[misc]  # gmqtt has no types
    """gmqtt's framing and packets, with reading that rests, writing that is bounded, and one end."""

    def __init__(
        self,
        version: int,
        clock: Clock,
        receive: Callable[[Package], None],
        lost: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(
            connection_state=ConnectionState(protocol_version=version), id_generator=IdGenerator()
        )
        self.set_connection(self)  # to which the framing gives its packets
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._resting: set[str] = set()
        self._gone = asyncio.Event()
        self._made = False
        self._clock = clock
        self._receive = receive
        self._tell_lost = lost
        self._heard_at = self._sent_at = clock.monotonic()
        self._pinged_at: float | None = None
        self._unparsed = 0  # bytes since the last whole packet
        self._gathered: list[bytes] = []
        self._gathered_size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = True
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        super().connection_lost(exc)
        self._may_read.set()
        self.may_write.set()
        self._tell_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.may_write.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.may_write.set()

    @property
    def _stands(self) -> bool:
        return self._made and not self._gone.is_set()

    @property
    def paused(self) -> bool:
        return bool(self._resting)

    def pause(self, who: str) -> None:
        self._resting.add(who)
        self._may_read.clear()

    def resume(self, who: str) -> None:
        """`who` has no reason any more; reading goes on when nobody has."""
        if not self._resting:
            return
        self._resting.discard(who)
        if not self._resting:
            self._hear()  # its silence begins now: until here nobody listened
            self._may_read.set()

    async def read(self, n: int = -1) -> bytes:
        """For gmqtt's loop, the only reader. While it rests, the stream fills to its limit and TCP does the
        rest."""
        await self._may_read.wait()
        data: bytes = await super().read(n)
        await self._may_read.wait()  # it may have come to rest while it waited for these
        self._unparsed += len(data)
        self._hear()
        return data

    def _read_packet(self, data: bytes) -> int:
        taken: int = super()._read_packet(data)
        if taken < 0 or self._unparsed > PACKET_MAX:
            self._tell_lost(ConnectionError("the broker broke MQTT: packet too large"))
            self.cut()
        return taken

    def put_package(self, package: Package) -> None:
        self._unparsed = 0
        if package.cmd == MQTTCommands.DISCONNECT and self._gone.is_set():
            return  # gmqtt's way to tell that the connection was lost
        self._receive(package)

    def write_data(self, data: bytes) -> None:
        """Leaves at the end of this turn of the loop, with all else that is said in it: each write is a TLS
        record and a system call, here and at the broker.
        """
        self._sent_at = self._clock.monotonic()
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._let_go)
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._gathered_size >= GATHER_MAX:
            self._let_go()

    def _let_go(self) -> None:
        data = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_size = 0
        if data and self._stands and not self._transport.is_closing():
            self._transport.write(data)

    def idle_s(self, now: float) -> float:
        """Since one of the directions carried anything."""
        return now - min(self._heard_at, self._sent_at)

    def unanswered_s(self, now: float) -> float:
        """Since a ping that nothing came after."""
        return 0.0 if self._pinged_at is None else now - self._pinged_at

    def ping(self, now: float) -> None:
        if self._pinged_at is None:
            self._pinged_at = now
        self.send_ping_request()

    def say_goodbye(self) -> None:
        self.send_disconnect()
        self._let_go()
        if self._stands:
            self._transport.close()

    def cut(self) -> None:
        if self._stands:
            self._transport.abort()

    async def wait_lost(self) -> None:
        """CLOSE_S for what was written, then it is cut."""
        if not self._made:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._gone.wait()
        except TimeoutError:
            self.cut()
            await self._gone.wait()

    def _hear(self) -> None:
        self._heard_at = self._clock.monotonic()
        self._pinged_at = None


def _heard(answer: asyncio.Future[bytes]) -> None:
    """Retrieve its error: who published may have been cancelled, or used `send`."""
    if not answer.cancelled():
        answer.exception()


def _properties(data: bytes) -> dict[str, int]:
    """CONNACK's (5.0 section 3.2.2.3), of the names that gmqtt knows. ValueError for others."""
    length, rest = unpack_variable_byte_integer(data)
    rest, found = rest[:length], {}
    while rest:
        known = Property.factory(id_=rest[0])
        if known is None:
            raise ValueError("unknown property")
        value, rest = known.loads(rest[1:])
        found.update(value)
    return found


def _text(error: BaseException) -> str:
    """Without addresses and lines of source."""
    return (
        getattr(error, "reason", None)
        or getattr(error, "strerror", None)
        or str(error)
        or type(error).__name__
    )
