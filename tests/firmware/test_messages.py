"""The simulator's messages through a real Mosquitto with mTLS: nothing is lost, nothing is done twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.firmware.message_site import DEVICE, SETTLED_S, SimulatorSite

pytestmark = [pytest.mark.database, pytest.mark.xdist_group("firmware-messages")]

ROUNDS = 3
OWN_COMMANDS = {"ping", "log_level", "identify", "reboot"}


@pytest.fixture(scope="module")
def site(asan: Path) -> Iterator[SimulatorSite]:
    with short_folder("sim") as folder, started(SimulatorSite(folder, asan / "port/towline-device")) as made:
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
    for kill in (site.kill_broker, site.kill_device, None):
        before, kills = site.starts(), int(kill == site.kill_device)
        command = site.command("reboot")
        if kill is not None:
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


def test_it_says_goodbye(site: SimulatorSite) -> None:
    """The last: a device that is told to end keeps its will to itself, and what it had is kept."""
    site.gateways.processes.stop(DEVICE)
    rows = len(site.rows())
    site.gateways.processes.again(DEVICE)
    eventually("it goes on", lambda: len(site.rows()) > rows, SETTLED_S)
    check_nothing_is_missing(site)
