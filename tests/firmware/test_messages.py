"""The simulator's messages through a real Mosquitto with mTLS: nothing is lost, nothing is done twice."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.sign_firmware import TARGETS, make_image, public_point
from testbed.ports import LOOPBACK
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.firmware.message_site import DEVICE, SETTLED_S, SimulatorSite

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("firmware-messages")]

ROUNDS = 3
OWN_COMMANDS = {"ping", "log_level", "identify", "reboot", "update"}
KEY: Final = ec.generate_private_key(ec.SECP256R1())
TRIAL: Final = "1000,60000"  # ms: proven after a second, given up after a minute
CRASHES: Final = b"#!/bin/sh\nexit 3\n"


@pytest.fixture(scope="module")
def site(asan: Path) -> Iterator[SimulatorSite]:
    program = asan / "port/towline-device"
    options = ["--firmware-key", public_point(KEY.public_key()).hex(), "--trial", TRIAL]
    with short_folder("sim") as folder, started(SimulatorSite(folder, program, *options)) as made:
        yield made


def check_nothing_is_missing(site: SimulatorSite) -> None:
    """Of each boot every number from 1 on, in a row, and each message once."""
    rows = site.rows()
    for boot, found in groupby(rows, key=lambda row: row[0]):
        numbers = [seq for _, seq, _, _ in found]
        assert numbers == list(range(1, len(numbers) + 1)), f"boot {boot}"
    ids = [row[2] for row in rows]
    assert len(set(ids)) == len(ids)


def test_what_an_enrolled_device_says(site: SimulatorSite) -> None:
    site.goes_on()
    hello = site.hello()
    assert (hello["type"], hello["boot"]) == ("esp32", site.starts())
    assert set(hello["commands"]) >= OWN_COMMANDS
    eventually("a report of readings", lambda: "telemetry" in kinds(site), SETTLED_S)
    assert kinds(site) >= {"heartbeat", "telemetry", "state"}
    state = site.owner.call("GET", f"/v1/devices/{site.device}/state")
    health = state["heartbeat"]["body"]
    assert set(health) >= {"uptime_s", "memory", "outbox"}
    assert set(health["memory"]) == {"available", "min", "largest"}
    reading = state["telemetry"]["body"]["values"]["temperature_c"]
    assert set(reading) == {"n", "min", "max", "mean", "last"}
    assert reading["min"] <= reading["mean"] <= reading["max"]
    # Each is told in one report; a report that follows another at once has none.
    eventually("a health report with a sensor", lambda: sensors(site).get("window"), SETTLED_S)


def sensors(site: SimulatorSite) -> dict[str, Any]:
    heartbeat = site.owner.call("GET", f"/v1/devices/{site.device}/state")["heartbeat"]
    told: dict[str, Any] = heartbeat["body"].get("sensors", {})
    return told


def kinds(site: SimulatorSite) -> set[str]:
    return {kind for _, _, _, kind in site.rows()}


def test_a_configuration_is_in_force_and_one_that_is_not_taken_is_told(site: SimulatorSite) -> None:
    path = f"/v1/devices/{site.device}/configuration"

    def reported(version: int) -> Callable[[], bool]:
        return lambda: site.owner.call("GET", path)["reported"]["version"] == version

    wanted = {"health_every_s": 1, "report_s": 5, "log_level": "debug"}
    version = site.configure(wanted)
    eventually("it is in force", reported(version), SETTLED_S)
    site.kill_device()
    site.goes_on()
    assert reported(version)()
    assert site.hello()["config"] == version


def test_nothing_is_lost_whoever_is_killed(site: SimulatorSite, seed: int) -> None:
    """kill -9 of the device, of the broker, of both, at moments that differ."""
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        site.goes_on(chance.randrange(1, 4))
        for kill in chance.sample([site.kill_device, site.kill_broker], chance.randrange(1, 3)):
            kill()
    site.goes_on()
    check_nothing_is_missing(site)
    outbox = site.hello()["outbox"]
    assert (outbox["dropped"], outbox["refused"]) == (0, 0)


def test_a_reboot_that_is_asked_for_is_done_once(site: SimulatorSite) -> None:
    """Whatever is killed on the way: the command comes again until its end is known."""
    site.goes_on()
    for kill in (site.kill_broker, site.kill_device):
        before, kills = site.starts(), int(kill == site.kill_device)
        command = site.command("reboot")
        kill()
        assert site.outcome(command)["state"] == "succeeded"
        site.goes_on()
        assert site.starts() - before <= 1 + kills
        assert site.starts() > before
    check_nothing_is_missing(site)


def test_harmless_commands_and_what_is_refused(site: SimulatorSite) -> None:
    assert site.outcome(site.command("ping"))["state"] == "succeeded"
    told = site.outcome(site.command("log_level", {"level": "info"}))
    assert (told["state"], set(told["result"])) == ("succeeded", {"was"})
    assert site.outcome(site.command("identify"))["state"] == "succeeded"
    answer = site.owner.http.post(f"/v1/devices/{site.device}/commands", json={"name": "run", "params": {}})
    assert answer.json()["code"] == "unsupported_command"


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and where devices fetch from it."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer((LOOPBACK, 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://{LOOPBACK}:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def image(program: bytes, version: tuple[int, int, int]) -> bytes:
    words: dict[str, Any] = {"target": TARGETS["simulator"], "hardware": "simulator", "security": 1}
    return make_image(program, KEY, version=version, **words)


def offer(shelf: tuple[Path, str], made: bytes, version: str) -> dict[str, Any]:
    """Puts it there; the parameters of the command that wants it."""
    folder, url = shelf
    (folder / "image").write_bytes(made)
    digest = hashlib.sha256(made).hexdigest()
    return {"url": f"{url}/image", "size": len(made), "sha256": digest, "version": version}


def test_an_update_is_asked_for(site: SimulatorSite, asan: Path, shelf: tuple[Path, str]) -> None:
    """Refused for what it is; rolled back where it crashes; run where it proves itself."""
    wanted = offer(shelf, image(CRASHES, (0, 1, 5)), "0.1.5")
    wrong: dict[str, dict[str, Any]] = {
        "it is another image": {"sha256": "ab" * 32},
        "it has another size": {"size": wanted["size"] + 1},
        "it has another version": {"version": "0.1.6"},
        "no image is at that address": {"url": wanted["url"] + "s"},
        "it could not be fetched": {"url": "http://127.0.0.1:9/image"},
        "the address must be https://": {"url": "http://192.0.2.1/image"},
    }
    for why, change in wrong.items():
        found = site.outcome(site.command("update", wanted | change))
        assert (found["state"], found["error"]) == ("failed", why)
    site.gateways.processes.check_runs(DEVICE)
    crash = site.command("update", wanted)
    eventually("it crashed", lambda: site.gateways.processes[DEVICE].poll() is not None, SETTLED_S)
    site.gateways.processes.again(DEVICE)
    found = site.outcome(crash)
    assert (found["state"], found["error"]) == ("failed", "rolled_back")
    small = shelf[0] / "next"
    subprocess.run(["strip", "-o", small, asan / "port/towline-device-next"], check=True)
    good = site.command("update", offer(shelf, image(small.read_bytes(), (0, 2, 0)), "0.2.0"))
    assert site.outcome(good)["state"] == "succeeded"
    eventually("it says so", lambda: site.hello()["software"] == "towline-firmware/0.2.0", SETTLED_S)
    check_nothing_is_missing(site)


def test_it_says_goodbye(site: SimulatorSite) -> None:
    """The last: a device that is told to end keeps its will to itself, and what it had is kept."""
    site.gateways.processes.stop(DEVICE)
    rows = len(site.rows())
    site.gateways.processes.again(DEVICE)
    eventually("it goes on", lambda: len(site.rows()) > rows, SETTLED_S)
    check_nothing_is_missing(site)
