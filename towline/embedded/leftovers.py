"""Processes that a killed `towline up` may have left behind, found and ended before anything new starts.

On Linux the kernel ends them with their parent (launch.py); elsewhere, and in the moment it takes, this is
what keeps a second start from meeting its own predecessor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 10.0  # a database that flushes its buffers needs longest
KILL_TIMEOUT_S = 5.0  # after SIGKILL only the kernel's own work is left
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class PidFile:
    """``PID\\nmarker`` of a running child; the marker is a part of its command line."""

    path: Path

    def write(self, pid: int, marker: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(f"{pid}\n{marker}\n", "utf-8")
        temporary.replace(self.path)

    def read(self) -> tuple[int, str] | None:
        """The process and its marker, or None where nothing sensible is written."""
        try:
            first, _, rest = self.path.read_text("utf-8").partition("\n")
        except OSError:
            return None
        marker = rest.strip()
        # Every command line contains an empty marker: without one nobody is ours.
        return (int(first), marker) if first.isascii() and first.isdigit() and marker else None

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def end_leftovers(run: Path) -> list[str]:
    """End every process that a pid file in ``run`` names and whose command line still has its marker."""
    ended: list[str] = []
    for path in sorted(run.glob("*.pid")):
        pid_file = PidFile(path)
        known = pid_file.read()
        if known is not None and is_running(*known):
            end_process(*known)
            ended.append(path.stem)
        pid_file.clear()
    return ended


def end_process(pid: int, marker: str, first_signal: signal.Signals = signal.SIGTERM) -> bool:
    """Signal the process until it is gone; False when not even SIGKILL ended it."""
    for number, timeout_s in ((first_signal, STOP_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        if wait_gone(pid, marker, timeout_s):
            return True
    return False


def wait_gone(pid: int, marker: str, timeout_s: float) -> bool:
    """Wait up to ``timeout_s`` seconds for a process that is not our child to be gone."""
    deadline = time.monotonic() + timeout_s
    while is_running(pid, marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def is_running(pid: int, marker: str) -> bool:
    """Whether ``pid`` runs with ``marker`` in its command line: pids are used again."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        if os.path.isdir("/proc/self"):
            return False
        shown = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        line = shown.stdout
    return bool(line) and marker in line
