"""Runs the device with the configuration that the gateway wants, and says with which one it runs.

What is told is checked as a whole, stored as `trying`, applied, stored as `running`, reported. A crash at any
point leaves a file from which the next start goes on: what was tried is tried again, or the old one still
runs. What cannot be applied is taken back and reported, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from device_protocol import strict_json
from device_protocol.bodies import CONFIG_MAX, CONFIG_TYPE, Desired, Reported
from device_protocol.envelope import Envelope
from device_protocol.errors import BadMessageError
from device_protocol.topics import Kind
from runtime.logs import get_logger
from runtime.metrics import Gauge
from runtime.private_files import write_private
from tunnel_agent.messages import programs
from tunnel_agent.messages.local_http import LocalHttpError, fetch
from tunnel_agent.messages.policy.configuration import fault, of_device
from tunnel_agent.messages.settings import ConfigurationSettings, MessagesSettings
from tunnel_agent.messages.writing import Writer

REPORT_AGAIN_S: Final = 5.0  # while the outbox has no room
# While the device's own service is not up: a restart takes seconds, and each attempt is written to the disk.
APPLY_AGAIN_FIRST_S: Final = 5.0
APPLY_AGAIN_MAX_S: Final = 600.0
SAID_MAX: Final = 200  # characters of what the device's program or service says
ERROR_MAX: Final = 512  # characters (docs/protocol/schemas/state-config.json)
NOT_ABOVE: Final = "its version is not above the one that runs"
TOO_LARGE: Final = "more than this device takes"
NOT_STORED: Final = "it cannot be stored"

_log = get_logger("tunnel_agent.messages.configuration")


class NotAppliedError(Exception):
    """The device does not take it; the text says why. `soon`: it may a while later: its service is away."""

    def __init__(self, why: str, *, soon: bool = False) -> None:
        super().__init__(why)
        self.soon = soon


@dataclass(frozen=True, slots=True)
class _Files:
    """What is on disk. `trying`: it was being applied when this was written."""

    running: Desired | None = None
    trying: Desired | None = None


class Configuration:
    """`open` first; `tell` and `connected` from the event loop; `run` is one task."""

    def __init__(
        self,
        settings: MessagesSettings,
        path: Path,
        writer: Writer,
        offer: Callable[[Envelope], bool],
        version: Gauge,
        *,
        log_level: int,
    ) -> None:
        """`offer` False: there is no room for the report now. `log_level`: what the agent's file says."""
        self._settings = settings
        self._path = path
        self._writer = writer
        self._offer = offer
        self._gauge = version
        self._log_level = log_level
        self._level: str | None = None  # that was configured
        self._files = _Files()
        self._told: Desired | None = None  # waits to be looked at
        self._last_told: int | None = None
        self._refused: tuple[Desired, str] | None = None  # on this connection
        self._error: str | None = None
        self._owes_report = False
        self._prefix = ""  # under which it was reported
        self._later: Desired | None = None  # refused, and tried again unasked
        self._again_s = APPLY_AGAIN_FIRST_S
        self._unapplied = False  # what it runs with could not be applied at the start
        self._wake = asyncio.Event()
        self.health_changed = asyncio.Event()
        """Set when `health_every_s` may be another."""

    def __repr__(self) -> str:
        return f"<Configuration {self.version}{' trying' if self._files.trying else ''}>"

    @property
    def version(self) -> int | None:
        """Of what it runs with; None: nothing was ever configured."""
        return None if self._files.running is None else self._files.running.version

    @property
    def health_every_s(self) -> float:
        """Between two health reports."""
        wanted = self._body(self._files.running).get("health_every_s", self._settings.health_every_s)
        return float(wanted)

    def open(self) -> None:
        """Read what it runs with. Blocks."""
        self._files = _read(self._path)

    def tell(self, desired: Desired) -> None:
        """It should run with this; of several only the last counts."""
        self._told = desired
        self._wake.set()

    def connected(self, prefix: str) -> None:
        """There is a new connection. The gateway is told with what it runs at the first, and under each new
        prefix.
        """
        self._refused = None  # what was refused may be taken now
        if prefix != self._prefix:
            self._prefix = prefix
            self._owes_report |= self._files.running is not None  # of none there is nothing to say
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._begin()
        while True:
            self._wake.clear()
            told, self._told = self._told, None
            if told is not None:
                self._again_s = APPLY_AGAIN_FIRST_S
                await self._hear(told)
            else:
                await self._once_more()
            if self._owes_report and self._prefix:
                self._report()
            if self._told is None:
                await self._rest()

    async def _rest(self) -> None:
        """Until there is something to do."""
        wait_s = None
        if self._owes_report and self._prefix:
            wait_s = REPORT_AGAIN_S
        elif self._unapplied or self._later is not None:
            wait_s, self._again_s = self._again_s, min(2 * self._again_s, APPLY_AGAIN_MAX_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    async def _begin(self) -> None:
        self._take_own()
        trying = self._files.trying
        if trying is None:
            await self._apply_running()
            return
        _log.info("a configuration was being applied: once more", extra={"version": trying.version})
        self._last_told = trying.version
        why = fault(trying.body, self._settings.configuration.keys)
        if why is None:
            await self._try(trying)
        else:  # the agent's file is another one now
            await self._take_back(trying, why)

    async def _apply_running(self) -> None:
        """What the device's own service was told may have gone with its last start."""
        running, was = self._files.running, self._error
        if running is None or not of_device(running.body):
            self._unapplied = False
            return
        try:
            why = fault(running.body, self._settings.configuration.keys)
            if why is not None:
                raise NotAppliedError(why)
            await self._apply(running)
        except NotAppliedError as error:
            self._unapplied, self._error = True, f"not in force: {error}"
        else:
            self._unapplied, self._error = False, None
        if self._error != was:
            _log.log(
                logging.WARNING if self._error else logging.INFO,
                "the configuration is not in force" if self._error else "the configuration is in force",
                extra={"version": running.version, "reason": self._error},
            )
            self._owes_report = True

    # What is told

    async def _hear(self, told: Desired) -> None:
        self._last_told, self._owes_report = told.version, True
        later, self._later = self._later, None
        running = self._files.running
        if running is not None and told.version <= running.version:
            if told != running:
                self._error = NOT_ABOVE
            elif not self._unapplied:
                self._error = None
            return
        if self._refused is not None and self._refused[0] == told:
            self._error, self._later = self._refused[1], later  # told again before its answer came
            return
        why = fault(told.body, self._settings.configuration.keys)
        if len(strict_json.dumps(told.body)) > CONFIG_MAX:
            why = TOO_LARGE
        if why is not None:
            self._refuse(told, why)
            return
        if await self._store(_Files(self._files.running, told)):
            await self._try(told)
        else:
            self._refuse(told, NOT_STORED, soon=True)

    async def _once_more(self) -> None:
        """What the device's own service could not take: what was told last, or else what runs."""
        if self._later is not None:
            said, owed, self._refused = self._error, self._owes_report, None
            await self._hear(self._later)
            if self._error == said:  # nothing new to report
                self._owes_report = owed
        elif self._unapplied:
            await self._apply_running()

    async def _try(self, desired: Desired) -> None:
        """It is stored as being tried."""
        self._owes_report = True
        if of_device(desired.body) != of_device(self._body(self._files.running)) or self._unapplied:
            try:
                await self._apply(desired)
            except NotAppliedError as error:
                await self._take_back(desired, str(error), soon=error.soon)
                return
        if not await self._store(_Files(desired)):
            await self._take_back(desired, NOT_STORED, soon=True)
            return
        self._error, self._refused, self._unapplied = None, None, False
        self._take_own()
        _log.info("runs with another configuration", extra={"version": desired.version})

    async def _take_back(self, desired: Desired, why: str, *, soon: bool = False) -> None:
        """Nothing of it stays."""
        if of_device(desired.body) != of_device(self._body(self._files.running)):
            try:
                await self._apply(self._files.running)
            except NotAppliedError as error:
                self._unapplied = self._files.running is not None
                why = f"{why}; nor could the former one be put back: {error}"
        if not await self._store(_Files(self._files.running)):
            _log.error("a configuration that was refused is tried again at the next start")
        self._refuse(desired, why, soon=soon)

    def _refuse(self, desired: Desired, why: str, *, soon: bool = False) -> None:
        """`soon`: it is tried again unasked."""
        self._later = desired if soon else None
        if why != self._error:
            _log.warning("configuration refused", extra={"version": desired.version, "reason": why})
        self._refused = (desired, why)
        self._error, self._owes_report = why, True

    async def _store(self, files: _Files) -> bool:
        """False: the disk does not take it."""
        data = json.dumps(asdict(files), separators=(",", ":")).encode("ascii")
        try:
            await asyncio.to_thread(write_private, self._path, data)
        except OSError as error:
            _log.error("the configuration cannot be stored", extra={"reason": str(error)})
            return False
        self._files = files
        return True

    # Applying

    def _take_own(self) -> None:
        """What the agent does itself; that never fails."""
        body = self._body(self._files.running)
        level = body.get("log_level")
        if level != self._level:  # else what a command set stays
            self._level = level
            logging.getLogger().setLevel(self._log_level if level is None else level.upper())
        self._gauge.set(self.version or 0)
        self.health_changed.set()

    async def _apply(self, desired: Desired | None) -> None:
        """Give the device its own members; NotAppliedError."""
        settings = self._settings.configuration
        if not settings.keys:
            return
        members = strict_json.dumps(of_device(self._body(desired)))
        if settings.url is not None:
            await _put(settings.url, members, settings.timeout_s)
        else:
            await _run(settings, members)

    @staticmethod
    def _body(desired: Desired | None) -> dict[str, Any]:
        return {} if desired is None else desired.body

    def _report(self) -> None:
        running = self._files.running
        said = Reported(
            version=self.version,
            sha256=None if running is None else running.sha256,
            told=self._last_told,
            error=None if self._error is None else self._error[:ERROR_MAX],
        )
        self._owes_report = not self._offer(self._writer.write(Kind.STATE, said.dump(), type=CONFIG_TYPE))


async def _put(url: str, members: bytes, timeout_s: float) -> None:
    try:
        await asyncio.to_thread(fetch, url, timeout_s, method="PUT", body=members)
    except LocalHttpError as error:
        raise NotAppliedError(_with_word(str(error), error.body), soon=error.soon) from error


async def _run(settings: ConfigurationSettings, members: bytes) -> None:
    try:
        outcome = await programs.run(
            settings.exec,
            timeout_s=settings.timeout_s,
            most=SAID_MAX,
            environment={"TOWLINE_CONFIGURATION": members.decode()},
        )
    except OSError as error:
        raise NotAppliedError(f"its program cannot be started: {error.strerror}") from error
    if outcome.code is None:
        raise NotAppliedError("its program took too long")
    if outcome.code != 0:
        raise NotAppliedError(_with_word(f"its program ended with {outcome.code}", outcome.output))


def _with_word(what: str, said: bytes) -> str:
    """With the first line of what was said about it."""
    line = said[:SAID_MAX].decode("utf-8", "replace").strip().partition("\n")[0]
    shown = "".join(char for char in line if char.isprintable()).strip()
    return f"{what}: {shown}" if shown else what


def _read(path: Path) -> _Files:
    """What cannot be read is as if it were not there: the gateway tells it again."""
    try:
        found = json.loads(path.read_bytes())
        return _Files(_desired(found["running"]), _desired(found["trying"]))
    except FileNotFoundError:
        return _Files()
    except (OSError, ValueError, KeyError, TypeError, BadMessageError) as error:
        _log.error("the stored configuration cannot be read", extra={"reason": repr(error)})
        return _Files()


def _desired(found: dict[str, Any] | None) -> Desired | None:
    return None if found is None else Desired.parse(strict_json.dumps({"v": 1, **found}))
