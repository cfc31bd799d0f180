"""What surrounds every request: its id, whose it is, size limits, security headers, problems, metrics."""

from __future__ import annotations

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
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        notes = scope.setdefault("state", {}).setdefault(NOTES, {})
        headers = [*self._headers, (b"x-request-id", name.encode())]
        exchange = _Exchange(headers, notes, send, bodiless=scope["method"] == "HEAD")
        # HEAD is what GET says, without the body (RFC 9110, 9.3.2): the same route, the same login.
        head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET", "towline.head": True} if head else scope
        try:
            await self._app(inner, _limited(receive, self._body_max), exchange.send)
        except Exception as error:
            # Past this point an exception would only become a traceback and a cut connection.
            await self._failed(scope, error, exchange)
        self._count(scope, exchange)

    async def _failed(self, scope: Scope, error: Exception, exchange: _Exchange) -> None:
        problem = to_problem(error)
        if isinstance(error, StoreUnavailableError):
            self._metrics.store_unavailable.inc()
        elif problem.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", exc_info=error, extra={"path": scope["path"]})
        if not exchange.started:
            await send_problem(exchange.send, problem)

    def _count(self, scope: Scope, exchange: _Exchange) -> None:
        took = exchange.head_at - exchange.began
        self._metrics.requests.labels(self._listener, str(exchange.status)).inc()
        self._metrics.request_seconds.observe(took)
        log.info(
            "request",
            extra={
                "listener": self._listener,
                "method": scope["method"],
                "path": scope["path"],
                "status": exchange.status,
                "took_ms": round(took * 1000, 2),
                "client": scope["client_address"],
            },
        )


class _Exchange:
    """One answer on its way out."""

    def __init__(
        self, headers: list[tuple[bytes, bytes]], notes: dict[str, str], send: Send, *, bodiless: bool
    ) -> None:
        self._headers = headers
        self._notes = notes
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
            own = list(message.get("headers", []))
            names = {name for name, _ in own}
            extra = self._headers if b"cache-control" in names else [*self._headers, _NO_STORE]
            noted = [(name.encode(), value.encode()) for name, value in self._notes.items()]
            message["headers"] = own + noted + extra
        elif self._bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


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
    body = json.dumps(problem.body()).encode()
    headers = [(k.encode(), v.encode()) for k, v in problem_headers(problem).items()]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": int(problem.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
