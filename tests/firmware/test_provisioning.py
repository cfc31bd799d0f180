"""A simulator that belongs to nobody is set up by a phone: by who knows its PIN, as long as it is needed."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from testbed.ports import LOOPBACK, free_port
from testbed.processes import Processes, short_folder
from testbed.waiting import eventually
from tests.firmware.page_device import OURS, PIN
from tests.firmware.provisioning_client import PRIME, Phone, Refused, field, padded

pytestmark = pytest.mark.xdist_group("firmware-provisioning")

GATEWAY: Final = "https://gateway.example"
TOKEN: Final = "registration-token"
WRONG_PIN: Final = "00000000"
TRIES: Final = 5
DONE, UNDER_WAY, NOT_ASKED = 0, 1, 2
INVALID_ARGUMENT: Final = 4


class Unclaimed:
    def __init__(self, program: Path, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._processes = Processes(folder)
        command = [str(program), "--data", str(folder / "data"), "--listen", self.url.removeprefix("http://")]
        self._command = [*command, "--provisioning", f"{LOOPBACK}:{self.port}", "--pin", PIN]

    def start(self) -> None:
        self._processes.run("device", self._command)
        self._processes.wait_ready("device", lambda: httpx.get(self.url).status_code == httpx.codes.OK)

    def restart(self) -> None:
        self._processes.kill("device")
        self.start()

    def settings(self) -> Any:
        with httpx.Client(base_url=self.url, headers=OURS, timeout=20) as client:
            client.post("/api/login", json={"pin": PIN}).raise_for_status()
            return client.get("/api/settings").json()

    def phone(self, pin: str = PIN, **words: Any) -> closing[Phone]:
        return closing(Phone(self.port, pin, **words))

    def refuses(self) -> bool:
        with self.phone() as phone:
            try:
                phone.version()
            except OSError:
                return True
        return False

    def check_runs(self) -> None:
        self._processes.check_runs("device")

    def close(self) -> None:
        self._processes.close()


@contextmanager
def running(asan: Path) -> Iterator[Unclaimed]:
    with short_folder("claim-") as folder:
        one = Unclaimed(asan / "port" / "towline-device", folder)
        try:
            one.start()
            yield one
            one.check_runs()
        finally:
            one.close()


@pytest.fixture(scope="module")
def standing(asan: Path) -> Iterator[Unclaimed]:
    """One device for all that leaves it as it is."""
    with running(asan) as one:
        yield one


@pytest.fixture
def device(asan: Path) -> Iterator[Unclaimed]:
    with running(asan) as one:
        yield one


def test_a_phone_sets_it_up(device: Unclaimed) -> None:
    with device.phone() as phone:
        told = phone.version()["prov"]
        assert (told["sec_ver"], told["sec_patch_ver"]) == (2, 1)
        phone.open()
        assert phone.wifi_state() == NOT_ASKED
        assert phone.set_wifi(b"Home", b"correct horse") == 0
        assert device.settings()["ssid"] == ""
        assert phone.apply_wifi() == 0
        eventually("it joined", lambda: phone.wifi_state() == DONE)
        assert phone.towline(gateway=GATEWAY, token=TOKEN, name="Küche") == {}
        found = device.settings()
        assert (found["ssid"], found["gateway"], found["name"]) == ("Home", GATEWAY, "Küche")
        device.restart()
        found = device.settings()
        assert (found["ssid"], found["gateway"], found["name"]) == ("Home", GATEWAY, "Küche")


def test_it_closes_when_nobody_is_needed_any_more(device: Unclaimed) -> None:
    with device.phone() as phone:
        phone.open()
        assert phone.set_wifi(b"Home", b"") == 0
        assert phone.apply_wifi() == 0
        assert phone.towline(gateway=GATEWAY, token=TOKEN) == {}
    eventually("it is closed", device.refuses)


def test_a_session_goes_on_with_its_cookie(standing: Unclaimed) -> None:
    with standing.phone() as phone:
        phone.open()
        phone.close()
        assert phone.wifi_state() == NOT_ASKED
        phone.close()
        phone.cookie = "session=1"
        with pytest.raises(Refused):
            phone.wifi_state()


def test_the_wrong_pin_gets_five_tries(device: Unclaimed) -> None:
    for _ in range(TRIES - 1):
        with device.phone(WRONG_PIN) as phone, pytest.raises(Refused):
            phone.open()
    with device.phone() as phone:
        phone.open()
    with device.phone(WRONG_PIN) as phone, pytest.raises(Refused):
        phone.open()
    eventually("it is closed", device.refuses)
    assert device.settings()["gateway"] == ""
    device.restart()
    with device.phone() as phone:
        phone.open()


def test_another_user_is_nobody(device: Unclaimed) -> None:
    with device.phone(user=b"wifiprov") as phone, pytest.raises(Refused):
        phone.open()


@pytest.mark.parametrize("number", [0, PRIME], ids=["0", "N"])
def test_a_number_that_makes_the_key_known_is_refused(standing: Unclaimed, number: int) -> None:
    """RFC 5054, section 2.5.4."""
    with standing.phone() as phone:
        phone.public = padded(number)
        with pytest.raises(Refused):
            phone.begin()


def test_a_message_is_read_once_and_in_its_turn(standing: Unclaimed) -> None:
    with standing.phone() as phone:
        phone.open()
        sealed = phone.seal(field(10, b""))
        phone.post("/prov-config", sealed)
        with pytest.raises(Refused):
            phone.post("/prov-config", sealed)
        with pytest.raises(Refused):  # the session is over
            phone.ask("/prov-config", field(10, b""))
        phone.open()
        phone.next_nonce()
        with pytest.raises(Refused):
            phone.ask("/towline", b"{}")
        phone.open()
        broken = bytearray(phone.seal(b'{"gateway":"https://x","token":"t"}'))
        broken[3] ^= 1
        with pytest.raises(Refused):
            phone.post("/towline", bytes(broken))
    assert standing.settings()["gateway"] == ""


@pytest.mark.parametrize("path", ["/prov-config", "/towline"])
def test_without_a_session_nothing_is_taken(standing: Unclaimed, path: str) -> None:
    with standing.phone() as phone:
        for body in (b'{"gateway":"https://x","token":"t"}', b"x", os.urandom(300)):
            with pytest.raises(Refused):
                phone.post(path, body)


def test_what_is_no_setting_changes_nothing(standing: Unclaimed) -> None:
    with standing.phone() as phone:
        phone.open()
        assert phone.apply_wifi() == INVALID_ARGUMENT
        assert phone.set_wifi(b"", b"password") == INVALID_ARGUMENT
        assert phone.set_wifi(b"x" * 33, b"") == INVALID_ARGUMENT
        assert phone.set_wifi(b"a\0b", b"") == INVALID_ARGUMENT
        assert phone.set_wifi(b"Home", b"x" * 65) == INVALID_ARGUMENT
        assert phone.set_wifi(b"\xff\xfe", b"") == 0
        assert phone.apply_wifi() == INVALID_ARGUMENT  # not UTF-8: the core says no
        assert "gateway" in phone.towline(token=TOKEN)["error"]
        assert "gateway" in phone.towline(gateway="", token=TOKEN)["error"]
        assert "gateway" in phone.towline(gateway="https://a\r\nb", token=TOKEN)["error"]
        assert "gateway" in phone.towline(gateway=7, token=TOKEN)["error"]
        assert "token" in phone.towline(gateway=GATEWAY)["error"]
        assert "token" in phone.towline(gateway=GATEWAY, token="x" * 129)["error"]
        assert "name" in phone.towline(gateway=GATEWAY, token=TOKEN, name="x" * 33)["error"]
        assert "JSON" in str(phone.ask("/towline", b"[1]"))
        assert "JSON" in str(phone.ask("/towline", b'{"gateway":"a","gateway":"b"}'))
        assert phone.wifi_state() == NOT_ASKED
    found = standing.settings()
    assert (found["ssid"], found["gateway"], found["name"]) == ("", "", "")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff" * 40,
        field(2, 1) + field(12, b""),
        field(2, 2) + field(12, field(1, 9)),
        field(2, 2) + field(12, field(20, field(1, b"towline") + field(2, b"short"))),
        field(2, 2) + field(12, field(20, field(1, b"x" * 65) + field(2, bytes(384)))),
        field(2, 2) + field(12, field(1, 2) + field(22, field(1, bytes(64)))),
        field(2, 2) + field(12, field(20, field(2, bytes(384))))[:-5],
        field(2, 2) + b"\x62\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        field(2, 2) + b"\x80" * 12,
        b"\0" * 4096,
    ],
)
def test_what_is_no_handshake_is_refused(standing: Unclaimed, message: bytes) -> None:
    with standing.phone() as phone:
        with pytest.raises(Refused):
            phone.post("/prov-session", message)
        phone.open()


def test_what_is_no_request_is_refused(standing: Unclaimed) -> None:
    with standing.phone() as phone, pytest.raises(Refused):
        phone.post("/other", b"x")
    # No answer: the connection is cut.
    with standing.phone() as phone, pytest.raises((ConnectionError, http.client.HTTPException)):
        phone.post("/towline", bytes(5000))
    with standing.phone() as phone:
        phone.open()
