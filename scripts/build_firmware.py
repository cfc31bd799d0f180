"""Build the firmware for this machine: build_firmware.py KIND, or: fuzz --seconds N [TARGET…].

Each kind (firmware/cmake/host.cmake) has a folder of its own. `fuzz` with a time runs the targets one after
the other, each from the committed corpus; what it finds goes to build/fuzz. scripts/system_packages.sh
installs what is needed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FIRMWARE: Final = ROOT / "firmware"
BUILDS: Final = ROOT / "build" / "firmware"
FINDINGS: Final = ROOT / "build" / "fuzz"
CORPUS: Final = FIRMWARE / "tests" / "fuzz" / "corpus"
KINDS: Final = ("sim", "asan", "tsan", "coverage", "fuzz", "rv32", "stubs")
_TOOLS: Final = {
    "rv32": ["-DCMAKE_TOOLCHAIN_FILE=cmake/rv32_toolchain.cmake"],
    "fuzz": ["-DCMAKE_C_COMPILER=clang-14"],
}
MAX_BUILD_S: Final = 600  # some 20 s on two cores; a machine that does other work as well
MAX_INPUT: Final = 4096  # bytes: twice a tunnel message
MAX_INPUT_S: Final = 5  # seconds one input may take


class BuildFailed(Exception):
    """What cmake or the compiler said."""


def build(kind: str, jobs: int = 2, *, targets: tuple[str, ...] = ()) -> Path:
    """The folder of an up-to-date build, of these `targets` alone where some are named.

    Processes that want the same one wait for each other.

    Raises:
        BuildFailed: it does not compile, or a program is missing.
    """
    folder = BUILDS / kind
    folder.mkdir(parents=True, exist_ok=True)
    configure = ["cmake", "-G", "Ninja", "-S", str(FIRMWARE), "-B", str(folder), f"-DTOWLINE_KIND={kind}"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", *_TOOLS.get(kind, [])]
    with (BUILDS / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            _run(configure)
        _run(["ninja", "-C", str(folder), f"-j{jobs}", *targets])
    return folder


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_BUILD_S)
    except FileNotFoundError as error:
        raise BuildFailed(f"{error.filename} is missing: scripts/system_packages.sh installs it") from error
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{command[0]} took longer than {MAX_BUILD_S} s: is the machine busy?") from error
    if done.returncode != 0:
        raise BuildFailed(done.stdout + done.stderr)


def fuzz_targets(folder: Path) -> list[str]:
    return sorted(
        path.name for path in (folder / "tests" / "fuzz").glob("fuzz_*") if os.access(path, os.X_OK)
    )


def fuzz_command(folder: Path, target: str, seconds: int) -> list[str]:
    """Fuzz for `seconds` (0: only replay the committed corpus); new inputs stay under build/fuzz."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    committed = CORPUS / target.removeprefix("fuzz_")
    command = [str(folder / "tests" / "fuzz" / target), f"-artifact_prefix={FINDINGS}/{target}-"]
    command += [f"-max_len={MAX_INPUT}", f"-timeout={MAX_INPUT_S}", "-print_final_stats=1"]
    if seconds == 0:
        return [*command, "-runs=0", str(committed)]
    found = FINDINGS / target
    found.mkdir(exist_ok=True)
    return [*command, f"-max_total_time={seconds}", "-seed=1", str(found), str(committed)]


def _fuzz(folder: Path, seconds: int, only: list[str]) -> int:
    for target in fuzz_targets(folder):
        if only and target not in only:
            continue
        print(f"{target}: {seconds} s", flush=True)
        code = subprocess.run(fuzz_command(folder, target, seconds)).returncode
        if code != 0:
            return code
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the firmware for this machine.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="with fuzz: only these")
    parser.add_argument("--seconds", type=int, help="with fuzz: run each target for that long")
    given = parser.parse_args()
    try:
        folder = build(given.kind)
    except BuildFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    if given.kind == "fuzz" and given.seconds is not None:
        return _fuzz(folder, given.seconds, given.targets)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
