"""Somebody else's programs (nginx, sshd, haproxy …): where they lie, and one of them while a block runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed.waiting import eventually

START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 30.0  # the product's processes drain


def program(name: str, package: str) -> str:
    """Its path, with the administrators' folders; RuntimeError that names the Debian package."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {package}")
    return found


def wait_listening(port: int, process: subprocess.Popen[bytes], timeout_s: float = START_DEADLINE_S) -> None:
    """Until something accepts on the port; RuntimeError when the process ends first or it takes too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not listen on port {port}") from None
            time.sleep(0.02)


def ended(process: subprocess.Popen[Any], timeout_s: float = STOP_DEADLINE_S) -> bool:
    """Wait for its end; False when it had to be killed."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout_s)
        return False
    return True


def send(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send it a signal; after SIGSTOP the whole process stands still when this returns.

    A program of many threads goes on for a moment after the call: each thread stops when it next looks.
    """
    process.send_signal(number)
    if number is signal.SIGSTOP:
        eventually(f"process {process.pid} stands still", lambda: _stands_still(process.pid), STOP_DEADLINE_S)


def _stands_still(pid: int) -> bool:
    """waitid(2): a child counts as stopped once all of its threads are; Popen still reaps it."""
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


@contextmanager
def running(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process; its output goes to `log`, or where ours goes. SIGTERM at the end, then SIGKILL."""
    output = log.open("wb") if log is not None else None
    try:
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment,
            stdout=output, stderr=subprocess.STDOUT if output else None, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            ended(process)
    finally:
        if output is not None:
            output.close()


def family(pid: int) -> tuple[int, ...]:
    """The process and all below it (nginx: master and workers; sshd: one process a connection)."""
    found = [pid]
    for parent in found:
        try:
            below = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue  # it ended meanwhile
        found += [int(child) for child in below.split()]
    return tuple(found)
