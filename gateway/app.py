"""Wiring: which parts one gateway has, and in which order they begin and end."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path

from gateway.api.app import public_app
from gateway.api.wellknown import failed_checks
from gateway.audit.witness import Witness
from gateway.commands.dispatcher import Dispatcher
from gateway.commands.downlink import MqttDownlink, NoDownlink
from gateway.commands.waiting import Waits
from gateway.errors import KeyFileError
from gateway.event_watch import EventWatch
from gateway.feed_watch import FeedWatch
from gateway.general_limit import GeneralLimit
from gateway.handing_over import HandingOver
from gateway.internal.app import internal_app
from gateway.internal.peer import PeerProtocol, server_context
from gateway.keys.keyring import Keyring, internal_server_files, load_keyring
from gateway.keys.rotation import KeyWatch
from gateway.listener import Listener
from gateway.login.providers import Providers
from gateway.messages.storing import Storing
from gateway.metrics import gateway_metrics
from gateway.parts import GatewayParts
from gateway.passwords import Passwords
from gateway.preparation import keep_tidy, prepare
from gateway.randomness import digest
from gateway.refused_logins import RefusedLogins
from gateway.settings import Settings, read_secret
from gateway.store.database import Database
from gateway.stores import short_lived
from gateway.tokens.mint import Tokens
from runtime import logs
from runtime.addresses import Address
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.metrics import Registry
from runtime.ops_server import OpsServer
from runtime.process import Shutdown
from runtime.settings import SettingsError, load
from runtime.tasks import TaskOwner

TASKS_END_S = 5.0  # the database pool's own patience


class Gateway:
    """One gateway process. `start` returns when it listens; Postgres may come later."""

    def __init__(
        self, settings: Settings, clock: Clock = SYSTEM_CLOCK, passwords: Passwords | None = None
    ) -> None:
        self.registry = Registry()
        self.crashed = asyncio.Event()
        """Set when a task that cannot be replaced ended by an exception."""
        self._tasks = TaskOwner("gateway", on_crash=lambda name, error: self.crashed.set())
        keyring = _keyring(settings, clock)
        admin = settings.admin_password_file
        self._admin_password = None if admin is None else read_secret(admin, "admin_password_file")
        welcome = settings.welcome_secret_file
        metrics = gateway_metrics(self.registry)
        database = Database(
            settings.database(), pool_max=settings.database_pool_max, wall=clock.wall, metrics=metrics
        )
        shortlived, guards = short_lived(settings, clock, database, metrics)
        broker = settings.broker
        self._downlink = None if broker is None else MqttDownlink(broker, clock, metrics)
        dispatcher = Dispatcher(database, shortlived, clock, metrics, self._downlink or NoDownlink())
        if self._downlink is not None:
            self._downlink.on_connected = dispatcher.look_now
        self.storing = None
        if settings.log.kind != "off" and settings.consumer == "inside":
            down = self._downlink or NoDownlink()
            self.storing = Storing(settings, shortlived, down, clock, metrics, database.announce)
        self.parts = GatewayParts(
            settings=settings,
            clock=clock,
            database=database,
            keyring=keyring,
            tokens=Tokens(keyring, settings.public_url),
            shortlived=shortlived,
            guards=guards,
            passwords=passwords or Passwords(),
            providers=Providers(settings, shortlived, clock, metrics),
            refused_logins=RefusedLogins(database, clock),
            feed=FeedWatch(database, shortlived, clock, metrics.feed_head),
            events=EventWatch(database, shortlived, clock, metrics, login_idle_s=settings.login_idle_s),
            commands=dispatcher,
            waits=Waits(database, shortlived),
            handing_over=HandingOver(settings.ingest_urls, keyring, clock),
            general_limit=GeneralLimit(settings.requests_per_login_s, clock),
            metrics=metrics,
            welcome_sha256=None if welcome is None else digest(read_secret(welcome, "welcome_secret_file")),
        )
        self.keys = KeyWatch(keyring, settings.key_schedules(), clock)
        self._ops = OpsServer(settings.ops_listen, self.registry, lambda: failed_checks(self.parts))
        folder = settings.audit_heads_dir
        self.witness = None if folder is None else self._witness(folder)
        self._public = Listener(
            public_app(self.parts), settings.public_listen, self._tasks, name="public", websockets=True
        )

        def internal_files() -> tuple[Path, Path]:
            return internal_server_files(keyring, settings.internal_names, clock.wall())

        certificate, key = internal_files()
        internal_tls = server_context(certificate, key, keyring.directory / "internal_ca.crt")
        self.certificates = CertificateWatch(self.registry, wall=clock.wall, prefix="towline_gateway")
        # Made by us: made anew, like at the start, when its end is near.
        self.certificates.add("internal", internal_tls, certificate, key, renew=internal_files)
        self.parts.handing_over.watch(self.certificates)
        for follows in (self._downlink, self.storing):
            if follows is not None:
                follows.watch(self.certificates)
        self._internal = Listener(
            internal_app(self.parts),
            settings.internal_listen,
            self._tasks,
            name="internal",
            tls=internal_tls,
            protocol=PeerProtocol,
        )

    @property
    def public_address(self) -> Address:
        return self._public.address

    @property
    def internal_address(self) -> Address:
        return self._internal.address

    @property
    def ops_address(self) -> Address:
        return self._ops.address

    async def start(self) -> None:
        """Listen everywhere and begin to prepare the store. OSError when an address is taken, SettingsError
        for a database URL that cannot be read.
        """
        await self.parts.database.check_url(self.parts.settings.database_field)
        await self.parts.database.open()
        self.prepared = self._tasks.start(prepare(self.parts, self._admin_password), "prepare")
        self._tasks.start(self.parts.shortlived.run(), "shortlived")
        self._tasks.start(self.parts.feed.run(), "feed")
        self._tasks.start(self.parts.events.run(), "events")
        self._tasks.start(self.parts.commands.run(), "commands")
        if self._downlink is not None:
            self._tasks.start(self._downlink.run(), "downlink")
        self._tasks.start(self.parts.refused_logins.run(), "refused logins")
        self._tasks.start(keep_tidy(self.parts), "upkeep")
        self._tasks.start(self.certificates.run(), "certificates")
        self._tasks.start(self.keys.run(), "keys")
        if self.witness is not None:
            self._tasks.start(self.witness.run(), "audit heads")
        if self.storing is not None:
            self._tasks.start(self._store_messages(self.storing), "messages")
        await self._internal.start()
        await self._public.start()
        # The last: whoever is told that it is ready comes at once.
        await self._ops.start()

    async def close(self) -> None:
        """Stop to accept, finish what is in flight, end."""
        self.parts.events.close()
        self.parts.waits.close()
        await self.parts.feed.close()
        await asyncio.gather(self._public.close(), self._internal.close())
        await self._ops.close()
        await self.parts.commands.close()
        await self._tasks.close(TASKS_END_S)
        await self.parts.refused_logins.close()
        if self.witness is not None:
            await self.witness.close()
        await self.parts.shortlived.close()
        await self.parts.providers.close()
        self.parts.handing_over.close()
        await self.parts.database.close()

    async def _store_messages(self, storing: Storing) -> None:
        await asyncio.wait([self.prepared])
        if self.parts.database.prepared:  # else a person must look at the schema
            await storing.run()

    def _witness(self, folder: Path) -> Witness:
        parts = self.parts
        return Witness(
            parts.database,
            folder,
            parts.settings.keys_dir,
            issuer=parts.settings.public_url,
            clock=parts.clock,
            metrics=parts.metrics,
        )


def _keyring(settings: Settings, clock: Clock) -> Keyring:
    try:
        return load_keyring(
            settings.keys_dir,
            clock.wall(),
            grant_wait_s=settings.grant_key_wait_s,
            login_wait_s=settings.login_key_wait_s,
        )
    except KeyFileError as error:
        raise SettingsError(f"keys_dir: {error}") from error


async def main(config: Path) -> int:
    """Run until SIGTERM. Exit code 1 when a task crashed."""
    settings = load(Settings, config)
    logs.configure("gateway", settings.log_level)
    shutdown = Shutdown().install()
    gateway = Gateway(settings)
    log = logs.get_logger("gateway")
    # Before the start, which may take a while: unheard, the signal would end the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, gateway.certificates.reload)
    try:
        await gateway.start()
        # What was made until here stays; looking through it again and again was a tenth of a request's CPU.
        gc.collect()
        gc.freeze()
        log.info(
            "listening",
            extra={
                "public": str(gateway.public_address),
                "internal": str(gateway.internal_address),
                "ops": str(gateway.ops_address),
            },
        )
        await _first(shutdown.requested, gateway.crashed)
    finally:
        await gateway.close()
    log.info("stopped")
    return 1 if gateway.crashed.is_set() else 0


async def _first(*events: asyncio.Event) -> None:
    """Wait until any of the events is set."""
    owner = TaskOwner("gateway.wait")
    waits = [owner.start(event.wait(), f"event{i}") for i, event in enumerate(events)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await owner.close(TASKS_END_S)
