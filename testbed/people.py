"""People: one logs in at a gateway and opens sessions, one follows a link; both send what a browser sends."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from testbed.settings_tables import ADMIN, PASSWORD

CALL_TIMEOUT_S = 20.0
SESSION_S = 600
OPEN_PATH = "/.towline/open"  # where a link's landing page posts its token


@dataclass(frozen=True, slots=True)
class Link:
    """The URL of a session, `scheme://host[:port]/.towline/open#token`, in parts."""

    scheme: str
    host: str
    port: int
    token: str

    @classmethod
    def parse(cls, url: str) -> Link:
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return cls(parts.scheme, parts.hostname, port, parts.fragment)

    @property
    def authority(self) -> str:
        """As in the Host header: the scheme's own port is left out."""
        usual = self.port == {"http": 80, "https": 443}[self.scheme]
        return self.host if usual else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"


def session_wish(service: str = "web", duration_s: int = SESSION_S) -> dict[str, Any]:
    """The body of POST /v1/devices/ID/sessions, for a link that a click opens."""
    return {"service": service, "binding": "click", "duration_s": duration_s}


def http_client(
    origin: Link,
    *,
    port: int | None = None,
    trust: ssl.SSLContext | None = None,
    address: str | None = None,
    **headers: str,
) -> httpx.Client:
    """A client of `origin` that dials loopback, at another `port` and from another `address` where given.

    *.localhost is this machine (RFC 6761), whatever the system's resolver says; test domains are too.
    """

    def name_server(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = origin.host

    return httpx.Client(
        base_url=f"{origin.scheme}://127.0.0.1:{port or origin.port}",
        headers={"Host": origin.authority, **headers},
        timeout=CALL_TIMEOUT_S,
        trust_env=False,
        transport=httpx.HTTPTransport(
            verify=trust or origin.scheme == "https", trust_env=False, local_address=address
        ),
        event_hooks={"request": [name_server]},
    )


class Person:
    """Someone with a browser at a gateway; a stranger until `log_in` or `welcome`.

    `http` gives every answer as it is; the other methods raise httpx.HTTPStatusError unless it is a success.
    """

    def __init__(
        self,
        gateway: str,
        *,
        port: int | None = None,
        trust: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        """`gateway` is its public URL. `port` leads to a replica, `trust` is for https, an `address` of
        127/8 makes the person a stranger to limits by address.
        """
        origin = Link.parse(gateway)
        self.gateway = origin.origin
        self._port, self._trust, self._address = port, trust, address
        self.http = http_client(origin, port=port, trust=trust, address=address, Origin=origin.origin)

    def log_in(self, username: str = ADMIN, password: str = PASSWORD) -> str:
        """With a password: the browser's cookie is kept; the access token that programs use."""
        answer = self.call("POST", "/v1/login", {"username": username, "password": password})
        token: str = answer["access_token"]
        return token

    def welcome(self, address: str) -> None:
        """Open the address that `towline up` printed."""
        self.call("POST", "/v1/login/welcome", {"secret": urlsplit(address).fragment})

    def bearer(self, token: str) -> Person:
        """The same person's program: an access token and no cookie, nor an Origin."""
        program = Person(self.gateway, port=self._port, trust=self._trust, address=self._address)
        del program.http.headers["Origin"]
        program.http.headers["Authorization"] = f"Bearer {token}"
        return program

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a successful answer, None of an empty one; else HTTPStatusError with what it said."""
        answer = self.http.request(method, path, json=body)
        if not answer.is_success:
            said = f"{method} {path}: {answer.status_code} {answer.text}"
            raise httpx.HTTPStatusError(said, request=answer.request, response=answer)
        return answer.json() if answer.content else None

    def devices(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.call("GET", "/v1/devices")["items"]
        return items

    def device(self, name: str = "Demo device") -> dict[str, Any]:
        return next(one for one in self.devices() if one["name"] == name)

    def registration_token(self, *, approve: bool = True) -> str:
        """For one device; with `approve` it needs no approval."""
        token: str = self.call("POST", "/v1/registration-tokens", {"approve": approve})["token"]
        return token

    def approve(self, device: str) -> None:
        self.call("POST", f"/v1/devices/{device}/approve", {})

    def open_session(self, device: str, service: str = "web", duration_s: int = SESSION_S) -> dict[str, Any]:
        wish = session_wish(service, duration_s)
        session: dict[str, Any] = self.call("POST", f"/v1/devices/{device}/sessions", wish)
        return session

    def open_here(self, device: str, service: str = "web") -> dict[str, Any]:
        """As the gateway's pages open it: a link of this browser's login, and a code for it in `url`."""
        wish = session_wish(service) | {"binding": "browser"}
        session: dict[str, Any] = self.call("POST", f"/v1/devices/{device}/sessions", wish)
        token = urlsplit(session["url"]).fragment
        return session | {"url": self.call("POST", "/v1/links/code", {"token": token})["url"]}

    def close(self) -> None:
        self.http.close()


class Visitor:
    """Someone who clicked a link: a client of the session's own origin."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None) -> None:
        """`trust` is for links to https."""
        self.link = Link.parse(url)
        self.token, self.origin = self.link.token, self.link.origin
        self.http = http_client(self.link, trust=trust)

    def enter(self) -> httpx.Response:
        """The click on the landing page."""
        kind, mark, code = self.token.partition(".")
        presented = {"code": code} if mark and kind == "code" else {"token": self.token}
        return self.http.post(OPEN_PATH, data=presented, headers={"Origin": self.origin})

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    @contextmanager
    def websocket(self, path: str) -> Iterator[ClientConnection]:
        raw = socket.create_connection(("127.0.0.1", self.link.port), CALL_TIMEOUT_S)
        with connect(
            f"ws://{self.link.authority}{path}",
            sock=raw,
            origin=Origin(self.origin),
            additional_headers={"Cookie": self.cookie},
            open_timeout=CALL_TIMEOUT_S,
            proxy=None,
        ) as connection:
            yield connection

    def first_event(self, path: str) -> Any:
        """The first event of an SSE stream."""
        with self.http.stream("GET", path) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream ended without an event")

    def close(self) -> None:
        self.http.close()


def entered(url: str, trust: ssl.SSLContext | None = None) -> Visitor:
    """A visitor who is in; HTTPStatusError with the page's words when refused."""
    visitor = Visitor(url, trust)
    with ExitStack() as leaving:
        leaving.callback(visitor.close)
        answer = visitor.enter()
        if answer.status_code != HTTPStatus.SEE_OTHER:
            said = f"not let in: {answer.status_code} {answer.text}"
            raise httpx.HTTPStatusError(said, request=answer.request, response=answer)
        leaving.pop_all()
    return visitor


def redeem(url: str, timeout_s: float = CALL_TIMEOUT_S) -> tuple[str, str]:
    """Clicks a link: (Host header, Cookie header) of the open session; RuntimeError when it is refused.

    The edge asks the gateway only so often for one address; a 429 is waited for as it says.
    """
    visitor, deadline = Visitor(url), time.monotonic() + timeout_s
    try:
        while (answer := visitor.enter()).status_code == HTTPStatus.TOO_MANY_REQUESTS:
            if time.monotonic() > deadline:
                break
            time.sleep(float(answer.headers.get("Retry-After") or 1))
        if answer.status_code != HTTPStatus.SEE_OTHER or not visitor.cookie:
            raise RuntimeError(f"the link was refused: {answer.status_code}")
        return visitor.link.authority, visitor.cookie
    finally:
        visitor.close()
