"""The only place that wires ingest together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.acceptances import Acceptances
from ingest.bridge import Bridge, Share
from ingest.brokers.mosquitto import LIST_BYTES, MosquittoDoors, gateway_list
from ingest.brokers.mosquitto_log import DeniedLines
from ingest.gateway_log import GatewayWriter
from ingest.http_intake import HttpIntake
from ingest.intake import Intake
from ingest.keeper import GatewayFeed, Keeper
from ingest.logins import Logins
from ingest.metrics import Metrics
from ingest.policy.rates import Rates
from ingest.refusals import Refusals, gateway_audit
from ingest.settings import BrokerSettings, Settings
from runtime import logs, settings
from runtime.addresses import parse_address
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.event_log.interface import LogWriter
from runtime.internal_http import InternalHttp
from runtime.metrics import Registry
from runtime.mqtt_link import MqttOptions
from runtime.ops_server import OpsServer
from runtime.process import EXIT_CRASH, EXIT_OK, Shutdown
from runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from ingest.brokers.embedded import EmbeddedBroker

RATES_MAX = 50_000  # devices whose rate is remembered, 10 MB; of more, those that say most are
CLOSE_S = 1.0  # for owned tasks and last words; an idle exit stays under 2 s

_log = logs.get_logger("ingest")


class Ingest:
    """One bridge from the broker to the log. ``start`` listens, ``stop`` drains."""

    def __init__(
        self,
        config: Settings,
        log: LogWriter,
        *,
        embedded: EmbeddedBroker | None = None,
        keeper: Keeper | None = None,
        refusals: Refusals | None = None,
        denied: DeniedLines | None = None,
        gateway_context: ssl.SSLContext | None = None,
        log_context: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """`embedded`: a broker that runs as long as this does; `keeper`: of the broker; `refusals`: what it
        refuses to devices; `denied`: from whose log they come. `on_crash`: a task that must run for ever has
        failed, and the process is of no use any more.
        """
        self._config = config
        self._log = log
        self._embedded = embedded
        self._keeper = keeper
        self._refusals = refusals
        self._denied = denied
        self._gateway_context = gateway_context
        self._log_context = log_context
        self._on_crash = on_crash
        self.crashed = False
        self._draining = False
        self.registry = Registry()
        self.metrics = Metrics(self.registry)
        self._lasting = TaskOwner("ingest", on_crash=self._task_crashed)
        self.bridge = Bridge(config.broker, Share(config.bridge, config.bridges), self.metrics, clock)
        self.acceptances = Acceptances(
            self.bridge, self.metrics, clock, every_s=config.accept_every_ms / 1000
        )
        self.intake = Intake(
            log,
            self.acceptances,
            self.metrics,
            clock,
            bytes_max=config.bytes_max,
            lines_max=config.lines_max,
            append_s=config.append_s,
            rates=Rates(config.device_messages_s, config.device_bytes_s, config.device_burst_s, RATES_MAX),
            pressed=self.bridge.press,
            on_crash=self._task_crashed,
        )
        self.http = None if config.http is None else HttpIntake(config.http, self.intake)
        self.certificates = CertificateWatch(self.registry, wall=clock.wall, prefix="towline_ingest")
        self.ops = OpsServer(config.ops_listen, self.registry, self.failed_checks)
        self._watch()

    def _watch(self) -> None:
        watch, intake = self.metrics.watch, self.intake
        watch(
            "towline_ingest_pending_bytes",
            "Bytes of messages that wait for the log, with what they cost in memory.",
            lambda: intake.budget.used,
        )
        watch(
            "towline_ingest_paused",
            "1 while too much waits for the log and nothing is read from the broker.",
            lambda: int(intake.budget.paused),
        )
        watch(
            "towline_ingest_parts_failing",
            "Parts of the log that did not take the last append, of the last 100 s; devices of a sick"
            " part wait, others do not.",
            lambda: len(intake.failing),
        )
        watch("towline_ingest_lines", "Devices whose place is remembered.", lambda: len(intake.lines))
        watch(
            "towline_ingest_broker_connected",
            "1 while the broker sends what devices say.",
            lambda: int(self.bridge.connected),
        )
        self._watch_broker()

    def _watch_broker(self) -> None:
        metrics, keeper = self.metrics, self._keeper
        if self._refusals is not None:
            self._refusals.counted = lambda what: metrics.refused.labels(what).inc()
        if keeper is not None:
            keeper.counted = lambda outcome, count: metrics.kicks.labels(outcome).inc(count)
        metrics.watch(
            "towline_ingest_revoked_waiting",
            "Revoked devices that are to be shut out of the broker, for the first time or once more.",
            lambda: 0 if keeper is None else keeper.waiting,
        )
        metrics.watch(
            "towline_ingest_crl_age_seconds",
            "Since the broker was told of a revocation list; 0: none yet, or it needs none. They are good"
            " for 7 days: then Mosquitto refuses every device.",
            lambda: 0.0 if keeper is None else keeper.list_age_s or 0.0,
        )

    async def start(self) -> None:
        """Listen; OSError when an address is taken."""
        await self.ops.start()
        if self._embedded is not None:
            await self._embedded.start()
        if self.http is not None:
            await self.http.start()
        self._watch_certificates()
        if self._keeper is not None:
            self._lasting.start(self._keeper.run(), "keeper")
        if self._refusals is not None:
            self._lasting.start(self._refusals.run(), "refusals")
        if self._denied is not None:
            self._lasting.start(self._denied.run(), "broker's log")
        self._lasting.start(self.acceptances.run(), "acceptances")
        self._lasting.start(self._run(), "bridge")
        _log.info(
            "ingest started",
            extra={
                "bridge": self._config.bridge,
                "bridges": self._config.bridges,
                "broker": self._config.broker.url,
                "ops": str(self.ops.address),
            },
        )

    async def stop(self) -> None:
        """Take no more; what was taken is appended and told within ``drain_s``."""
        self._draining = True
        self.bridge.press(True)
        if self.http is not None:
            self.http.refuse()
        await self.intake.drain(self._config.drain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.acceptances.flush()
        await self._lasting.close(CLOSE_S)
        await self.bridge.close()
        if self.http is not None:
            await self.http.close()
        if self._embedded is not None:
            await self._embedded.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):  # a log that is away must not hold up the exit
                await self._log.close()
        await self.ops.close()
        _log.info("ingest stopped")

    def failed_checks(self) -> list[str]:
        """Readiness: the names of what fails."""
        failed = []
        if not self.intake.started or self.intake.log_fails:
            failed.append("log")
        if not self.bridge.connected:
            failed.append("broker")
        if self._keeper is not None and not self._keeper.is_fresh:
            failed.append("revocations")
        if self._draining:
            failed.append("draining")
        return failed

    async def _run(self) -> None:
        await self.intake.start()  # what comes before would find no place
        await self.bridge.run(self.intake)

    def _watch_certificates(self) -> None:
        """They are renewed while this runs: on SIGHUP, and each minute, the files are read again."""
        config = self._config
        for name, context, files in (
            ("broker", self.bridge.context, config.broker),
            ("gateway", self._gateway_context, config.gateway),
            ("log", self._log_context, config.log),
            ("http", None if self.http is None else self.http.context, config.http),
        ):
            if context is not None and files is not None:
                self.certificates.follow(name, context, files)
        self._lasting.start(self.certificates.run(), "certificates")

    def _task_crashed(self, name: str, error: BaseException) -> None:
        self.crashed = True
        self._on_crash()


async def main(path: Path) -> int:
    """Run until SIGTERM; SettingsError for a bad file. The exit code."""
    config = settings.load(Settings, path)
    logs.configure("ingest", config.log_level)
    shutdown = Shutdown().install()
    http = None if config.gateway is None else InternalHttp(config.gateway, answer_bytes=LIST_BYTES)
    try:
        refusals = None if http is None else Refusals(gateway_audit(http), SYSTEM_CLOCK)
        embedded = open_broker(config, http, refusals)
        log, log_context = open_log(config, http)
        ingest = Ingest(
            config,
            log,
            embedded=embedded,
            keeper=open_keeper(config, embedded, http),
            refusals=refusals,
            denied=open_denied(config, refusals),
            gateway_context=None if http is None else http.context,
            log_context=log_context,
            on_crash=shutdown.request,
        )
        # Before the start, which may take a while: unheard, the signal would end the process.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, ingest.certificates.reload)
        try:
            await ingest.start()
            await shutdown.requested.wait()
        finally:
            await ingest.stop()
    finally:
        if http is not None:
            http.close()
    return EXIT_CRASH if ingest.crashed else EXIT_OK


def open_broker(
    config: Settings, http: InternalHttp | None, refusals: Refusals | None = None
) -> EmbeddedBroker | None:
    """The embedded broker where the settings ask for one; not started. SettingsError."""
    embedded = config.embedded_broker
    if embedded is None:
        return None
    assert http is not None  # Settings demands the gateway
    # Only here: the broker's packages come with the extra `up` alone.
    from ingest.brokers.embedded import EmbeddedBroker

    secrets = {
        "gateway": settings.read_secret(
            embedded.gateway_password_file, "embedded_broker.gateway_password_file"
        )
    }
    if config.broker.username is not None and config.broker.password_file is not None:
        secrets[config.broker.username] = settings.read_secret(
            config.broker.password_file, "broker.password_file"
        )
    address = parse_address(embedded.listen)
    return EmbeddedBroker(
        Logins(http).check,
        secrets,
        host=address.host,
        port=address.port,
        refused=None if refusals is None else refusals.refused,
    )


def open_keeper(
    config: Settings, embedded: EmbeddedBroker | None, http: InternalHttp | None
) -> Keeper | None:
    """Of the embedded broker, where there is one, or of the Mosquitto that the settings name."""
    if http is None:
        return None
    if embedded is not None:
        return Keeper(GatewayFeed(http), embedded, SYSTEM_CLOCK)
    if config.keeper is None:
        return None
    doors = MosquittoDoors(
        gateway_list(http),
        crl_file=config.keeper.crl_file,
        pid_file=config.keeper.pid_file,
        options=lambda: _take_over_options(config.broker),
        clock=SYSTEM_CLOCK,
    )
    return Keeper(GatewayFeed(http), doors, SYSTEM_CLOCK, doors)


def open_denied(config: Settings, refusals: Refusals | None) -> DeniedLines | None:
    """Where the settings name the log of a Mosquitto that says what it refuses."""
    if refusals is None or config.keeper is None or config.keeper.log_file is None:
        return None
    return DeniedLines(config.keeper.log_file, refusals.refused)


def _take_over_options(broker: BrokerSettings) -> MqttOptions:
    """The files are read each time: they may have been renewed. OSError when they cannot serve now."""
    try:
        tls = broker.tls()
    except settings.SettingsError as error:
        raise OSError(str(error)) from error
    return MqttOptions(broker.host, broker.port, "keeper", tls=tls)


def open_log(config: Settings, http: InternalHttp | None) -> tuple[LogWriter, ssl.SSLContext | None]:
    """The log that the settings name, not started, and what it speaks TLS by where its connections are its
    own. SettingsError.
    """
    kept = config.log
    if kept.kind == "gateway":
        assert http is not None  # Settings demands the gateway
        return GatewayWriter(http), None
    # Only here: a single machine without Kafka needs none of its client's memory.
    from runtime.event_log.kafka import KafkaWriter, address_of

    address = address_of(kept)
    return KafkaWriter(address, append_s=config.append_s), address.context
