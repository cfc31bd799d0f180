from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.stack import Person, Stack, Visitor


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    """A short path: the database's socket lies below it, as it does for a person."""
    made = Path(tempfile.mkdtemp(prefix="towline-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="package")
def shared(folder: Path) -> Iterator[Stack]:
    """One running `towline up` for the tests that leave it as they found it."""
    stack = Stack(folder / "shared")
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


@pytest.fixture
def own(folder: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A `towline up` of the test's own, not started yet."""
    stack = Stack(folder / f"own-{abs(hash(request.node.name)) % 10_000}")
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
def person(shared: Stack) -> Iterator[Person]:
    with ExitStack() as closing:
        one = Person(shared)
        closing.callback(one.close)
        yield one


@pytest.fixture
def visit() -> Iterator[Callable[[dict[str, Any]], Visitor]]:
    """Turns a session's answer into a visitor who is in."""
    with ExitStack() as closing:

        def enter(session: dict[str, Any]) -> Visitor:
            visitor = Visitor(session["url"])
            closing.callback(visitor.close)
            answer = visitor.enter()
            assert answer.status_code == 303, answer.text
            return visitor

        yield enter


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the services wrote."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function):
        for stack in item.funcargs.values():
            if isinstance(stack, Stack) and os.path.isdir(stack.data / "logs"):
                report.sections.append(("the services' logs", stack.log_ends()))
