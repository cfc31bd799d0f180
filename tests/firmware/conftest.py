"""What the firmware's tests share: each kind of build, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.build_firmware import build


@pytest.fixture(scope="session")
def asan() -> Path:
    """Units and simulator with the address and undefined-behaviour sanitizers."""
    return build("asan")


@pytest.fixture(scope="session")
def rv32() -> Path:
    """The core and its units for the ESP32-C3's instruction set."""
    return build("rv32")


@pytest.fixture(scope="session")
def simulator() -> Path:
    """The simulator as a user runs it: the folder of build/firmware/sim."""
    return build("sim")


@pytest.fixture(scope="session")
def tsan() -> Path:
    """The queue, the port and the simulator with the thread sanitizer, and no other units."""
    return build("tsan", targets=("test_queue", "port-pipe", "towline-device"))
