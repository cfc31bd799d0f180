"""The web service of a device: answers step by step, as a test lets it, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.sync.server import Server, ServerConnection, serve

BLOCK = bytes(range(256)) * 4096  # 1 MiB
STEP_TIMEOUT_S = 20.0  # a test that never goes on must not leave a thread behind


class Steps:
    """Lets the other side go on, one step at a time."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(0)
        self.gone = threading.Event()  # the visitor of a stream went away

    def go(self) -> None:
        self._free.release()

    def wait(self) -> bool:
        """False when nobody let it go on."""
        return self._free.acquire(timeout=STEP_TIMEOUT_S)


class Device:
    """Two services: ``web`` is plain HTTP, ``echo`` a WebSocket that says everything again."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.arrived: queue.Queue[bytes] = queue.Queue()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._http = _Http(("127.0.0.1", 0), self)
        self._echo: Server = serve(_echo, "127.0.0.1", 0, max_size=None)
        self._threads = [
            threading.Thread(target=server.serve_forever, daemon=True) for server in (self._http, self._echo)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def web(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def echo(self) -> str:
        return f"127.0.0.1:{self._echo.socket.getsockname()[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._echo.shutdown()
        for thread in self._threads:
            thread.join(STEP_TIMEOUT_S)


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], device: Device) -> None:
        self.device = device
        super().__init__(address, _Answers)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that goes away is part of some tests."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at ``requests``."""

    def do_GET(self) -> None:
        device = self.server.device
        device.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        name = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"_{name or 'page'}", self._page)()

    do_POST = do_PUT = do_GET

    def _page(self) -> None:
        self._whole(b"the device")

    def _whole(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _accel(self) -> None:
        """Commands for nginx that a device has no right to give."""
        self._whole(
            b"my own page",
            ("X-Accel-Redirect", "/accelerated"),
            ("X-Accel-Limit-Rate", "1"),
            ("X-Accel-Charset", "koi8-r"),
        )

    def _upload(self) -> None:
        """The SHA-256 of the body."""
        seen = hashlib.sha256()
        for piece in self._body():
            seen.update(piece)
        self._whole(seen.hexdigest().encode())

    def _body(self) -> Iterator[bytes]:
        if "Content-Length" in self.headers:
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read1(min(left, len(BLOCK)))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _arriving(self) -> None:
        """Tells the test of each piece of the body as it comes."""
        for piece in self._body():
            self.server.device.arrived.put(piece)
        self._whole(b"all of it")

    def _conversation(self) -> None:
        """Answers each piece of the body before the next one comes."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self._body():
            self._chunk(piece)
        self._chunk(b"")

    def _download(self) -> None:
        """/download/MIB"""
        count = int(self.path.split("/")[2])
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(count * len(BLOCK)))
        self.end_headers()
        for _ in range(count):
            self.wfile.write(BLOCK)

    def _drip(self) -> None:
        """A body with a length, piece by piece."""
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        for piece in (b"ab", b"cd", b"ef"):
            self.wfile.write(piece)
            self.server.device.steps.wait()

    def _events(self) -> None:
        self._stream("text/event-stream", [f"data: {n}\n\n".encode() for n in range(3)])

    def _camera(self) -> None:
        frame = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 9\r\n\r\n\xff\xd8picture\r\n"
        self._stream("multipart/x-mixed-replace; boundary=frame", [frame] * 3)

    def _quiet(self) -> None:
        """An event stream that says nothing: only the visitor's end ends it."""
        self._stream("text/event-stream", [b": hello\n\n"], close_after=False)
        self.connection.settimeout(STEP_TIMEOUT_S)
        try:
            ended = self.connection.recv(1) == b""
        except ConnectionError:
            ended = True
        if ended:
            self.server.device.steps.gone.set()
        self.close_connection = True

    def _stream(self, kind: str, pieces: list[bytes], *, close_after: bool = True) -> None:
        """Endless, as the visitor sees it: no length; each piece waits for the test."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Accel-Buffering", "yes")  # which nginx would do, if it were told by a device
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self._chunk(piece)
            if close_after and not self.server.device.steps.wait():
                break
        if close_after:
            self._chunk(b"")

    def _cut(self) -> None:
        """/cut/length or /cut/chunked: the body ends before its end."""
        self.send_response(200)
        if self.path.endswith("length"):
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 50_000)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._chunk(b"x" * 50_000)
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()
