"""The device's own services, `python -m tests.networks.device`; the first line of output is their ports.

web: `/page/N` (small), `/length/SEED/BYTES` and `/chunked/SEED/BYTES` (known content), POST `/hash` (SHA-256
of the body). echo: a WebSocket whose messages are numbered from 0; one out of order closes it with 4000.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

BLOCK = 16 << 10
NUMBER_BYTES = 8
OUT_OF_ORDER = 4000  # close code, RFC 6455 section 7.4.2: private use
SOCKET_S = 900.0  # longer than the longest partition


def content(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes that follow from the seed; no block is like another."""
    chance = random.Random(seed)
    for start in range(0, size, BLOCK):
        yield chance.randbytes(min(BLOCK, size - start))


def page(number: int) -> bytes:
    return b"page %d %s" % (number, hashlib.sha256(b"%d" % number).hexdigest().encode())


def message(number: int, size: int = 64) -> bytes:
    """A numbered WebSocket message of `size` bytes."""
    head = number.to_bytes(NUMBER_BYTES, "big")
    filling = hashlib.sha256(head).digest()
    return (head + filling * (size // len(filling) + 1))[:size]


def echo(connection: ServerConnection) -> None:
    wanted = 0
    try:
        for data in connection:
            number = int.from_bytes(bytes(data[:NUMBER_BYTES]) if isinstance(data, bytes) else b"", "big")
            if number != wanted or data != message(number, len(data)):
                connection.close(OUT_OF_ORDER, f"{number} instead of {wanted}")
                return
            wanted += 1
            connection.send(data)
    except ConnectionClosed:
        return


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_S

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look from the visitor's side."""

    def do_GET(self) -> None:
        kind, *numbers = self.path.strip("/").split("/")
        if kind == "":
            self._whole(b"<!doctype html><title>The device</title><h1>The device's page</h1>", "text/html")
        elif kind == "page":
            self._whole(page(int(numbers[0])))
        else:
            self._long(kind == "chunked", content(int(numbers[0]), int(numbers[1])), int(numbers[1]))

    def do_POST(self) -> None:
        seen, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read(min(left, BLOCK))):
            left -= len(piece)
            seen.update(piece)
        if left:
            self.close_connection = True
        else:
            self._whole(seen.hexdigest().encode())

    def _whole(self, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _long(self, chunked: bool, pieces: Iterator[bytes], size: int) -> None:
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")


class Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor whose network went away is what these tests are about."""


def main() -> int:
    """Until SIGTERM."""
    web = Web(("127.0.0.1", 0), Answers)
    talk = serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None, compression=None)
    for server in (web, talk):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"web": web.server_address[1], "echo": talk.socket.getsockname()[1]}), flush=True)
    signal.sigwait({signal.SIGTERM})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.exit(main())
