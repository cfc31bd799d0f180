"""The simulator takes images as a chip does: two slots, a trial, a rollback; something whole always runs."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.sign_firmware import HEAD_BYTES, TARGETS, make_image, public_point
from testbed.ports import LOOPBACK, free_port
from testbed.processes import Processes, short_folder
from testbed.waiting import eventually
from tests.firmware import image_vectors as vectors
from tests.firmware.attacked import SmallGateway
from tests.firmware.page_device import OURS, PIN

pytestmark = pytest.mark.xdist_group("firmware-updates")

KEY: Final = ec.generate_private_key(ec.SECP256R1())
SPARE: Final = ec.generate_private_key(ec.SECP256R1())
FOREIGN: Final = ec.generate_private_key(ec.SECP256R1())
HARDWARE: Final = "simulator"
FIRST: Final = "0.1.0"
NEXT: Final = (0, 2, 0)
STEADY_MS: Final = 300
CUT: Final = 86  # exit code of a process whose power was cut
CRASHES: Final = b"#!/bin/sh\nexit 3\n"  # what "crashes": executable, and no firmware
HANGS: Final = b"#!/bin/sh\nexec sleep 600\n"
WRITES_AT_MOST: Final = 60  # of a start and one change of the settings

Status = dict[str, Any]


class Updated:
    """A simulator that nobody enrolled: its page is all that an image on trial must reach."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.data = folder / "data"
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self.processes = Processes(folder)
        self._program = program

    def start(self, *options: str) -> None:
        """Until the page answers, or the process has ended."""
        keys = ["--firmware-key", public_point(KEY.public_key()).hex()]
        keys += ["--spare-key", public_point(SPARE.public_key()).hex()]
        command = [str(self._program), "--data", str(self.data), "--listen", self.url.removeprefix("http://")]
        command += ["--pin", PIN, "--trial", f"{STEADY_MS},{STEADY_MS * 10}", *keys, *options]
        self.processes.run("device", command)
        eventually("the device runs, or has ended", lambda: self.ended() or self.answers())

    def ended(self) -> bool:
        return self.processes["device"].poll() is not None

    def exit_code(self) -> int:
        return self.processes["device"].wait(20)

    def answers(self) -> bool:
        return httpx.get(self.url, timeout=5).status_code == httpx.codes.OK

    def kill(self) -> None:
        self.processes.kill("device")

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Logged in on the LAN."""
        with httpx.Client(base_url=self.url, headers=OURS, timeout=20) as client:
            client.post("/api/login", json={"pin": PIN}).raise_for_status()
            yield client

    def status(self) -> Status:
        with self.client() as client:
            found: Status = client.get("/api/status").json()
        return found

    def runs(self, version: str, firmware: str) -> bool:
        told = self.status()
        return (told["version"], told["firmware"]) == (version, firmware)

    def wait_runs(self, version: str, firmware: str) -> None:
        eventually(f"{version} is {firmware}", lambda: self.runs(version, firmware))

    def upload(self, image: bytes, query: str = "") -> httpx.Response:
        with self.client() as client:
            return client.post(f"/api/firmware{query}", content=image)

    def close(self) -> None:
        self.processes.close()


@pytest.fixture(scope="module")
def binary(asan: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The next version of the simulator, without what a debugger wants of it."""
    small = tmp_path_factory.mktemp("next") / "next"
    subprocess.run(["strip", "-o", small, asan / "port" / "towline-device-next"], check=True)
    return small.read_bytes()


@contextmanager
def running(asan: Path) -> Iterator[Updated]:
    with short_folder("update-") as folder:
        one = Updated(asan / "port" / "towline-device", folder)
        try:
            one.start()
            yield one
        finally:
            one.close()


@pytest.fixture
def device(asan: Path) -> Iterator[Updated]:
    with running(asan) as one:
        yield one


def image_of(binary: bytes, key: ec.EllipticCurvePrivateKey = KEY, **changes: Any) -> bytes:
    words: dict[str, Any] = {
        "target": TARGETS["simulator"],
        "hardware": HARDWARE,
        "version": NEXT,
        "security": 1,
    }
    return make_image(binary, key, **(words | changes))


def flipped(image: bytes, at: int) -> bytes:
    return image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]


def test_a_good_image_is_tried_and_kept(device: Updated, binary: bytes) -> None:
    assert device.runs(FIRST, "idle")
    answer = device.upload(image_of(binary))
    assert answer.status_code == httpx.codes.NO_CONTENT, answer.text
    device.wait_runs("0.2.0", "confirmed")
    device.kill()
    device.start()
    assert device.runs("0.2.0", "confirmed")
    # There is no way back, but to what is as safe: not even for whoever stands before it.
    older = device.upload(image_of(binary, version=(0, 1, 9)))
    assert (older.status_code, older.text.strip()) == (422, vectors.NOT_NEWER)
    unsafe = device.upload(image_of(binary, version=(0, 1, 9), security=0), "?force")
    assert (unsafe.status_code, unsafe.text.strip()) == (422, vectors.TOO_OLD)
    again = device.upload(image_of(binary), "?force")
    assert again.status_code == httpx.codes.NO_CONTENT, again.text
    eventually("it runs from the first slot again", lambda: (device.data / "image.0").exists())
    device.wait_runs("0.2.0", "confirmed")


BAD: Final[dict[str, tuple[Callable[[bytes], bytes], str]]] = {
    "signature": (lambda raw: flipped(raw, HEAD_BYTES - 1), vectors.BAD_SIGNATURE),
    "signed part": (lambda raw: flipped(raw, 14), vectors.BAD_SIGNATURE),
    "foreign key": (lambda raw: image_of(raw[HEAD_BYTES:], FOREIGN), vectors.UNKNOWN_KEY),
    "size": (lambda raw: raw + b"more", "It is not as long as it says."),
    "target": (lambda raw: image_of(raw[HEAD_BYTES:], target=TARGETS["esp32c3"]), vectors.OTHER_CHIP),
    "hardware": (lambda raw: image_of(raw[HEAD_BYTES:], hardware="board"), vectors.OTHER_HARDWARE),
    "version": (lambda raw: image_of(raw[HEAD_BYTES:], version=(0, 1, 0)), vectors.NOT_NEWER),
    "no image": (lambda raw: raw[HEAD_BYTES:], vectors.NO_IMAGE),
    "hash": (lambda raw: flipped(raw, len(raw) - 1), "It is not what was signed."),
}


@pytest.fixture(scope="module")
def offered(asan: Path) -> Iterator[Updated]:
    """One device for all that it refuses."""
    with running(asan) as one:
        yield one


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused(offered: Updated, name: str) -> None:
    spoil, why = BAD[name]
    answer = offered.upload(spoil(image_of(CRASHES * 100)))
    assert (answer.status_code, answer.text.strip()) == (422, why)
    assert offered.runs(FIRST, "idle")
    assert not (offered.data / "image.1").exists()


def test_the_spare_key_signs_as_well(device: Updated) -> None:
    assert device.upload(image_of(CRASHES, SPARE)).status_code == httpx.codes.NO_CONTENT


@pytest.mark.parametrize("cut", ["device", "client"])
def test_an_upload_that_is_cut_leaves_what_runs(device: Updated, binary: bytes, cut: str) -> None:
    image = image_of(binary)
    with device.client() as client:
        cookie = f"towline={client.cookies['towline']}"
    head = (
        f"POST /api/firmware HTTP/1.1\r\nHost: {device.url.removeprefix('http://')}\r\nX-Towline: 1\r\n"
        f"Cookie: {cookie}\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    with socket.create_connection((LOOPBACK, int(device.url.rpartition(":")[2]))) as line:
        line.sendall(head.encode() + image[: len(image) // 2])
        eventually("half of it came", lambda: device.status()["received"] >= len(image) // 4)
        assert device.status()["firmware"] == "receiving"
        assert "Another" in device.upload(image).text
        if cut == "device":
            device.kill()
    if cut == "device":
        device.start()
    device.wait_runs(FIRST, "idle")
    assert device.upload(image).status_code == httpx.codes.NO_CONTENT
    device.wait_runs("0.2.0", "confirmed")


def test_an_image_that_crashes_is_rolled_back(device: Updated) -> None:
    assert device.upload(image_of(CRASHES)).status_code == httpx.codes.NO_CONTENT
    assert device.exit_code() == 3
    device.start()
    assert device.runs(FIRST, "rolled_back")


def test_an_image_that_never_proves_itself_is_rolled_back(device: Updated) -> None:
    """It hangs; somebody pulls the plug."""
    assert device.upload(image_of(HANGS)).status_code == httpx.codes.NO_CONTENT
    program = Path(f"/proc/{device.processes.pid('device')}/comm")
    eventually("the image runs", lambda: program.read_text().strip() == "sleep")
    device.kill()
    device.start()
    assert device.runs(FIRST, "rolled_back")


async def test_an_image_that_does_not_reach_its_cloud_is_rolled_back(asan: Path, binary: bytes) -> None:
    """The device is enrolled, and its server is away: it runs well, and nobody can reach it."""
    gateway = SmallGateway(f"ws://{LOOPBACK}:{free_port()}")
    with short_folder("lost-") as folder:
        device = Updated(asan / "port" / "towline-device", folder)
        (folder / "token").write_text("t" * 43)
        try:
            device.start("--gateway", await gateway.start(), "--token-file", str(folder / "token"))
            await asyncio.to_thread(eventually, "it is enrolled", lambda: device.status()["device"])
            answer = await asyncio.to_thread(device.upload, image_of(binary))
            assert answer.status_code == httpx.codes.NO_CONTENT
            await asyncio.to_thread(device.wait_runs, "0.2.0", "trial")
            await asyncio.to_thread(device.wait_runs, FIRST, "rolled_back")
        finally:
            device.close()
            await gateway.close()


def test_the_power_goes_at_every_write_of_a_settings_change(asan: Path) -> None:
    with short_folder("cut-") as folder:
        device = Updated(asan / "port" / "towline-device", folder)
        try:
            device.start()
            device.kill()
            old, cuts = "", 0
            for write in range(1, WRITES_AT_MOST):
                new = f"name {write}"
                device.start("--cut-power-at", str(write))
                said = not device.ended() and _renamed(device, new)
                if not device.ended():
                    device.processes.signal("device", signal.SIGTERM)
                cuts += device.exit_code() == CUT
                device.start()
                found = _name(device)
                assert found == new if said else found in (old, new)
                old = found
                device.kill()
                if said:
                    break
            assert said
            assert cuts >= 4
        finally:
            device.close()


def _renamed(device: Updated, name: str) -> bool:
    """Whether the device said that it is durable."""
    try:
        with device.client() as client:
            return client.post("/api/settings", json={"name": name}).status_code == httpx.codes.NO_CONTENT
    except httpx.HTTPError:
        device.exit_code()
        return False


def _name(device: Updated) -> str:
    with device.client() as client:
        return str(client.get("/api/settings").json()["name"])
