"""`python -m testbed.message_devices FOLDER`: many devices in one process, to be killed at any moment.

Each is the agent's own message side (outbox, ledger, connection), with an identity below FOLDER/NAME/state.
In place of sources that read something it has a talker, and it keeps a journal (testbed.loss_checker) of what
it had to say, what left its outbox and what it was told to be kept: each line is with the kernel before it is
true.

    FOLDER/plan.json       how they talk (`Plan`); read again and again
    FOLDER/standing.json   {device: {floor, entries, dropped, refused}}, written again and again
    FOLDER/executions      the id of each command that was executed, a line each time
    FOLDER/NAME/journal
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from device_protocol.envelope import Envelope, decode_stored
from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import Kind
from runtime import logs
from runtime.clock import SYSTEM_CLOCK
from runtime.metrics import Registry
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.messages import side
from tunnel_agent.messages.keeper import Keeper
from tunnel_agent.messages.outbox import KINDS, Outbox
from tunnel_agent.messages.policy.sending import Waiting
from tunnel_agent.messages.settings import CommandSettings, MessagesSettings, SourceSettings
from tunnel_agent.messages.side import MessageSide
from tunnel_agent.messages.writing import Writer

LOOK_EVERY_S: Final = 0.1
SYNC_EVERY_MS: Final = 400  # twenty of them share one disk
TOKENS_PER_LIFE: Final = 10**9
KINDS_SAID: Final = (Kind.TELEMETRY, Kind.TELEMETRY, Kind.STATE, Kind.EVENT)
NOTE: Final = "note"
"""The command that notes its id."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How each device talks. `every_s`: between two messages, about; None: not at all."""

    every_s: float | None = 0.2
    padding: int = 0
    """Bytes that each state and event has more."""

    @classmethod
    def read(cls, folder: Path) -> Plan:
        path = folder / "plan.json"
        return cls(**json.loads(path.read_text("ascii"))) if path.exists() else cls()

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        _replace(folder / "plan.json", json.dumps(asdict(self)))


class _Notes:
    """The journal's pen."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, *lines: Sequence[object]) -> None:
        """In one call to the kernel: a kill does not cut it in two."""
        os.write(self._descriptor, b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines))


class _Party:
    """All devices of the process. The classes below find themselves here, by the device's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = sorted(path.name for path in folder.iterdir() if (path / "state").is_dir())
        self.notes = {name: _Notes(folder / name / "journal") for name in self.names}
        self.outboxes: dict[str, Outbox] = {}
        self.plan = Plan.read(folder)
        self.life = time.time_ns() // 1_000_000_000 % 1_000_000

    async def look(self) -> None:
        """Until cancelled."""
        while True:
            self.plan = Plan.read(self.folder)
            standing = {
                name: {"floor": outbox.floor, **outbox.report().dump()}
                for name, outbox in sorted(self.outboxes.items())
            }
            _replace(self.folder / "standing.json", json.dumps(standing))
            await asyncio.sleep(LOOK_EVERY_S)


class _NotedOutbox(Outbox):
    """Notes what it gives out to be sent."""

    def __init__(self, party: _Party, directory: Path, most_bytes: int) -> None:
        super().__init__(directory, most_bytes)
        name = directory.parents[2].name  # NAME/state/messages/outbox
        self._notes = party.notes[name]
        self._noted = NOTHING
        party.outboxes[name] = self

    def read(self, after: Number, messages: int, size: int) -> list[Waiting]:
        found = super().read(after, messages, size)
        new = [entry for entry in found if entry.number > self._noted]
        self._notes.write(
            *(("sent", *entry.number, decode_stored(KINDS[entry.kind], entry.body).id) for entry in new)
        )
        self._noted = max([self._noted, *(entry.number for entry in new)])
        return found


class _NotedKeeper(Keeper):
    """Notes what it is told."""

    def __init__(self, party: _Party, outbox: Outbox, *arguments: Any, **more: Any) -> None:
        super().__init__(outbox, *arguments, **more)
        self._notes = party.notes[outbox.directory.parents[2].name]

    def accepted(self, number: Number) -> None:
        if number != NOTHING:
            self._notes.write(("told", *number))
        super().accepted(number)


class _Talker:
    """In place of a source: it is named after its device, and says what the plan wants."""

    def __init__(self, party: _Party, name: str, _settings: SourceSettings) -> None:
        self.name = name
        self._party = party
        self._token = party.life * TOKENS_PER_LIFE

    async def run(self, writer: Writer, offer: Callable[..., bool]) -> None:
        """Until cancelled."""
        while True:
            plan = self._party.plan
            if plan.every_s is None:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            await asyncio.sleep(plan.every_s * random.uniform(0.5, 1.5))
            self._say(writer, offer, plan.padding)

    def _say(self, writer: Writer, offer: Callable[..., bool], padding: int) -> None:
        self._token += 1
        kind = random.choice(KINDS_SAID)
        body: dict[str, Any] = {"values": {"token": self._token}}
        if padding and kind is not Kind.TELEMETRY:  # whose texts are short
            body["padding"] = "x" * padding
        said: Envelope = writer.write(kind, body)
        self._party.notes[self.name].write(("offered", said.id, self._token))
        offer(said, urgent=kind is Kind.EVENT)  # where there is no room it is not said


def note_program(folder: Path) -> tuple[str, ...]:
    """Notes the command's id, and goes on for a while: a kill is likely to come before its end."""
    return ("/bin/sh", "-c", f'echo "$TOWLINE_COMMAND" >> {folder}/executions; sleep 0.5')


def settings(folder: Path, name: str) -> MessagesSettings:
    """Of one device: its talker, and one program."""
    return MessagesSettings(
        enabled=True,
        sync_every_ms=SYNC_EVERY_MS,
        sources={name: SourceSettings(exec=("/bin/true",))},
        commands={NOTE: CommandSettings(exec=note_program(folder))},
    )


async def run(folder: Path) -> None:
    """Until the process ends."""
    party = _Party(folder)
    with (
        patch.object(side, "Outbox", partial(_NotedOutbox, party)),
        patch.object(side, "Keeper", partial(_NotedKeeper, party)),
        patch.object(side, "Source", partial(_Talker, party)),
    ):
        async with asyncio.TaskGroup() as group:
            for name in party.names:
                state = folder / name / "state"
                identity = partial(_same, await asyncio.to_thread(IdentityStore(state).load))
                own = settings(folder, name)
                message_side = MessageSide(own, state, identity, SYSTEM_CLOCK, Registry())
                group.create_task(message_side.run(), name=name)
            group.create_task(party.look(), name="look")


def _same(identity: Identity) -> Identity:
    return identity


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, "ascii")
    new.replace(path)


if __name__ == "__main__":
    logs.configure("devices", "info")
    asyncio.run(run(Path(sys.argv[1])))
