from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import malloc
from runtime.clock import SYSTEM_CLOCK, FakeClock
from runtime.process import Shutdown, loop_factory, run
from runtime.settings import SettingsError

SERVICE = """
import sys
from pathlib import Path
from runtime.process import Shutdown, run

async def main(config: Path) -> None:
    shutdown = Shutdown().install()
    print("up", flush=True)
    await shutdown.requested.wait()
    print("draining", flush=True)
    if config.name == "stuck":
        import asyncio
        await asyncio.Event().wait()

sys.exit(run("service", main))
"""


def service(config: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_sigterm_is_a_wish_and_a_clean_end_is_code_0() -> None:
    process = service("x")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "draining\n", "")


def test_a_second_signal_ends_a_drain_at_once() -> None:
    process = service("stuck")
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_bad_settings_are_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(config: Path) -> None:
        raise SettingsError(f"limits.x: must be 1..2, not 3 (file {config})")

    assert run("service", main, ["--config", "a.toml"]) == 2
    assert capsys.readouterr().err == "service: limits.x: must be 1..2, not 3 (file a.toml)\n"


def test_a_crash_is_code_1_and_a_returned_code_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    async def crash(config: Path) -> None:
        raise RuntimeError(config.name)

    async def seven(config: Path) -> int:
        return 7

    assert run("service", crash, ["--config", "x"]) == 1
    assert "process crashed" in caplog.text
    assert run("service", seven, ["--config", "x"]) == 7


def test_a_taken_address_is_one_line_and_code_1(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main(config: Path) -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.start_server(lambda *_: None, "127.0.0.1", port)

    assert run("service", main, ["--config", "x"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("service: cannot listen: ")
    assert not caplog.records


def test_a_wrong_command_line_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(config: Path) -> None:
        raise AssertionError("must not run")

    with pytest.raises(SystemExit) as caught:
        run("service", main, [])
    assert caught.value.code == 2
    assert "--config" in capsys.readouterr().err


async def test_a_service_may_ask_for_its_own_end() -> None:
    shutdown = Shutdown()
    shutdown.request()
    await asyncio.wait_for(shutdown.requested.wait(), 1)


def test_the_loop_runs() -> None:
    async def name() -> str:
        return type(asyncio.get_running_loop()).__module__

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert runner.run(name()) == "uvloop"


def test_malloc_is_tuned_on_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert malloc.tune() == (
        os.confstr("CS_GNU_LIBC_VERSION") is not None if sys.platform == "linux" else False
    )
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not malloc.tune()


def test_clocks() -> None:
    clock = FakeClock(monotonic=5, wall=100)
    clock.advance(2)
    clock.set_wall(50)
    assert (clock.monotonic(), clock.wall()) == (7, 50)
    assert SYSTEM_CLOCK.monotonic() <= SYSTEM_CLOCK.monotonic()
    assert SYSTEM_CLOCK.wall() > 1_700_000_000
