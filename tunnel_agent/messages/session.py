"""The MQTT connection of a device: made again whenever it ends, greeted with hello, heard for three kinds.

The broker's word that it has a message is not waited for, except for answers to commands: what counts for
messages is `accepted`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from device_protocol.bodies import Accepted, Ack, Command, Desired, Gone, Hello, HelloAnswer, parse_accepted
from device_protocol.envelope import Envelope, encode
from device_protocol.errors import BadMessageError, BadTopicError
from device_protocol.numbers import Number
from device_protocol.topics import Kind, parse_topic
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Gauge
from runtime.mqtt_link import (
    MqttError,
    MqttGoneError,
    MqttLink,
    MqttMessage,
    MqttOptions,
    MqttRefusedError,
    Will,
)
from runtime.tasks import TaskOwner
from tunnel_agent.errors import AgentError, GatewayRefused
from tunnel_agent.gateway_client import GatewayClient
from tunnel_agent.identity import Identity
from tunnel_agent.messages.commands import Commands
from tunnel_agent.messages.configuration import Configuration
from tunnel_agent.messages.connection import (
    BrokerAddress,
    ConnectionAnswerError,
    HttpAddress,
    ask,
    topic_of,
)
from tunnel_agent.messages.keeper import Keeper
from tunnel_agent.messages.writing import Writer
from tunnel_agent.policy.reconnect import Ending, Reconnect
from tunnel_agent.version import SOFTWARE

HELLO_FIRST_S: Final = 5.0
HELLO_MAX_S: Final = 60.0  # the pipeline may be away while the broker is there
ASK_AGAIN_AFTER: Final = 3  # failures: the broker may have moved, or the password ended
ACKS_MAX: Final = (
    64  # that wait for a connection; the gateway sends its commands again, and they are told anew
)
INSTANCE_BYTES: Final = 12
HTTP_SPARE_S: Final = 60.0  # of the token's life: none ends on the way
_HEARD: Final = (Kind.CMD, Kind.CONFIG, Kind.ACCEPTED)
WATCH_END_S: Final = 1.0  # a task that only waits for an event

_log = get_logger("tunnel_agent.messages.session")


class Session:
    """`run` is one task."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        state_dir: Path,
        keeper: Keeper,
        writer: Writer,
        clock: Clock,
        connected: Gauge,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.commands: Commands | None = None
        """Who does them; set before `run`."""
        self.configuration: Configuration | None = None
        """Who takes it; set before `run`."""
        self._identity = identity
        self._state_dir = state_dir
        self._keeper = keeper
        self._writer = writer
        self._clock = clock
        self._connected = connected
        self._chance = chance
        self._instance = secrets.token_hex(INSTANCE_BYTES)
        self._address: BrokerAddress | None = None  # None: the gateway is to be asked
        self._http: HttpAddress | None = None  # of the last answer
        self._http_until = 0.0
        self._link: MqttLink | None = None
        self._acks: OrderedDict[tuple[str, str], Envelope] = OrderedDict()
        self._changed = (
            asyncio.Event()
        )  # an answer to say, a hello to say or that was answered, a new identity
        self._answered = False
        self._greeted_boot = -1  # what the last hello told
        self._stale = False  # the connection is no longer the one that should be
        self._reconnect = Reconnect()
        keeper.renumbered = self._changed.set

    def __repr__(self) -> str:
        return f"<Session {self._link!r}, {len(self._acks)} answers wait>"

    def identity_renewed(self) -> None:
        """Connect again, with the new certificate."""
        if self._address is not None and self._address.tls:
            self._leave()

    def tell(self, ack: Ack, trace: str | None) -> None:
        """Say a command's answer, now or on the next connection."""
        number = Number(self._keeper.boot, 0)
        envelope = self._writer.write(Kind.ACK, ack.dump(), number=number, trace=trace)
        self._acks[ack.command, ack.stage.value] = envelope
        while len(self._acks) > ACKS_MAX:
            self._acks.popitem(last=False)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            ending, reason = await self._once()
            stable = self._reconnect.opened_at is not None
            failures = 0 if stable else failures + 1
            if ending is Ending.REFUSED or failures % ASK_AGAIN_AFTER == ASK_AGAIN_AFTER - 1:
                self._address = None
            wait_s = self._reconnect.ended(ending, self._clock.monotonic(), self._chance())
            _log.info("no connection for messages", extra={"reason": reason, "retry_s": round(wait_s, 1)})
            await asyncio.sleep(wait_s)

    async def _once(self) -> tuple[Ending, str]:
        """One connection from its beginning to its end, and why it ended."""
        try:
            address = self._address or await self._ask()
            link = await self._connect(address)
        except (MqttRefusedError, ConnectionAnswerError, GatewayRefused) as error:
            return Ending.REFUSED, str(error)
        except (AgentError, MqttError, OSError) as error:
            return Ending.LOST, str(error)
        self._link = link
        try:
            await link.subscribe([str(address.topic.of(kind)) for kind in _HEARD])
            self._reconnect.opened(self._clock.monotonic())
            await self._attend(link, address)
        except MqttRefusedError as error:
            return Ending.REFUSED, str(error)
        except MqttError as error:
            return Ending.LOST, str(error)
        finally:
            self._link = None
            self._connected.set(0)
            await link.close()
        return Ending.LOST, link.reason

    async def _ask(self) -> BrokerAddress:
        """An AgentError: one of those where there is no broker, too."""
        identity = self._identity()
        client = GatewayClient(identity.gateway_url, identity.gateway_ca)
        found = await asyncio.to_thread(ask, identity, client)
        self._address, self._http = found.broker, found.http
        if found.http is not None:
            self._http_until = self._clock.monotonic() + found.http.lasts_s - HTTP_SPARE_S
        if found.broker is None:
            raise ConnectionAnswerError("the gateway names no broker")
        return found.broker

    async def http_address(self, *, fresh: bool) -> HttpAddress | None:
        """Where messages are taken without a broker; None: nowhere. `fresh`: the one of before is good no
        more. AgentError.
        """
        if fresh or self._http is None or self._clock.monotonic() >= self._http_until:
            self._http = None
            with suppress(ConnectionAnswerError):  # there is no broker, which is why this is asked
                await self._ask()
        return self._http

    async def _connect(self, address: BrokerAddress) -> MqttLink:
        gone = self._writer.write(
            Kind.HELLO, Gone(self._instance).dump(), number=Number(self._keeper.boot, 0)
        )
        options = MqttOptions(
            host=address.host,
            port=address.port,
            client_id=self._identity().device_id,
            tls=await asyncio.to_thread(address.context, self._state_dir),
            username=None if address.password is None else self._identity().device_id,
            password=address.password,
            will=Will(str(address.topic.of(Kind.HELLO)), encode(_timeless(gone))),
        )
        return await MqttLink.connect(options, self._hear, clock=self._clock)

    async def _attend(self, link: MqttLink, address: BrokerAddress) -> None:
        """Until the connection ends."""
        self._stale, self._answered, self._greeted_boot = False, False, -1
        _log.info("connected for messages", extra={"broker": f"{address.host}:{address.port}"})
        self._connected.set(1)
        way = _Way(link, address)
        hello_s, hello_at = HELLO_FIRST_S, self._clock.monotonic()
        watching = TaskOwner("messages connection")
        watching.start(self._watch(link), "end")
        try:
            while not (link.closed.is_set() or self._stale):
                self._changed.clear()
                now = self._clock.monotonic()
                if self._greeted_boot != self._keeper.boot:
                    hello_s, hello_at, self._answered = HELLO_FIRST_S, now, False
                if not self._answered and now >= hello_at:
                    first = self._greeted_boot == -1
                    await self._greet(way)
                    if first:
                        self._keeper.connected(way)
                        self._configured.connected(address.topic.prefix)
                    hello_at, hello_s = now + hello_s, min(2 * hello_s, HELLO_MAX_S)
                await self._say_acks(way)
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if self._answered else hello_at - now):
                        await self._changed.wait()
        finally:
            self._keeper.disconnected(way)
            await watching.close(WATCH_END_S)

    async def _watch(self, link: MqttLink) -> None:
        await link.closed.wait()
        self._changed.set()

    async def _greet(self, way: _Way) -> None:
        assert self.commands is not None
        boot = self._keeper.boot
        hello = Hello(
            boot=boot,
            instance=self._instance,
            software=SOFTWARE,
            type=way.address.topic.type,
            commands=self.commands.names,
            config=self._configured.version,
            outbox=self._keeper.report(),
        )
        self._greeted_boot = boot
        await way.send(
            Kind.HELLO, encode(self._writer.write(Kind.HELLO, hello.dump(), number=Number(boot, 0)))
        )

    async def _say_acks(self, way: _Way) -> None:
        """On their way is enough: the gateway sends a command again whose answer it does not hear."""
        while self._acks and way.is_open:
            key, envelope = next(iter(self._acks.items()))
            await way.send(Kind.ACK, encode(envelope))
            if self._acks.get(key) is envelope and way.is_open:
                del self._acks[key]

    # What the device is told

    def _hear(self, message: MqttMessage) -> None:
        """Never raises: what cannot be read is told and left."""
        link = self._link
        try:
            kind = parse_topic(message.topic).kind
            if kind is Kind.ACCEPTED:
                self._hear_accepted(message.payload)
            elif kind is Kind.CMD and self.commands is not None:
                self.commands.offer(Command.parse(message.payload))
            elif kind is Kind.CONFIG:
                self._configured.tell(Desired.parse(message.payload))
        except (BadTopicError, BadMessageError) as error:
            _log.warning("told what cannot be read", extra={"reason": str(error)})
        if link is not None:
            link.acknowledge(message.packet_id)

    @property
    def _configured(self) -> Configuration:
        assert self.configuration is not None
        return self.configuration

    def _hear_accepted(self, payload: bytes) -> None:
        told = parse_accepted(payload)
        if isinstance(told, Accepted):
            self._keeper.accepted(told.number)
        elif isinstance(told, HelloAnswer):
            if told.hello == self._greeted_boot:
                self._answered = True
                self._keeper.hello_answered(told.known)
                self._changed.set()
            self._check_prefix(told.prefix)
        else:
            self._keeper.refused(told.reason, told.id)

    def _check_prefix(self, prefix: str) -> None:
        """Another one: the device was moved, and its topics with it."""
        address = self._address
        if address is None or prefix == address.topic.prefix:
            return
        try:
            topic_of(prefix, self._identity())
        except ConnectionAnswerError as error:
            _log.error("told a prefix that is none of ours", extra={"reason": str(error)})
            return
        _log.info("the device was moved: its topics changed", extra={"prefix": prefix})
        self._address = None  # the gateway is asked: it alone says where a device belongs
        self._leave()

    def _leave(self) -> None:
        self._stale = True
        self._changed.set()


class _Way:
    """One connection, as the keeper sees it."""

    def __init__(self, link: MqttLink, address: BrokerAddress) -> None:
        self.address = address
        self._link = link

    @property
    def is_open(self) -> bool:
        return not self._link.closed.is_set()

    async def send(self, kind: Kind, payload: bytes) -> None:
        """On its way, or lost with the connection."""
        with suppress(MqttGoneError):  # said again on the next
            await self._link.send(str(self.address.topic.of(kind)), payload)


def _timeless(gone: Envelope) -> Envelope:
    """A will is written long before it is true."""
    return Envelope(gone.kind, gone.id, gone.type, None, gone.up, gone.number, gone.payload)
