from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.processes import started
from tests.networks.topology import Topology
from tests.networks.world import World


@pytest.fixture(scope="package")
def shared(seed: int) -> Iterator[World]:
    """One running product for the tests that leave it as they found it."""
    with started(World("w", seed=seed)) as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    yield shared
    shared.settle()


@pytest.fixture(scope="module")
def clocks(seed: int) -> Iterator[World]:
    """The same with clocks that can be set."""
    with started(World("c", seed=seed, fake_clocks=True)) as world:
        yield world


@pytest.fixture(scope="module")
def bare(seed: int) -> Iterator[Topology]:
    """Networks without the product."""
    topology = Topology("b", {}, seed)
    yield topology
    topology.close()
