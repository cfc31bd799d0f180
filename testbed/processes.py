"""The processes of one run by name: started, stopped, killed, started again; their logs beside each other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from testbed.programs import ended, send
from testbed.waiting import eventually
from towline.embedded.processes import launch_argv

ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0  # a loaded machine starts a dozen processes
STOP_S = 45.0  # a node may drain for 30
LOG_END = 2500  # characters of each log that a failed test shows


@runtime_checkable
class Logged(Protocol):
    """What a failed test can show more of; see the hook in tests/conftest.py."""

    def logs(self) -> str:
        """The end of every log."""
        ...


class Startable(Logged, Protocol):
    def start(self) -> object: ...

    def close(self) -> None: ...


StartableT = TypeVar("StartableT", bound=Startable)


@contextmanager
def started(one: StartableT) -> Iterator[StartableT]:
    """Started and ended in any case; what it logged is printed when it does not start."""
    try:
        try:
            one.start()
        except BaseException:
            print(one.logs())
            raise
        yield one
    finally:
        one.close()


@contextmanager
def short_folder(name: str = "") -> Iterator[Path]:
    """A folder with a short path, for the database's socket below it; others may read it, as the database's
    user must. It goes with the block.
    """
    made = Path(tempfile.mkdtemp(prefix=f"towline-{name}"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def log_ends(folder: Path) -> str:
    """The end of every *.log in the folder."""
    parts = [
        f"== {path.name}\n{path.read_text(errors='replace')[-LOG_END:]}"
        for path in sorted(folder.glob("*.log"))
    ]
    return "\n".join(parts)


class Processes:
    """Child processes by name; what NAME says goes to FOLDER/NAME.log, and all end with this process.

    Start them in the main thread: the kernel ends a process together with the thread that began it.
    """

    def __init__(self, folder: Path, *, death_signal: signal.Signals = signal.SIGTERM) -> None:
        """`death_signal`: from the kernel when this process was killed. A stopped one hears SIGKILL alone."""
        self.folder = folder
        self._death_signal = death_signal
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[list[str], Mapping[str, str], bool]] = {}

    def run(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        heard: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start it. `environment` comes on top of ours. `heard`: its stdout is a pipe to us instead."""
        self._commands[name] = (list(argv), environment or {}, heard)
        return self.again(name)

    def again(self, name: str) -> subprocess.Popen[bytes]:
        """The same command, after it ended."""
        argv, environment, heard = self._commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                launch_argv(argv, death_signal=self._death_signal),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment),
                stdout=subprocess.PIPE if heard else log,
                stderr=log,
            )
        self._running[name] = process
        return process

    def __getitem__(self, name: str) -> subprocess.Popen[bytes]:
        return self._running[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._running)

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def fds(self, name: str) -> int:
        """Open files and sockets."""
        return len(os.listdir(f"/proc/{self.pid(name)}/fd"))

    def signal(self, name: str, number: signal.Signals) -> None:
        send(self._running[name], number)

    def stop(self, name: str) -> int:
        """SIGTERM; its exit code."""
        self.signal(name, signal.SIGTERM)
        return self._running[name].wait(STOP_S)

    def kill(self, name: str) -> None:
        """kill -9, and gone."""
        self._running[name].kill()
        self._running[name].wait(STOP_S)

    def check_runs(self, name: str) -> None:
        assert self._running[name].poll() is None, f"{name} has ended\n{self.logs()}"

    def wait_ready(self, name: str, ready: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Until `ready()`; AssertionError at once when the process ended."""

        def check() -> bool:
            self.check_runs(name)
            return ready()

        eventually(f"{name} is ready", check, timeout_s)

    def close(self) -> None:
        """End all, the last first; AssertionError names those that did not end in time."""
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        stuck = [name for name, process in self._running.items() if not ended(process, STOP_S)]
        for process in self._running.values():
            if process.stdout is not None:
                process.stdout.close()
        assert not stuck, f"{stuck} did not end\n{self.logs()}"

    def logs(self) -> str:
        return log_ends(self.folder)

    def events(self, name: str) -> list[dict[str, Any]]:
        """A service's log, line by line; one that is being written is left out."""
        text = (self.folder / f"{name}.log").read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
