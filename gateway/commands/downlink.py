"""The way to devices: one connection to their broker, made again whenever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol
from uuid import uuid4

from gateway.commands.settings import BrokerSettings
from gateway.metrics import GatewayMetrics
from runtime.backoff import Backoff
from runtime.certificates import CertificateWatch
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.mqtt_link import NO_SUBSCRIBER, REFUSED, MqttError, MqttGoneError, MqttLink, MqttOptions
from runtime.settings import SettingsError

# A broker restarts in a second. One that is away for long is not helped by haste, but nor do a few gateways
# hurt it, and until they are back every command waits.
RETRY_FIRST_S: Final = 0.25
RETRY_MAX_S: Final = 2.0
# Where everything starts together the broker may be the last: no word about it before.
QUIET_S: Final = 15.0
# Less than a command is leased for: whoever waits longer no longer owns it.
PUBLISH_S: Final = 3.0

log = get_logger("gateway.downlink")


class DownlinkGoneError(Exception):
    """The broker is away; the message may have arrived or not."""


class Downlink(Protocol):
    """How a message gets to a device."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, topic: str, payload: bytes) -> bool:
        """True: the broker took it. False: it says that nobody listens, or does not take it.
        DownlinkGoneError in PUBLISH_S at the latest.
        """
        ...


class NoDownlink:
    """Of a gateway for which no broker is set: commands stay queued."""

    @property
    def connected(self) -> bool:
        return False

    async def publish(self, topic: str, payload: bytes) -> bool:
        raise DownlinkGoneError("no broker is set")


class MqttDownlink:
    """`run` keeps the connection; what the files of the settings hold is used from the next one on."""

    def __init__(self, settings: BrokerSettings, clock: Clock, metrics: GatewayMetrics) -> None:
        """SettingsError for files that cannot be used."""
        self._settings = settings
        self._tls = settings.tls()
        settings.password()  # a mistake ends the start
        # Each gateway its own: the broker ends the older of two connections with one id.
        self._client_id = f"gateway-{uuid4().hex}"
        self._clock = clock
        self._metrics = metrics
        self._link: MqttLink | None = None
        self.on_connected: Callable[[], None] = lambda: None
        """Called each time that the connection came about: what waits can be published."""

    def __repr__(self) -> str:
        return f"<MqttDownlink {self._link}>"

    @property
    def connected(self) -> bool:
        return self._link is not None and not self._link.closed.is_set()

    async def publish(self, topic: str, payload: bytes) -> bool:
        link = self._link
        if link is None:
            raise DownlinkGoneError("not connected")
        try:
            async with asyncio.timeout(PUBLISH_S):
                code = await link.publish(topic, payload)
        except (MqttGoneError, TimeoutError) as error:
            raise DownlinkGoneError(str(error)) from error
        if code >= REFUSED:
            log.error("the broker does not let the gateway publish", extra={"code": code})
        return code != NO_SUBSCRIBER and code < REFUSED

    async def run(self) -> None:
        """For ever; ends only by cancellation."""
        said, began = "", self._clock.monotonic()
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S)
        while True:
            try:
                self._link = await MqttLink.connect(self._options(), _ignore, clock=self._clock)
            except (MqttError, SettingsError) as error:
                early = self._clock.monotonic() - began < QUIET_S
                if said != str(error) and not early:  # once for each reason: it may be away for hours
                    said = str(error)
                    log.warning("no connection to the broker", extra={"reason": said})
            else:
                backoff.reset()
                said = ""
                await self._serve(self._link)
            await asyncio.sleep(backoff.next())

    def watch(self, certificates: CertificateWatch) -> None:
        """Keep the certificate that we show, and whom we trust, up to date with their files."""
        if self._tls is not None:
            certificates.follow("broker", self._tls, self._settings)

    def _options(self) -> MqttOptions:
        settings = self._settings
        return MqttOptions(
            host=settings.host,
            port=settings.port,
            client_id=self._client_id,
            tls=self._tls,
            username=settings.username,
            password=settings.password(),
            version=5 if settings.version == "5" else 4,
        )

    async def _serve(self, link: MqttLink) -> None:
        log.info("connected to the broker")
        self._metrics.downlink_connected.set(1)
        self.on_connected()
        try:
            reason = await link.wait_closed()
            log.warning("the connection to the broker ended", extra={"reason": reason})
        finally:
            self._metrics.downlink_connected.set(0)
            self._link = None
            await link.close()


def _ignore(message: object) -> None:
    """Nothing is subscribed to; what comes all the same is nobody's."""
