"""A device page of a few lines, for what the real UIs do not have: endless streams, uncommon answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

FRAME_S = 0.1  # ten pictures a second, as a cheap camera gives
EVENT_S = 0.1
EDGE = 32  # pixels of a picture's side
LARGE = 64 << 20  # bytes of the large download
USER, PASSWORD = "installer", "blue-door"
STOP_S = 10.0
_BLOCK = hashlib.sha256(b"large").digest() * 2048  # 64 KiB

_PAGE = """<!doctype html><meta charset="utf-8"><title>Plain device</title><h1>Plain device</h1>
<form method="post" action="/upload" enctype="multipart/form-data">
<input type="file" name="file"><button>Send</button></form>
<a href="/large" id="large">large</a> <a href="/other" id="other">other</a>
<input id="note"><img id="camera" alt="">"""
_CSP = "default-src 'none'; script-src 'nonce-x'; style-src 'unsafe-inline'; img-src 'self'"
_WORKER = """self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (new URL(event.request.url).pathname === '/from-worker') event.respondWith(new Response('worker'));
});"""


def picture(number: int) -> bytes:
    """A PNG of one colour, which tells frames apart: red is the number modulo 256."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    row = b"\0" + bytes((number % 256, 100, 200)) * EDGE
    header = struct.pack(">IIBBBBB", EDGE, EDGE, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(row * EDGE)),
            chunk(b"IEND", b""),
        )
    )


def large_sha256() -> str:
    digest = hashlib.sha256()
    for _ in range(LARGE // len(_BLOCK)):
        digest.update(_BLOCK)
    return digest.hexdigest()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    device: ClassVar[PlainDevice]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the test asks the device itself."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known: dict[str, Callable[[], None]] = {
            "/": lambda: self._text(_PAGE),
            "/other": lambda: self._text("<title>Other</title><h1>Other</h1>"),
            "/strict": self._strict,
            "/framed": lambda: self._text("<h1>framed</h1>", X_Frame_Options="SAMEORIGIN"),
            "/unframed": lambda: self._text("<h1>unframed</h1>", X_Frame_Options="DENY"),
            "/gzip": self._gzip,
            "/basic": lambda: self._login('Basic realm="device"', self._basic),
            "/digest": lambda: self._login('Digest realm="device", nonce="n1", qop="auth"', self._digest),
            "/worker.js": lambda: self._text(_WORKER, Content_Type="text/javascript"),
            "/events": self._events,
            "/camera": self._camera,
            "/large": self._large,
            "/moved": lambda: self._moved(f"http://{self.headers['Host']}/other"),
            "/moved-relative": lambda: self._moved("/other"),
            "/moved-away": lambda: self._moved("http://elsewhere.example/"),
        }
        known.get(path, lambda: self._text("there is no such page", status=404))()

    def do_POST(self) -> None:
        left, digest = int(self.headers.get("Content-Length", 0)), hashlib.sha256()
        body = bytearray()
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                return
            left -= len(piece)
            body += piece
        if self.path == "/upload":
            boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
            content = bytes(body).split(b"--" + boundary)[1].partition(b"\r\n\r\n")[2][:-2]
            digest.update(content)
            self._text(f"<h1>{len(content)} {digest.hexdigest()}</h1>")
        else:
            self.device.posted.append((self.path, bytes(body)))
            self.device.heard.set()
            self._text("ok")

    do_PUT = do_DELETE = do_PATCH = do_POST  # the names that http.server calls

    def _text(self, text: str, status: int = 200, **headers: str) -> None:
        self._bytes(text.encode(), status, **headers)

    def _bytes(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Type": "text/html; charset=utf-8"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _strict(self) -> None:
        script = "<script nonce=x>document.title='ran'</script><script>document.title='bad'</script>"
        self._text(f"<title>waits</title><h1>strict</h1>{script}", Content_Security_Policy=_CSP)

    def _gzip(self) -> None:
        content = gzip.compress(json.dumps({"packed": list(range(5000))}).encode())
        self._bytes(content, Content_Type="application/json", Content_Encoding="gzip", Vary="Accept-Encoding")

    def _login(self, challenge: str, is_right: Callable[[str], bool]) -> None:
        if is_right(self.headers.get("Authorization", "")):
            self._text("<h1>inside</h1>")
        else:
            self._text("<h1>who are you?</h1>", status=401, WWW_Authenticate=challenge)

    def _basic(self, given: str) -> bool:
        return given == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def _digest(self, given: str) -> bool:
        """RFC 7616 section 3.4 with MD5, the only one that browsers and old devices share."""
        kind, _, rest = given.partition(" ")
        if kind != "Digest":
            return False
        pairs = (one.strip().partition("=") for one in rest.split(","))
        told = {name: value.strip('"') for name, _, value in pairs}

        def md5(text: str) -> str:
            return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        who, what = md5(f"{USER}:device:{PASSWORD}"), md5(f"{self.command}:{told['uri']}")
        parts = (who, told["nonce"], told["nc"], told["cnonce"], told["qop"], what)
        return told["response"] == md5(":".join(parts)) and told["uri"] == self.path

    def _moved(self, location: str) -> None:
        self._text("moved", status=302, Location=location)

    def _stream(self, kind: str, piece: Callable[[int], bytes], pause_s: float) -> None:
        """Without an end and without a length: the connection is the frame (RFC 9112 section 6.3)."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        device, number = self.device, 0
        with device.streaming(self.path):
            try:
                while not device.stopping.wait(pause_s):
                    self.wfile.write(piece(number))
                    number += 1
            except OSError:
                return  # the visitor left, which is how these streams end

    def _events(self) -> None:
        self._stream("text/event-stream", lambda n: f"id: {n}\ndata: {n}\n\n".encode(), EVENT_S)

    def _camera(self) -> None:
        def part(number: int) -> bytes:
            image = picture(number)
            return b"--frame\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b\r\n" % (
                len(image),
                image,
            )

        self._stream("multipart/x-mixed-replace; boundary=frame", part, FRAME_S)

    def _large(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(LARGE))
        self.send_header("Content-Disposition", "attachment; filename*=UTF-8''Betriebsdaten%20%C3%BC.bin")
        self.end_headers()
        for _ in range(LARGE // len(_BLOCK)):
            self.wfile.write(_BLOCK)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that its visitor cut is part of these tests."""


class PlainDevice:
    """The running page. ``posted`` holds (path, body); ``heard`` is set by each POST."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes]] = []
        self.heard = threading.Event()
        self.stopping = threading.Event()
        self._live: list[str] = []
        self._changed = threading.Condition()
        answers = type("Answers", (_Answers,), {"device": self})
        self._server = _Server(("127.0.0.1", 0), answers)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def streaming(self, path: str) -> _Live:
        return _Live(self, path)

    def change_live(self, path: str, *, begins: bool) -> None:
        with self._changed:
            (self._live.append if begins else self._live.remove)(path)
            self._changed.notify_all()

    def wait_live(self, path: str, count: int, timeout_s: float) -> bool:
        """Whether `count` streams of the path run within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._live.count(path) == count, timeout_s)

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join(STOP_S)
        self._server.server_close()


class _Live:
    def __init__(self, device: PlainDevice, path: str) -> None:
        self._device, self._path = device, path

    def __enter__(self) -> None:
        self._device.change_live(self._path, begins=True)

    def __exit__(self, *exc: object) -> None:
        self._device.change_live(self._path, begins=False)
