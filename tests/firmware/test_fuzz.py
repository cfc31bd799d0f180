"""The firmware's fuzz targets: the committed corpus is replayed, then each goes on for a few seconds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from scripts.build_firmware import FIRMWARE, build, fuzz_command, fuzz_targets

TARGETS: Final = re.findall(
    r"^towline_fuzz\((\w+)\)", (FIRMWARE / "tests" / "fuzz" / "targets.cmake").read_text(), re.MULTILINE
)
FUZZ_S: Final = 5
MAX_S: Final = 100


@pytest.fixture(scope="session")
def fuzzers() -> Path:
    """Built by clang with libFuzzer, and the sanitizers."""
    return build("fuzz")


def run(folder: Path, target: str, seconds: int) -> int:
    """How many inputs were run."""
    command = fuzz_command(folder, target, seconds)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=MAX_S)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-4000:]
    return int(re.findall(r"stat::number_of_executed_units: +(\d+)", said)[0])


def test_every_target_is_run(fuzzers: Path) -> None:
    assert fuzz_targets(fuzzers) == sorted(f"fuzz_{name}" for name in TARGETS)
    assert {path.stem for path in (FIRMWARE / "tests" / "fuzz").glob("*.c")} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(fuzzers: Path, target: str) -> None:
    corpus = list((FIRMWARE / "tests" / "fuzz" / "corpus" / target).iterdir())
    assert corpus
    assert run(fuzzers, f"fuzz_{target}", 0) >= len(corpus)
    assert run(fuzzers, f"fuzz_{target}", FUZZ_S) > len(corpus)
