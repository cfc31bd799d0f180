"""Does what the gateway asks: from a declared list, one at a time, each once, answered by the command's id.

Nothing is executed before its id is on disk. A command that comes again gets its answer again; one that a
crash cut off is answered `interrupted`, not tried a second time. `ping` and `log_level` may be repeated, so
they need no disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from device_protocol import strict_json
from device_protocol.bodies import RESULT_MAX, Ack, Command, Stage
from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_agent.messages import programs
from tunnel_agent.messages.ledger import REBOOT, Ledger
from tunnel_agent.messages.settings import CommandSettings, MessagesSettings
from tunnel_agent.messages.writing import unix_ms

QUEUE_MAX: Final = 16  # behind the one that runs; a gateway that sends more has not heard of the answers
REFUSED_KEPT: Final = 256  # answers: copies come within minutes
OUTPUT_MAX: Final = 2048  # bytes of a program's output: as JSON it may be six times as long, and is cut then
PARAMETER_MAX: Final = 1024  # characters of one parameter: all of them are in a program's environment
LEVELS: Final = ("debug", "info", "warning", "error")

BUSY: Final = "busy"
EXPIRED: Final = "expired"
UNSUPPORTED: Final = "unsupported"
BAD_PARAMETERS: Final = "bad_params"
NOT_STORED: Final = "not_stored"
TIMED_OUT: Final = "timed_out"

_log = get_logger("tunnel_agent.messages.commands")


class Tell(Protocol):
    """Says an answer, now or when there is a connection."""

    def __call__(self, ack: Ack, trace: str | None) -> None: ...


class _BadParametersError(Exception):
    """The text says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class _Result:
    ok: bool
    result: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """`begin_by`: monotonic seconds; `do` is given the seconds it may take."""

    command: Command
    begin_by: float
    do: Callable[[float], Awaitable[_Result]]
    repeatable: bool


class Commands:
    """`offer` from the event loop; `run` is one task."""

    def __init__(
        self,
        settings: MessagesSettings,
        ledger: Ledger,
        clock: Clock,
        tell: Tell,
        ended: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`ended` hears each outcome: succeeded, failed, or why it was refused."""
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._tell = tell
        self._ended = ended
        self._queue: deque[_Job] = deque()
        self._now: Command | None = None  # that runs; None: none does
        self._begun = False  # its id is stored
        self._refused: OrderedDict[str, Ack] = OrderedDict()  # never begun, so not in the ledger
        self._there = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Commands {len(self._queue)} wait, {'one runs' if self._now else 'none runs'}>"

    @property
    def names(self) -> tuple[str, ...]:
        """What hello announces."""
        own = [
            name if settings.direct else f"run:{name}" for name, settings in self._settings.commands.items()
        ]
        return ("ping", "log_level", *((REBOOT,) if self._settings.reboot else ()), *sorted(own))

    def offer(self, command: Command) -> None:
        """One came, perhaps not for the first time."""
        known = self._ledger.get(command.id)
        if known is not None and known.outcome is not None:
            self._tell(known.outcome, command.trace)
        elif command.id in self._refused:
            self._tell(self._refused[command.id], command.trace)
        elif self._now is not None and self._now.id == command.id:
            if self._begun:
                self._tell(Ack(command.id, Stage.RECEIVED, at=unix_ms(self._clock)), command.trace)
        elif not any(job.command.id == command.id for job in self._queue):
            self._line_up(command)

    def _line_up(self, command: Command) -> None:
        if len(self._queue) >= QUEUE_MAX:
            return self._refuse(command, BUSY)
        try:
            do, repeatable = self._work(command)
        except _BadParametersError as error:
            return self._refuse(command, f"{BAD_PARAMETERS}: {error}")
        if do is None:
            return self._refuse(command, UNSUPPORTED)
        begin_by = self._clock.monotonic() + command.ttl_ms / 1000
        self._queue.append(_Job(command, begin_by, do, repeatable))
        self._there.set()
        return None

    async def run(self) -> None:
        """Until cancelled; a command that runs then is killed, and its ledger says so at the next start."""
        while True:
            await self._there.wait()
            while self._queue:
                job = self._queue.popleft()
                self._now = job.command
                try:
                    await self._execute(job)
                finally:
                    self._now, self._begun = None, False
            self._there.clear()

    async def _execute(self, job: _Job) -> None:
        command = job.command
        if self._clock.monotonic() > job.begin_by:
            return self._refuse(command, EXPIRED)
        if not job.repeatable:
            try:
                await asyncio.to_thread(self._ledger.take, command.id, command.name, command.expires)
            except OSError as error:
                _log.error("command not begun: its id cannot be stored", extra={"reason": str(error)})
                return self._refuse(command, NOT_STORED)
        self._begun = True
        self._tell(Ack(command.id, Stage.RECEIVED, at=unix_ms(self._clock)), command.trace)
        facts = {"command": command.id, "command_name": command.name, "trace": command.trace}
        _log.info("command begins", extra=facts)
        result = await job.do(command.timeout_ms / 1000)
        ack = Ack(
            command.id,
            Stage.DONE,
            at=unix_ms(self._clock),
            ok=result.ok,
            result=_fitting(result.result),
            error=result.error,
        )
        if not job.repeatable:
            await self._remember(command, ack)
        return self._answer(command, ack)

    async def _remember(self, command: Command, ack: Ack) -> None:
        try:
            await asyncio.to_thread(self._ledger.end, ack, command.expires, command.name)
        except OSError as error:
            _log.error("a command's outcome is not stored", extra={"reason": str(error)})

    def _refuse(self, command: Command, error: str) -> None:
        """Copies of it get the same answer, also where it would find room now."""
        ack = Ack(command.id, Stage.REFUSED, at=unix_ms(self._clock), error=error)
        self._refused[command.id] = ack
        while len(self._refused) > REFUSED_KEPT:
            self._refused.popitem(last=False)
        self._answer(command, ack)

    def _answer(self, command: Command, ack: Ack) -> None:
        outcome = ("succeeded" if ack.ok else "failed") if ack.stage is Stage.DONE else "refused"
        facts = {"command": command.id, "outcome": outcome, "reason": ack.error, "trace": command.trace}
        _log.info("command ended", extra=facts)
        self._ended(outcome)
        self._tell(ack, command.trace)

    # What can be done

    def _work(self, command: Command) -> tuple[Callable[[float], Awaitable[_Result]] | None, bool]:
        """How it is done, and whether it may be repeated; None where this device cannot."""
        name, params = command.name, dict(command.params)
        if name == "ping":
            return self._ping, True
        if name == "log_level":
            level = params.get("level")
            if level not in LEVELS:
                raise _BadParametersError(f"level is one of {', '.join(LEVELS)}")
            return (lambda _: self._log_level(level)), True
        if name == REBOOT and self._settings.reboot:
            return self._reboot, False
        program = self._program(name, params)
        if program is None:
            return None, False
        environment = _environment(command, program, params)
        return (lambda most_s: _run(program, environment, most_s)), False

    def _program(self, name: str, params: dict[str, Any]) -> CommandSettings | None:
        """Takes `name` out of the parameters where the command is `run`."""
        if name == "run":
            wanted = params.pop("name", None)
            found = self._settings.commands.get(wanted) if isinstance(wanted, str) else None
            return found if found is not None and not found.direct else None
        found = self._settings.commands.get(name)
        return found if found is not None and found.direct else None

    async def _ping(self, _most_s: float) -> _Result:
        return _Result(True)

    async def _log_level(self, level: str) -> _Result:
        root = logging.getLogger()
        was = logging.getLevelName(root.level).lower()
        root.setLevel(level.upper())
        return _Result(True, {"was": was})

    async def _reboot(self, most_s: float) -> _Result:
        """Only the next start of the agent knows that it worked."""
        ends = self._clock.monotonic() + most_s
        result = await _run(CommandSettings(exec=self._settings.reboot), {}, most_s)
        if not result.ok:
            return result
        await asyncio.sleep(max(0.0, ends - self._clock.monotonic()))
        return _Result(False, error="the machine did not restart")


def _environment(command: Command, program: CommandSettings, params: dict[str, Any]) -> dict[str, str]:
    """_BadParametersError for what the program was not declared to take."""
    environment = {"TOWLINE_COMMAND": command.id}
    for name, value in params.items():
        if name not in program.params:
            raise _BadParametersError("one is not taken by this command")
        if not isinstance(value, str | bool | int | float):
            raise _BadParametersError(f"{name} is neither text nor number nor true or false")
        text = value if isinstance(value, str) else strict_json.dumps(value).decode()
        if len(text) > PARAMETER_MAX or "\0" in text:
            raise _BadParametersError(f"{name} is too long")
        environment[f"TOWLINE_PARAM_{name.upper()}"] = text
    return environment


async def _run(program: CommandSettings, environment: dict[str, str], most_s: float) -> _Result:
    timeout_s = min(most_s, program.timeout_s)
    try:
        outcome = await programs.run(
            program.exec, timeout_s=timeout_s, most=OUTPUT_MAX, environment=environment
        )
    except OSError as error:
        return _Result(False, error=f"cannot be started: {error.strerror}")
    result = {"code": outcome.code, "output": outcome.output.decode("utf-8", "replace").replace("\0", "�")}
    if outcome.code is None:
        return _Result(False, result, TIMED_OUT)
    return (
        _Result(True, result) if outcome.code == 0 else _Result(False, result, f"ended with {outcome.code}")
    )


def _fitting(result: Any) -> Any:
    """The same, its output cut until it is short enough."""
    while result is not None and len(strict_json.dumps(result)) > RESULT_MAX:
        result = result | {"output": result["output"][: len(result["output"]) // 2]}
    return result
