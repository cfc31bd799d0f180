"""What surrounds every request: its id, whose it is, size limits, security headers, problems, metrics."""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from gateway.api.edge_websocket import SocketExchange
from gateway.errors import Problem, StoreUnavailableError
from gateway.metrics import GatewayMetrics
from runtime.client_address import TrustedProxies, canonical
from runtime.logs import REQUEST_ID, get_logger

log = get_logger("gateway.http")

# Postgres restarts in seconds; clients that wait this long find it back.
STORE_RETRY_AFTER_S = 2

# No inline script or style, nothing from elsewhere, never in a frame, no string ever becomes markup.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
]
# A year, without subdomains: they are not ours to promise for.
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_NO_STORE = (b"cache-control", b"no-store")
# Where routes leave headers for the answer, also when that will be a problem.
NOTES = "towline.answer_headers"
# What a proxy may call a request: nginx writes 32 hex digits, Caddy and others a UUID. Nothing that could
# break a line of a log, or fill one.
_PROXYS_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_OWN_ID_BYTES = 16  # random: no two requests in any log that is kept have the same


class HeadIsAllError(Exception):
    """Ends a stream that HEAD was asked about: its head is out, and what follows would be made for nobody."""


class BodyTooLargeError(HTTPException):
    """The body passed the listener's limit while it was read. (The framework lets its own kind pass.)"""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class Edge:
    """ASGI middleware, outermost. `body_max` in bytes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        listener: str,
        metrics: GatewayMetrics,
        body_max: int,
        secure: bool,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._listener = listener
        self._metrics = metrics
        self._body_max = body_max
        self._headers = [*_HEADERS, _HSTS] if secure else _HEADERS
        self._proxies = TrustedProxies(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["client_address"] = client_address(scope, self._proxies)
        name = request_id(scope, self._proxies)
        token = REQUEST_ID.set(name)
        try:
            await self._serve(scope, receive, send, name)
        finally:
            REQUEST_ID.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        notes = scope.setdefault("state", {}).setdefault(NOTES, {})
        headers = [*self._headers, (b"x-request-id", name.encode())]
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send, _Headers(headers, notes))
            return
        # HEAD is what GET says, without the body (RFC 9110, 9.3.2): the same route, the same login.
        head = scope["method"] == "HEAD"
        exchange = _Exchange(_Headers(headers, notes), send, bodiless=head)
        inner = {**scope, "method": "GET"} if head else scope
        try:
            await self._app(inner, _limited(receive, self._body_max), exchange.send)
        except HeadIsAllError:
            pass  # the answer is complete
        except Exception as error:
            # Past this point an exception would only become a traceback and a cut connection.
            problem = self._failed(scope, error)
            if not exchange.started:
                await send_problem(exchange.send, problem)
        self._count(scope, exchange.status, exchange.head_at - exchange.began)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send, headers: _Headers) -> None:
        """One line when it is answered, as of every request, and one when what was opened ends."""
        socket = SocketExchange(
            receive,
            send,
            metrics=self._metrics,
            complete=headers.complete,
            refuse=problem_messages,
            answered=lambda status, took: self._count(scope, status, took),
        )
        try:
            await self._app(scope, socket.receive, socket.send)
        except WebSocketDisconnect:
            pass  # the client went away while it was written to
        except Exception as error:
            with contextlib.suppress(WebSocketDisconnect):
                await socket.fail(self._failed(scope, error))
        finally:
            self._count_end(scope, socket)

    def _failed(self, scope: Scope, error: Exception) -> Problem:
        problem = to_problem(error)
        if isinstance(error, StoreUnavailableError):
            self._metrics.store_unavailable.inc()
        elif problem.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", exc_info=error, extra={"path": scope["path"]})
        return problem

    def _count(self, scope: Scope, status: int, took_s: float) -> None:
        self._metrics.requests.labels(self._listener, str(status)).inc()
        self._metrics.request_seconds.observe(took_s)
        log.info("request", extra=self._facts(scope) | {"status": status, "took_ms": _ms(took_s)})

    def _count_end(self, scope: Scope, socket: SocketExchange) -> None:
        socket.end()
        if socket.is_open:
            facts = {"code": socket.code, "sent": socket.sent, "received": socket.received}
            lasted = {"lasted_ms": _ms(socket.lasted_s)}
            log.info("websocket closed", extra=self._facts(scope) | facts | lasted)
        elif socket.status == 0:
            self._count(scope, 0, socket.waited_s)

    def _facts(self, scope: Scope) -> dict[str, Any]:
        return {
            "listener": self._listener,
            "method": scope.get("method", "GET"),  # a WebSocket's scope has none
            "path": scope["path"],
            "client": scope["client_address"],
        }


class _Headers:
    """What the edge adds to every answer, and what routes noted for theirs."""

    def __init__(self, own: list[tuple[bytes, bytes]], notes: dict[str, str]) -> None:
        self._own = own
        self._notes = notes

    def complete(self, message: Message) -> None:
        """Into a message that starts an answer."""
        given = list(message.get("headers", []))
        names = {name for name, _ in given}
        extra = self._own if b"cache-control" in names else [*self._own, _NO_STORE]
        noted = [(name.encode(), value.encode()) for name, value in self._notes.items()]
        message["headers"] = given + noted + extra


class _Exchange:
    """One answer on its way out."""

    def __init__(self, headers: _Headers, send: Send, *, bodiless: bool) -> None:
        self._headers = headers
        self._send = send
        self._bodiless = bodiless
        self.began = self.head_at = time.perf_counter()
        self.status = 0
        """0 until the head left; it stays 0 when the client went away before."""

    @property
    def started(self) -> bool:
        return self.status != 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.head_at = time.perf_counter()
            self._headers.complete(message)
            await self._send(message)
            if self._bodiless and not _has_length(message):
                await self._send({"type": "http.response.body", "body": b""})
                raise HeadIsAllError
            return
        if self._bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _has_length(start: Message) -> bool:
    """An answer whose length is known is made already; any other is a stream."""
    return any(name.lower() == b"content-length" for name, _ in start["headers"])


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def note(request: HTTPConnection, name: str, value: str) -> None:
    """Add a header to the answer, whatever becomes of the request. `name` in small letters."""
    request.scope.setdefault("state", {}).setdefault(NOTES, {})[name] = value


def to_problem(error: Exception) -> Problem:
    """What the client is told about `error`."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BodyTooLargeError):
        return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "The request's body is too large.")
    if isinstance(error, StoreUnavailableError):
        return Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "store_unavailable",
            "A store of the gateway does not answer. Try again in a moment.",
            retry_after_s=STORE_RETRY_AFTER_S,
        )
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The gateway failed; its log says why.")


def problem_headers(problem: Problem) -> dict[str, str]:
    headers = {"content-type": "application/problem+json"}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    if problem.status is HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="towline"'
    return headers


async def send_problem(send: Send, problem: Problem) -> None:
    for message in problem_messages(problem):
        await send(message)


def problem_messages(problem: Problem) -> list[Message]:
    """The answer in the application's messages."""
    body = json.dumps(problem.body()).encode()
    headers = [(k.encode(), v.encode()) for k, v in problem_headers(problem).items()]
    headers.append((b"content-length", str(len(body)).encode()))
    start = {"type": "http.response.start", "status": int(problem.status), "headers": headers}
    return [start, {"type": "http.response.body", "body": body}]


def client_address(scope: Scope, proxies: TrustedProxies) -> str:
    """The address that rate limits and the audit log count, behind `proxies` too."""
    client = scope.get("client")
    peer = canonical(str(client[0])) if client else "unknown"
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return proxies.client(peer, ",".join(lines) if lines else None)


def request_id(scope: Scope, proxies: TrustedProxies) -> str:
    """What the answer and the log call this request: the word of a proxy of ours, else one made here.

    A client's own word counts for nothing: it could give its request the id of another's.
    """
    client = scope.get("client")
    if proxies and client and proxies.trusts(canonical(str(client[0]))):
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        if len(given) == 1 and _PROXYS_ID.fullmatch(given[0]):
            return str(given[0].decode("ascii"))
    return secrets.token_hex(_OWN_ID_BYTES)


def retry_after(wait_s: float) -> int:
    """Whole seconds, never 0."""
    return max(1, math.ceil(wait_s))


def _limited(receive: Receive, maximum: int) -> Receive:
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message: dict[str, Any] = dict(await receive())
        seen += len(message.get("body", b""))
        if seen > maximum:
            raise BodyTooLargeError
        return message

    return limited
