"""`make load` from its start to its verdict, with locust."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.load import option_of
from loadtests.load_report import P95_MS

ROOT = Path(__file__).resolve().parents[2]
TIME_S = 60
DEADLINE_S = 300
# The soak runs beside five other tests on as many cores as there are: only a hang is too slow here.
PATIENT = [word for name in P95_MS for word in (option_of(name), "20000")]


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.timeout(DEADLINE_S + 30)
def test_visitors_over_many_tunnels_see_no_failure(figures: Callable[[str, str], None]) -> None:
    """Needs locust's environment (`make soak` installs it)."""
    command = [sys.executable, "-m", "loadtests.load", "--time", str(TIME_S), "--users", "25", *PATIENT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    all_line = done.stdout.splitlines()[-1].split()
    assert all_line[0] == "all"
    assert int(all_line[1]) > 500
    assert all_line[2] == "0"
    figures("25 visitors by locust over 30 tunnels for 60 s", f"{all_line[1]} requests, {all_line[2]} failed")
