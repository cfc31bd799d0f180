from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.client import Client
from tests.deployment.site import FRONTS, Site


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="towline-site-"))  # short: the database's socket lies below it
    folder.chmod(0o755)
    running = Site(folder)
    try:
        running.start()
        yield running
    except BaseException:
        print(running.logs())
        raise
    finally:
        running.close()
        shutil.rmtree(folder)


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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the processes wrote."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Site):
                report.sections.append(("the processes' logs", value.logs()))
