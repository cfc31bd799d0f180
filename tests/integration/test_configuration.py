"""A device's configuration, from the API to the demo device's vent and back, through `towline up`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testbed.people import Person
from testbed.up import Stack
from testbed.waiting import eventually

BACK_S = 60.0  # for a process that was killed to be started anew, and for its connections


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with closing(Stack(folder / "configuration")) as running:
        running.start()
        yield running


@pytest.fixture
def owner(stack: Stack) -> Iterator[Person]:
    with closing(stack.newcomer()) as person:
        yield person


class Desk:
    """The owner, who looks at one device."""

    def __init__(self, owner: Person) -> None:
        self._owner = owner
        self._path = f"/v1/devices/{owner.device()['id']}"

    def put(self, **body: Any) -> int:
        made = self._owner.call("PUT", f"{self._path}/configuration", {"body": body})
        return int(made["desired"]["version"])

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = self._owner.call("GET", f"{self._path}/configuration")
        return found

    def runs(self, version: int) -> bool:
        found = self.get()
        said = found["reported"]
        return bool(said and said["version"] == version and not found["drift"] and not said["error"])

    def vent(self) -> object:
        """As the greenhouse measured it last."""
        said = self._owner.call("GET", f"{self._path}/state")["telemetry"]
        return None if said is None else said["body"]["values"]["vent"]["last"]


def test_the_demo_device_is_configured_and_shows_it(owner: Person) -> None:
    desk = Desk(owner)
    version = desk.put(vent=45, health_every_s=5)
    eventually("it runs with it", lambda: desk.runs(version))
    eventually("its readings show it", lambda: desk.vent() == 45)

    refused = desk.put(vent=101)
    eventually("it says why not", lambda: desk.get()["reported"]["told"] == refused)
    found = desk.get()
    assert found["drift"] is True
    assert found["reported"]["version"] == version
    assert found["reported"]["error"] == "answered 422: The vent is 0 to 100 percent, a whole number."

    undeclared = desk.put(door="open")
    eventually("it does not know that", lambda: desk.get()["reported"]["told"] == undeclared)
    assert desk.get()["reported"]["error"] == "door: not known here"
    assert desk.get()["reported"]["version"] == version


def test_it_gets_there_whatever_is_killed(stack: Stack, owner: Person) -> None:
    """kill -9 of each on the way, at once after it was set: no version is lost, none waits for a person."""
    desk = Desk(owner)
    for n, name in enumerate(("gateway", "ingest", "demo_device", "agent")):
        version = desk.put(vent=50 + n)
        stack.kill_process(name)
        eventually(f"version {version} after {name}", partial(desk.runs, version), BACK_S)
    eventually("its readings show the last", lambda: desk.vent() == 53, BACK_S)
