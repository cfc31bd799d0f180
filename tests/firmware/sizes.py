"""What the core takes on rv32imc, read from the objects of the rv32 build.

`python -m tests.firmware.sizes` builds it and prints the table.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.build_firmware import build
from tests.firmware import stack

_READ_ONLY: Final = (".text", ".rodata", ".srodata", ".eh_frame", ".init_array")
_WRITTEN: Final = (".data", ".sdata", ".bss", ".sbss")
MAX_RUN_S: Final = 30


@dataclass(frozen=True)
class Sizes:
    """Bytes of an object file: what stays in flash, what takes RAM from the start."""

    text: int
    static: int


def objects(rv32: Path) -> dict[str, Path]:
    """The core's object files by the name of their source; not the page, which is data."""
    folder = rv32 / "core" / "CMakeFiles" / "towline_core.dir" / "src"
    return {path.name.removesuffix(".obj"): path for path in sorted(folder.rglob("*.c.obj"))}


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [f"riscv64-unknown-elf-{name}", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def sizes_of(object_file: Path) -> Sizes:
    text = static = 0
    for name, size in re.findall(r"^(\.\S+) +(\d+) ", _tool("size", "-A", str(object_file)), re.MULTILINE):
        if name.startswith(_READ_ONLY):
            text += int(size)
        elif name.startswith(_WRITTEN):
            static += int(size)
    return Sizes(text, static)


def undefined(object_file: Path) -> set[str]:
    """Symbols that somebody else must bring."""
    return set(re.findall(r" U (\S+)", _tool("nm", str(object_file))))


def page(rv32: Path) -> Path:
    return rv32 / "core" / "CMakeFiles" / "towline_core.dir" / "page.c.obj"


def defined(object_file: Path) -> set[str]:
    return set(re.findall(r"^[0-9a-f]+ [A-TV-Z] (\S+)", _tool("nm", str(object_file)), re.MULTILINE))


def frames(rv32: Path) -> dict[str, int]:
    """Stack bytes of each function of the core, by "file.c:function".

    Raises:
        ValueError: one has no bound.
    """
    found = {}
    for path in sorted((rv32 / "core").rglob("*.su")):
        for line in path.read_text().splitlines():
            place, size, kind = line.split("\t")
            if kind != "static":
                raise ValueError(f"{place}: its stack frame is {kind}")
            found[f"{path.stem}:{place.rsplit(':', 1)[1]}"] = int(size)
    return found


def structures(rv32: Path) -> dict[str, int]:
    """sizeof of the core's structures, as the target says."""
    cache = (rv32 / "CMakeCache.txt").read_text()
    emulator = re.search(r"^CMAKE_CROSSCOMPILING_EMULATOR[^=]*=(.+)$", cache, re.MULTILINE)
    command = emulator.group(1).split(";") if emulator else []
    command.append(str(rv32 / "tests" / "sizes"))
    # qemu writes what a program prints to its own standard error.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=MAX_RUN_S
    )
    return {name: int(size) for name, size in re.findall(r"^(\w+) (\d+)$", done.stdout, re.MULTILINE)}


def table(rv32: Path) -> str:
    sizes = {name: sizes_of(path) for name, path in objects(rv32).items()}
    rows = [f"{name:22}{size.text:8}{size.static:8}" for name, size in sizes.items()]
    total = sum(size.text for size in sizes.values())
    rows += [f"{'all':22}{total:8}", f"{'page':22}{sizes_of(page(rv32)).text:8}"]
    return "\n".join([f"{'rv32imc -Os':22}{'text':>8}{'static':>8}", *rows])


if __name__ == "__main__":
    folder = build("rv32")
    print(table(folder))
    for name, size in structures(folder).items():
        print(f"{name:22}{size:8}")
    deepest = sorted(frames(folder).items(), key=lambda item: -item[1])[:8]
    print("largest stack frames:", ", ".join(f"{name} {size}" for name, size in deepest))
    graph = stack.read(folder)
    for way in ("tl_device_init", "tl_device_event", "tl_device_run"):
        print(f"{way:22}{graph.depth(way)[0]:8} bytes of stack: {' '.join(graph.depth(way)[1])}")
    sys.exit(0)
