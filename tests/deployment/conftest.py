from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from testbed.processes import short_folder, started
from tests.deployment.client import Client
from tests.deployment.live_events import Quiet
from tests.deployment.site import FRONTS, Site


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with short_folder("site-") as folder, started(Site(folder)) as running:
        yield running


@pytest.fixture(scope="package", autouse=True)
def quiet(site: Site) -> Iterator[Quiet]:
    """Begun before everything else, so that the minute in which nothing happens passes beside the tests."""
    with closing(Quiet(site, FRONTS)) as streams:
        streams.start()
        yield streams


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(site: Site) -> Iterator[Callable[..., Client]]:
    """Somebody who opened a link through a front; closed with the test."""
    with ExitStack() as leaving:

        def enter(front: str, service: str = "web", **options: Any) -> Client:
            visitor = site.visitor(front, service, **options)
            leaving.callback(visitor.close)
            return visitor

        yield enter
