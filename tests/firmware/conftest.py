"""What the firmware's tests share: each kind of build, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.build_firmware import MAX_BUILD_S, build

TEST_S = 120  # as pyproject.toml gives every test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first to a kind of build makes it, or waits for who does: beside its own time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S + MAX_BUILD_S))


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
