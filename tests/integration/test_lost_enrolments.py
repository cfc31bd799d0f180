"""A device asks to join, and the answer never comes: the same token works again, and there is one device."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.people import Person
from testbed.processes import ROOT
from testbed.services import CALL_S
from testbed.up import Stack

WAIT_S = 20.0


class Swallowing:
    """A TCP relay to the gateway that takes every answer to the first connection and gives none."""

    def __init__(self, port: int) -> None:
        self._gateway = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.swallowed = threading.Event()
        self.go_on = threading.Event()  # the connection whose answer was lost may end
        self._thread = threading.Thread(target=self._relay_once, daemon=True)
        self._thread.start()

    def _relay_once(self) -> None:
        visitor, _ = self._listening.accept()
        with visitor, socket.create_connection(("127.0.0.1", self._gateway), WAIT_S) as gateway:
            gateway.settimeout(WAIT_S)
            asked = threading.Thread(target=self._ask, args=(visitor, gateway), daemon=True)
            asked.start()
            answer = gateway.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 201 "), answer
            self.swallowed.set()
            self.go_on.wait(WAIT_S)
            gateway.shutdown(socket.SHUT_RDWR)
            visitor.shutdown(socket.SHUT_RDWR)
            asked.join(WAIT_S)

    @staticmethod
    def _ask(visitor: socket.socket, gateway: socket.socket) -> None:
        try:
            while data := visitor.recv(65_536):
                gateway.sendall(data)
        except OSError:
            return  # the agent was killed, or we ended it

    def close(self) -> None:
        self.go_on.set()
        self._thread.join(WAIT_S)
        self._listening.close()


@contextmanager
def enrolling(folder: Path, gateway: str, token: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tunnel_agent", "enrol", gateway, "--token-file", str(token)]
    command += ["--state-dir", str(folder / "state"), "--hardware-id", folder.name]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=CALL_S)


@pytest.mark.parametrize("killed", [True, False], ids=["kill -9 of the agent", "the gateway goes"])
@pytest.mark.parametrize("approve", [True, False], ids=["approved", "pending"])
def test_a_second_try_with_the_same_token_is_the_same_device(
    shared: Stack, person: Person, tmp_path: Path, killed: bool, approve: bool
) -> None:
    token = tmp_path / "token"
    token.write_text(person.registration_token(approve=approve))
    token.chmod(0o600)
    before = {one["id"] for one in person.devices()}
    relay = Swallowing(shared.ports["gateway"])
    try:
        with enrolling(tmp_path, relay.url, token) as first:
            assert relay.swallowed.wait(WAIT_S)
            if killed:
                first.kill()
                relay.go_on.set()
            else:
                relay.go_on.set()
                said, _ = first.communicate(timeout=CALL_S)
                assert first.returncode != 0
                assert "run the command again" in said
    finally:
        relay.close()
    with enrolling(tmp_path, shared.gateway.replace("localhost", "127.0.0.1"), token) as second:
        (new,) = {one["id"] for one in person.devices()} - before
        if not approve:
            person.approve(new)
        said, _ = second.communicate(timeout=CALL_S)
        assert second.returncode == 0, said
        assert f"enrolled as {new};" in said
    assert {one["id"] for one in person.devices()} - before == {new}
    person.call("POST", f"/v1/devices/{new}/revoke")
