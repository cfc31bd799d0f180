"""The firmware's C units, one by one: on this machine with sanitizers, and for rv32 under qemu."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from scripts.build_firmware import FIRMWARE

DECLARED: Final = re.findall(
    r"^towline_unit\((\w+)(.*)\)", (FIRMWARE / "tests" / "units.cmake").read_text(), re.MULTILINE
)
UNITS: Final = [name for name, _ in DECLARED]
PORTABLE: Final = [name for name, words in DECLARED if "HOST_ONLY" not in words]
MAX_UNIT_S: Final = 100


def run(folder: Path, unit: str) -> None:
    """ctest knows how a program of that build is started, and how long it may take."""
    done = subprocess.run(
        ["ctest", "--test-dir", str(folder), "--output-on-failure", "--no-tests=error", "-R", f"^{unit}$"],
        capture_output=True,
        text=True,
        timeout=MAX_UNIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def listed(folder: Path) -> set[str]:
    command = ["ctest", "--test-dir", str(folder), "-N"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"Test +#\d+: (\S+)", done.stdout))


@pytest.mark.parametrize("unit", UNITS)
def test_unit(asan: Path, unit: str) -> None:
    run(asan, unit)


@pytest.mark.parametrize("unit", PORTABLE)
def test_unit_on_rv32(rv32: Path, unit: str) -> None:
    run(rv32, unit)


def test_every_unit_is_run(asan: Path, rv32: Path) -> None:
    """What ctest knows is what stands above; and no file of a unit is left out."""
    assert listed(asan) == set(UNITS)
    assert listed(rv32) == set(PORTABLE)
    assert {path.stem for path in (FIRMWARE / "tests" / "unit").glob("test_*.c")} == set(UNITS)
