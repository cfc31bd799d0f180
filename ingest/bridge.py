"""Hears at the broker what devices say, and hands it to the intake; one connection after the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Final

from device_protocol.topics import UP
from ingest.errors import BrokerUnavailableError
from ingest.intake import Arrival, Intake
from ingest.metrics import Metrics
from ingest.policy.redial import Redial
from ingest.policy.sharing import is_ours
from ingest.settings import BrokerSettings
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.mqtt_link import MqttError, MqttGoneError, MqttLink, MqttMessage, MqttOptions
from runtime.settings import SettingsError
from runtime.tasks import TaskOwner

FILTERS: Final = tuple(f"+/+/+/+/{kind.value}" for kind in sorted(UP))
"""Every kind that devices say. Not `#`: what they are told must not come back to us."""
CLOSE_S: Final = 1.0  # for connections that are being closed at the end

_log = get_logger("ingest.bridge")


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the devices are ours: bridge number `bridge` of `bridges`."""

    bridge: int
    bridges: int

    def has(self, topic: str) -> bool:
        return is_ours(topic, self.bridge, self.bridges)


class _Session:
    """One connection's messages. What was not acknowledged on it never is on another."""

    __slots__ = ("_intake", "_share", "_tasks", "dropped", "link")

    def __init__(self, intake: Intake, share: Share, tasks: TaskOwner) -> None:
        self._intake = intake
        self._share = share
        self._tasks = tasks
        self.link: MqttLink | None = None  # set before anything is subscribed to
        self.dropped = ""  # why we left

    def message(self, message: MqttMessage) -> None:
        """Of the link, in the order of receipt."""
        if self.dropped:
            return  # the log has just lost what came before this
        receipt = _Receipt(self, message.packet_id)
        if self._share.has(message.topic):
            self._intake.offer(Arrival(message.topic, message.payload, receipt))
        else:
            receipt.settle()

    def drop(self, reason: str) -> None:
        """Leave the broker: what it sent and we lost, it must not believe that we have."""
        if not self.dropped and self.link is not None:
            self.dropped = reason
            self._tasks.start(self.link.close(), "close")


class _Receipt:
    """Of one message of a session; see ingest.intake.Receipt."""

    __slots__ = ("_packet_id", "_session")

    def __init__(self, session: _Session, packet_id: int | None) -> None:
        self._session = session
        self._packet_id = packet_id

    def settle(self) -> None:
        if self._session.link is not None:
            self._session.link.acknowledge(self._packet_id)

    def leave(self) -> None:
        """A broker's PUBACK promises a device nothing."""
        self.settle()

    def lost(self) -> None:
        self._session.drop("the log failed for too long")


class Bridge:
    """`run` is to be a lasting task."""

    def __init__(self, settings: BrokerSettings, share: Share, metrics: Metrics, clock: Clock) -> None:
        """SettingsError for files that hold no certificate."""
        self._settings = settings
        self._share = share
        self._metrics = metrics
        self._clock = clock
        self.context = settings.tls()
        self._redial = Redial()
        self._link: MqttLink | None = None
        self._paused = False
        self._told = ""  # the last reason that was logged: an outage is said once, and its end
        self._tasks = TaskOwner("ingest.bridge")

    @property
    def connected(self) -> bool:
        """The broker sends us what devices say."""
        return self._link is not None

    async def run(self, intake: Intake) -> None:
        """Until cancelled."""
        while True:
            try:
                reason = await self._serve(intake)
            except BrokerUnavailableError as error:
                reason = str(error)
            self._metrics.connections_lost.inc()
            if reason != self._told:
                self._told = reason
                _log.warning("the broker is away", extra={"broker": self._settings.url, "reason": reason})
            await asyncio.sleep(self._redial.ended(self._clock.monotonic(), random.random()))

    async def close(self) -> None:
        """Leave the broker; `run` has ended."""
        await self._tasks.close(CLOSE_S)

    async def say(self, topic: str, payload: bytes) -> None:
        """To a device, at QoS 0; nothing happens while there is no connection."""
        if self._link is not None:
            with contextlib.suppress(MqttGoneError):
                await self._link.send(topic, payload, qos=0)

    def press(self, paused: bool) -> None:
        """Whether too many bytes wait for the log: then the broker must keep what it has, or drop it."""
        self._paused = paused
        if self._link is not None:
            self._rest(self._link)

    async def _serve(self, intake: Intake) -> str:
        """One connection, from the dial to its end: why it ended. BrokerUnavailableError."""
        session = _Session(intake, self._share, self._tasks)
        link = await self._dial(session)
        try:
            self._link = link
            self._rest(link)
            self._redial.opened(self._clock.monotonic())
            self._told = ""
            _log.info("the broker is heard", extra={"broker": self._settings.url})
            reason = await link.wait_closed()
            return session.dropped or reason
        finally:
            self._link = None
            await link.close()

    async def _dial(self, session: _Session) -> MqttLink:
        link = None
        try:
            async with asyncio.timeout(self._settings.connect_s):
                link = session.link = await MqttLink.connect(
                    self._options(), session.message, timeout_s=self._settings.connect_s, clock=self._clock
                )
                await link.subscribe(FILTERS)
        except BaseException as error:
            if link is not None:
                await link.close()
            if isinstance(error, MqttError | OSError | SettingsError):  # TimeoutError is one
                raise BrokerUnavailableError(str(error) or "no answer in time") from error
            raise
        return link

    def _options(self) -> MqttOptions:
        """The password is read at each dial: it may have been changed meanwhile. SettingsError."""
        settings = self._settings
        return MqttOptions(
            settings.host,
            settings.port,
            f"ingest-{self._share.bridge}",
            tls=self.context,
            username=settings.username,
            password=settings.password(),
            keepalive_s=settings.keepalive_s,
        )

    def _rest(self, link: MqttLink) -> None:
        if self._paused:
            link.pause()
        else:
            link.resume()
