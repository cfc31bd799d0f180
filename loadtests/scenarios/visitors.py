"""Visitors as locust runs them: log in, ask for a session, click the link, use the device's page, leave."""

from __future__ import annotations

import json
import random
import socket
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from locust import between, events, task
from websocket import create_connection

from loadtests.scenarios.callers import Caller

ASSETS = ("/app.js", "/style.css", "/favicon.svg")
UPLOAD_BYTES = 200_000
RANGE_BYTES = 256 * 1024
MESSAGES = 4  # of the live chart, a second's worth
SOCKET_TIMEOUT_S = 20.0


class Visitor(Caller):
    """One person with one open session at a time."""

    weight = 6
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        super().on_start()
        self._log_in()
        self._open(self._some_device())

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
        self._open(self._some_device())
