"""Reads what is around the agent: a local address or a program, summed up into reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from device_protocol import strict_json
from device_protocol.envelope import Envelope
from device_protocol.topics import Kind
from runtime.logs import get_logger
from tunnel_agent.messages import programs
from tunnel_agent.messages.local_http import ANSWER_MAX, LocalHttpError, fetch
from tunnel_agent.messages.policy.aggregate import Aggregate, Reading, readings
from tunnel_agent.messages.settings import SourceSettings
from tunnel_agent.messages.writing import Writer, unix_ms

_log = get_logger("tunnel_agent.messages.sources")


class SourceError(Exception):
    """It gave no readings; the text says why."""


class Source:
    """One source. `run` is for one that reports by itself, `read` for one that others ask."""

    def __init__(self, name: str, settings: SourceSettings) -> None:
        self.name = name
        self._settings = settings
        self._failing = False

    def __repr__(self) -> str:
        return f"<Source {self.name}{' failing' if self._failing else ''}>"

    async def run(self, writer: Writer, offer: Callable[[Envelope], bool]) -> None:
        """Until cancelled. `offer` False: there is no room, so the summary goes on instead of leaving."""
        clock, settings = writer.clock, self._settings
        summary = Aggregate()
        due = clock.monotonic() + settings.report_s
        while True:
            at = clock.monotonic()
            found = await self.read()
            if found:
                summary.add(found, unix_ms(clock))
            if clock.monotonic() >= due:
                due = clock.monotonic() + settings.report_s
                body = summary.report(unix_ms(clock))
                if body is not None and not offer(writer.write(Kind.TELEMETRY, body, type=self.name)):
                    _log.info("report not kept: there is no room", extra={"source": self.name})
            await asyncio.sleep(max(0.0, min(at + settings.sample_s, due) - clock.monotonic()))

    async def read(self) -> dict[str, Reading]:
        """Its readings now; none when it fails, which is told when it begins and when it ends."""
        settings = self._settings
        try:
            raw = await (self._get() if settings.url is not None else self._run())
            found = readings(strict_json.loads(raw), settings.keys)
        except (SourceError, LocalHttpError, ValueError) as error:
            if not self._failing:
                _log.warning("source gives no readings", extra={"source": self.name, "reason": str(error)})
            self._failing = True
            return {}
        if self._failing:
            _log.info("source gives readings again", extra={"source": self.name})
        self._failing = False
        return found

    async def _get(self) -> bytes:
        assert self._settings.url is not None
        return await asyncio.to_thread(fetch, self._settings.url, self._settings.timeout_s)

    async def _run(self) -> bytes:
        try:
            outcome = await programs.run(
                self._settings.exec, timeout_s=self._settings.timeout_s, most=ANSWER_MAX
            )
        except OSError as error:
            raise SourceError(f"cannot be started: {error.strerror}") from error
        if outcome.code != 0:
            raise SourceError("too slow" if outcome.code is None else f"ended with {outcome.code}")
        return outcome.output
