"""What the tests' own ground does when a process misbehaves."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.processes import Logged, Processes, started
from testbed.waiting import eventually

ECHO = "import sys, time\nprint('begun', flush=True)\ntime.sleep(60)"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.close()


def test_what_it_says_is_in_its_log_and_a_second_start_adds_to_it(processes: Processes) -> None:
    processes.run("one", [sys.executable, "-c", ECHO])
    eventually("it began", lambda: "begun" in processes.logs())
    processes.kill("one")
    processes.again("one")
    eventually("it began again", lambda: processes.logs().count("begun") == 2)
    assert processes.stop("one") == -signal.SIGTERM


def test_who_waits_for_one_that_ended_hears_so_at_once_with_its_log(processes: Processes) -> None:
    processes.run("one", [sys.executable, "-c", "raise SystemExit('no such setting')"])
    with pytest.raises(AssertionError, match=r"one has ended(.|\n)*no such setting"):
        processes.wait_ready("one", lambda: False)


def test_a_stopped_one_ends_with_the_others(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    for name in ("one", "two"):
        processes.run(name, [sys.executable, "-c", ECHO])
    processes.signal("one", signal.SIGSTOP)
    processes.close()
    assert [processes[name].poll() for name in processes] == [-signal.SIGTERM] * 2


def test_waiting_ends_at_its_deadline_and_says_what_came_last() -> None:
    def away() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(AssertionError, match=r"the answer: not within 0 s, last Conn.*nobody there"):
        eventually("the answer", away, 0.2)


def test_what_does_not_start_is_ended_and_its_logs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        closed = False

        def start(self) -> None:
            raise RuntimeError("no port")

        def close(self) -> None:
            self.closed = True

        def logs(self) -> str:
            return "why it did not start"

    broken = Broken()
    assert isinstance(broken, Logged)
    with pytest.raises(RuntimeError, match="no port"), started(broken):
        pytest.fail("it did not start")
    assert broken.closed
    assert "why it did not start" in capsys.readouterr().out
