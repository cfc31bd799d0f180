"""Runs a program of the device's own by its argv: bounded in time and in what it prints, never by a shell."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_READ_BYTES: Final = 4096
_INHERITED: Final = ("PATH", "HOME", "LANG", "TZ")  # what else the agent was started with is its own affair


@dataclass(frozen=True, slots=True)
class Outcome:
    """`code` None: it was killed when its time was over. `output` is the beginning of what it printed."""

    code: int | None
    output: bytes


async def run(
    argv: Sequence[str], *, timeout_s: float, most: int, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Until it ends; whatever of it still runs then, or when this is cancelled, is killed. `most` bytes of
    output are kept, the rest is read and dropped. OSError when it cannot be started.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = await _start(argv, inherited | dict(environment or {}))
    assert process.stdout is not None
    output = bytearray()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_collect(process.stdout, output, most))
                    await process.wait()
                    _kill(process.pid)  # a child that it left behind would hold the pipe
        ended = process.returncode
    finally:
        if process.returncode is None:
            _kill(process.pid)
            await process.wait()
    return Outcome(ended, bytes(output))


async def _start(argv: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Started, or not at all: cut off in between, a loop would leave it running and forget it."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,  # its children are in its group, and end with it
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):
            process = await starting
            _kill(process.pid)
            await process.wait()
        raise


async def _collect(stream: asyncio.StreamReader, output: bytearray, most: int) -> None:
    while piece := await stream.read(_READ_BYTES):
        output += piece[: most - len(output)]


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already, or become another user's
        os.killpg(group, signal.SIGKILL)
