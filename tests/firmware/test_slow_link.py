"""What a visitor gets out of a small device far away: ESP32 windows and socket buffers over a line of 50 ms.

The whole product on networks of its own (tests/networks); behind the line the simulator, not the agent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.sign_firmware import TARGETS, make_image, public_point
from testbed.processes import START_S
from testbed.waiting import eventually
from tests.networks.world import GATEWAY_NAME, Person, World

ROUND_TRIP_MS: Final = 50
SOCKET_BUFFER: Final = 5_760  # bytes, lwIP's send buffer and window as IDF sets them
VISITORS: Final = 4  # as many as the device has streams
MEASURED_S: Final = 15.0
IMAGE_BYTES: Final = 600_000
OURS: Final = {"X-Towline": "1"}
# Far below what was measured on two cores that others use too: a fault shows, a loaded machine does not.
LEAST_REQUESTS_S: Final = 4.0
LEAST_KB_S: Final = 15.0
# A stream's window of 4 KiB a round trip is all that TCP and the tunnel together can let in.
MOST_UP_KB_S: Final = 1.5 * 4_096 / ROUND_TRIP_MS

Figures = Callable[[str, str], None]


class SmallDevice(World):
    """One simulator instead of the agent."""

    def __init__(self, program: Path) -> None:
        super().__init__("small")
        self._program = program
        self.firmware_key = ec.generate_private_key(ec.SECP256R1())

    def _start_device(self) -> None:
        """It serves itself."""

    def _enrol(self) -> None:
        token = self.folder / "device.token"
        token.write_text(self.call("POST", "/v1/registration-tokens", {"approve": True})["token"] + "\n")
        token.chmod(0o600)
        command = [str(self._program), "--data", str(self.folder / "device"), "--listen", "127.0.0.1:8080"]
        command += ["--gateway", f"https://{GATEWAY_NAME}", "--gateway-ca", str(self.authority.ca)]
        command += ["--token-file", str(token), "--hardware-id", "small", "--pin", "12345678"]
        command += ["--firmware-key", public_point(self.firmware_key.public_key()).hex()]
        command += ["--socket-buffer", str(SOCKET_BUFFER)]
        trust = {"SSL_CERT_FILE": str(self.authority.ca)}
        self.processes.run("simulator", self.net.device.argv(*command), os.environ | trust)
        eventually("the device is enrolled", self._is_known, START_S)

    def _is_known(self) -> bool:
        known = self.call("GET", "/v1/devices")["items"]
        self.device_id = known[0]["id"] if known else ""
        return bool(known)

    def wait_online(self, timeout_s: float = START_S) -> None:
        eventually("the tunnel", lambda: self.tunnels() == 1, timeout_s)
        eventually("the gateway says online", self.is_online, timeout_s)


@pytest.fixture(scope="module")
def far_device(simulator: Path) -> Iterator[SmallDevice]:
    world = SmallDevice(simulator / "port" / "towline-device")
    try:
        world.start()
        world.net.line.set(delay_ms=ROUND_TRIP_MS / 2)
        yield world
    finally:
        world.close()


def asked_for(visitor: Person, path: str, seconds: float) -> tuple[int, int]:
    """Answers and bytes of their bodies that one visitor gets, one after the other."""
    answers = size = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status, body = visitor.get(path, {"Accept-Encoding": "gzip"})
        assert status == 200, status
        answers, size = answers + 1, size + len(body)
    return answers, size


def together(visitors: list[Person], path: str) -> tuple[float, float]:
    """Requests and KB a second, of all of them."""
    with ThreadPoolExecutor(len(visitors)) as threads:
        got = list(threads.map(lambda one: asked_for(one, path, MEASURED_S), visitors))
    return sum(n for n, _ in got) / MEASURED_S, sum(size for _, size in got) / MEASURED_S / 1000


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_the_figures_of_a_far_device(far_device: SmallDevice, figures: Figures) -> None:
    with ExitStack() as stack:
        visitors = [far_device.visitor() for _ in range(VISITORS)]
        for visitor in visitors:
            stack.callback(visitor.close)
        measure(far_device, visitors, figures)


def measure(far_device: SmallDevice, visitors: list[Person], figures: Figures) -> None:
    alone, _ = together(visitors[:1], "/api/status")
    all_of_them, _ = together(visitors, "/api/status")
    _, one_kb_s = together(visitors[:1], "/")
    _, four_kb_s = together(visitors, "/")
    image = make_image(
        os.urandom(IMAGE_BYTES),
        far_device.firmware_key,
        target=TARGETS["simulator"],
        hardware="simulator",
        version=(0, 2, 0),
        security=1,
    )
    started = time.monotonic()
    answer = visitors[0].ask("POST", "/api/firmware", image, OURS)
    said = answer.read()
    up_kb_s = len(image) / (time.monotonic() - started) / 1000
    figures("requests/s, one visitor", f"{alone:.1f}")
    figures("requests/s, four visitors", f"{all_of_them:.1f}")
    figures("KB/s of pages, one visitor", f"{one_kb_s:.0f}")
    figures("KB/s of pages, four visitors", f"{four_kb_s:.0f}")
    figures("KB/s of an upload", f"{up_kb_s:.0f}")
    assert answer.status == 204, said
    assert alone > LEAST_REQUESTS_S
    assert all_of_them > alone
    assert min(four_kb_s, up_kb_s) > LEAST_KB_S
    assert up_kb_s < MOST_UP_KB_S
