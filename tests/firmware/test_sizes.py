"""What the core may take on a chip, and what it may lean on: read from its objects for rv32imc."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from scripts.build_firmware import FIRMWARE
from tests.firmware import stack
from tests.firmware.sizes import defined, frames, objects, page, sizes_of, structures, undefined

CORE: Final = FIRMWARE / "core"

# Bytes. The page is data that is read from flash, and has a budget of its own. 40 KiB of text were planned
# for nine subjects: those are held to them. The core does more now (docs/decisions/0039): the whole is held
# to what it takes, with little to spare.
MAX_TEXT: Final = 92 * 1024
MAX_PLANNED: Final = 40 * 1024
PLANNED: Final = {
    "frame": {"frame.c", "bytes.c", "fields.c"},
    "mux": {"mux.c", "mux_allowance.c", "mux_liveness.c", "mux_receive.c", "mux_send.c", "stream.c"},
    "http": {"http_parse.c", "http_parse_head.c", "http_answer.c", "exchange.c", "bodies.c"},
    "routes": {"routes.c"},
    "command": {"command.c", "ledger.c"},
    "telemetry": {"telemetry.c", "envelope.c"},
    "ota": {"ota.c", "image.c", "updater.c"},
    "provisioning": {"provisioning.c"},
    "state": {"settings.c"},
}
MAX_STREAM: Final = 6 * 1024
STREAM_RING: Final = 4096
MAX_PAGE: Final = 12 * 1024
# Of the core task's 8 KiB: one function's own share, and the deepest way through the core. The rest is for
# what it calls of the port: RS256 and NVS.
MAX_FRAME: Final = 1280
MAX_STACK: Final = 3 * 1024
WAYS_IN: Final = ("tl_device_init", "tl_device_event", "tl_device_run", "tl_device_stop")
REPORTS: Final = ("tl_device_measured", "tl_device_sensor", "tl_device_happened")  # the program's own calls
# Of what a program keeps once: bytes each.
MAX_STRUCTURES: Final = {
    "tl_mux": 4096,
    "tl_grants": 9216,
    "tl_revoked": 2048,
    "tl_ring": 512,
    "tl_settings": 1024,
    "tl_device": 48 * 1024,
    "device_with_4_streams": 72 * 1024,
}
# What the compiler and any libc bring: nothing that allocates, prints, waits or asks for the time.
ALLOWED: Final = re.compile(
    r"mem(cpy|move|set|cmp|chr)|str(len|cmp|ncmp|chr)|__\w+[ds]i\d|__riscv_(save|restore)_\d+"
)
HEADERS: Final = {"stdint.h", "stddef.h", "stdbool.h", "string.h", "limits.h"}


def test_every_source_is_built(rv32: Path) -> None:
    assert set(objects(rv32)) == {path.name for path in (CORE / "src").glob("*.c")}


def test_text_and_static(rv32: Path) -> None:
    sizes = {name: sizes_of(path) for name, path in objects(rv32).items()}
    assert {name for name, size in sizes.items() if size.static} == set()
    assert sum(size.text for size in sizes.values()) <= MAX_TEXT, sizes


def test_what_was_planned_keeps_to_its_plan(rv32: Path) -> None:
    built = objects(rv32)
    sizes = {name: sum(sizes_of(built[file]).text for file in files) for name, files in PLANNED.items()}
    assert sum(sizes.values()) <= MAX_PLANNED, sizes


def test_the_page(rv32: Path) -> None:
    size = sizes_of(page(rv32))
    assert size.static == 0
    assert 0 < size.text <= MAX_PAGE


def test_the_core_leans_on_nothing(rv32: Path) -> None:
    own = set[str]().union(*(defined(path) for path in [*objects(rv32).values(), page(rv32)]))
    wanted = set[str]().union(*(undefined(path) for path in objects(rv32).values()))
    assert {name for name in wanted - own if not ALLOWED.fullmatch(name)} == set()


def test_the_core_includes_nothing_else() -> None:
    included = {
        (path.name, header)
        for path in CORE.rglob("*.[ch]")
        for header in re.findall(r"^\s*#\s*include\s*<([^>]+)>", path.read_text(), re.MULTILINE)
    }
    assert {pair for pair in included if pair[1] not in HEADERS} == set()


def test_structures(rv32: Path) -> None:
    sizes = structures(rv32)
    assert STREAM_RING + sizes["tl_stream"] + sizes["tl_line"] <= MAX_STREAM
    assert {name: sizes[name] for name, most in MAX_STRUCTURES.items() if sizes[name] > most} == {}


def test_stack_frames(rv32: Path) -> None:
    sizes = frames(rv32)
    assert len(sizes) > 100
    assert {name: size for name, size in sizes.items() if size > MAX_FRAME} == {}


def test_the_stack(rv32: Path) -> None:
    graph = stack.read(rv32)
    depths = {way: graph.depth(way) for way in WAYS_IN}
    assert all(1000 < bytes_there <= MAX_STACK for bytes_there, _ in depths.values()), depths
    assert all(100 < graph.depth(report)[0] <= MAX_STACK for report in REPORTS)


def test_a_function_that_calls_itself_has_no_bound() -> None:
    graph = stack.Graph({"a": 16, "b": 16}, {"a": {"b"}, "b": {"a"}})
    with pytest.raises(stack.Unresolved, match="a → b → a"):
        graph.depth("a")
