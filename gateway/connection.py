"""uvicorn's connection with the bounds that it lacks: the size of a head, the time that a request takes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# Bytes of a request's line and headers, and at most one read more. Cookies and an access token fit several
# times.
HEAD_MAX = 32 * 1024
# Seconds from the connection, or a request's first byte, to its last one. The largest request, a full report
# of a node's tunnels, takes a second on a slow link.
REQUEST_S = 20.0
# Of a scope: cuts its connection, whatever was written to it. For answers that nobody reads.
ABORT = "towline.abort"


class BoundedProtocol(HttpToolsProtocol):
    """Who sends slowly, or a head without an end, holds neither memory nor one of the listener's places."""

    _deadline: asyncio.TimerHandle | None = None
    """None while no request is on its way in."""
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX:
                self.send_400_response("The request head is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # For an answer whose reader does not read: closing would wait for it.
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        self._in_head, self._head_bytes = True, 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # afterwards it is a trailer: nobody reads those, and they have no end either
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._end_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._end_deadline()
        super().handle_websocket_upgrade()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class EventSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, whose application can cut it while the other side does not read."""

    async def run_asgi(self) -> None:
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        app = self.app

        async def whole(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if self.initial_response is not None:
                # A refusal as an answer of our own; uvicorn takes it for a handshake that was forgotten, and
                # would write an error into the log for every stranger who tries.
                self.handshake_complete = True

        self.app = whole
        await super().run_asgi()
