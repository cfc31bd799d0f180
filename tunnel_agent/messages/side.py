"""The message side as a whole: started once, started again after a fault, never in the way of the tunnels."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from device_protocol.topics import Kind
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Registry
from tunnel_agent.identity import Identity
from tunnel_agent.messages import health
from tunnel_agent.messages.commands import Commands
from tunnel_agent.messages.configuration import Configuration
from tunnel_agent.messages.http_sender import HttpSender
from tunnel_agent.messages.keeper import Keeper
from tunnel_agent.messages.ledger import Ledger
from tunnel_agent.messages.metrics import message_metrics
from tunnel_agent.messages.outbox import Outbox
from tunnel_agent.messages.policy.aggregate import Reading
from tunnel_agent.messages.session import Session
from tunnel_agent.messages.settings import MessagesSettings
from tunnel_agent.messages.sources import Source
from tunnel_agent.messages.writing import Writer, unix_ms

AGAIN_FIRST_S: Final = 5.0
AGAIN_MAX_S: Final = 300.0  # a fault that stays, such as a disk that cannot be read, needs a person
STEADY_AFTER_S: Final = 600.0  # without a fault: the next one is a first one again

_log = get_logger("tunnel_agent.messages")


class MessageSide:
    """`run` is one lasting task. Nothing that goes wrong in it leaves it."""

    def __init__(
        self,
        settings: MessagesSettings,
        state_dir: Path,
        identity: Callable[[], Identity],
        clock: Clock,
        registry: Registry,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`identity`: the one in force now."""
        self.problem: str | None = None
        """Why it does not run now; None: it does."""
        self._settings = settings
        self._state_dir = state_dir
        self._identity = identity
        self._clock = clock
        self._metrics = message_metrics(registry)
        self._chance = chance
        self._writer = Writer(clock)
        self._session: Session | None = None
        self._log_level = logging.getLogger().level

    def identity_renewed(self) -> None:
        """The certificate is another one."""
        if self._session is not None:
            self._session.identity_renewed()

    async def run(self) -> None:
        """Until cancelled."""
        wait_s = AGAIN_FIRST_S
        while True:
            began = self._clock.monotonic()
            try:
                with _alone(self._state_dir / "messages"):
                    await self._run_once()
            # Whatever it is: tunnels are worth more than what broke here.
            except Exception as error:
                self.problem = f"messages stopped: {_first(error)}"
                _log.exception("messages stopped", extra={"retry_s": wait_s})
            if self._clock.monotonic() - began > STEADY_AFTER_S:
                wait_s = AGAIN_FIRST_S
            await asyncio.sleep(wait_s * (1 + self._chance()) / 2)
            wait_s = min(2 * wait_s, AGAIN_MAX_S)

    async def _run_once(self) -> None:
        folder = self._state_dir / "messages"
        outbox = Outbox(folder / "outbox", self._settings.outbox_bytes)
        ledger = Ledger(folder / "ledger", health.machine_boot())
        sync_every_s = self._settings.sync_every_ms / 1000
        keeper = Keeper(outbox, self._clock, self._metrics, sync_every_s=sync_every_s, chance=self._chance)
        session = Session(
            self._identity,
            self._state_dir,
            keeper,
            self._writer,
            self._clock,
            self._metrics.connected,
            chance=self._chance,
        )
        commands = Commands(self._settings, ledger, self._clock, session.tell, self._command_ended)
        configuration = Configuration(
            self._settings,
            folder / "configuration",
            self._writer,
            partial(keeper.offer, urgent=True),
            self._metrics.configuration,
            log_level=self._log_level,
        )
        session.commands, session.configuration, self._session = commands, configuration, session
        try:
            await keeper.open()
            await asyncio.to_thread(configuration.open)
            for ack in await asyncio.to_thread(ledger.open, unix_ms(self._clock) or 0):
                session.tell(ack, None)
            await self._work(keeper, session, commands, configuration)
        finally:
            self._session = None
            await keeper.close()
            ledger.close()

    async def _work(
        self, keeper: Keeper, session: Session, commands: Commands, configuration: Configuration
    ) -> None:
        own, asked = self._sources()
        self.problem = None
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.store(), name="messages.store")
            group.create_task(keeper.send(), name="messages.send")
            group.create_task(session.run(), name="messages.session")
            if self._settings.http_after_s:
                group.create_task(self._http_sender(keeper, session).run(), name="messages.http")
            group.create_task(commands.run(), name="messages.commands")
            group.create_task(configuration.run(), name="messages.configuration")
            group.create_task(self._tell_health(keeper, asked, configuration), name="messages.health")
            for source in own:
                group.create_task(source.run(self._writer, keeper.offer), name=f"messages.{source.name}")

    def _http_sender(self, keeper: Keeper, session: Session) -> HttpSender:
        return HttpSender(
            keeper,
            session.http_address,
            lambda: self._identity().gateway_ca,
            self._clock,
            self._metrics.over_http,
            after_s=self._settings.http_after_s,
            chance=self._chance,
        )

    def _sources(self) -> tuple[list[Source], list[Source]]:
        """Those that report by themselves, and those that health asks."""
        own: list[Source] = []
        asked: list[Source] = []
        for name, settings in self._settings.sources.items():
            (own if settings.report == "telemetry" else asked).append(Source(name, settings))
        return own, asked

    async def _tell_health(self, keeper: Keeper, asked: list[Source], configuration: Configuration) -> None:
        """The first at once: who restarted is seen."""
        while True:
            began = self._clock.monotonic()
            sensors: dict[str, Reading] = {}
            for source in asked:
                sensors |= await source.read()
            body = await asyncio.to_thread(health.report, keeper.report(), sensors)
            if not keeper.offer(self._writer.write(Kind.HEARTBEAT, body), urgent=True):
                _log.info("health report not kept: there is no room")
            await self._wait_for_health(began, configuration)

    async def _wait_for_health(self, began: float, configuration: Configuration) -> None:
        """Until the next report is due, by what is configured then."""
        while True:
            configuration.health_changed.clear()
            left = began + configuration.health_every_s - self._clock.monotonic()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await configuration.health_changed.wait()

    def _command_ended(self, outcome: str) -> None:
        self._metrics.commands.labels(outcome).inc()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """OSError while another process has these files: a number must not be given twice."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _first(error: BaseException) -> str:
    """What a group of errors began with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
