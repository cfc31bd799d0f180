"""The ESP port compiles against declarations of ESP-IDF, for each target; what IDF reads fits together.

Nothing of it runs here: only a chip can show that it works.
"""

from __future__ import annotations

import csv
import re
from typing import Final

import pytest

from scripts.build_firmware import FIRMWARE, build

PORT: Final = FIRMWARE / "components" / "towline_port_esp"
STUBS: Final = FIRMWARE / "idf_stubs"
FLASH_BYTES: Final = 4 * 1024 * 1024
FIRST_OFFSET: Final = 0x9000  # behind the boot loader and the table
APP_ALIGNMENT: Final = 0x10000
SECTOR: Final = 4096
OPTION: Final = r"^CONFIG_(TOWLINE_\w+)="


@pytest.mark.parametrize("target", ["esp32", "esp32c3", "esp32s3", "ethernet"])
def test_compiles(target: str) -> None:
    folder = build("stubs") / "idf_stubs" / "CMakeFiles" / f"esp_{target}.dir"
    made = {path.name.removesuffix(".o") for path in folder.rglob("*.c.o")}
    other = {"ethernet.c"} if target != "ethernet" else {"wifi.c", "provisioning.c"}
    assert made == {path.name for path in PORT.glob("*.c")} - other | {"main.c", "crypto.c"}


def test_idf_builds_the_same_sources() -> None:
    named = set(re.findall(r"(\w+\.c)\b", (PORT / "CMakeLists.txt").read_text()))
    assert named == {path.name for path in PORT.glob("*.c")} | {"crypto.c"}


def test_no_stub_is_left_over() -> None:
    """A header that nobody includes is a declaration that nobody keeps true."""
    sources = [*PORT.rglob("*.[ch]"), *(FIRMWARE / "main").glob("*.c"), *STUBS.rglob("*.h")]
    included = {
        name for path in sources for name in re.findall(r'#include ["<]([^">]+)[">]', path.read_text())
    }
    assert {str(path.relative_to(STUBS)) for path in STUBS.rglob("*.h")} <= included


def test_partitions_fit_the_flash() -> None:
    lines = (FIRMWARE / "partitions.csv").read_text().splitlines()
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if not row[0].startswith("#")]
    parts = {row[0]: (row[1], int(row[3], 0), int(row[4], 0)) for row in rows}
    end = FIRST_OFFSET
    for name, (kind, offset, size) in parts.items():
        assert offset >= end, name
        assert size % SECTOR == 0, name
        assert offset % (APP_ALIGNMENT if kind == "app" else SECTOR) == 0, name
        end = offset + size
    assert end <= FLASH_BYTES
    assert parts["ota_0"][2] == parts["ota_1"][2]
    assert {"nvs", "otadata", "outbox"} <= parts.keys()


def test_no_build_hides_the_pin() -> None:
    """It is told on the console at the level of information: a quieter build would shut its owner out."""
    quieter = re.compile(r"^CONFIG_LOG_(DEFAULT|MAXIMUM)_LEVEL_(NONE|ERROR|WARN)=y", re.MULTILINE)
    assert [path.name for path in FIRMWARE.glob("sdkconfig.*") if quieter.search(path.read_text())] == []


def test_options_are_declared() -> None:
    """What the sources and the defaults name stands in Kconfig, and the stubs give each a value."""
    declared = set(re.findall(r"^ *config (TOWLINE_\w+)$", (PORT / "Kconfig").read_text(), re.MULTILINE))
    sources = [*PORT.glob("*.[ch]"), *(FIRMWARE / "main").glob("*.c")]
    used = {name for path in sources for name in re.findall(r"CONFIG_(TOWLINE_\w+)", path.read_text())}
    set_by_default = {
        name
        for path in FIRMWARE.glob("sdkconfig.*")
        for name in re.findall(OPTION, path.read_text(), re.MULTILINE)
    }
    assert used | set_by_default <= declared
    networks = {"TOWLINE_NETWORK_WIFI", "TOWLINE_NETWORK_ETHERNET"}  # given for each target
    stubbed = set(re.findall(r"#define CONFIG_(TOWLINE_\w+)", (STUBS / "sdkconfig.h").read_text()))
    assert used <= stubbed | networks
