"""A simulator that nobody enrolled, and its page on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from testbed.ports import LOOPBACK, free_port
from testbed.processes import Processes

PIN: Final = "24681357"
NAME: Final = "Greenhouse"
ANSWER_S: Final = 20.0  # on a loaded machine; a hang needs an end
OURS: Final = {"X-Towline": "1"}


class PageDevice:
    """Starts in a folder of its own; restarts of itself keep its address."""

    def __init__(self, program: Path, folder: Path, *options: str) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._program = program
        self._options = options
        self._folder = folder
        self._processes = Processes(folder)

    def start(self) -> None:
        address = self.url.removeprefix("http://")
        command = [str(self._program), "--data", str(self._folder / "data"), "--listen", address]
        self._processes.run("device", [*command, "--pin", PIN, "--name", NAME, *self._options])
        self._processes.wait_ready("device", self.answers)

    def answers(self) -> bool:
        return httpx.get(self.url).status_code == httpx.codes.OK

    @contextmanager
    def logged_in(self) -> Iterator[httpx.Client]:
        """A client that the device knows."""
        with httpx.Client(base_url=self.url, headers=OURS, timeout=ANSWER_S) as client:
            answer = client.post("/api/login", json={"pin": PIN})
            assert answer.status_code == httpx.codes.NO_CONTENT, answer.text
            yield client

    def kill(self) -> None:
        """kill -9, and gone."""
        self._processes.kill("device")

    def again(self) -> None:
        self._processes.again("device")
        self._processes.wait_ready("device", self.answers)

    def check_runs(self) -> None:
        self._processes.check_runs("device")

    def close(self) -> None:
        self._processes.close()

    def logs(self) -> str:
        return self._processes.logs()
