"""One stream joined to one local TCP connection: the agent's hot path.

Both directions run in callbacks of the event loop, without a task or an await. Towards the visitor, the
kernel writes into one buffer that all splices share, never more than the stream may send; so a visitor
that does not read costs no memory here, and the local service feels it by TCP's own flow control.
Towards the service, credit goes back as its socket takes the bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import pack
from typing import Any, Final, cast

from runtime.tunnel_link import TunnelDriver
from tunnel_protocol import RefusedCode, ResetCode, Stream

# One frame with its header in a batch of 64 KiB, and room for credit frames beside it: a read that does not
# fit is cut, queued and sent in two writes. Larger ones make malloc fault its pages again and again.
READ_BYTES: Final = (64 << 10) - 512
# Read when there is no room at all: get_buffer must offer something. It waits in the stream's queue, once.
LEAST_READ: Final = 2 << 10
# Up to here a copy is cheaper than the early flush that lending the shared buffer costs.
COPY_UP_TO: Final = 4095

# One event loop, one thread: a buffer is filled by the kernel and used up before the next one is asked for.
_SHARED = memoryview(bytearray(READ_BYTES))
_LEAST = _SHARED[:LEAST_READ]
_LINGER_NONE: Final = pack("ii", 1, 0)  # struct linger: close sends RST (socket(7), SO_LINGER)


class Splice(asyncio.BufferedProtocol):
    """A local connection and the owner of its stream."""

    __slots__ = (
        "_driver",
        "_local_finished",
        "_now",
        "_paused_reading",
        "_paused_writing",
        "_peer_finished",
        "_starved",
        "_stream",
        "_transport",
        "_unconsumed",
        "grant_id",
        "left",
    )

    def __init__(
        self, stream: Stream, driver: TunnelDriver, grant_id: bytes, left: Callable[[Splice], None]
    ) -> None:
        """`left` is called once, when the splice no longer needs its grant."""
        self.grant_id = grant_id
        self.left: Callable[[Splice], None] | None = left
        self._stream = stream
        self._driver = driver
        self._now = driver.ticker.now
        # None while the service is dialled, and after the end.
        self._transport: asyncio.Transport | None = None
        self._unconsumed = 0  # bytes that wait in the local socket's buffer, whose credit is still ours
        self._paused_writing = False  # the local socket takes no more for now
        self._paused_reading = False  # the stream takes no more for now
        self._starved = False  # the last read was offered LEAST_READ, for want of room
        self._local_finished = False
        self._peer_finished = False

    def __repr__(self) -> str:
        return f"<Splice {self._stream!r} reading={not self._paused_reading} unconsumed={self._unconsumed}>"

    # From the local connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # False: the visitor has gone while the service was dialled. Data that came meanwhile follows by
        # itself.
        if not self._stream.accept(self):
            self._abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        room = self._stream.send_room()  # after a 0, writable() follows
        if room > 0:
            self._starved = False  # an earlier offer may have found nothing to read
            return _SHARED[:room] if room < READ_BYTES else _SHARED
        self._starved = True
        return _LEAST

    def buffer_updated(self, size: int) -> None:
        stream = self._stream
        if size <= COPY_UP_TO:
            more = stream.send(bytes(_SHARED[:size]), self._now())
        else:
            more = stream.send(_SHARED[:size], self._now())
            if self._driver.connection.outbox.borrowed:
                self._driver.flush()
            if not stream.send_room():  # a bulk transfer at the end of its credit: spare it a crumb
                more = False
        if not more or self._starved:
            self._starved = False
            self._pause_reading()

    def eof_received(self) -> bool:
        self._local_finished = True
        self._stream.finish()
        if self._peer_finished:
            self._leave()
            return False  # both directions are over: asyncio closes
        return True  # the visitor may go on sending

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        size, self._unconsumed = self._unconsumed, 0
        if size:
            self._stream.consumed(size, self._now())

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._local_finished and not self._stream.over:
            # It broke without a FIN. What it sent before still leaves first; RESET would overtake it.
            self._driver.flush()
            self._stream.reset(ResetCode.UPSTREAM_RESET)
        elif self._unconsumed:
            # It sent all it had and takes no more: its answer still leaves, what the visitor sends goes
            # nowhere.
            self.resume_writing()
        self._leave()

    # From the stream

    def accepted(self) -> None:
        raise AssertionError("the device side opens no streams")

    def refused(self, code: RefusedCode, message: str) -> None:
        raise AssertionError("the device side opens no streams")

    def data(self, data: memoryview) -> None:
        transport = self._transport
        if transport is not None:
            transport.write(bytes(data))  # may call pause_writing
            if self._paused_writing:
                self._unconsumed += len(data)
                return
        self._stream.consumed(len(data), self._now())

    def finished(self) -> None:
        self._peer_finished = True
        if self._transport is None:
            return
        if self._local_finished:
            self._transport.close()  # what is still in its buffer leaves first
            self._leave()
        else:
            self._transport.write_eof()

    def writable(self) -> None:
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()

    def reset(self, code: ResetCode) -> None:
        self._abort()

    def lost(self, reason: str) -> None:
        self._abort()

    # From the tunnel

    def cut(self, code: ResetCode) -> None:
        """End both sides at once."""
        self._stream.reset(code)
        self._abort()

    def unreachable(self, reason: str) -> None:
        """The local connection did not come about."""
        self._stream.refuse(RefusedCode.UNREACHABLE, reason)
        self._leave()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()

    def _abort(self) -> None:
        """A broken stream must look broken to the service too: a FIN would make a cut upload look
        complete.
        """
        transport, self._transport = self._transport, None
        if transport is not None:
            raw: Any = transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            transport.abort()
        self._leave()

    def _leave(self) -> None:
        left, self.left = self.left, None
        if left is not None:
            left(self)
