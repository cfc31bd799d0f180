from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from towline.embedded import log_file
from towline.embedded.leftovers import PidFile, end_leftovers, is_running, wait_gone
from towline.embedded.log_file import LogFile
from towline.embedded.postgres import MAX_SOCKET_PATH, SOCKET_NAME, short_path
from towline.embedded.processes import Program, Supervisor, launch_argv
from towline.errors import TowlineError

TIMEOUT_S = 20.0
WAITS = "import signal, sys; print('up', sys.argv[1], flush=True); signal.pause()"


def test_a_full_log_becomes_the_older_one_and_no_more_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 100)
    log = LogFile(tmp_path / "logs" / "x.log")
    for number in range(20):
        log.write(f"line {number:03}\n".encode() * 3)
    log.close()
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["x.log", "x.log.1"]
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 200
    assert log.tail().endswith("line 019")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = LogFile(tmp_path / "x.log")
        log.write(text)
        log.close()
    assert log.tail() == "one\ntwo"


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is not a child of any supervisor."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_leftover_is_ended_and_a_stranger_with_its_pid_is_not(
    tmp_path: Path, stranger: subprocess.Popen[str]
) -> None:
    run = tmp_path / "run"
    PidFile(run / "other.pid").write(stranger.pid, "a marker it does not have")
    assert end_leftovers(run) == []
    assert stranger.poll() is None
    PidFile(run / "ours.pid").write(stranger.pid, str(tmp_path))
    assert is_running(stranger.pid, str(tmp_path))
    assert end_leftovers(run) == ["ours"]
    assert stranger.wait(TIMEOUT_S) == -signal.SIGTERM
    assert list(run.glob("*.pid")) == []


@pytest.mark.parametrize("text", ["", "x\ny\n", "12"])
def test_a_pid_file_that_was_cut_harms_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.pid").write_text(text)
    assert PidFile(tmp_path / "x.pid").read() is None
    assert end_leftovers(tmp_path) == []


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    told: list[str] = []
    made = Supervisor(tmp_path, told.append)
    yield made, told
    await made.stop()


def program(tmp_path: Path, code: str = WAITS, name: str = "x") -> Program:
    async def ready() -> bool:
        return b"up" in (tmp_path / "logs" / f"{name}.log").read_bytes()

    return Program(name, [sys.executable, "-c", code, str(tmp_path)], str(tmp_path), ready)


async def test_a_killed_program_is_started_again_and_a_stop_ends_it(
    tmp_path: Path, supervisor: tuple[Supervisor, list[str]]
) -> None:
    running, told = supervisor
    one = await running.start(program(tmp_path), TIMEOUT_S)
    assert one.process is not None
    first = one.process.pid
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(TIMEOUT_S):
        while one.process is None or one.process.pid == first or not one.ready.is_set():
            await asyncio.wait([asyncio.ensure_future(one.ready.wait())], timeout=0.01)
    assert one.restarts == 1
    assert "x ended (by signal SIGKILL) and is started again" in told[0]
    second = one.process.pid
    known = one.pid_file.read()
    assert known == (second, str(tmp_path))
    await running.stop()
    assert not is_running(second, str(tmp_path))
    assert one.pid_file.read() is None


async def test_a_readiness_check_that_fails_itself_is_told(
    tmp_path: Path, supervisor: tuple[Supervisor, list[str]]
) -> None:
    async def ready() -> bool:
        raise RuntimeError("no such port")

    running, told = supervisor
    with pytest.raises(TowlineError, match="did not start"):
        await running.start(replace(program(tmp_path), ready=ready), 1)
    assert told == ["supervisor.x.ready: no such port"]


async def test_a_program_that_cannot_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, supervisor: tuple[Supervisor, list[str]]
) -> None:
    running, told = supervisor
    broken = program(tmp_path, "import sys; print('no such thing'); sys.exit(1)", "broken")
    with pytest.raises(TowlineError, match=r"(?s)broken did not start within 1 s.*no such thing"):
        await running.start(broken, 1)
    assert "exit code 1" in told[0]
    assert 2 <= running["broken"].restarts <= 10


async def test_a_program_that_refuses_its_settings_is_not_started_again(
    tmp_path: Path, supervisor: tuple[Supervisor, list[str]]
) -> None:
    running, told = supervisor
    wrong = program(tmp_path, "import sys; print('no such setting'); sys.exit(2)", "wrong")
    with pytest.raises(TowlineError, match=r"wrong refuses its settings: no such setting"):
        await running.start(wrong, TIMEOUT_S)
    assert running["wrong"].restarts == 0
    assert "not started again" in told[0]


async def test_a_stubborn_program_is_killed(
    tmp_path: Path, supervisor: tuple[Supervisor, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.embedded.processes.STOP_TIMEOUT_S", 0.2)
    running, _ = supervisor
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    code += "\nwhile True: signal.pause()"
    one = await running.start(program(tmp_path, code), TIMEOUT_S)
    assert one.process is not None
    pid = one.process.pid
    await running.stop()
    assert not is_running(pid, str(tmp_path))


def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    order = launch_argv([sys.executable, "-c", WAITS, str(tmp_path)], death_signal=signal.SIGKILL)
    # The parent of the launched process is this one's child, not this one.
    parent_code = (
        "import json, os, subprocess, sys\n"
        "order = json.loads(sys.argv[-1]); order['parent'] = os.getpid()\n"
        "child = subprocess.Popen([*sys.argv[1:-1], json.dumps(order)], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_code, *order], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child, str(tmp_path))
        parent.kill()
    assert wait_gone(child, str(tmp_path), TIMEOUT_S)


def test_an_orphan_does_not_start(tmp_path: Path) -> None:
    *command, text = launch_argv([sys.executable, "-c", WAITS], death_signal=signal.SIGKILL)
    order = json.loads(text) | {"parent": 1 << 22}
    assert subprocess.run([*command, json.dumps(order)], check=False, timeout=TIMEOUT_S).returncode == 71


def test_a_socket_path_always_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t") as short_base:
        monkeypatch.setattr("tempfile.tempdir", short_base)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        _check_links(tmp_path, Path(short_base))


def test_a_runtime_folder_of_the_user_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("a" * 100) / "run"
    deep.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="t") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        assert short_path(deep).is_relative_to(runtime)


def test_a_path_that_fits_nowhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.embedded.postgres.MAX_SOCKET_PATH", 20)
    with pytest.raises(TowlineError, match="choose a shorter --data"):
        short_path(tmp_path)


def _check_links(tmp_path: Path, base: Path) -> None:
    deep = tmp_path / ("a" * 100) / "run"
    deep.mkdir(parents=True)
    link = short_path(deep)
    assert link.resolve() == deep
    assert link.is_relative_to(base)
    assert short_path(deep) == link
    assert len(os.fsencode(link / SOCKET_NAME)) <= MAX_SOCKET_PATH
    os.chmod(link.parent, 0o777)
    with pytest.raises(TowlineError, match="is not this user's own folder"):
        short_path(deep)
    short = Path("/short/run")
    assert short_path(short) == short
