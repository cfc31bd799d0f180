"""The device's configuration: taken whole or not at all, kept over any crash, said to the gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_protocol.bodies import CONFIG_MAX, CONFIG_TYPE, Desired, Reported
from device_protocol.envelope import Envelope
from runtime.clock import SYSTEM_CLOCK
from runtime.metrics import Registry
from runtime.private_files import write_private
from runtime.settings import from_table
from runtime.tasks import TaskOwner
from tests.tunnel_agent.messages.service import Service
from tests.tunnel_agent.node import WAIT_S
from tunnel_agent.messages import configuration as module
from tunnel_agent.messages.configuration import Configuration
from tunnel_agent.messages.local_http import LocalHttpError
from tunnel_agent.messages.metrics import message_metrics
from tunnel_agent.messages.policy.configuration import fault
from tunnel_agent.messages.settings import MessagesSettings
from tunnel_agent.messages.writing import Writer

ROOT = Path(__file__).parents[3]


async def until(condition: Callable[[], object]) -> None:
    """For what tells nobody when it changes."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


PREFIX = "o/s/linux/d"


def desired(version: int, **body: Any) -> Desired:
    return Desired(version, body, f"{version:064x}")


class Device:
    """One life of the configuration's owner. What it reports is in `said`, while there is `room`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        table = {"enabled": True, "configuration": settings}
        self.registry = Registry()
        self.said: list[Reported] = []
        self.room = True
        self.refused = 0
        self._something = asyncio.Event()
        self.it = Configuration(
            from_table(MessagesSettings, table, source=folder / "agent.toml"),
            folder / "configuration",
            Writer(SYSTEM_CLOCK),
            self._offer,
            message_metrics(self.registry).configuration,
            log_level=logging.INFO,
        )
        self.it.open()
        self._tasks = TaskOwner("device")

    def _offer(self, message: Envelope) -> bool:
        assert (message.kind, message.type) == ("state", CONFIG_TYPE)
        self._something.set()
        if not self.room:
            self.refused += 1
            return False
        self.said.append(Reported.parse(message.payload))
        return True

    def begin(self) -> None:
        self._tasks.start(self.it.run(), "run")

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._something.clear()
                await self._something.wait()

    async def told(self, wanted: Desired) -> Reported:
        """Its answer."""
        before = len(self.said)
        self.it.tell(wanted)
        await self.until(lambda: len(self.said) > before)
        return self.said[-1]

    async def stop(self) -> None:
        await self._tasks.close(5)


Start = Callable[..., Device]


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    root = logging.getLogger()
    was = root.level
    yield
    root.setLevel(was)


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Start]:
    made: list[Device] = []

    def make(*, connect: bool = True, **settings: object) -> Device:
        device = Device(folder, **settings)
        made.append(device)
        device.begin()
        if connect:
            device.it.connected(PREFIX)
        return device

    yield make
    for device in made:
        await device.stop()


def program(folder: Path, code: str) -> list[str]:
    """A device's own: notes what it is given, then runs `code`."""
    script = folder / "apply.py"
    script.write_text(
        "import json, os, signal, sys\n"
        "text = os.environ['TOWLINE_CONFIGURATION']\n"
        "wanted = json.loads(text)\n"
        f"with open({str(folder / 'applied')!r}, 'a') as file: file.write(text + '\\n')\n" + code
    )
    return [sys.executable, "-S", "-E", str(script)]


def applied(folder: Path) -> list[Any]:
    path = folder / "applied"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, None),
        ({"health_every_s": 1, "log_level": "error", "vent": [1]}, None),
        ({"health_every_s": 60}, None),
        ({"health_every_s": 60.1}, "health_every_s: must be 1 to 60"),
        ({"health_every_s": 0}, "health_every_s: must be 1 to 60"),
        ({"health_every_s": True}, "health_every_s: must be 1 to 60"),
        ({"health_every_s": "5"}, "health_every_s: must be 1 to 60"),
        ({"health_every_s": None}, "health_every_s: must be 1 to 60"),
        ({"log_level": "DEBUG"}, "log_level: must be one of debug, info, warning, error"),
        ({"log_level": ["debug"]}, "log_level: must be one of debug, info, warning, error"),
        ({"vent": 1, "door": 1}, "door: not known here"),
        ({"dör": 1}, "a member: not known here"),
        ({"x" * 99: 1}, f"{'x' * 32}: not known here"),
    ],
)
def test_what_a_device_takes(body: dict[str, Any], why: str | None) -> None:
    assert fault(body, ("vent",)) == why


async def test_it_runs_with_what_it_is_told_and_still_does_after_a_restart(start: Start) -> None:
    device = start()
    first = desired(1, health_every_s=5, log_level="error")
    assert await device.told(first) == Reported(1, first.sha256, told=1)
    assert (device.it.version, device.it.health_every_s) == (1, 5.0)
    assert logging.getLogger().level == logging.ERROR
    await device.stop()
    logging.getLogger().setLevel(logging.INFO)

    again = start(connect=False)
    assert again.it.version == 1  # before it runs: hello says so
    assert again.said == []
    again.it.connected(PREFIX)
    await again.until(lambda: again.said)
    assert again.said == [Reported(1, first.sha256)]
    assert logging.getLogger().level == logging.ERROR
    assert b"towline_agent_configuration_version 1" in again.registry.render()

    second = desired(2)
    assert await again.told(second) == Reported(2, second.sha256, told=2)
    assert again.it.health_every_s == 60
    assert logging.getLogger().level == logging.INFO


async def test_a_level_that_a_command_set_stays_where_none_is_configured(start: Start) -> None:
    device = start()
    logging.getLogger().setLevel(logging.WARNING)
    await device.told(desired(1, health_every_s=5))
    assert logging.getLogger().level == logging.WARNING


@pytest.mark.parametrize(
    "body",
    [
        {"health_every_s": 5, "unheard_of": "secret-value"},
        {"health_every_s": 5, "log_level": "secret-value"},
        {"health_every_s": 5, "vent": "x" * CONFIG_MAX},
    ],
)
async def test_one_wrong_member_and_nothing_is_taken(
    start: Start, folder: Path, body: dict[str, Any]
) -> None:
    device = start(keys=["vent"], exec=program(folder, ""))
    good = desired(1, health_every_s=20)
    await device.told(good)
    refused = await device.told(Desired(2, body, "ab" * 32))
    assert (refused.version, refused.sha256, refused.told) == (1, good.sha256, 2)
    assert refused.error
    assert "secret-value" not in refused.error
    assert device.it.health_every_s == 20
    assert applied(folder) == []
    await device.stop()
    assert start().it.version == 1


async def test_a_version_that_is_not_above_is_reported_alone(start: Start) -> None:
    device = start()
    now = desired(4, health_every_s=5)
    await device.told(now)
    assert await device.told(now) == Reported(4, now.sha256, told=4)
    older = await device.told(desired(3, health_every_s=9))
    assert older == Reported(4, now.sha256, told=3, error=module.NOT_ABOVE)
    other = await device.told(Desired(4, {"health_every_s": 9}, "ab" * 32))
    assert other == Reported(4, now.sha256, told=4, error=module.NOT_ABOVE)
    assert device.it.health_every_s == 5
    assert (await device.told(desired(5))).error is None


async def test_the_devices_own_members_go_to_its_program(start: Start, folder: Path) -> None:
    device = start(keys=["vent", "door"], exec=program(folder, ""))
    await device.told(desired(1, vent=40, health_every_s=5))
    await device.told(desired(2, vent=40, health_every_s=6))  # none of its own changed
    await device.told(desired(3, door="open"))
    await device.told(desired(4))
    assert applied(folder) == [{"vent": 40}, {"door": "open"}, {}]


async def test_what_the_program_refuses_is_taken_back(start: Start, folder: Path) -> None:
    code = "if wanted.get('vent', 0) > 100: print('vent is at most 100'); sys.exit(3)"
    device = start(keys=["vent"], exec=program(folder, code))
    good = desired(1, vent=40, health_every_s=5)
    await device.told(good)
    refused = await device.told(desired(2, vent=101, health_every_s=9))
    assert refused == Reported(1, good.sha256, told=2, error="its program ended with 3: vent is at most 100")
    assert device.it.health_every_s == 5
    assert applied(folder) == [{"vent": 40}, {"vent": 101}, {"vent": 40}]

    assert (await device.told(desired(2, vent=101, health_every_s=9))) == refused  # said again, not tried
    assert len(applied(folder)) == 3
    device.it.connected(PREFIX)  # perhaps it takes it now
    await device.told(desired(2, vent=101, health_every_s=9))
    assert len(applied(folder)) == 5
    await device.stop()
    assert start(keys=["vent"], exec=program(folder, code)).it.version == 1


async def test_a_program_that_hangs_or_is_not_there(start: Start, folder: Path) -> None:
    device = start(keys=["vent"], exec=["/nowhere/at/all"])
    assert (await device.told(desired(1, vent=1))).error == (
        "its program cannot be started: No such file or directory; nor could the former one be put back:"
        " its program cannot be started: No such file or directory"
    )
    await device.stop()
    slow = start(keys=["vent"], exec=["/bin/sleep", "60"], timeout_s=0.2)
    said = (await slow.told(desired(1, vent=1))).error
    assert said is not None
    assert said.startswith("its program took too long")


async def test_the_devices_own_address_takes_or_refuses_them(start: Start, folder: Path) -> None:
    """By PUT; nobody there, and it is refused as well."""
    with Service() as service:
        device = start(keys=["vent"], url=service.url)
        assert (await device.told(desired(1, vent=40))).error is None
        service.answer = (422, b"The vent is 0 to 100.\nand more")
        refused = await device.told(desired(2, vent=101))
        assert refused.error is not None
        assert refused.error.startswith("answered 422: The vent is 0 to 100.")
        service.answer = (204, b"")
        assert (await device.told(desired(3, vent=41))).version == 3
        assert [json.loads(body)["vent"] for body in service.put] == [40, 101, 40, 41]
    gone = await device.told(desired(4, vent=42))
    assert (gone.version, gone.told) == (3, 4)
    assert gone.error is not None


@pytest.mark.parametrize("away", [None, (503, b"busy")])
async def test_what_is_told_while_the_service_is_away_is_tried_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, away: tuple[int, bytes] | None
) -> None:
    """Nobody tells it again once the gateway has its answer; before that it may, which changes nothing. It is
    reported when that changes, not each time.
    """
    monkeypatch.setattr(module, "APPLY_AGAIN_FIRST_S", 0.02)
    with Service() as service:
        device = start(keys=["vent"], url=service.url)
        await device.told(desired(1, vent=40))
        tries = 0
        if away is None:

            def nobody(*_: object, **__: object) -> bytes:
                nonlocal tries
                tries += 1
                raise LocalHttpError("connection refused", soon=True)

            with monkeypatch.context() as going:
                going.setattr(module, "fetch", nobody)
                refused = await device.told(desired(2, vent=41))
                repeated = await device.told(desired(2, vent=41))
                await until(lambda: tries > 6)
        else:
            service.answer = away
            refused = await device.told(desired(2, vent=41))
            repeated = await device.told(desired(2, vent=41))
            await until(lambda: len(service.put) > 6)
            service.answer = (204, b"")
        assert (refused.version, refused.told) == (1, 2)
        assert refused.error is not None
        assert repeated == refused
        await device.until(lambda: device.it.version == 2)
        await device.until(lambda: device.said[-1].version == 2)
        assert len(device.said) == 4
        assert json.loads(service.put[-1]) == {"vent": 41}


async def test_a_service_that_comes_up_later_gets_what_runs(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPLY_AGAIN_FIRST_S", 0.02)
    flag = folder / "up"
    code = f"sys.exit(0 if os.path.exists({str(flag)!r}) else 1)"
    flag.touch()
    device = start(keys=["vent"], exec=program(folder, code))
    await device.told(desired(1, vent=40))
    await device.stop()
    flag.unlink()
    again = start(keys=["vent"], exec=program(folder, code))
    await again.until(lambda: again.said and again.said[-1].error)
    assert again.said[-1].version == 1
    assert again.said[-1].error == "not in force: its program ended with 1"
    flag.touch()
    await again.until(lambda: again.said[-1].error is None)
    assert applied(folder)[-1] == {"vent": 40}


async def test_members_that_the_file_does_not_declare_any_more(start: Start, folder: Path) -> None:
    device = start(keys=["vent"], exec=program(folder, ""))
    await device.told(desired(1, vent=40))
    await device.stop()
    again = start()
    await again.until(lambda: again.said)
    assert again.said[-1].error == "not in force: vent: not known here"
    assert (await again.told(desired(2))).error is None


async def test_a_report_waits_for_room(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_AGAIN_S", 0.02)
    device = start()
    device.room = False
    device.it.tell(desired(1))
    await device.until(lambda: device.refused > 2)
    device.room = True
    await device.until(lambda: device.said)
    assert [said.version for said in device.said] == [1]


async def test_each_new_prefix_hears_what_runs(start: Start) -> None:
    device = start()
    await device.told(desired(1))
    device.it.connected(PREFIX)
    device.it.connected("o/other/linux/d")
    await device.until(lambda: len(device.said) == 2)
    assert device.said[1] == device.said[0]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"running":null}',
        b'{"running":{"version":0,"body":{},"sha256":"x"},"trying":null}',
        b"\xff\xfe",
    ],
)
async def test_a_file_that_cannot_be_read_is_as_none(start: Start, folder: Path, text: bytes) -> None:
    (folder / "configuration").write_bytes(text)
    device = start()
    assert device.it.version is None
    assert (await device.told(desired(3))).version == 3
    await device.stop()
    assert start().it.version == 3


async def test_a_disk_that_takes_nothing(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPLY_AGAIN_FIRST_S", 0.2)
    device = start(keys=["vent"], exec=program(folder, ""))
    good = desired(1, vent=40, health_every_s=5)
    await device.told(good)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as filling:
        filling.setattr(module, "write_private", full)
        refused = await device.told(desired(2, vent=41))
        assert refused == Reported(1, good.sha256, told=2, error=module.NOT_STORED)
        assert len(applied(folder)) == 1
    await device.until(lambda: device.said[-1].version == 2)  # once there is room


class _KilledError(BaseException):
    """Nothing of the process runs after this."""


STEPS = 6
"""Where it is killed: before and after the write of what is tried, the apply, the write of what runs."""


async def run_until_killed(device: Device, wanted: Desired) -> bool:
    """False: it lived."""
    running = asyncio.ensure_future(device.it.run())
    device.it.connected(PREFIX)
    device.it.tell(wanted)
    answered = asyncio.ensure_future(device.until(lambda: device.said and device.said[-1].told))
    await asyncio.wait({running, answered}, return_when=asyncio.FIRST_COMPLETED)
    killed = running.done()
    for task in (running, answered):
        task.cancel()
    await asyncio.gather(running, answered, return_exceptions=True)
    return killed


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.parametrize("refuses", [False, True])
async def test_killed_at_any_step_it_ends_with_one_of_the_two(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, refuses: bool
) -> None:
    """And once it is told again, with the one wanted, or with the old one and a reason; the device's own
    program was given that one last.
    """
    settings = {"keys": ["vent"], "exec": program(folder, "sys.exit(wanted.get('vent') == 666)")}
    old, new = desired(1, vent=40), desired(2, vent=666 if refuses else 41)
    first = start(**settings)
    await first.told(old)
    await first.stop()

    count = 0

    def step_on() -> None:
        nonlocal count
        if count == step:
            raise _KilledError
        count += 1

    write, apply = write_private, Configuration._apply

    def dying_write(path: Path, data: bytes) -> None:
        step_on()
        write(path, data)
        step_on()

    async def dying_apply(self: Configuration, wanted: Desired | None) -> None:
        if wanted is not None and wanted == new:
            step_on()
        await apply(self, wanted)
        if wanted is not None and wanted == new:
            step_on()

    with monkeypatch.context() as dying:
        dying.setattr(module, "write_private", dying_write)
        dying.setattr(Configuration, "_apply", dying_apply)
        device = Device(folder, **settings)
        killed = await run_until_killed(device, new)
    steps = 5 if refuses else STEPS  # what is refused is not applied to its end
    assert killed == (step < steps)

    again = Device(folder, **settings)
    assert again.it.version in ({1} if refuses else {1, 2})
    again.begin()
    again.it.connected(PREFIX)
    try:
        if 1 <= step < steps - 1:  # it is on disk: finished untold
            await again.until(lambda: again.said and again.said[-1].told == 2)
        answer = await again.told(new)
        await again.until(lambda: again.said[-1].told == 2)
        answer = again.said[-1]
    finally:
        await again.stop()
    if refuses:
        assert (answer.version, answer.told, applied(folder)[-1]) == (1, 2, {"vent": 40})
        assert answer.error is not None
    else:
        assert answer == Reported(2, new.sha256, told=2)
        assert applied(folder)[-1] == {"vent": 41}
    assert json.loads((folder / "configuration").read_bytes())["trying"] is None


_AGENT = """
import asyncio, logging, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.tunnel_agent.messages.test_configuration import Device, desired

async def main():
    device = Device(Path({folder!r}), keys=["vent"], exec={argv!r})
    device.begin()
    device.it.connected("o/s/linux/d")
    answer = await device.told(desired(2, vent=41))
    print(answer.version, flush=True)
    await device.stop()

asyncio.run(main())
"""


def test_kill_9_by_its_own_program(folder: Path) -> None:
    """The process is gone in the middle of it; the next one finishes the work, told or not."""
    once = f"path = {str(folder / 'killed')!r}\nif not os.path.exists(path):\n"
    argv = program(folder, once + "    open(path, 'w'); os.kill(os.getppid(), signal.SIGKILL)\n")
    code = _AGENT.format(root=str(ROOT), folder=str(folder), argv=argv)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (-9, b"")
    kept = json.loads((folder / "configuration").read_bytes())
    assert (kept["running"], kept["trying"]["version"]) == (None, 2)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout.split()) == (0, [b"2"]), ran.stderr
    kept = json.loads((folder / "configuration").read_bytes())
    assert (kept["running"]["version"], kept["trying"]) == (2, None)
    assert applied(folder) == [{"vent": 41}] * 2
