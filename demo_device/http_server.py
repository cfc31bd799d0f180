"""HTTP/1.1 for a device page: keep-alive, bounded requests, streamed bodies both ways (RFC 9112).

Written here because the demo must run from the standard library alone, and `http.server` neither streams
nor upgrades.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from runtime.addresses import Address
from runtime.logs import get_logger

MAX_HEAD_BYTES = 32 << 10  # request line and header fields; browsers stay far below
MAX_FIELDS = 100
MAX_CONNECTIONS = 512  # a session pools some, each live chart holds one
IDLE_TIMEOUT_S = 90.0  # a kept connection without a request; longer than any proxy in front keeps it
HEAD_TIMEOUT_S = 20.0
BODY_TIMEOUT_S = 60.0  # between two pieces of a request body
WRITE_TIMEOUT_S = 600.0  # a paused download may rest so long
READ_BYTES = 64 << 10
LINGER_S = 2.0  # after an answer to a request that was not read to its end
MAX_DISCARD_BYTES = 256 << 10  # an unread body up to this is read away; a longer one costs the connection

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t -~]{0,256})?\r\n")

_log = get_logger("demo_device.http")


class HttpError(Exception):
    """Answered with `status` and, when the request could not be read to its end, a closed connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Body:
    """A request's body, read at most once, at the pace of whoever reads it."""

    def __init__(
        self, reader: asyncio.StreamReader, length: int | None, before_read: Callable[[], None]
    ) -> None:
        """`length` None: chunked. `before_read` sends 100 Continue if the client waits for it."""
        self._reader = reader
        self.length = length
        self._before_read = before_read
        self.started = self.done = length == 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises HttpError when it is cut or malformed."""
        if self.started:
            return
        self.started = True
        self._before_read()
        source = self._chunked() if self.length is None else self._exactly(self.length)
        async for piece in source:
            yield piece
        self.done = True

    async def read(self, limit: int) -> bytes:
        """All of it; raises HttpError 413 above `limit` bytes."""
        content = bytearray()
        async for piece in self.pieces():
            content += piece
            if len(content) > limit:
                raise HttpError(413, "The request is too large.")
        return bytes(content)

    async def _exactly(self, left: int) -> AsyncIterator[bytes]:
        while left:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                piece = await self._reader.read(min(left, READ_BYTES))
            if not piece:
                raise HttpError(400, "The request body was cut off.")
            left -= len(piece)
            yield piece

    async def _chunked(self) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                line = await self._reader.readuntil(b"\r\n")
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise HttpError(400, "A chunk size is malformed.")
            size = int(match.group(1), 16)
            if size == 0:
                break
            async for piece in self._exactly(size):
                yield piece
            if await self._reader.readexactly(2) != b"\r\n":
                raise HttpError(400, "A chunk does not end where it said.")
        for _ in range(MAX_FIELDS):
            if await self._reader.readuntil(b"\r\n") == b"\r\n":
                return
        raise HttpError(431, "Too many trailers.")


@dataclass(slots=True)
class Request:
    """A parsed request. `headers` has lower-case names; a repeated field is joined by a comma (RFC 9110,
    5.3).
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Body
    keep_alive: bool
    fields: list[tuple[str, str]]  # as they came, to show them

    def cookie(self, name: str) -> str | None:
        """The first cookie of that name."""
        for pair in self.headers.get("cookie", "").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Response:
    """An answer. `body` may be a stream: with `length` it goes out as it is, without it in chunks."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
    close: bool = False


@dataclass(slots=True)
class Upgrade:
    """101: the connection belongs to `run` until it returns."""

    headers: Mapping[str, str]
    run: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


Handler = Callable[[Request], Awaitable[Response | Upgrade]]


class HttpServer:
    """Listens and serves; each connection is a task of the asyncio server and ends with `close`."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: Address) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(
            self._connected, address.host, address.port, limit=MAX_HEAD_BYTES
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) > MAX_CONNECTIONS:
                await _send_error(writer, HttpError(503, "Too many connections."))
            else:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            _log.debug("connection ended early", extra={"reason": str(error) or type(error).__name__})
        except asyncio.CancelledError:
            # the device stops; asyncio's server has nobody to hand the cancellation to
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep = True
        while keep:
            try:
                request = await read_request(reader, writer)
            except HttpError as error:
                await _send_error(writer, error)
                return
            if request is None:
                return
            keep = await self._answer(request, reader, writer)

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """True when the connection can take another request."""
        try:
            response = await self._handler(request)
        except HttpError as error:
            response = _error_response(error)
        if isinstance(response, Upgrade):
            writer.write(_head(101, response.headers))
            await response.run(reader, writer)
            return False
        body = request.body
        unread = not body.started and (body.length or 0) <= MAX_DISCARD_BYTES
        keep = request.keep_alive and not response.close and (body.done or unread)
        await _send(writer, response, keep=keep, head_only=request.method == "HEAD")
        if keep and await _discard(body):
            return True
        if not body.done:
            await _linger(reader, writer)
        return False


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request, or None at a clean end; raises HttpError."""
    try:
        async with asyncio.timeout(IDLE_TIMEOUT_S):
            first = await reader.read(1)
        if not first:
            return None
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            head = first + await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return None
    except asyncio.LimitOverrunError as error:
        raise HttpError(431, "The request head is too large.") from error
    except asyncio.IncompleteReadError:
        return None
    request = parse_head(head, reader, writer)
    return request


def parse_head(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    """Parse a request head that ends with an empty line; raises HttpError."""
    lines = head[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise HttpError(400, "The request line is malformed.")
    if len(lines) - 1 > MAX_FIELDS:
        raise HttpError(431, "Too many header fields.")
    fields = [_parse_field(line) for line in lines[1:]]
    headers: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    minor = match.group(3)
    if minor == b"1" and "host" not in headers:
        raise HttpError(400, "Host is missing.")
    target = urlsplit(match.group(2).decode("ascii"))
    connection = headers.get("connection", "").lower()
    return Request(
        method=match.group(1).decode("ascii"),
        path=unquote(target.path) or "/",
        query={key: values[0] for key, values in parse_qs(target.query).items()},
        headers=headers,
        body=Body(reader, _body_length(headers), _continue(headers, writer)),
        keep_alive=("close" not in connection) if minor == b"1" else ("keep-alive" in connection),
        fields=fields,
    )


def _parse_field(line: bytes) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise HttpError(400, "A header field is malformed.")
    return match.group(1).decode("ascii"), match.group(2).decode("latin-1")


def _body_length(headers: Mapping[str, str]) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise HttpError(400, "The body's length is ambiguous.")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) <= 15):
        raise HttpError(400, "Content-Length is malformed.")
    return int(length)


def _continue(headers: Mapping[str, str], writer: asyncio.StreamWriter) -> Callable[[], None]:
    if headers.get("expect", "").lower() == "100-continue":
        return lambda: writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return lambda: None


async def _discard(body: Body) -> bool:
    """Read a short body that nobody wanted, so that the next request can follow; False: it does not end."""
    left = MAX_DISCARD_BYTES
    try:
        async for piece in body.pieces():
            left -= len(piece)
            if left < 0:
                return False
    except (HttpError, OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    return body.done


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read on for a moment: closing on a client that still sends resets it before it has read the answer
    (RFC 9112, 9.6).
    """
    writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_S):
            while await reader.read(READ_BYTES):
                pass
    except TimeoutError:
        return


async def _send(writer: asyncio.StreamWriter, response: Response, *, keep: bool, head_only: bool) -> None:
    body = response.body
    headers = dict(response.headers)
    length = len(body) if isinstance(body, bytes) else response.length
    chunked = length is None
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif response.status not in (204, 304):
        headers["Content-Length"] = str(length)
    if not keep:
        headers["Connection"] = "close"
    writer.write(_head(response.status, headers))
    if not head_only:
        if isinstance(body, bytes):
            writer.write(body)
        else:
            await _send_stream(writer, body, chunked)
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await writer.drain()


async def _send_stream(writer: asyncio.StreamWriter, body: AsyncIterator[bytes], chunked: bool) -> None:
    async for piece in body:
        if chunked:
            writer.writelines((f"{len(piece):x}\r\n".encode(), piece, b"\r\n"))
        else:
            writer.write(piece)
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _error_response(error: HttpError) -> Response:
    return Response(error.status, {"Content-Type": "text/plain; charset=utf-8"}, f"{error}\n".encode())


async def _send_error(writer: asyncio.StreamWriter, error: HttpError) -> None:
    await _send(writer, _error_response(error), keep=False, head_only=False)
