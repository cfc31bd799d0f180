"""A person's browser, far enough: TLS that trusts one CA, an own address, one connection at a time."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from testbed.people import OPEN_PATH
from testbed.settings_tables import ADMIN, PASSWORD

TIMEOUT_S = 20.0
PERSON = "127.0.0.7"  # any address of 127/8 is this machine's, and each is another person to the servers


class Client:
    """Speaks to ``port`` of the front as if it were port 443 of ``host``, from its own address."""

    def __init__(self, ca: Path, port: int, host: str, *, address: str = PERSON) -> None:
        self.host = host
        self.origin = f"https://{host}"
        self.cookie = ""
        self._port = port
        self._address = address
        self._tls = _trusting(ca)
        self._tls_for_two = _trusting(ca)
        self._tls_for_two.maximum_version = ssl.TLSVersion.TLSv1_2
        self._http: http.client.HTTPConnection | None = None

    def connection(self, name: str | None = None) -> ssl.SSLSocket:
        """TLS to the front; ``name`` is asked for and verified."""
        return self._wrapped(self._tls, name or self.host)

    def connection_for_two(self) -> ssl.SSLSocket:
        """The same for a WebSocket of websockets.sync, which reads in one thread and writes in another.

        By TLS 1.2: in 1.3 the server's tickets come just as the first request leaves, and Python's sockets
        have no lock around what OpenSSL then does in both threads. Of 1,577 such WebSockets on a busy
        machine 14 lost their request; by TLS 1.2 none of 7,494, nor of 3,154 that one thread used.
        """
        return self._wrapped(self._tls_for_two, self.host)

    def _wrapped(self, tls: ssl.SSLContext, name: str) -> ssl.SSLSocket:
        raw = self._dialled()
        try:
            return tls.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def _dialled(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S, (self._address, 0))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """The head is here; the body is read by the caller."""
        if self._http is None:
            self._http = http.client.HTTPConnection(self.host, 443, timeout=TIMEOUT_S)
        if self._http.sock is None:
            self._http.sock = self.connection()
        own = {"Host": self.host}
        if self.cookie:
            own["Cookie"] = self.cookie
        if method not in ("GET", "HEAD"):
            own["Origin"] = self.origin
        chunked = body is not None and not isinstance(body, bytes)
        if chunked and not any(name.lower() == "content-length" for name in headers or {}):
            own["Transfer-Encoding"] = "chunked"
        sent = "Transfer-Encoding" in own
        self._http.request(method, path, body, own | dict(headers or {}), encode_chunked=sent)
        return self._http.getresponse()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        answer = self.ask("GET", path, headers=headers)
        return answer.status, answer.read()

    def log_in(self, username: str = ADMIN, password: str = PASSWORD) -> str:
        """With a password; the cookie, which is kept."""
        answer = self._json("POST", "/v1/login", {"username": username, "password": password})
        answer.read()
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return self.cookie

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a successful answer; OSError with what it said else, and when there is none."""
        try:
            return json.loads(self._json(method, path, body).read())
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        answer = self.ask(method, path, data, {"Content-Type": "application/json"})
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {answer.read()!r}")
        return answer

    def enter(self, token: str) -> http.client.HTTPResponse:
        """The click on a link's landing page."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.ask("POST", OPEN_PATH, urlencode({"token": token}).encode(), kind)
        answer.read()
        self.cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        return answer

    def websocket(self, path: str = "/", **options: Any) -> ClientConnection:
        cookie: dict[str, Any] = {"Cookie": self.cookie}
        made: ClientConnection = connect(
            f"ws://{self.host}{path}",
            sock=self.connection_for_two(),
            origin=Origin(self.origin),
            additional_headers=cookie,
            open_timeout=TIMEOUT_S,
            proxy=None,
            **options,
        )
        return made

    def close(self) -> None:
        if self._http is not None:
            self._http.close()


def _trusting(ca: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=ca)
    tls.set_alpn_protocols(["http/1.1"])
    return tls
