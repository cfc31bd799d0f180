"""Standard input and output as the near end of a connection, for ssh's ProxyCommand and for pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys

from towline.connect.site import READ_BYTES
from towline.errors import TowlineError


class StandardStreams:
    """``close`` puts both back into the blocking mode that whoever shares them expects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, source: int = 0, sink: int = 1) -> StandardStreams:
        """TowlineError for descriptors that cannot be waited for: a file, on most systems."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        with contextlib.ExitStack() as opened:
            incoming = opened.enter_context(os.fdopen(os.dup(source), "rb", 0))
            outgoing = opened.enter_context(os.fdopen(os.dup(sink), "wb", 0))
            try:
                _check_waitable(source)
                incomer, _ = await loop.connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reader, loop=loop), incoming
                )
                opened.callback(os.set_blocking, source, True)
                opened.callback(incomer.close)  # while its file is open
                # Its reader reads nothing; the protocol is the one that can wait for a writer's end.
                transport, protocol = await loop.connect_write_pipe(
                    lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop), outgoing
                )
            except (OSError, ValueError) as error:
                raise TowlineError(f"--stdio takes pipes, sockets and terminals: {error}") from None
            opened.pop_all()  # the transports close them
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def write_end(self) -> None:
        """Whoever reads our output sees its end at once; input still passes."""
        if os.isatty(1):
            return  # a terminal has no end, and stays ours
        self.writer.close()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.close(sink)

    def abort(self) -> None:
        transport = self.writer.transport
        # asyncio's pipe has forgotten its loop once it is closed and empty, and an abort would raise.
        if not transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()

    @staticmethod
    def close() -> None:
        """Non-blocking mode belongs to the open file, which our parent may share."""
        sys.stdout.flush()
        for descriptor in (0, 1):
            os.set_blocking(descriptor, True)


def _check_waitable(descriptor: int) -> None:
    """OSError for what asyncio takes without a word and then cannot wait for: /dev/null is such a device."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
