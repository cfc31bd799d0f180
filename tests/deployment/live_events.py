"""Somebody who follows the gateway's live events through a front: server-sent, or over a WebSocket."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.deployment.client import TIMEOUT_S, Client
from tests.deployment.site import GATEWAY, Site

PATH = "/v1/events"
HEARTBEAT = "heartbeat"
_ADDRESSES = count(10)


class Stream(Protocol):
    """One connection with events. `next` waits TIMEOUT_S at the most: longer than a heartbeat takes."""

    def next(self) -> dict[str, Any]:
        """What comes next, a heartbeat too; EOFError at the end."""
        ...

    def ended(self) -> str:
        """Read on to the end: the code that it tells."""
        ...

    def close(self) -> None: ...


class ServerSent:
    """Over HTTP/1.1."""

    def __init__(self, person: Newcomer) -> None:
        self._client = person.client()
        self._answer: http.client.HTTPResponse = self._client.ask(
            "GET", PATH, headers={"Accept": "text/event-stream"}
        )
        assert self._answer.status == 200, self._answer.read()

    def next(self) -> dict[str, Any]:
        found: dict[str, Any] | None = None
        while line := self._answer.readline().decode():
            if line.startswith("data: "):
                found = json.loads(line.removeprefix("data: "))
            elif line == f": {HEARTBEAT}\n":
                found = {"kind": HEARTBEAT}
            elif line == "\n" and found is not None:
                return found
        raise EOFError

    def ended(self) -> str:
        code = ""
        while True:
            try:
                code = self.next().get("code", code)
            except EOFError:
                return code

    def close(self) -> None:
        self._answer.close()
        self._client.close()


class Socket:
    """Over a WebSocket that sends no ping of its own: what keeps it alive is the gateway's."""

    def __init__(self, person: Newcomer) -> None:
        self._leaving = ExitStack()
        asked = person.client().websocket(f"{PATH}/ws", ping_interval=None)
        self._socket: ClientConnection = self._leaving.enter_context(asked)

    def next(self) -> dict[str, Any]:
        return dict(json.loads(self._socket.recv(TIMEOUT_S)))

    def ended(self) -> str:
        while True:
            try:
                self.next()
            except ConnectionClosed as closed:
                return "" if closed.rcvd is None else closed.rcvd.reason

    def close(self) -> None:
        self._leaving.close()


WAYS: dict[str, type[ServerSent | Socket]] = {"server-sent": ServerSent, "websocket": Socket}


class Newcomer:
    """Somebody new, logged in through a front, with a place of their own where nobody else does anything."""

    def __init__(self, site: Site, front: str) -> None:
        self._site, self._front = site, front
        self._address = f"127.0.0.{next(_ADDRESSES)}"
        self._cookie = ""
        name, password = f"follower-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        owner = site.client("nginx", GATEWAY, address="127.0.0.6")
        owner.cookie = site.owner_cookie
        owner.call("POST", "/v1/users", {"username": name, "password": password, "role": "user"})
        owner.close()
        own = self.client()
        self._cookie = own.log_in(name, password)
        self._site_id = own.call("GET", "/v1/sites")["items"][0]["id"]
        own.close()

    def client(self) -> Client:
        made = self._site.client(self._front, GATEWAY, address=self._address)
        made.cookie = self._cookie
        return made

    def rename(self, name: str) -> None:
        """Something happens: `site.changed`."""
        own = self.client()
        own.call("PATCH", f"/v1/sites/{self._site_id}", {"name": name})
        own.close()

    def log_out(self) -> None:
        own = self.client()
        own.ask("POST", "/v1/logout", b"").read()
        own.close()

    @property
    def cookie(self) -> str:
        return self._cookie

    @property
    def address(self) -> str:
        return self._address


class Quiet:
    """Streams to which nothing happens, one of each kind through each front; `opened_at` is monotonic."""

    def __init__(self, site: Site, fronts: Sequence[str]) -> None:
        self.people = {front: Newcomer(site, front) for front in fronts}
        self.streams: dict[str, list[Stream]] = {front: [] for front in fronts}
        self.opened_at = 0.0
        self._leaving = ExitStack()

    def start(self) -> None:
        for front, person in self.people.items():
            for way in WAYS.values():
                stream = way(person)
                self._leaving.callback(stream.close)
                assert stream.next()["kind"] == "ready"
                self.streams[front].append(stream)
        self.opened_at = time.monotonic()

    def close(self) -> None:
        self._leaving.close()
