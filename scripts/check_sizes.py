"""Fail when a source file is longer than STYLE allows: one that long does more than one thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAX_LINES = 700
SOURCES = (".py", ".js", ".css", ".html", ".sql", ".sh", ".c", ".h")


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    too_long = 0
    for name in sorted(set(listed.stdout.splitlines())):
        path = Path(name)
        if path.suffix not in SOURCES or not path.is_file():
            continue
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MAX_LINES:
            print(f"{name}: {lines} lines, more than {MAX_LINES}")
            too_long += 1
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
