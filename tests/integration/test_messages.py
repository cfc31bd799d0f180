"""From the device's messages to the API and back, through `towline up` as it is: embedded broker and log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.people import Person
from testbed.up import Stack
from testbed.waiting import eventually

PING = {"name": "ping"}
WAIT_S = 20


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with closing(Stack(folder / "messages")) as running:
        running.start()
        yield running


@pytest.fixture
def owner(stack: Stack) -> Iterator[Person]:
    with closing(stack.newcomer()) as person:
        yield person


def device(owner: Person) -> str:
    found: str = owner.device()["id"]
    return found


def state(owner: Person) -> dict[str, Any]:
    answer: dict[str, Any] = owner.call("GET", f"/v1/devices/{device(owner)}/state")
    return answer


def command(owner: Person, name: str, **more: Any) -> dict[str, Any]:
    path = f"/v1/devices/{device(owner)}/commands?wait={WAIT_S}"
    answer: dict[str, Any] = owner.call("POST", path, {"name": name, **more})
    return answer


def test_the_demo_devices_readings_arrive(owner: Person) -> None:
    eventually("telemetry", lambda: state(owner).get("telemetry"))
    told = state(owner)["telemetry"]
    assert "temperature" in str(told["body"])
    history = owner.call("GET", f"/v1/devices/{device(owner)}/history?kind=telemetry")["items"]
    assert history
    numbers = [(one["boot"], one["seq"]) for one in history]
    assert numbers == sorted(set(numbers), reverse=True)


def test_a_command_is_acknowledged(owner: Person) -> None:
    eventually("the device is there", lambda: state(owner)["link"]["online"])
    done = command(owner, "ping")
    assert done["state"] == "succeeded", done
    times = [done[f"{step}_at"] for step in ("created", "sent", "delivered", "finished")]
    assert all(times), done


def test_messages_survive_the_end_of_each_process(stack: Stack, owner: Person) -> None:
    """kill -9 of each in turn: what was accepted is stored once, and the line goes on."""
    for name in ("ingest", "gateway", "agent"):
        before = owner.call("GET", f"/v1/devices/{device(owner)}/history?kind=telemetry")["items"][0]
        stack.kill_process(name)

        def later(newest: dict[str, Any] = before) -> bool:
            found = owner.call("GET", f"/v1/devices/{device(owner)}/history?kind=telemetry")["items"][0]
            return bool((found["boot"], found["seq"]) > (newest["boot"], newest["seq"]))

        eventually(f"newer telemetry after {name}", later, 60.0)
        eventually(f"a ping after {name}", lambda: command(owner, "ping")["state"] == "succeeded")
