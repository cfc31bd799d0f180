"""An upload's end: an HTTP/1.1 server that reads bodies whole, keeps nothing, and answers with their length.

nginx alone answers before it has read an upload, which would flatter everything in front of it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

from runtime.process import loop_factory

READ_BYTES = 256 * 1024
MAX_HEAD = 16 * 1024


class Sink(asyncio.BufferedProtocol):
    """One connection; requests carry a Content-Length."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._head = b""
        self._length = 0
        self._left = 0  # of the current body
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self._left:
            self._took(size)
            return
        self._head += bytes(self._buffer[:size])
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > MAX_HEAD and self._transport is not None:
                self._transport.abort()
            return
        self._head = b""
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        self._length = self._left = int(length[1]) if length else 0
        self._took(len(body))

    def _took(self, size: int) -> None:
        self._left -= size
        if self._left <= 0 and self._transport is not None:
            body = b"%d\n" % self._length
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
