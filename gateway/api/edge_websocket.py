"""A WebSocket on its way through the edge: what was answered, how long it was open, how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

from gateway.errors import Problem
from gateway.metrics import GatewayMetrics

_FAILED: Final = 1011  # RFC 6455, 7.4.1
_CUT: Final = 1006  # no close frame, either way
_NO_CODE: Final = 1005  # a close frame that says none
# Clients may say any up to 4999: in the log, but not as a label each.
_COUNTED: Final = frozenset({*range(1000, 1004), *range(1005, 1016)})


class SocketExchange:
    """`answered` is told the status (101, or a refusal's) and the seconds to it, once, when it left."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        metrics: GatewayMetrics,
        complete: Callable[[Message], None],
        refuse: Callable[[Problem], list[Message]],
        answered: Callable[[int, float], None],
    ) -> None:
        """`complete` adds the edge's headers to an answer's start; `refuse` puts a problem into messages."""
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self._complete = complete
        self._refuse = refuse
        self._answered = answered
        self._began = time.perf_counter()
        self._opened_at = 0.0
        self.status = 0
        """0 until the answer left; it stays 0 when the client went away before."""
        self.code = _CUT
        """Who closed first said it."""
        self._closed = False
        self.sent = self.received = 0
        """Messages, without pings and closes."""

    @property
    def is_open(self) -> bool:
        return self.status == HTTPStatus.SWITCHING_PROTOCOLS

    @property
    def lasted_s(self) -> float:
        """Since it was opened."""
        return time.perf_counter() - self._opened_at

    @property
    def waited_s(self) -> float:
        """Since the client asked."""
        return time.perf_counter() - self._began

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.received += 1
            self._metrics.websocket_messages.labels("received").inc()
        elif message["type"] == "websocket.disconnect":
            code = message.get("code", _CUT)
            # The server's word for a connection that was cut is the same as for a close without a code, which
            # comes with a reason, if only an empty one.
            self._close(_CUT if code == _NO_CODE and "reason" not in message else code)
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._complete(message)
                await self._pass_on(message)
                self._opened_at = time.perf_counter()
                self._metrics.websockets.inc()
                self._answer(HTTPStatus.SWITCHING_PROTOCOLS)
            case "websocket.close" if self.status == 0:  # the framework's way to say that nothing is here
                await self.refuse(Problem(HTTPStatus.NOT_FOUND, "not_found", "There is nothing here."))
            case "websocket.http.response.start":
                self._complete(message)
                await self._pass_on(message)
                self._answer(message["status"])
            case "websocket.close":
                await self._pass_on(message)
                self._close(message.get("code", 1000))
            case _:
                await self._pass_on(message)
                if message["type"] == "websocket.send":
                    self.sent += 1
                    self._metrics.websocket_messages.labels("sent").inc()

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:  # as ASGI has it: the client is gone
            self._close(_CUT)
            raise WebSocketDisconnect(_CUT) from error

    async def refuse(self, problem: Problem) -> None:
        """Answer instead of opening."""
        for message in self._refuse(problem):
            await self.send({**message, "type": f"websocket.{message['type']}"})

    async def fail(self, problem: Problem) -> None:
        """The application failed: refuse, or close what is open."""
        if self.status == 0:
            await self.refuse(problem)
        elif self.is_open and not self._closed:
            await self.send({"type": "websocket.close", "code": _FAILED, "reason": problem.code})

    def end(self) -> None:
        """Count its end; of one that was refused there is none."""
        if not self.is_open:
            return
        self._metrics.websockets.dec()
        self._metrics.websocket_seconds.observe(self.lasted_s)
        self._metrics.websockets_closed.labels(str(self.code) if self.code in _COUNTED else "other").inc()

    def _answer(self, status: int) -> None:
        self.status = int(status)
        self._answered(self.status, self.waited_s)

    def _close(self, code: int) -> None:
        if not self._closed:
            self._closed, self.code = True, code
