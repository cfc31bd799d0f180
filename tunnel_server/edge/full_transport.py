"""What stands in for a visitor's transport while that is full: crumbs that wait cost what they carry.

A transport keeps an object for every write that waits. A device that answers byte by byte could so make each
byte of its credit cost fifty, for as long as the visitor does not read.
"""

from __future__ import annotations

import asyncio
from typing import Any

TOGETHER = 16_384  # bytes: pieces as large as this, put together or alone, are worth an object


class FullTransport:
    """The transport's own interface, with writes put together; all else goes straight to it."""

    __slots__ = ("_crumbs", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._crumbs = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """In the order of the calls, like every write."""
        if not self._crumbs and len(data) >= TOGETHER:
            self.transport.write(data)
            return
        self._crumbs += data
        if len(self._crumbs) >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Hand over what was put together."""
        if self._crumbs:
            crumbs, self._crumbs = self._crumbs, bytearray()
            self.transport.write(crumbs)

    def write_eof(self) -> None:
        self.flush()
        self.transport.write_eof()

    def close(self) -> None:
        """Everything written still leaves."""
        self.flush()
        self.transport.close()
