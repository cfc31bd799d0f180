"""Nothing that a device was told to be kept is lost, doubled or reordered, whichever process is killed."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable
from contextlib import closing
from typing import Final

import pytest

from device_protocol.numbers import NOTHING, Number
from runtime.private_files import write_private
from testbed.loss_checker import Row, faults, history
from testbed.people import Person
from testbed.up import Stack
from testbed.waiting import eventually
from towline.data_folder import DataFolder
from towline.toml_text import toml_text

SOURCES: Final = 12
"""Each reports once a second, the least that there is: so many messages a second are on their way."""
PARTS: Final = ("ingest", "ingest", "agent", "agent", "gateway", "postgres")
"""What is killed, as often in each round; the broker is in `ingest`, the log's twin in `postgres`."""
RECOVERY_S: Final = 90.0


class Device:
    """The demo device, talkative."""

    def __init__(self, stack: Stack, person: Person) -> None:
        self.stack = stack
        self.person = person
        self.id: str = person.device()["id"]
        self.told: list[Number] = []
        """What it was told to be kept, as far as it wrote that down."""
        self.heard: set[int] = set()
        """The starts of the agent of which something was surely kept."""

    def talk(self) -> None:
        """The agent starts anew with many sources in place of its one."""
        path = DataFolder(self.stack.data).config / "agent.toml"
        table = tomllib.loads(path.read_text("utf-8"))
        source = next(iter(table["messages"]["sources"].values()))
        often = {**source, "sample_s": 0.5, "report_s": 1.0}
        table["messages"]["sources"] = {f"source{n}": often for n in range(SOURCES)}
        write_private(path, toml_text(table).encode())
        self.stack.kill_process("agent")

    def accepted(self) -> Number:
        path = DataFolder(self.stack.data).agent_state / "messages" / "outbox" / "progress"
        if not path.exists():
            return NOTHING
        progress = json.loads(path.read_text("ascii"))
        assert (progress["dropped"], progress["refused"]) == (0, 0)
        number = Number(*progress["floor"])
        self.told.append(number)
        return number

    def goes_on(self) -> None:
        """More is accepted than was, and of the agent that runs now: not only what the former one left."""
        known = self.accepted()
        messages = DataFolder(self.stack.data).agent_state / "messages" / "outbox"

        def more() -> bool:
            number = self.accepted()
            return number > known and number.boot == int((messages / "boot").read_bytes())

        eventually("something new is accepted", more, RECOVERY_S)
        self.heard.add(self.accepted().boot)

    def rows(self) -> list[Row]:
        """The history, once it has all that the device has been told of until now."""
        until = self.accepted()

        def caught_up() -> list[Row]:
            rows = history(self.person, self.id)
            return rows if rows and rows[-1].number >= until else []

        return eventually("the consumer has caught up", caught_up, RECOVERY_S)


def kill(device: Device, rounds: int, chance: random.Random) -> int:
    """How often a process was killed."""
    victims = [*PARTS] * rounds
    chance.shuffle(victims)
    silent = False
    for name in victims:
        if name == "agent" and silent:  # each of its starts has its say
            device.goes_on()
        device.stack.kill_process(name)
        silent = silent or name == "agent"
        if chance.random() < 0.7:  # else the next one is killed before this one is well again
            device.goes_on()
            silent = False
    device.goes_on()
    return len(victims)


def prove(own: Stack, rounds: int, seed: int, figures: Callable[[str, str], None]) -> None:
    own.start()
    with closing(own.newcomer()) as person:
        device = Device(own, person)
        device.goes_on()
        device.talk()
        device.goes_on()
        kills = kill(device, rounds, random.Random(f"no loss {seed}"))
        rows = device.rows()
    figures("messages kept", f"{len(rows)} over {kills} kills")
    assert faults(rows, [number for number in device.told if number != NOTHING]) == []
    assert {row.number.boot for row in rows} >= device.heard
    assert len(device.heard) == 2 + 2 * rounds  # every start of the agent had its say


@pytest.mark.timeout(420)
def test_a_kill_of_each(own: Stack, seed: int, figures: Callable[[str, str], None]) -> None:
    prove(own, 1, seed, figures)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills(own: Stack, seed: int, figures: Callable[[str, str], None]) -> None:
    prove(own, 30, seed, figures)
