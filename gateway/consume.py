"""`python -m gateway consume --config FILE`: stores what devices say, in a process apart from the API's.

For where many devices speak: requests then do not share a processor's turns with thousands of messages. It
reads the gateway's own settings file; the gateway's must say ``consumer = "apart"``. Several may run.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.commands.downlink import MqttDownlink, NoDownlink
from gateway.errors import StoreUnavailableError
from gateway.messages.storing import Storing
from gateway.metrics import gateway_metrics
from gateway.settings import Settings
from gateway.store import migrate, schema
from gateway.store.database import Database
from gateway.stores import short_lived
from runtime import collector, logs
from runtime.addresses import Address
from runtime.certificates import CertificateWatch
from runtime.clock import SYSTEM_CLOCK, Clock
from runtime.metrics import Registry
from runtime.ops_server import OpsServer
from runtime.process import EXIT_CRASH, EXIT_OK, Shutdown, run
from runtime.settings import SettingsError, load
from runtime.tasks import TaskOwner

CONSUME: Final = "consume"
POOL_MAX: Final = 2  # for the schema and wake-ups alone
RETRY_S: Final = 0.5  # until Postgres answers, or somebody migrated
TASKS_END_S: Final = 5.0

log = logs.get_logger("gateway.consume")


class ConsumerProcess:
    """`start` returns when operators are answered; Postgres and the log may come later."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        if settings.log.kind == "off":
            raise SettingsError("log.kind: is off: there is nothing to store")
        if settings.consumer != "apart":
            raise SettingsError('consumer: must be "apart", or the gateway stores the messages itself')
        self.registry = Registry()
        self.crashed = asyncio.Event()
        self._settings = settings
        self._tasks = TaskOwner("consume", on_crash=lambda name, error: self.crashed.set())
        metrics = gateway_metrics(self.registry)
        self._database = Database(settings.database(), pool_max=POOL_MAX, wall=clock.wall, metrics=metrics)
        self._shortlived, self._guards = short_lived(settings, clock, self._database, metrics)
        broker = settings.broker
        self._downlink = None if broker is None else MqttDownlink(broker, clock, metrics)
        self.storing = Storing(
            settings,
            self._shortlived,
            self._downlink or NoDownlink(),
            clock,
            metrics,
            self._database.announce,
        )
        self.certificates = CertificateWatch(self.registry, wall=clock.wall, prefix="towline_gateway")
        for follows in (self._downlink, self.storing):
            if follows is not None:
                follows.watch(self.certificates)
        self._metrics = metrics
        self._ops = OpsServer(settings.consumer_ops_listen, self.registry, self.failed_checks)

    @property
    def ops_address(self) -> Address:
        return self._ops.address

    def failed_checks(self) -> list[str]:
        """Names of what does not work: schema, postgres, redis, log, and messages that cannot be stored."""
        failed = [] if self._database.prepared else ["schema"]
        failed += [guard.name for guard in self._guards if not guard.is_closed]
        failed += ["log"] if self._metrics.log_away.value else []
        return [*failed, "messages"] if self._metrics.log_stuck.value else failed

    async def start(self) -> None:
        """OSError when the address is taken, SettingsError for a database URL that cannot be read."""
        await self._database.check_url(self._settings.database_field)
        await self._database.open()
        self._tasks.start(self._shortlived.run(), "shortlived")
        if self._downlink is not None:
            self._tasks.start(self._downlink.run(), "downlink")
        self._tasks.start(self._store(), "messages")
        self._tasks.start(self.certificates.run(), "certificates")
        await self._ops.start()

    async def close(self) -> None:
        await self._ops.close()
        await self._tasks.close(TASKS_END_S)
        await self._shortlived.close()
        await self._database.close()

    async def _store(self) -> None:
        """Once the schema is there: the gateway puts it there, or the owner does."""
        while True:
            try:
                await schema.put(self._settings.database(), None, migrate.load())
                break
            except StoreUnavailableError as error:
                log.info("waiting for the schema", extra={"reason": str(error)})
                await asyncio.sleep(RETRY_S)
        self._database.prepared = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.storing.run(), name="consume.storing")
            tasks.create_task(self._look(), name="consume.look")

    async def _look(self) -> None:
        """What notices that Postgres answers again."""
        while True:
            await asyncio.sleep(1.0)
            try:
                async with self._database.transaction(probe=True) as tx:
                    await tx.fetchval("SELECT 1")
            except StoreUnavailableError:
                continue


async def main(config: Path) -> int:
    """Run until SIGTERM."""
    settings = load(Settings, config)
    logs.configure("gateway", settings.log_level)
    shutdown = Shutdown().install()
    process = ConsumerProcess(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, process.certificates.reload)
    owner = TaskOwner("consume.wait")
    try:
        await process.start()
        log.info("storing", extra={"ops": str(process.ops_address), "log": settings.log.kind})
        ends = [owner.start(event.wait(), "end") for event in (shutdown.requested, process.crashed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await owner.close(TASKS_END_S)
        await process.close()
    return EXIT_CRASH if process.crashed.is_set() else EXIT_OK


def consume(arguments: Sequence[str]) -> int:
    """0: it was told to end; 1: it crashed; 2: bad settings."""
    collector.be_rare()
    return run("gateway consume", main, arguments)
