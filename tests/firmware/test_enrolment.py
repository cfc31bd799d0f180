"""The simulator at a real gateway: it is taken, refused, kept waiting; its certificate is renewed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from testbed.certificates import Authority
from testbed.gateways import Gateways
from testbed.nginx import gateways_behind, nginx_argv
from testbed.people import Person
from testbed.ports import LOOPBACK, free_port
from testbed.processes import Processes, short_folder, started
from testbed.programs import program
from testbed.services import service_argv
from testbed.waiting import eventually

pytestmark = pytest.mark.xdist_group("firmware-enrolment")

PATIENCE_S: Final = 60.0  # a device asks each 3 s, and after a failure within 10
ASK_S: Final = 10.0
DAYS_AGO: Final = 100  # a certificate has 90


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    with short_folder("enrol-") as folder, started(Gateways(folder)) as one:
        yield one


@pytest.fixture(scope="module")
def secure(gateways: Gateways) -> str:
    """The same gateway's address over TLS, by a CA of its own."""
    issued = gateways.authority.issue("front", "localhost")
    port = free_port()
    backend = f"{LOOPBACK}:{gateways.ports[0].public}"
    site = gateways_behind(f"{LOOPBACK}:{port}", [backend], (issued.chain, issued.key))
    gateways.processes.run("front", nginx_argv(gateways.folder, site))
    address = f"https://localhost:{port}"
    with httpx.Client(verify=gateways.trust) as client:
        eventually("TLS leads to the gateway", lambda: client.get(address + "/livez").status_code == 200)
    return address


@pytest.fixture(scope="module")
def owner(gateways: Gateways) -> Person:
    return gateways.owner()


class Device:
    """A simulator; what it keeps outlives its process."""

    def __init__(self, folder: Path, binary: Path, *options: object) -> None:
        self.name = folder.name
        self.processes = Processes(folder)
        self.page = free_port()
        self._folder = folder
        self._binary = binary
        self._options = [str(one) for one in options]

    def start(self, environment: dict[str, str] | None = None) -> None:
        argv = [str(self._binary), "--data", str(self._folder / "data")]
        argv += ["--listen", f"{LOOPBACK}:{self.page}", "--hardware-id", self.name, "--name", self.name]
        self.processes.run("device", [*argv, *self._options], environment)

    def token(self, text: str) -> None:
        (self._folder / "token").write_text(text + "\n")
        (self._folder / "token").chmod(0o600)
        self._options += ["--token-file", str(self._folder / "token")]

    def says(self, words: str) -> bool:
        self.processes.check_runs("device")
        return words in (self._folder / "device.log").read_text()

    def ends_enrolled(self) -> bool:
        """As a user ends it, so that the sanitizers have their say; then its folder is asked."""
        assert self.processes.stop("device") == 0, self.logs()
        argv = [str(self._binary), "--data", str(self._folder / "data"), "--enrolled"]
        return subprocess.run(argv, timeout=ASK_S, check=False).returncode == 0

    def logs(self) -> str:
        return self.processes.logs()

    def close(self) -> None:
        self.processes.close()


@pytest.fixture
def new_device(tmp_path: Path, asan: Path) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(*options: object, token: str | None = None, binary: Path | None = None) -> Device:
        folder = tmp_path / f"{tmp_path.name[:20].lower()}-{len(made)}"
        folder.mkdir()
        one = Device(folder, binary or asan / "port" / "towline-device", *options)
        made.append(one)
        if token is not None:
            one.token(token)
        return one

    yield make
    for one in made:
        one.close()


def found(owner: Person, device: Device) -> list[dict[str, Any]]:
    return [one for one in owner.devices() if one["name"] == device.name]


def wait_says(device: Device, words: str) -> None:
    try:
        eventually(f"the device says: {words}", lambda: device.says(words), PATIENCE_S)
    except AssertionError as missing:
        raise AssertionError(f"{missing}\n{device.logs()}") from missing


def serves_its_page(device: Device) -> bool:
    return httpx.get(f"http://{LOOPBACK}:{device.page}/").status_code == 200


def test_a_person_approves_it(
    gateways: Gateways, secure: str, owner: Person, new_device: Callable[..., Device]
) -> None:
    """Over TLS, by a gateway's own CA; it is killed while it waits, and goes on waiting for the same."""
    token = owner.registration_token(approve=False)
    device = new_device("--gateway", secure, "--gateway-ca", gateways.authority.ca, token=token)
    device.start()
    eventually("it asked", lambda: found(owner, device), PATIENCE_S)
    assert [one["status"] for one in found(owner, device)] == ["pending"]
    assert serves_its_page(device)
    device.processes.kill("device")
    device.start()
    owner.approve(found(owner, device)[0]["id"])
    wait_says(device, "enrolled: " + found(owner, device)[0]["id"])
    assert device.ends_enrolled()
    assert [one["status"] for one in found(owner, device)] == ["approved"]


def test_only_its_own_gateway_s_ca_is_believed(
    gateways: Gateways, secure: str, owner: Person, new_device: Callable[..., Device], tmp_path: Path
) -> None:
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger")
    named_otherwise = secure.replace("localhost", LOOPBACK)
    cases = [(secure, stranger.ca), (named_otherwise, gateways.authority.ca), (secure, None)]
    for address, ca in cases:
        options = ["--gateway", address] + ([] if ca is None else ["--gateway-ca", str(ca)])
        device = new_device(*options, token=owner.registration_token())
        device.start()
        wait_says(device, "not enrolled yet")
        assert serves_its_page(device)
        assert found(owner, device) == []
        assert not device.ends_enrolled()


def test_it_is_refused(gateways: Gateways, owner: Person, new_device: Callable[..., Device]) -> None:
    token = owner.registration_token()
    first = new_device("--gateway", gateways.url, token=token)
    first.start()
    wait_says(first, "enrolled: ")
    for given, why in ((token, "registration_token_used"), ("x" * 43, "registration_token_unknown")):
        second = new_device("--gateway", gateways.url, token=given)
        second.start()
        wait_says(second, f"not enrolled: {why}")
        assert serves_its_page(second)
        assert not second.ends_enrolled()


def test_its_owner_rejects_it(gateways: Gateways, owner: Person, new_device: Callable[..., Device]) -> None:
    device = new_device("--gateway", gateways.url, token=owner.registration_token(approve=False))
    device.start()
    eventually("it asked", lambda: found(owner, device), PATIENCE_S)
    owner.call("POST", f"/v1/devices/{found(owner, device)[0]['id']}/reject", {})
    wait_says(device, "not enrolled: ")
    assert not device.ends_enrolled()


def test_a_gateway_that_is_away(gateways: Gateways, owner: Person, new_device: Callable[..., Device]) -> None:
    token = owner.registration_token()
    gateways.processes.kill("gateway-0")
    device = new_device("--gateway", gateways.url, token=token)
    device.start()
    wait_says(device, "not enrolled yet")
    gateways.processes.again("gateway-0")
    gateways.wait_ready("gateway-0")
    wait_says(device, "enrolled: ")


def test_a_certificate_is_renewed_long_after_it_expired(
    gateways: Gateways, owner: Person, new_device: Callable[..., Device]
) -> None:
    """It lay in a drawer since its gateway took it."""
    device = new_device("--gateway", gateways.url, token=owner.registration_token())
    with gateway_of_the_past(gateways):
        device.start()
        wait_says(device, "enrolled: ")
        assert device.ends_enrolled()
    assert not device_was_renewed(owner, device)
    device.start()
    wait_says(device, "the certificate was renewed")
    assert device_was_renewed(owner, device)
    assert device.ends_enrolled()


@contextmanager
def gateway_of_the_past(gateways: Gateways) -> Iterator[None]:
    program("faketime", "faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    past = {"LD_PRELOAD": str(library), "FAKETIME": f"-{DAYS_AGO}d", "DONT_FAKE_MONOTONIC": "1"}
    start_anew(gateways, past)
    try:
        yield
    finally:
        start_anew(gateways, {})


def start_anew(gateways: Gateways, environment: dict[str, str]) -> None:
    gateways.processes.kill("gateway-0")
    gateways.processes.run("gateway-0", service_argv("gateway", gateways.config()), environment)
    gateways.wait_ready("gateway-0")


def device_was_renewed(owner: Person, device: Device) -> bool:
    [one] = found(owner, device)
    lines = owner.call("GET", f"/v1/sites/{one['site']['id']}/audit")["items"]
    about = [line["kind"] for line in lines if line["device"] and line["device"]["id"] == one["id"]]
    return "device.certificate_renewed" in about
