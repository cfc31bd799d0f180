"""The simulator's MQTT against a real Mosquitto: who is trusted, and that leaving never takes long."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.keys.authority import Issued, load_authority
from testbed.mosquitto import Mosquitto
from testbed.ports import LOOPBACK, free_port
from testbed.processes import short_folder, started

DEVICE: Final = "d_soil"
TRIED_S: Final = 30
LEFT_MS: Final = 1000  # the core's one task is not held up; a busy machine may take its time


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[Mosquitto]:
    with short_folder("mqtt") as folder, started(Mosquitto(folder)) as server:
        yield server


class Trial:
    """The program of the sanitizers' build, and files for it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def run(self, host: str, port: int, ca: str, shown: Issued | None) -> list[str]:
        """What it said, without the time that leaving took, which is checked."""
        certificate = key = "-"
        if shown is not None:
            certificate = self.file("device.pem", shown.certificate_pem())
            key = self.file("device.key", shown.key_pem())
        argv = [str(self.program), host, str(port), ca, certificate, key, DEVICE]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TRIED_S, check=True)
        *said, left = done.stdout.split()
        assert int(left) < LEFT_MS
        return said


@pytest.fixture
def trial(asan: Path, tmp_path: Path) -> Trial:
    return Trial(asan / "tests/try-broker", tmp_path)


def test_a_device_with_its_certificate(mosquitto: Mosquitto, trial: Trial) -> None:
    ca = trial.file("ca.pem", mosquitto.server.pem().encode())
    said = trial.run(LOOPBACK, mosquitto.port, ca, mosquitto.issue_device(DEVICE))
    assert said == ["connected", "taken"]


def test_whom_the_broker_does_not_let_in(mosquitto: Mosquitto, trial: Trial, tmp_path: Path) -> None:
    ca = trial.file("ca.pem", mosquitto.server.pem().encode())
    assert trial.run(LOOPBACK, mosquitto.port, ca, None) == ["lost"]
    foreign = load_authority(tmp_path, "foreign", "Somebody's", 1_763_000_000.0)
    assert trial.run(LOOPBACK, mosquitto.port, ca, foreign.issue_client(DEVICE, 1_763_000_000.0)) == ["lost"]


def test_whom_the_device_does_not_trust(mosquitto: Mosquitto, trial: Trial) -> None:
    """Not by this CA, not by the system's, not under that name."""
    device = mosquitto.issue_device(DEVICE)
    right = trial.file("ca.pem", mosquitto.server.pem().encode())
    wrong = trial.file("devices.pem", mosquitto.devices.pem().encode())
    assert trial.run(LOOPBACK, mosquitto.port, wrong, device) == ["lost"]
    assert trial.run(LOOPBACK, mosquitto.port, "-", device) == ["lost"]
    assert trial.run("localhost", mosquitto.port, right, device) == ["lost"]


def test_a_broker_that_is_not_there_or_says_nothing(mosquitto: Mosquitto, trial: Trial) -> None:
    ca = trial.file("ca.pem", mosquitto.server.pem().encode())
    device = mosquitto.issue_device(DEVICE)
    assert trial.run(LOOPBACK, free_port(), ca, device) == ["lost"]
    with socket.create_server((LOOPBACK, 0)) as silent:
        assert trial.run(LOOPBACK, silent.getsockname()[1], ca, device) == ["silent"]
