from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from testbed.processes import short_folder, started
from tests.deployment.client import Client
from tests.deployment.site import FRONTS, Site


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with short_folder("site-") as folder, started(Site(folder)) as running:
        yield running


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(site: Site) -> Iterator[Callable[..., Client]]:
    """Somebody who opened a link through a front; closed with the test."""
    with ExitStack() as closing:

        def enter(front: str, service: str = "web", **options: Any) -> Client:
            visitor = site.visitor(front, service, **options)
            closing.callback(visitor.close)
            return visitor

        yield enter
