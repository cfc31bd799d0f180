"""What a device has of its own beside the agent: a page at a local address."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Service:
    """Answers every PUT with `answer`, and keeps what was put."""

    def __init__(self) -> None:
        self.answer = (204, b"")
        self.put: list[bytes] = []
        service = self

        class Page(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                service.put.append(self.rfile.read(int(self.headers["content-length"])))
                status, body = service.answer
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}/configuration"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
