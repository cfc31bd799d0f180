"""A short run of the fuzzer; a long one is `make fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzz_decoder import by_chance
from tests.fuzz.target import one_input

CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]
SECONDS = 3


@pytest.mark.parametrize("unit", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_every_known_input_is_survived(unit: Path) -> None:
    one_input(unit.read_bytes())


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_decoder", str(tmp_path), str(CORPUS)]
    command += [f"-max_total_time={SECONDS}", "-max_len=4096", f"-artifact_prefix={tmp_path}/"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Done" in ended.stdout + ended.stderr


def test_mutation_by_chance_finds_nothing_either(capfd: pytest.CaptureFixture[str]) -> None:
    by_chance([str(CORPUS)], 1.0)
    assert "Done" in capfd.readouterr().out
