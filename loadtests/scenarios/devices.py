"""Devices as locust runs them: at the broker, by password, a message a second, each until it is accepted.

TOWLINE_LOAD_DEVICES   a file with the order of `loadtests.messages.talkers`: who connects where
"""

from __future__ import annotations

import json
import os
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from locust import User, constant_pacing, task

from loadtests.messages.wire import Device

ANSWER_S = 20.0  # a device would go on waiting; a person who measures need not
READ_BYTES = 65_536

_order: dict[str, Any] = json.loads(Path(os.environ["TOWLINE_LOAD_DEVICES"]).read_text())
_numbers = count()


class Talker(User):
    """One device with one connection."""

    fixed_count = len(_order["logins"])
    wait_time = constant_pacing(1.0)

    def on_start(self) -> None:
        number = next(_numbers) % self.fixed_count
        login = _order["logins"][number]
        self._device = Device(login["id"], login["prefix"], login["password"], number=number)
        self._socket = socket.socket()
        self._timed("connect to the broker", self._connect)

    def on_stop(self) -> None:
        self._socket.close()

    @task
    def speak(self) -> None:
        self._timed("message until accepted", self._speak)

    def _connect(self) -> None:
        self._socket = socket.create_connection((_order["host"], _order["port"]), ANSWER_S)
        self._socket.sendall(self._device.connect())
        while not self._device.ready:
            self._hear()

    def _speak(self) -> None:
        if not self._device.ready:
            self._connect()
        self._device.make(time.time_ns() // 1000)
        self._socket.sendall(self._device.due())
        while self._device.waiting:
            self._hear()

    def _hear(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the broker ended the connection")
        answer = self._device.receive(data, time.time_ns() // 1000)
        if answer:
            self._socket.sendall(answer)

    def _timed(self, name: str, call: Any) -> None:
        begun = time.perf_counter()
        failure: Exception | None = None
        try:
            call()
        except Exception as error:
            failure = error  # locust counts it, with its name
            self._device.ready = False  # the next one connects anew
        self.environment.events.request.fire(
            request_type="MQTT",
            name=name,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )
