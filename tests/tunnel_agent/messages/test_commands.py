"""What a device does when it is told to: what was declared, once, with an answer for everything."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from device_protocol.bodies import Ack, Command, Stage
from device_protocol.ids import RANDOM_BYTES, uuid7
from runtime.clock import SYSTEM_CLOCK
from runtime.settings import from_table
from runtime.tasks import TaskOwner
from tests.tunnel_agent.node import Changing
from tunnel_agent.messages import commands as module
from tunnel_agent.messages.commands import OUTPUT_MAX, QUEUE_MAX, Commands
from tunnel_agent.messages.ledger import Ledger
from tunnel_agent.messages.settings import MessagesSettings

FAR_MS = 4_000_000_000_000
PYTHON = sys.executable


def python(text: str, **more: object) -> dict[str, object]:
    """A declared program."""
    return {"exec": [PYTHON, "-c", text], **more}


class Desk(Changing):
    """Commands with their ledger; `told` are the answers."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        super().__init__()
        self.told: list[Ack] = []
        self.outcomes: list[str] = []
        self.folder = folder
        self.ledger = Ledger(folder / "ledger", "this boot")
        self.ended = self.ledger.open(0)
        self.commands = Commands(
            from_table(MessagesSettings, settings, source=folder / "agent.toml"),
            self.ledger,
            SYSTEM_CLOCK,
            self._tell,
            self.outcomes.append,
        )
        self.tasks = TaskOwner("desk")
        self.tasks.start(self.commands.run(), "run")
        self._n = 0

    def _tell(self, ack: Ack, trace: str | None) -> None:
        self.told.append(ack)
        self.changed()

    def ask(
        self, what: str, /, *, n: int = 0, ttl_ms: int = 60_000, timeout_ms: int = 10_000, **params: Any
    ) -> str:
        """`n`: a command of before, else a new one."""
        self._n += 1
        command = uuid7(1, (n or 1000 + self._n).to_bytes(RANDOM_BYTES, "big"))
        self.commands.offer(Command(command, what, params, ttl_ms, FAR_MS, timeout_ms))
        return command

    async def answer(self, command: str) -> Ack:
        """The final one."""

        def final() -> list[Ack]:
            return [ack for ack in self.told if ack.command == command and ack.stage is not Stage.RECEIVED]

        await self.until(final)
        return final()[-1]

    def stages(self, command: str) -> list[Stage]:
        return [ack.stage for ack in self.told if ack.command == command]

    async def end(self) -> None:
        await self.tasks.close(5)
        self.ledger.close()


Open = Callable[[dict[str, object]], Desk]


@pytest.fixture
async def open_desk(folder: Path) -> AsyncIterator[Open]:
    desks: list[Desk] = []

    def start(settings: dict[str, object]) -> Desk:
        desks.append(Desk(folder, settings))
        return desks[-1]

    yield start
    for desk in desks:
        await desk.end()


async def test_a_ping_needs_no_disk_and_may_come_again(open_desk: Open) -> None:
    desk = open_desk({})
    command = desk.ask("ping", n=1)
    assert (await desk.answer(command)).ok
    assert desk.stages(command) == [Stage.RECEIVED, Stage.DONE]
    assert len(desk.ledger) == 0
    desk.ask("ping", n=1)
    await desk.until(lambda: len(desk.told) == 4)
    assert desk.outcomes == ["succeeded", "succeeded"]


async def test_a_program_runs_once_and_a_copy_gets_the_answer_again(open_desk: Open, folder: Path) -> None:
    mark = f"open({str(folder / 'mark')!r}, 'a').write('x'); print('did it')"
    desk = open_desk({"commands": {"mark": python(mark)}})
    command = desk.ask("run", n=1, name="mark")
    answer = await desk.answer(command)
    assert answer.result == {"code": 0, "output": "did it\n"}
    for _ in range(3):
        desk.ask("run", n=1, name="mark")
    assert desk.told[-3:] == [answer] * 3
    await desk.end()
    later = open_desk({"commands": {"mark": python(mark)}})
    later.ask("run", n=1, name="mark")
    assert later.told == [answer]
    assert (folder / "mark").read_text() == "x"


async def test_the_id_is_on_disk_before_anything_happens(open_desk: Open, folder: Path) -> None:
    look = f"print(open({str(folder / 'ledger')!r}).read())"
    desk = open_desk({"commands": {"look": python(look)}})
    command = desk.ask("run", name="look")
    answer = await desk.answer(command)
    assert command in answer.result["output"]


async def test_without_a_stored_id_nothing_happens(
    open_desk: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk({"commands": {"mark": python(f"open({str(folder / 'mark')!r}, 'w')")}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(desk.ledger, "take", full)
    command = desk.ask("run", n=1, name="mark")
    assert (await desk.answer(command)).error == "not_stored"
    monkeypatch.undo()
    desk.ask("run", n=1, name="mark")  # refused is refused
    assert desk.stages(command) == [Stage.REFUSED, Stage.REFUSED]
    assert not (folder / "mark").exists()


async def test_what_a_crash_cut_off_is_not_tried_again(open_desk: Open) -> None:
    slow: dict[str, object] = {"commands": {"slow": python("import time; time.sleep(60)")}}
    desk = open_desk(slow)
    command = desk.ask("run", n=1, name="slow", timeout_ms=60_000)
    await desk.until(lambda: desk.stages(command) == [Stage.RECEIVED])
    await desk.end()
    later = open_desk(slow)
    assert [(ack.command, ack.ok, ack.error) for ack in later.ended] == [(command, False, "interrupted")]
    later.ask("run", n=1, name="slow")
    assert later.told == later.ended


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("dance", {}, "unsupported"),
        ("reboot", {}, "unsupported"),
        ("run", {}, "unsupported"),
        ("run", {"name": "other"}, "unsupported"),
        ("run", {"name": ["mark"]}, "unsupported"),
        ("run", {"name": "own"}, "unsupported"),
        ("mark", {}, "unsupported"),
        ("run", {"name": "mark", "path": "x"}, "bad_params"),
        ("own", {"celsius": {"a": 1}}, "bad_params"),
        ("own", {"celsius": "x" * 2000}, "bad_params"),
        ("log_level", {"level": "loud"}, "bad_params"),
        ("log_level", {}, "bad_params"),
    ],
)
async def test_what_was_not_declared_is_refused(
    open_desk: Open, name: str, params: dict[str, Any], error: str
) -> None:
    desk = open_desk({"commands": {"mark": python("1"), "own": python("1", direct=True, params=["celsius"])}})
    command = uuid7(1, bytes(RANDOM_BYTES))
    desk.commands.offer(Command(command, name, params, 1000, FAR_MS, 1000))
    answer = await desk.answer(command)
    assert answer.stage is Stage.REFUSED
    assert (answer.error or "").startswith(error)
    assert len(desk.ledger) == 0


async def test_parameters_come_by_the_environment_and_no_shell_reads_them(open_desk: Open) -> None:
    show = (
        "import os, sys; e = os.environ; print(e['TOWLINE_PARAM_TEXT'], e['TOWLINE_PARAM_N'], len(sys.argv))"
    )
    desk = open_desk({"commands": {"show": python(show, direct=True, params=["text", "n"])}})
    command = uuid7(1, bytes(RANDOM_BYTES))
    params = {"text": "$(reboot); `x` 'y'", "n": 21.5}
    desk.commands.offer(Command(command, "show", params, 1000, FAR_MS, 10_000))
    answer = await desk.answer(command)
    assert answer.result == {"code": 0, "output": "$(reboot); `x` 'y' 21.5 1\n"}


async def test_the_agents_own_environment_is_not_given_away(
    open_desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    desk = open_desk({"commands": {"env": python("import os; print(sorted(os.environ))")}})
    answer = await desk.answer(desk.ask("run", name="env"))
    assert "SECRET" not in answer.result["output"]


async def test_a_program_is_bounded_in_time_with_all_its_children(open_desk: Open, folder: Path) -> None:
    child = "import time; time.sleep(60)"
    pids = folder / "pids"
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    desk = open_desk({"commands": {"slow": python(parent)}})
    answer = await desk.answer(desk.ask("run", name="slow", timeout_ms=1500))
    assert (answer.ok, answer.error) == (False, "timed_out")
    processes = [psutil.Process(int(pid)) for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


async def test_what_it_prints_is_bounded(open_desk: Open) -> None:
    desk = open_desk({"commands": {"much": python("print('\\0\"' * 500_000)")}})
    answer = await desk.answer(desk.ask("run", name="much"))
    assert answer.ok
    assert 0 < len(answer.result["output"]) <= OUTPUT_MAX


async def test_a_failure_says_how_it_ended(open_desk: Open) -> None:
    desk = open_desk(
        {"commands": {"bad": python("import sys; sys.exit('no')"), "gone": {"exec": ["/no/such/program"]}}}
    )
    answer = await desk.answer(desk.ask("run", name="bad"))
    assert (answer.ok, answer.error, answer.result) == (False, "ended with 1", {"code": 1, "output": "no\n"})
    answer = await desk.answer(desk.ask("run", name="gone"))
    assert (answer.ok, answer.error) == (False, "cannot be started: No such file or directory")


async def test_one_at_a_time_in_a_bounded_queue(open_desk: Open, folder: Path) -> None:
    wait = f"import os, time\nwhile not os.path.exists({str(folder / 'go')!r}): time.sleep(0.01)"
    desk = open_desk({"commands": {"wait": python(wait)}})
    first = desk.ask("run", name="wait")
    await desk.until(lambda: desk.stages(first) == [Stage.RECEIVED])
    late = desk.ask("ping", ttl_ms=1)
    waiting = [desk.ask("ping") for _ in range(QUEUE_MAX - 1)]
    busy = desk.ask("ping", n=1)
    assert (await desk.answer(busy)).error == "busy"
    assert not any(desk.stages(command) for command in waiting)
    (folder / "go").touch()
    for command in (first, *waiting):
        assert (await desk.answer(command)).ok
    assert (await desk.answer(late)).error == "expired"


async def test_the_log_level_can_be_set(open_desk: Open) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        desk = open_desk({})
        answer = await desk.answer(desk.ask("log_level", level="error"))
        assert answer.ok
        assert root.level == logging.ERROR
    finally:
        root.setLevel(before)


async def test_a_reboot_that_does_not_come_is_a_failure(open_desk: Open) -> None:
    desk = open_desk({"reboot": [PYTHON, "-c", "pass"]})
    answer = await desk.answer(desk.ask("reboot", timeout_ms=300))
    assert (answer.ok, answer.error) == (False, "the machine did not restart")
    desk = open_desk({"reboot": [PYTHON, "-c", "raise SystemExit(4)"]})
    assert (await desk.answer(desk.ask("reboot", n=2, timeout_ms=60_000))).error == "ended with 4"


async def test_hello_names_what_can_be_asked(open_desk: Open) -> None:
    desk = open_desk(
        {"reboot": ["/sbin/reboot"], "commands": {"a": python("1"), "b": python("1", direct=True)}}
    )
    assert desk.commands.names == ("ping", "log_level", "reboot", "b", "run:a")


def test_the_answer_of_any_output_fits() -> None:
    for text in ("\x01" * OUTPUT_MAX, "ü" * OUTPUT_MAX, '"' * OUTPUT_MAX):
        fitted = module._fitting({"code": 0, "output": text})
        Ack.parse(Ack(uuid7(1, bytes(RANDOM_BYTES)), Stage.DONE, ok=True, result=fitted).dump())
