"""How much of the core its units go through, by gcov."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.build_firmware import FIRMWARE, build

MIN_LINES: Final = 0.90
MIN_BRANCHES: Final = 0.80
MAX_UNITS_S: Final = 110


@dataclass
class Covered:
    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    def add(self, other: Covered) -> None:
        self.lines += other.lines
        self.lines_run += other.lines_run
        self.branches += other.branches
        self.branches_run += other.branches_run

    @property
    def line_rate(self) -> float:
        return self.lines_run / self.lines

    @property
    def branch_rate(self) -> float:
        return self.branches_run / self.branches if self.branches else 1.0


def covered(notes: Path) -> dict[str, Covered]:
    """What gcov tells of one object, by the name of the source; a header's inline functions stand apart."""
    command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(notes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=notes.parent)
    found = {}
    for file in json.loads(done.stdout)["files"]:
        if not Path(file["file"]).is_relative_to(FIRMWARE / "core" / "src"):
            continue
        branches = [branch for line in file["lines"] for branch in line["branches"]]
        found[Path(file["file"]).name] = Covered(
            len(file["lines"]),
            sum(line["count"] > 0 for line in file["lines"]),
            len(branches),
            sum(branch["count"] > 0 for branch in branches),
        )
    return found


def test_the_units_go_through_the_core() -> None:
    folder = build("coverage")
    for count in folder.rglob("*.gcda"):
        count.unlink()
    command = ["ctest", "--test-dir", str(folder), "-j2", "--output-on-failure", "--no-tests=error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_UNITS_S)
    assert done.returncode == 0, done.stdout

    files: dict[str, Covered] = {}
    for notes in sorted((folder / "core").rglob("*.gcno")):
        for name, found in covered(notes).items():
            files.setdefault(name, Covered()).add(found)
    assert {path.name for path in (FIRMWARE / "core" / "src").glob("*.c")} <= files.keys()
    whole = Covered()
    for each in files.values():
        whole.add(each)
    shown = "\n".join(
        f"{name:20} lines {one.line_rate:6.1%} branches {one.branch_rate:6.1%}" for name, one in files.items()
    )
    assert whole.line_rate >= MIN_LINES, shown
    assert whole.branch_rate >= MIN_BRANCHES, shown
