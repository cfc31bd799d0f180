"""What holds for every test."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from runtime.logs import JsonFormatter
from testbed.processes import Logged, started

if TYPE_CHECKING:
    from testbed.kafka import KafkaServer

# A busy machine makes single examples slow, which is no fault of the code; pytest bounds the whole test.
settings.register_profile("towline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("towline")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a test ran of the product may have sent the process's log to that test's stderr."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in list(root.handlers):
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def _leaks() -> Iterator[None]:
    """What a file left open is that file's failure, not that of whichever test is collected in."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def seed() -> int:
    """Where a test's random choices come from: `make soak SEED=…`, else 0."""
    return int(os.environ.get("TOWLINE_SEED", "0"))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Records a figure by name, as text with its unit; `make soak` puts it into its table."""
    return record_property


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker for all who need one: they are one xdist group, each with a prefix of its own for topics."""
    # Its client takes 10 MB, which the other processes of a run do without.
    from testbed.kafka import KafkaServer

    with started(KafkaServer(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


# Folders whose tests drive whole stacks, browsers and other programs (the Makefile's WHOLE), in two groups of
# about the same length: within one they run one after the other.
WHOLE = {
    **dict.fromkeys(("connect", "integration", "testbed"), "stacks"),
    **dict.fromkeys(
        ("browser", "cluster", "deployment", "device_uis", "fuzz", "hostile", "networks"), "parts"
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "database: needs a real database or log; not part of test-fast")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole stacks come last, two at a time: what runs beside them is their load."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.database)
            item.add_marker(pytest.mark.xdist_group("kafka"))
    tests = Path(__file__).parent
    whole = {item: WHOLE.get(item.path.relative_to(tests).parts[0]) for item in items}
    for item, group in whole.items():
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: whole[item] is not None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what its fixtures' processes wrote; a fixture may be a dict of them."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not (report.failed and isinstance(item, pytest.Function)):
        return
    shown: dict[int, tuple[str, str]] = {}
    for name, value in item.funcargs.items():
        for one in value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(one, Logged) and id(one) not in shown:
                shown[id(one)] = (f"logs of {name}", one.logs())
    report.sections.extend(shown.values())
