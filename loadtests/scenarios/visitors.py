"""Visitors as locust runs them: log in, ask for a session, click the link, use the device's page, leave.

Started by `loadtests.load`, which sets the environment below; `locust -f` works as well. The devices are demo
devices.

TOWLINE_LOAD_USERNAME, TOWLINE_LOAD_PASSWORD   who logs in
TOWLINE_LOAD_OWN_ADDRESSES                     1: every visitor comes from a loopback address of its own
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from locust import HttpUser, between, events, task
from locust.exception import StopUser
from requests.adapters import HTTPAdapter
from websocket import create_connection

from loadtests.scenarios.addresses import loopback_address, visitor_numbers

DURATION_S = 600
ASSETS = ("/app.js", "/style.css", "/favicon.svg")
UPLOAD_BYTES = 200_000
RANGE_BYTES = 256 * 1024
MESSAGES = 4  # of the live chart, a second's worth
SOCKET_TIMEOUT_S = 20.0


class OwnAddress(HTTPAdapter):
    """Connections from one source address."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


class Visitor(HttpUser):
    """One person with one open session at a time."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        self._session_id: str | None = None  # until the gateway gave one
        self._source = "127.0.0.1"
        if os.environ.get("TOWLINE_LOAD_OWN_ADDRESSES") == "1":
            self._source = loopback_address(next(visitor_numbers))
            self.client.mount("http://", OwnAddress(self._source))
        self._log_in()
        self._open()

    def on_stop(self) -> None:
        self._leave()

    # At the gateway

    def _log_in(self) -> None:
        login = {
            "username": os.environ["TOWLINE_LOAD_USERNAME"],
            "password": os.environ["TOWLINE_LOAD_PASSWORD"],
        }
        token = self._json("POST", "/v1/login", "login", json=login)["access_token"]
        self._bearer = {"Authorization": f"Bearer {token}"}

    def _open(self) -> None:
        page = self._json("GET", "/v1/devices?limit=200", "list devices", headers=self._bearer)
        device = random.choice([one for one in page["items"] if one["online"]])
        body = {"service": "web", "binding": "click", "duration_s": DURATION_S}
        path = f"/v1/devices/{device['id']}/sessions"
        made = self._json("POST", path, "ask for a session", json=body, headers=self._bearer)
        self._session_id = made["id"]
        self._click(made["url"])

    def _click(self, link: str) -> None:
        url = urlsplit(link)
        self._origin = f"{url.scheme}://{url.netloc}"
        self._site = self._origin
        if (url.hostname or "").endswith(".localhost"):  # this machine (RFC 6761), whatever the resolver says
            self._site = f"{url.scheme}://127.0.0.1:{url.port}"
        self._headers = {"Host": url.netloc}
        self.client.cookies.clear()
        self._get("/.towline/open", "landing page")
        with self._asked(
            "POST",
            "/.towline/open",
            "click the link",
            data={"token": url.fragment},
            headers={"Origin": self._origin},
            allow_redirects=False,
        ) as answer:
            if answer.status_code != HTTPStatus.SEE_OTHER:
                answer.failure(f"status {answer.status_code}")
                raise StopUser
        self._cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def _leave(self) -> None:
        """Ends the session at the gateway, where there is one."""
        if self._session_id is None:
            return
        path = f"/v1/sessions/{self._session_id}"
        self._session_id = None
        with self.client.delete(
            path, name="end the session", headers=self._bearer, catch_response=True
        ) as answer:
            if answer.status_code != HTTPStatus.NO_CONTENT:
                answer.failure(f"status {answer.status_code}")

    # On the device's page

    @task(10)
    def browse(self) -> None:
        self._get("/", "page")
        for asset in ASSETS:
            self._get(asset, "asset")
        self._get("/api/downloads", "data")

    @task(3)
    def fetch_a_range(self) -> None:
        downloads = self._get("/api/downloads", "data").json()
        largest = max(downloads, key=lambda one: int(one["size"]))
        start = random.randrange(0, largest["size"] - RANGE_BYTES)
        wanted = {"Range": f"bytes={start}-{start + RANGE_BYTES - 1}"}
        with self._asked("GET", f"/download/{largest['name']}", "range", headers=wanted) as answer:
            if answer.status_code != HTTPStatus.PARTIAL_CONTENT or len(answer.content) != RANGE_BYTES:
                answer.failure(f"status {answer.status_code}, {len(answer.content)} bytes")

    @task(2)
    def upload(self) -> None:
        name = f"load-{random.getrandbits(64):x}.bin"
        body, own = random.randbytes(UPLOAD_BYTES), {"Origin": self._origin}
        with self._asked("POST", f"/api/uploads?name={name}", "upload", data=body, headers=own) as answer:
            if answer.status_code != HTTPStatus.CREATED or answer.json()["size"] != UPLOAD_BYTES:
                answer.failure(f"status {answer.status_code}")
        with self._asked("DELETE", f"/uploads/{name}", "remove the upload", headers=own) as answer:
            if answer.status_code != HTTPStatus.NO_CONTENT:
                answer.failure(f"status {answer.status_code}")

    @task(2)
    def follow_the_log(self) -> None:
        """Server-sent events until the first one."""
        with self._asked("GET", "/api/log", "event stream", stream=True, timeout=SOCKET_TIMEOUT_S) as answer:
            lines = answer.iter_lines()
            if not any(line.startswith(b"data: ") for line in lines):
                answer.failure("the stream ended without an event")
            answer.close()

    @task(2)
    def watch_the_chart(self) -> None:
        """A WebSocket: the live chart's messages, and a command."""
        begun = time.perf_counter()
        failure: Exception | None = None
        try:
            self._chart()
        except Exception as error:
            failure = error  # locust counts it, with its name
        events.request.fire(
            request_type="WS",
            name="live chart: open, first message",
            response_time=(self._first_message - begun) * 1000 if failure is None else 0,
            response_length=0,
            exception=failure,
            context={},
        )

    def _chart(self) -> None:
        site = urlsplit(self._site)
        plain = socket.create_connection(
            (site.hostname, site.port), SOCKET_TIMEOUT_S, source_address=(self._source, 0)
        )
        chart = create_connection(
            f"ws://{self._headers['Host']}/api/live",
            socket=plain,
            origin=self._origin,
            cookie=self._cookie,
            timeout=SOCKET_TIMEOUT_S,
        )
        try:
            for number in range(MESSAGES):
                json.loads(chart.recv())
                if number == 0:
                    self._first_message = time.perf_counter()
            chart.send(json.dumps({"vent": random.randrange(101)}))
        finally:
            chart.close()

    @task(2)
    def go_to_another_device(self) -> None:
        self._leave()
        self._open()

    # Requests

    def _get(self, path: str, name: str) -> Any:
        with self._asked("GET", path, name) as answer:
            if answer.status_code != HTTPStatus.OK:
                answer.failure(f"status {answer.status_code}")
        return answer

    def _asked(self, method: str, path: str, name: str, *, headers: Any = None, **more: Any) -> Any:
        """A request to the session's own origin."""
        all_headers = {**self._headers, **(headers or {})}
        return self.client.request(
            method, self._site + path, name=name, headers=all_headers, catch_response=True, **more
        )

    def _json(self, method: str, path: str, name: str, **more: Any) -> Any:
        """A call of the gateway's API; without its answer the visitor cannot go on."""
        with self.client.request(method, path, name=name, catch_response=True, **more) as answer:
            if not answer.ok:
                answer.failure(f"status {answer.status_code}: {answer.text[:200]}")
                raise StopUser
            return answer.json()
