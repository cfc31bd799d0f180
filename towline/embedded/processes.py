"""Child processes that are kept running: restarted with back-off, output bounded, gone with their parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.process import EXIT_BAD_SETTINGS
from runtime.tasks import TaskOwner
from towline.embedded.leftovers import PidFile
from towline.embedded.log_file import LogFile
from towline.errors import TowlineError

FIRST_PAUSE_S = 0.1  # a process that was killed by mistake is back at once
LONGEST_PAUSE_S = 5.0  # one that cannot start neither burns the CPU nor waits long after its cause is mended
STABLE_AFTER_S = 20.0  # running this long makes the next failure a first one again
STOP_TIMEOUT_S = (
    10.0  # a service drains idle in < 2 s; what is in flight at the end of `up` may finish in this time
)
KILL_TIMEOUT_S = 5.0  # after SIGKILL only the kernel's own work is left
FIRST_READY_POLL_S = 0.05  # a starting process is asked whether it serves: often at first,
LAST_READY_POLL_S = 2.0  # and still now and then when it does not
LAST_WORDS_S = (
    0.2  # a traceback is in the pipe before its writer is gone: reading it takes one turn of the loop
)
OUTPUT_CHUNK = 1 << 16  # one read of a child's output; a pipe holds no more

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Jail:
    """Another user, and with ``mount_point`` a mount namespace that has ``folder`` there (see launch.py)."""

    uid: int
    folder: Path
    passwd: Path
    mount_point: str | None

    def as_order(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "folder": str(self.folder),
            "passwd": str(self.passwd),
            "mount_point": self.mount_point,
        }


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. ``ready``: True once it serves; ``marker``: a part of its command line no other has."""

    name: str
    argv: Sequence[str]
    marker: str
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] | None = None  # None: this process's own
    jail: Jail | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  # sent by the kernel when `towline up` itself was killed
    before_start: Callable[[], None] | None = None


@dataclass(slots=True)
class Supervised:
    """One program of the supervisor, with what is known of its process."""

    program: Program
    log: LogFile
    pid_file: PidFile
    process: asyncio.subprocess.Process | None = None  # None while it is not running
    restarts: int = 0
    last_exit: int | None = None  # None until it ended once
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gave_up: bool = False  # its settings are wrong: to start it again would change nothing


def launch_argv(argv: Sequence[str], *, death_signal: int, jail: Jail | None = None) -> list[str]:
    """The command line that runs ``argv`` through launch.py as a child of this process."""
    order = {
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "jail": jail.as_order() if jail is not None else None,
        "argv": list(argv),
    }
    return [sys.executable, "-I", "-S", str(_LAUNCH), json.dumps(order)]


class Supervisor:
    """Starts programs in order, keeps them running and stops them in the opposite order.

    ``tell(line)`` hears what a person should know: a process that ended, and one that cannot start.
    """

    def __init__(self, data: Path, tell: Callable[[str], None]) -> None:
        self._data = data
        self._tell = tell
        self._tasks = TaskOwner("supervisor", on_crash=lambda name, error: tell(f"{name}: {error}"))
        self._programs: dict[str, Supervised] = {}
        self._stopping = False

    def __getitem__(self, name: str) -> Supervised:
        return self._programs[name]

    async def start(self, program: Program, timeout_s: float) -> Supervised:
        """Start ``program`` and wait until it is ready; else TowlineError with the end of its log."""
        one = Supervised(
            program,
            LogFile(self._data / "logs" / f"{program.name}.log"),
            PidFile(self._data / "run" / f"{program.name}.pid"),
        )
        self._programs[program.name] = one
        self._tasks.start(self._keep(one), program.name)
        try:
            async with asyncio.timeout(timeout_s):
                await one.ready.wait()
        except TimeoutError:
            raise TowlineError(
                f"{program.name} did not start within {timeout_s:.0f} s; "
                f"the end of {one.log.path}:\n{one.log.tail()}"
            ) from None
        if one.gave_up:
            raise TowlineError(f"{program.name} refuses its settings: {one.log.tail().strip()}")
        return one

    async def stop(self) -> None:
        """Stop everything, the last started first."""
        self._stopping = True
        for one in reversed(self._programs.values()):
            await self._stop_one(one)
        await self._tasks.close(KILL_TIMEOUT_S)
        for one in self._programs.values():
            one.log.close()
            one.pid_file.clear()

    async def _keep(self, one: Supervised) -> None:
        """Run the program again and again until the supervisor stops."""
        pause = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while not self._stopping:
            started = loop.time()
            await self._run_once(one)
            if self._stopping:
                return
            if one.last_exit == EXIT_BAD_SETTINGS:
                one.gave_up = True
                one.ready.set()
                self._tell(
                    f"{one.program.name} refuses its settings and is not started again; {one.log.path}"
                )
                return
            one.restarts += 1
            if loop.time() - started > STABLE_AFTER_S:
                pause = FIRST_PAUSE_S
            self._tell(
                f"{one.program.name} ended ({_exit_text(one.last_exit)}) and is started again; {one.log.path}"
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _run_once(self, one: Supervised) -> None:
        program = one.program
        one.ready.clear()
        if program.before_start is not None:
            program.before_start()
        argv = launch_argv(program.argv, death_signal=program.death_signal, jail=program.jail)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=program.environment,
            start_new_session=True,  # Ctrl-C reaches `towline up` alone, which then stops all in order
        )
        one.process = process
        one.pid_file.write(process.pid, program.marker)
        watch = self._tasks.start(self._watch_readiness(one), f"{program.name}.ready")
        try:
            await self._copy_output(process, one)
            one.last_exit = await process.wait()
        finally:
            watch.cancel()
            one.process = None
            one.ready.clear()

    async def _copy_output(self, process: asyncio.subprocess.Process, one: Supervised) -> None:
        """Until the child closed its output; one that ended has LAST_WORDS_S for what is still in the pipe.

        Its own children may hold the pipe open for much longer, as those of a killed database do.
        """
        assert process.stdout is not None
        ended = self._tasks.start(process.wait(), f"{one.program.name}.ended")
        copying = self._tasks.start(_copy(process.stdout, one.log), f"{one.program.name}.output")
        try:
            await asyncio.wait({ended, copying}, return_when=asyncio.FIRST_COMPLETED)
            if not copying.done():
                await asyncio.wait({copying}, timeout=LAST_WORDS_S)
            if copying.done():
                copying.result()
        finally:
            ended.cancel()
            copying.cancel()

    async def _watch_readiness(self, one: Supervised) -> None:
        pause = FIRST_READY_POLL_S
        while True:
            if await one.program.ready():
                one.ready.set()
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, LAST_READY_POLL_S)

    async def _stop_one(self, one: Supervised) -> None:
        process = one.process
        if process is None or process.returncode is not None:
            return
        for number, timeout_s in (
            (one.program.stop_signal, STOP_TIMEOUT_S),
            (signal.SIGKILL, KILL_TIMEOUT_S),
        ):
            try:
                process.send_signal(number)
            except ProcessLookupError:
                return
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                self._tell(f"{one.program.name} did not end {timeout_s:.0f} s after {number.name}")
                continue
            return


async def _copy(output: asyncio.StreamReader, log: LogFile) -> None:
    while chunk := await output.read(OUTPUT_CHUNK):
        log.write(chunk)


def _exit_text(code: int | None) -> str:
    if code is None:
        return "not started"
    if code < 0:
        try:
            return f"by signal {signal.Signals(-code).name}"
        except ValueError:
            return f"by signal {-code}"
    return f"exit code {code}"
