"""A small HTTP/1.1 client for the gateway's internal listener: JSON calls over kept mTLS connections."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httptools

from runtime.tls_files import load_ca, load_pair

READ_BYTES = 65_536
IDLE_S = 3.0  # below the 5 s after which common ASGI servers close an idle connection
MAX_LINE = 65_536  # one line of the feed is about 100 bytes
CALLS_WAITING = 10_000  # more means that the gateway is down
ANSWER_BYTES = 262_144  # a key list is a few KiB


class GatewayUnavailable(Exception):
    """The gateway did not answer in time or answered nonsense; nothing was decided."""


class GatewayRefused(Exception):
    """The gateway decided against it: ``status`` (HTTP), ``code`` and ``detail`` (problem+json) say why."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.detail = detail


def is_internal_url(text: str) -> str | None:
    """Check for ``runtime.settings.setting``: what is wrong with an internal listener's address, or None.

    https:// alone: the certificates of both sides are all that says who speaks.
    """
    try:
        url = urlsplit(text)
        bare = url.hostname and url.port != 0 and "@" not in url.netloc and not url.netloc.endswith(":")
    except ValueError:
        bare = False
    if not bare or url.scheme != "https" or url.path.strip("/") or url.query or url.fragment:
        return "must be https://host:port"
    return None


class InternalApiSettings(Protocol):
    """What this needs of a service's own settings; times in seconds."""

    @property
    def internal_url(self) -> str: ...

    @property
    def ca(self) -> Path: ...

    @property
    def certificate(self) -> Path: ...

    @property
    def key(self) -> Path: ...

    @property
    def connections(self) -> int: ...

    @property
    def call_s(self) -> float: ...


class _Answer:
    """Collects one response; httptools calls the on_* methods."""

    __slots__ = ("_limit", "_size", "begun", "body", "complete", "head_complete", "keep", "parser", "status")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.begun = False
        self.body: list[bytes] = []
        self.complete = False
        self.head_complete = False
        self.keep = False
        self.status = 0
        self.parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse; HttpParserError for what is no HTTP, GatewayUnavailable for a body over the limit."""
        self.parser.feed_data(data)
        if self._size > self._limit:
            raise GatewayUnavailable("the answer is too long")

    def take_body(self) -> bytes:
        """The body bytes since the last call."""
        data = b"".join(self.body)
        self.body.clear()
        self._size = 0
        return data

    def on_message_begin(self) -> None:
        self.begun = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
        self.keep = bool(self.parser.should_keep_alive())


class _Connection:
    """One kept connection; ``idle_since`` is monotonic seconds."""

    __slots__ = ("idle_since", "reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.idle_since = 0.0

    def close(self) -> None:
        self.writer.transport.abort()


class InternalHttp:
    """Calls to one listener; at most ``settings.connections`` at once, each with a deadline."""

    def __init__(
        self,
        settings: InternalApiSettings,
        *,
        calls_waiting: int = CALLS_WAITING,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        """``calls_waiting``: queued for a connection, at most. ``answer_bytes``: of the largest answer."""
        url = urlsplit(settings.internal_url)
        if url.scheme not in ("https", "http") or url.hostname is None:
            raise ValueError("internal_url must be an https:// address")
        self._settings = settings
        self._calls_waiting = calls_waiting
        self._answer_bytes = answer_bytes
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._authority = url.netloc
        self.context = client_context(settings) if url.scheme == "https" else None
        self._slots = asyncio.Semaphore(settings.connections)
        self._waiting = 0
        self._idle: list[_Connection] = []

    def close(self) -> None:
        """Drop the kept connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def call(
        self, method: str, path: str, body: Any = None, *, fresh: bool = False, again: bool = True
    ) -> Any:
        """The JSON answer of a 2xx; GatewayRefused for a 4xx, GatewayUnavailable for anything else.

        A kept connection may turn out to be closed: then the call is sent again. ``fresh``: it must not be
        sent twice, and succeed even so, so it goes over a new connection. ``again`` False: it must not be
        sent twice, and may rather fail.
        """
        if self._waiting >= self._calls_waiting:
            raise GatewayUnavailable("too many calls wait")
        request = self._request(method, path, body)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.call_s), self._slots:
                return _decoded(*await self._exchange(request, fresh=fresh, again=again))
        except TimeoutError as error:
            raise GatewayUnavailable("no answer in time") from error
        except (OSError, ssl.SSLError, httptools.HttpParserError, asyncio.IncompleteReadError) as error:
            raise GatewayUnavailable(f"{type(error).__name__}: {error}") from error
        finally:
            self._waiting -= 1

    async def lines(self, path: str, silence_s: float) -> AsyncGenerator[bytes, None]:
        """The lines of an endless answer; GatewayUnavailable at its end or ``silence_s`` of silence."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(silence_s):
                connection = await self._open()
                connection.writer.write(self._request("GET", path, None))
                answer, rest = await self._stream_head(connection)
            async for line in self._stream_lines(connection, answer, rest, silence_s):
                yield line
        except TimeoutError as error:
            raise GatewayUnavailable("the stream is silent") from error
        except (OSError, ssl.SSLError, httptools.HttpParserError) as error:
            raise GatewayUnavailable(f"{type(error).__name__}: {error}") from error
        finally:
            if connection is not None:
                connection.close()

    async def _stream_head(self, connection: _Connection) -> tuple[_Answer, bytes]:
        answer = _Answer(MAX_LINE)
        while not answer.head_complete:
            data = await connection.reader.read(READ_BYTES)
            if not data:
                raise GatewayUnavailable("the connection ended")
            answer.feed(data)
        if answer.status != 200:
            raise GatewayRefused(answer.status, "stream")
        return answer, answer.take_body()

    async def _stream_lines(
        self, connection: _Connection, answer: _Answer, rest: bytes, silence_s: float
    ) -> AsyncIterator[bytes]:
        while True:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line
            if len(rest) > MAX_LINE:
                raise GatewayUnavailable("a line is too long")
            if answer.complete:
                raise GatewayUnavailable("the stream ended")
            async with asyncio.timeout(silence_s):
                data = await connection.reader.read(READ_BYTES)
            if not data:
                raise GatewayUnavailable("the connection ended")
            answer.feed(data)
            rest += answer.take_body()

    def _request(self, method: str, path: str, body: Any) -> bytes:
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\nAccept: application/json\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        return head.encode("ascii") + b"\r\n" + content

    async def _exchange(self, request: bytes, *, fresh: bool, again: bool) -> tuple[int, bytes]:
        kept = None if fresh else self._take_idle()
        if kept is not None:
            answer = await self._send(kept, request)
            if answer is not None:
                return answer
            if not again:
                raise GatewayUnavailable("the kept connection ended before the answer")
        answer = await self._send(await self._open(), request)
        if answer is None:
            raise GatewayUnavailable("the connection ended before the answer")
        return answer

    async def _send(self, connection: _Connection, request: bytes) -> tuple[int, bytes] | None:
        """The answer, or None when a kept connection turned out to be closed already."""
        answer = _Answer(self._answer_bytes)
        done = False
        try:
            connection.writer.write(request)
            while not answer.complete:
                data = await connection.reader.read(READ_BYTES)
                if not data and not answer.begun:
                    return None
                if not data:
                    raise GatewayUnavailable("the answer was cut")
                answer.feed(data)
            done = answer.keep
            return answer.status, b"".join(answer.body)
        except ConnectionError:
            if answer.begun:
                raise
            return None
        finally:
            if done:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()

    def _take_idle(self) -> _Connection | None:
        fresh_after = time.monotonic() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > fresh_after and not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self.context, limit=READ_BYTES
        )
        return _Connection(reader, writer)


def client_context(settings: InternalApiSettings) -> ssl.SSLContext:
    """TLS that trusts the internal CA alone and shows this node's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_ca(context, settings.ca, "gateway.ca")
    load_pair(context, settings.certificate, settings.key, "gateway")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _decoded(status: int, content: bytes) -> Any:
    if 200 <= status < 300:
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise GatewayUnavailable("the answer is no JSON") from error
    if 400 <= status < 500:
        raise GatewayRefused(status, *_problem(content))
    raise GatewayUnavailable(f"status {status}")


def _problem(content: bytes) -> tuple[str, str]:
    """Its code and detail."""
    try:
        problem = json.loads(content)
        return str(problem["code"]), str(problem.get("detail") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unknown", ""
