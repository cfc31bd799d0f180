"""The operators' listener of a process: /metrics, /livez, /readyz. HTTP/1.1, one answer a connection.

It belongs on loopback or a private network: it asks nobody who they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from runtime.addresses import Address, parse_address
from runtime.metrics import CONTENT_TYPE, Registry

MAX_HEAD = 4096  # a probe's or scraper's request head is far smaller
MAX_CONNECTIONS = 32  # scrapers and probes are few; more is a mistake or an attack
EXCHANGE_TIMEOUT_S = 5.0  # a probe that takes longer has given up itself

Readiness = Callable[[], list[str]]


class OpsServer:
    """Serves the registry and the readiness; ``readiness`` returns the names of the failed checks."""

    def __init__(self, listen: str, registry: Registry, readiness: Readiness) -> None:
        self._listen = parse_address(listen)
        self._registry = registry
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Start to listen; OSError when the address is taken."""
        self._server = await asyncio.start_server(
            self._serve, self._listen.host, self._listen.port, limit=MAX_HEAD
        )

    @property
    def address(self) -> Address:
        """Where it listens, with the port the kernel chose for port 0."""
        if self._server is None:
            return self._listen
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the prober is gone, slow or no HTTP client: there is nobody to answer
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only\n")
        status, kind, body = self._page(path)
        answer = _response(status, kind, body)
        return answer[: -len(body)] if method == b"HEAD" and body else answer

    def _page(self, path: bytes) -> tuple[HTTPStatus, str, bytes]:
        if path == b"/metrics":
            return HTTPStatus.OK, CONTENT_TYPE, self._registry.render()
        if path == b"/livez":
            return HTTPStatus.OK, "text/plain", b"ok\n"
        if path == b"/readyz":
            failed = self._readiness()
            status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
            return (
                status,
                "application/json",
                json.dumps({"ready": not failed, "failed": failed}).encode() + b"\n",
            )
        return HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /livez or /readyz\n"


def _response(status: HTTPStatus, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
