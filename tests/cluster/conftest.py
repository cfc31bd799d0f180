from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.processes import short_folder, started
from tests.cluster.cluster import Cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Two nodes for all tests of this folder."""
    with short_folder("two-") as folder, started(Cluster(folder)) as running:
        yield running


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed with a node dead costs the next one nothing."""
    yield
    if "cluster" in request.fixturenames:
        shared: Cluster = request.getfixturevalue("cluster")
        shared.heal()
