"""One local connection joined to one door: bytes both ways, each direction with its own end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from struct import pack
from typing import Any, Final, Protocol

from runtime.tcp_door import BYTES_PER_FRAME, FRAMES_BURST, FRAMES_PER_S
from towline.connect.door import Door
from towline.connect.site import READ_BYTES
from tunnel_server.policy.rates import TokenBucket

# A program that writes byte by byte, quicker than a node takes frames: what it wrote meanwhile goes as one.
SMALL_PER_S: Final = FRAMES_PER_S / 2
SMALL_BURST: Final = FRAMES_BURST / 2
GATHER_S: Final = 0.005
_LINGER_NONE = pack("ii", 1, 0)  # struct linger: close sends RST (socket(7), SO_LINGER)


class LocalBroke(Exception):
    """The local side ended without an end: a reset, or nobody reads any more."""


class Local(Protocol):
    """The near end: a TCP connection, or standard input and output."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def write_end(self) -> None:
        """No more bytes follow; the other direction goes on."""
        ...

    def abort(self) -> None:
        """It broke: let it look broken."""
        ...


class LocalConnection:
    """A connection to the local port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write_end(self) -> None:
        self.writer.write_eof()

    def abort(self) -> None:
        """With a reset: a FIN would make a cut transfer look complete."""
        raw: socket.socket | None = self.writer.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):  # it is closed already
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.writer.transport.abort()


async def join(local: Local, door: Door) -> None:
    """Until both directions had their end. LocalBroke, DoorClosed or SessionOver: both sides look broken."""
    done = False
    try:
        await _both(_up(local, door), _down(local, door))
        await door.finish()
        local.writer.close()
        with contextlib.suppress(OSError):  # it took its end already
            await local.writer.wait_closed()  # until it took the last bytes
        done = True
    except LocalBroke:
        await door.break_off()
        raise
    finally:
        if not done:
            local.abort()
            door.abort()


async def _both(up: Coroutine[Any, Any, None], down: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up)
            group.create_task(down)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the one that came first; it ended the other direction


async def _up(local: Local, door: Door) -> None:
    clock = asyncio.get_running_loop().time
    small = TokenBucket(SMALL_PER_S, SMALL_BURST, clock())
    while True:
        try:
            data = await local.reader.read(READ_BYTES)
        except OSError as error:
            raise LocalBroke(str(error)) from None
        if not data:
            await door.send_end()
            return
        await door.send(data)
        if len(data) < BYTES_PER_FRAME and not small.take(clock()):
            await asyncio.sleep(GATHER_S)


async def _down(local: Local, door: Door) -> None:
    while data := await door.receive():
        try:
            local.writer.write(data)
            await local.writer.drain()
        except OSError as error:
            raise LocalBroke(str(error)) from None
    try:
        local.write_end()
    except OSError as error:
        raise LocalBroke(str(error)) from None
