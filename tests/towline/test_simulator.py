"""What the launcher runs before the simulator itself: it is over when the launcher gives up."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from towline.errors import TowlineError
from towline.launcher.simulator import _run

WAIT_S: Final = 20.0
LONG_S: Final = 600.0


async def opened(path: Path) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Tells when the last one that has this pipe open to write is gone."""
    os.mkfifo(path)
    reader = asyncio.StreamReader()
    end = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), end)
    return reader, transport


def build(path: Path) -> list[str]:
    """A program that holds the pipe."""
    return ["sh", "-c", f"exec 3>{path}; echo begun >&3; exec sleep {LONG_S:.0f}"]


async def test_a_build_ends_with_the_launcher(tmp_path: Path) -> None:
    reader, transport = await opened(tmp_path / "pipe")
    async with asyncio.timeout(WAIT_S):
        running = asyncio.ensure_future(_run(build(tmp_path / "pipe"), LONG_S))
        assert await reader.readline() == b"begun\n"
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert await reader.read() == b""
    transport.close()


async def test_a_build_that_takes_too_long_ends(tmp_path: Path) -> None:
    reader, transport = await opened(tmp_path / "pipe")
    with pytest.raises(TowlineError, match="took more than 3 s"):
        await _run(build(tmp_path / "pipe"), 3.0)
    async with asyncio.timeout(WAIT_S):
        assert await reader.read() in (b"begun\n", b"")
    transport.close()


async def test_its_code_and_output_are_told() -> None:
    assert await _run(["sh", "-c", "echo one; echo two >&2; exit 3"], LONG_S) == (3, "one\ntwo\n")
