"""What the device answers: the page, its data, uploads, downloads, and a preference kept in a cookie."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, quote

from demo_device import bulk
from demo_device.feed import Feed
from demo_device.greenhouse import VENT_DEFAULT, Greenhouse
from demo_device.http_server import READ_BYTES, HttpError, Request, Response, Upgrade
from demo_device.uploads import UploadRefused, Uploads
from demo_device.websocket import accept_headers, converse

MAX_FORM_BYTES = 4096
SSE_COMMENT_S = 15.0  # keeps a quiet stream from looking dead
_RANGE = re.compile(r"bytes=(\d{1,12})?-(\d{1,12})?")
_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

Answer = Callable[[Request], Awaitable[Response | Upgrade]]


class Routes:
    """One device's answers."""

    def __init__(self, greenhouse: Greenhouse, live: Feed, remarks: Feed, uploads: Uploads) -> None:
        self._greenhouse = greenhouse
        self._live = live
        self._remarks = remarks
        self._uploads = uploads
        static = files("demo_device") / "static"
        self._static = {
            path: Response(200, {"Content-Type": kind, **_PAGE_HEADERS}, (static / name).read_bytes())
            for path, (name, kind) in _STATIC.items()
        }
        self._exact: dict[tuple[str, str], Answer] = {
            ("GET", "/api/live"): self._chart,
            ("GET", "/api/readings"): self._readings,
            ("GET", "/api/log"): self._log,
            ("GET", "/api/preferences"): self._preferences,
            ("GET", "/api/request"): self._request,
            ("GET", "/api/downloads"): self._downloads,
            ("GET", "/api/uploads"): self._list_uploads,
            ("POST", "/api/uploads"): self._upload,
            ("POST", "/settings/unit"): self._set_unit,
            ("PUT", "/api/configuration"): self._configure,
        }

    async def answer(self, request: Request) -> Response | Upgrade:
        """Route one request; raises HttpError."""
        method = "GET" if request.method == "HEAD" else request.method
        if method == "GET" and request.path in self._static:
            return self._static[request.path]
        exact = self._exact.get((method, request.path))
        if exact is not None:
            return await exact(request)
        if request.path.startswith("/uploads/"):
            return await self._stored(request, method, request.path.removeprefix("/uploads/"))
        if method == "GET" and request.path.startswith("/download/"):
            return self._download(request, request.path.removeprefix("/download/"))
        if any(path == request.path for _, path in self._exact):
            raise HttpError(405, "This method is not for this address.")
        raise HttpError(404, "There is no such page on this device.")

    async def _chart(self, request: Request) -> Response | Upgrade:
        headers = accept_headers(request.headers)
        if headers is None:
            raise HttpError(426, "This address speaks WebSocket.")

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await converse(reader, writer, self._live.join, self._live.leave, self._command)

        return Upgrade(headers, run)

    def _command(self, text: str) -> None:
        try:
            vent = json.loads(text)["vent"]
        except (ValueError, KeyError, TypeError, RecursionError):
            vent = None
        if type(vent) is not int:
            self._remarks.publish("A message was not understood.")
            return
        self._remarks.publish(f"Vent set to {self._greenhouse.set_vent(vent)} %")

    async def _readings(self, request: Request) -> Response:
        """The newest of what the chart shows, for whoever asks now and then."""
        if not self._live.kept:
            raise HttpError(503, "Nothing was measured yet.")
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return Response(200, headers, self._live.kept[-1][1].encode())

    async def _log(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        return Response(200, headers, self._events(after))

    async def _events(self, after: int) -> AsyncIterator[bytes]:
        queue = self._remarks.join()
        try:
            while True:
                for number, text in self._remarks.since(after):
                    after = number
                    yield f"id: {number}\ndata: {json.dumps(text, ensure_ascii=False)}\n\n".encode()
                try:
                    async with asyncio.timeout(SSE_COMMENT_S):
                        await queue.get()  # only a wake-up: what is new comes from the kept ones, in order
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._remarks.leave(queue)

    async def _preferences(self, request: Request) -> Response:
        return _json({"unit": "f" if request.cookie("unit") == "f" else "c", "vent": self._greenhouse.vent})

    async def _request(self, request: Request) -> Response:
        """What arrived here: shows what the way to this device adds, rewrites and takes away."""
        return _json({"method": request.method, "fields": request.fields})

    async def _set_unit(self, request: Request) -> Response:
        form = parse_qs((await request.body.read(MAX_FORM_BYTES)).decode("utf-8", "replace"))
        unit = form.get("unit", [""])[0]
        if unit not in ("c", "f"):
            raise HttpError(400, "The unit is c or f.")
        # An absolute address, since many device pages answer so: it names the device's own origin.
        host = request.headers.get("host", "localhost")
        headers = {
            "Location": f"http://{host}/#preferences",
            "Set-Cookie": f"unit={unit}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax",
        }
        return Response(303, headers)

    async def _configure(self, request: Request) -> Response:
        """The device's own members of what is configured at the gateway; what is left out has its default."""
        try:
            wanted = json.loads(await request.body.read(MAX_FORM_BYTES))
        except (ValueError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict) or not wanted.keys() <= {"vent"}:
            raise HttpError(422, "This device is configured by its vent alone.")
        vent = wanted.get("vent", VENT_DEFAULT)
        if type(vent) is not int or not 0 <= vent <= 100:
            raise HttpError(422, "The vent is 0 to 100 percent, a whole number.")
        if vent != self._greenhouse.vent:
            self._remarks.publish(f"Configured: the vent at {self._greenhouse.set_vent(vent)} %")
        return Response(204)

    async def _downloads(self, request: Request) -> Response:
        return _json([{"name": name, "size": size} for name, size in bulk.SIZES.items()])

    async def _list_uploads(self, request: Request) -> Response:
        return _json([file.as_json() for file in self._uploads.listing()])

    async def _upload(self, request: Request) -> Response:
        name = request.query.get("name", "")
        try:
            stored = await self._uploads.store(name, request.body.pieces(), request.body.length)
        except UploadRefused as refused:
            raise HttpError(refused.status, str(refused)) from refused
        self._remarks.publish(f"File {stored.name} received, {stored.size} bytes")
        return _json(stored.as_json(), status=201)

    async def _stored(self, request: Request, method: str, name: str) -> Response:
        if method == "DELETE":
            if not await self._uploads.remove(name):
                raise HttpError(404, "There is no such file.")
            return Response(204)
        path = self._uploads.path(name)
        if path is None:
            raise HttpError(404, "There is no such file.")
        if method != "GET":
            raise HttpError(405, "This method is not for this address.")
        size = path.stat().st_size
        return _ranged(request, name, size, lambda start, end: _file_pieces(path, start, end))

    def _download(self, request: Request, name: str) -> Response:
        wants_sum = name.endswith(".sha256")
        size = bulk.SIZES.get(name.removesuffix(".sha256"))
        if size is None:
            raise HttpError(404, "There is no such download.")
        if wants_sum:
            return Response(200, {"Content-Type": "text/plain"}, _checksum(size), length=64)
        return _ranged(request, name, size, lambda start, end: _bulk_pieces(start, end))


async def _checksum(size: int) -> AsyncIterator[bytes]:
    yield (await asyncio.to_thread(bulk.sha256_of, size)).encode("ascii")


async def _bulk_pieces(start: int, end: int) -> AsyncIterator[bytes]:
    for piece in bulk.blocks(start, end):
        yield piece


async def _file_pieces(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        file.seek(start)
        while start < end:
            piece = await asyncio.to_thread(file.read, min(READ_BYTES, end - start))
            if not piece:
                raise HttpError(500, "The file became shorter.")
            start += len(piece)
            yield piece


def _ranged(
    request: Request, name: str, size: int, pieces: Callable[[int, int], AsyncIterator[bytes]]
) -> Response:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
    }
    span = _range(request.headers.get("range"), size)
    if span is None:
        return Response(200, headers, pieces(0, size), length=size)
    start, end = span
    if start >= end:
        return Response(416, {"Content-Range": f"bytes */{size}"}, b"")
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(206, headers, pieces(start, end), length=end - start)


def _range(value: str | None, size: int) -> tuple[int, int] | None:
    """[start, end) of a single range; (0, 0) when it cannot be satisfied; None to send everything (RFC
    9110, 14.2).
    """
    match = _RANGE.fullmatch(value or "")
    if match is None or match.groups() == (None, None):
        return None
    first, last = match.groups()
    if first is None:
        wanted = int(last)
        return (max(0, size - wanted), size) if wanted else (0, 0)
    start = int(first)
    if last is not None and int(last) < start:
        return None
    return (start, min(size, int(last) + 1 if last is not None else size)) if start < size else (0, 0)


def _json(value: object, status: int = 200) -> Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, headers, json.dumps(value).encode())
