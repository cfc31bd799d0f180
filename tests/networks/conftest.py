from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.networks.topology import Topology
from tests.networks.world import World


@pytest.fixture(scope="package")
def shared(seed: int) -> Iterator[World]:
    """One running product for the tests that leave it as they found it."""
    yield from _running(World("w", seed=seed))


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    yield shared
    shared.settle()


@pytest.fixture(scope="module")
def clocks(seed: int) -> Iterator[World]:
    """The same with clocks that can be set."""
    yield from _running(World("c", seed=seed, fake_clocks=True))


@pytest.fixture(scope="module")
def bare(seed: int) -> Iterator[Topology]:
    """Networks without the product."""
    topology = Topology("b", {}, seed)
    yield topology
    topology.close()


def _running(world: World) -> Iterator[World]:
    try:
        world.start()
        yield world
    except BaseException:
        print(world.logs())
        raise
    finally:
        world.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the processes wrote."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, World):
                report.sections.append(("the processes' logs", value.logs()))
