"""From the device's messages to the API and back, through `towline up` as it is: embedded broker and log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from testbed.people import Person
from testbed.processes import ROOT
from testbed.services import CALL_S
from testbed.up import Stack
from testbed.waiting import eventually
from towline.data_folder import DataFolder
from towline.launcher.config_files import GATEWAY_PASSWORD, INGEST_PASSWORD
from tunnel_agent.gateway_client import GatewayClient as AgentGateway
from tunnel_agent.identity import IdentityStore
from tunnel_agent.messages.connection import ask

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
    eventually("the device is there", lambda: state(owner)["connection"]["online"])
    done = command(owner, "ping")
    assert done["state"] == "succeeded", done
    times = [done[f"{step}_at"] for step in ("created", "sent", "delivered", "finished")]
    assert all(times), done


def test_one_id_finds_a_command_on_its_whole_way(stack: Stack, owner: Person) -> None:
    """Six hops, each with its time and in their order; and the log lines of the gateway and the agent."""
    eventually("the device is there", lambda: state(owner)["connection"]["online"])
    done = command(owner, "ping")
    hops = {hop["hop"]: hop for hop in done["hops"]}
    assert list(hops) == ["stored", "published", "received", "done", "logged", "finished"]
    assert all(hop["at"] for hop in hops.values()), hops
    assert hops["logged"]["place"].count("/") == 2
    for clock in ("gateway", "device"):
        times = [hop["at"] for hop in hops.values() if hop["clock"] == clock]
        assert times == sorted(times)
    trace = done["trace"].split("-")[1]
    logs = "".join(path.read_text() for path in (stack.data / "logs").glob("*.log"))
    said = {
        (line["logger"], line["event"])
        for line in map(json.loads, (line for line in logs.splitlines() if trace in line))
    }
    for wanted in (
        ("gateway.commands", "a command is made"),
        ("gateway.commands", "a command was published"),
        ("tunnel_agent.messages.commands", "command begins"),
        ("tunnel_agent.messages.commands", "command ended"),
        ("gateway.commands", "a device answered a command"),
    ):
        assert wanted in said, said


def test_the_command_line_shows_what_the_device_says_and_does(stack: Stack, owner: Person) -> None:
    eventually("telemetry", lambda: state(owner).get("telemetry"))
    asked = stack.cli("command", "Demo device", "ping")
    assert asked.returncode == 0, asked.stderr
    states = [line.split()[0] for line in asked.stdout.splitlines()[1:]]
    assert states == ["queued", "sent", "delivered", "succeeded"]
    refused = stack.cli("command", "Demo device", "log_level", "--param", "level=loud")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "bad_parameter" in refused.stderr
    shown = stack.cli("device", "Demo device").stdout
    assert "messages  connected since" in shown
    assert "temperature" in shown
    assert "ping" in shown
    assert "succeeded" in shown


def numbers(owner: Person) -> list[tuple[int, int]]:
    """(boot, seq) of everything that is stored, oldest first."""
    found, cursor = [], ""
    while True:
        page = owner.call("GET", f"/v1/devices/{device(owner)}/history?limit=100{cursor}")
        found += [(one["boot"], one["seq"]) for one in page["items"]]
        if page["next_cursor"] is None:
            return sorted(found)
        cursor = f"&cursor={page['next_cursor']}"


def test_messages_survive_the_end_of_each_process(stack: Stack, owner: Person) -> None:
    """kill -9 of each in turn: what was accepted is stored once, and the line goes on."""
    eventually("telemetry", lambda: state(owner).get("telemetry"))
    known = {boot for boot, _ in numbers(owner)}
    for name in ("ingest", "gateway", "agent"):
        before = owner.call("GET", f"/v1/devices/{device(owner)}/history?kind=telemetry")["items"][0]
        stack.kill_process(name)

        def later(newest: dict[str, Any] = before) -> bool:
            found = owner.call("GET", f"/v1/devices/{device(owner)}/history?kind=telemetry")["items"][0]
            return bool((found["boot"], found["seq"]) > (newest["boot"], newest["seq"]))

        eventually(f"newer telemetry after {name}", later, 60.0)
        eventually(f"a ping after {name}", lambda: command(owner, "ping")["state"] == "succeeded")

    stored = numbers(owner)
    boots = {boot for boot, _ in stored}
    assert boots == {*known, max(known) + 1}  # the agent started once more
    for boot in boots:
        told = [seq for one, seq in stored if one == boot]
        assert told == list(range(1, len(told) + 1))  # none is missing, none is there twice


def test_what_is_said_over_https_comes_to_the_same_place(stack: Stack, owner: Person) -> None:
    """And what is wrong with it is told, listed, and stays so when it is tried again."""
    data = DataFolder(stack.data)
    identity = IdentityStore(data.agent_state).load()
    asked = ask(identity, AgentGateway(identity.gateway_url, identity.gateway_ca))
    assert asked.http is not None
    raw = json.dumps({"messages": [{"kind": "event", "message": "{}"}]}).encode()
    answer = AgentGateway(asked.http.origin).say(asked.http.path, raw, bearer=asked.http.token)
    assert answer["refused"] == [{"id": None, "reason": "bad_schema"}]
    path = f"/v1/dead-letters?site_id={owner.device()['site']['id']}"
    eventually("a dead letter", lambda: owner.call("GET", path)["items"])
    [letter] = owner.call("GET", path)["items"]
    assert (letter["reason"], letter["device_id"]) == ("bad_schema", device(owner))
    command = [
        sys.executable,
        "-m",
        "towline",
        "ingest",
        "replay",
        "--config",
        str(data.config / "ingest.toml"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CALL_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 dead letters: 0 stored, 0 were stored already\n  1 stay (bad_schema: " in done.stdout


def test_no_password_of_the_broker_is_kept_or_told(stack: Stack, owner: Person) -> None:
    """But in the folder of secrets, and by its hash."""
    data = DataFolder(stack.data)
    identity = IdentityStore(data.agent_state).load()
    asked = ask(identity, AgentGateway(identity.gateway_url, identity.gateway_ca))
    assert asked.broker is not None
    assert asked.broker.password is not None
    assert asked.http is not None
    own = [data.secrets / name for name in (INGEST_PASSWORD, GATEWAY_PASSWORD)]
    secrets = [path.read_text("utf-8").strip() for path in own]
    secrets += [asked.broker.password, asked.http.token]
    # All three log in again, the device with a password that has just ended: it asks for another.
    stack.kill_process("ingest")
    eventually("a ping afterwards", lambda: command(owner, "ping")["state"] == "succeeded", 60.0)
    files = [path for path in stack.data.rglob("*") if path.is_file() and data.secrets not in path.parents]
    assert any("broker-login" in text_of(path) for path in (stack.data / "logs").iterdir())
    hits = [str(path) for path in files for secret in secrets if secret in text_of(path)]
    assert hits == []


def text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except FileNotFoundError:  # the database's, which come and go
        return ""
