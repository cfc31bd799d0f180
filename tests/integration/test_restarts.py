"""kill -9 of everything, one after the other and all at once: it comes back unaided."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from testbed.people import Person, Visitor
from testbed.processes import ROOT
from testbed.up import PROCESSES, STOP_TIMEOUT_S, Stack
from testbed.waiting import eventually
from towline.embedded.leftovers import PidFile, is_running

Visit = Callable[[dict[str, Any]], Visitor]


def opens(visitor: Visitor) -> bool:
    return visitor.http.get("/").status_code == 200


def new_session(person: Person) -> dict[str, Any]:
    return person.open_session(person.device()["id"])


def enters(visit: Visit, person: Person) -> bool:
    """A node whose feed was silent lets nobody in until it is back, and says so; nothing else is taken."""
    try:
        return opens(visit(new_session(person)))
    except httpx.HTTPStatusError as refused:
        if refused.response.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise AssertionError("a refusal that no outage explains") from refused
        return False


def is_online(person: Person) -> bool:
    return bool(person.device()["online"])


def test_kill_9_of_each_process_and_then_of_everything(
    own: Stack, visit: Visit, record_property: Callable[[str, object], None]
) -> None:
    record_property("first_start_s", own.start())
    person = own.newcomer()
    visitor = visit(new_session(person))
    assert opens(visitor)
    for name in PROCESSES:
        own.kill_process(name)
        # The session that was open before goes on, and a new one can be opened.
        eventually(f"the page after {name}", lambda: opens(visitor))
        eventually(f"the device online after {name}", lambda: is_online(person))
        eventually(f"a session after {name}", lambda: enters(visit, person))

    address = own.address
    own.kill()
    record_property("second_start_s", own.start())
    assert own.address == address
    assert [one["name"] for one in person.devices()] == ["Demo device"]
    assert opens(visitor)
    known = {name: PidFile(own.data / "run" / f"{name}.pid").read() for name in PROCESSES}
    assert own.stop() == 0
    for name, process in known.items():
        assert process is not None
        assert not is_running(*process), name
    person.close()


def test_another_port_at_the_next_start(own: Stack) -> None:
    own.start()
    assert own.stop() == 0
    own.ports = Stack(own.data).ports
    own.start()
    person = own.newcomer()
    eventually("the device online", lambda: is_online(person))
    person.close()


def test_without_a_demo_device(own: Stack) -> None:
    own.start("--no-demo")
    person = own.newcomer()
    assert person.devices() == []
    person.close()


def test_a_second_one_on_the_same_folder_is_refused(shared: Stack) -> None:
    done = subprocess.run(
        shared.command(), cwd=ROOT, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert "another `towline up` (process " in done.stderr
    assert str(shared.data) in done.stderr


@pytest.mark.parametrize("part", ["gateway", "visitors"])
def test_a_port_in_use_is_named_with_its_flag(own: Stack, part: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        own.ports[part] = other.getsockname()[1]
        done = subprocess.run(
            own.command(), cwd=ROOT, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False
        )
    assert done.returncode == 1
    assert f"port {own.ports[part]} ({part}) is in use by another program" in done.stderr
    assert ("--port" if part == "gateway" else "--listen visitors=PORT") in done.stderr


def test_a_stop_while_it_starts(own: Stack) -> None:
    process = subprocess.Popen(own.command(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "database ready" in line:
            break
    process.terminate()
    assert process.wait(STOP_TIMEOUT_S) == 0
    process.stdout.close()
    assert own.start() > 0


def test_a_revoked_device_is_out_at_once_and_for_good(own: Stack, visit: Visit) -> None:
    own.start()
    person = own.newcomer()
    device = person.device()["id"]
    visitor = visit(person.open_session(device))
    assert opens(visitor)
    revoked = own.cli("revoke", "device", "Demo device")
    assert revoked.returncode == 0, revoked.stderr
    eventually("the session ended", lambda: not opens(visitor), 2)
    assert person.device()["status"] == "revoked"
    answer = person.http.post(f"/v1/devices/{device}/sessions", json={"service": "web", "binding": "click"})
    assert answer.status_code == 409
    own.kill_process("agent")
    own.kill_process("tunnel_server")
    eventually("the server ready", lambda: not opens(visitor))
    assert not is_online(person)
    person.close()
