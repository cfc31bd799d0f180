"""Plugin of `make soak`: says what runs, gathers the tests' figures, writes build/soak.json and the document.

Loaded with `-p tests.soak_report`; under pytest-xdist the controller alone reports.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "build" / "soak.json"
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: written by make soak -->", "<!-- end of the figures -->"


@dataclass
class SoakTest:
    """One test of the run; `figures` are texts as the table shows them, by name."""

    test: str
    outcome: str = "passed"
    duration_s: float = 0.0
    figures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SoakRun:
    """One run of `make soak`, as build/soak.json holds it."""

    commit: str
    clean: bool  # nothing but what the run itself writes differed from the commit
    date: str
    machine: str
    seed: int
    duration_s: float
    tests: list[SoakTest]


def _git(*argv: str) -> str:
    done = subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def machine() -> str:
    """Processor, cores, memory, kernel and interpreter."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} × {processor}, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )


def table(run: SoakRun) -> str:
    """Markdown between the marks of docs/reliability.md."""
    lines = [
        f"Commit `{run.commit}`{'' if run.clean else ' with uncommitted changes'}, {run.date}, {run.machine}."
        f" Seed {run.seed}; the whole run took {run.duration_s / 60:.0f} minutes.",
        "",
        "| test | result | s | figures |",
        "|---|---|---:|---|",
    ]
    for one in sorted(run.tests, key=lambda test: test.test):
        figures = "; ".join(f"{name} {value}" for name, value in one.figures.items()).replace("|", "\\|")
        name = one.test.removeprefix("tests/").replace(".py::", " · ")
        lines.append(f"| `{name}` | {one.outcome} | {one.duration_s:.0f} | {figures} |")
    return "\n".join(lines)


def write_document(run: SoakRun, document: Path = DOCUMENT) -> None:
    """Replace what stands between the marks; ValueError where they are missing."""
    before, _, rest = document.read_text().partition(BEGIN)
    old, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{document}: {BEGIN!r} … {END!r} is missing")
    del old
    document.write_text(f"{before}{BEGIN}\n{table(run)}\n{END}{after}")


def joined(first: SoakRun, second: SoakRun) -> SoakRun:
    """One run of two parts: `make soak` runs what wants the machine to itself behind the rest."""
    return replace(
        second,
        clean=first.clean and second.clean and first.commit == second.commit,
        duration_s=first.duration_s + second.duration_s,
        tests=first.tests + second.tests,
    )


class Gatherer:
    """What the reports of all tests say."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._started = time.monotonic()
        self._tests: dict[str, SoakTest] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self._tests.setdefault(report.nodeid, SoakTest(report.nodeid))
        test.duration_s += report.duration
        if report.outcome != "passed":
            test.outcome = report.outcome
        test.figures |= {name: str(value) for name, value in report.user_properties}
        if report.when == "teardown":
            told = ", ".join(f"{name} {value}" for name, value in test.figures.items())
            print(f"\n[soak {self._elapsed_s():5.0f} s] {test.outcome}: {report.nodeid}  {told}", flush=True)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        print(f"\n[soak {self._elapsed_s():5.0f} s] {nodeid}", flush=True)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def result(self) -> SoakRun:
        commit = _git("rev-parse", "--short", "HEAD") or "unknown"
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/reliability.md")
        return SoakRun(
            commit=commit,
            clean=not changed,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=machine(),
            seed=self._seed,
            duration_s=self._elapsed_s(),
            tests=list(self._tests.values()),
        )

    def pytest_sessionfinish(self) -> None:
        if not self._tests:
            return
        run = self.result()
        if os.environ.get("TOWLINE_SOAK_GO_ON"):
            run = joined(load(), run)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(asdict(run), indent=1) + "\n")
        if os.environ.get("TOWLINE_SOAK_DOCUMENT"):
            write_document(run)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the controller, or a run without workers
        config.pluginmanager.register(Gatherer(int(os.environ.get("TOWLINE_SEED", "0"))), "soak gatherer")


def pytest_report_header(config: pytest.Config) -> str:
    del config
    return f"seed: {os.environ.get('TOWLINE_SEED', '0')} (make soak SEED=…)"


def load(path: Path = RESULT) -> SoakRun:
    """Read a result back."""
    table_of: dict[str, Any] = json.loads(path.read_text())
    return SoakRun(**{**table_of, "tests": [SoakTest(**one) for one in table_of["tests"]]})
