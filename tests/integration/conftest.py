from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from testbed.people import Person, Visitor, entered
from testbed.processes import short_folder, started
from testbed.up import Stack

_NUMBERS = count(1)


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture(scope="package")
def shared(folder: Path) -> Iterator[Stack]:
    """One running `towline up` for the tests that leave it as they found it."""
    with started(Stack(folder / "shared")) as stack:
        yield stack


@pytest.fixture
def own(folder: Path) -> Iterator[Stack]:
    """A `towline up` of the test's own, not started yet."""
    with closing(Stack(folder / f"own-{next(_NUMBERS)}")) as stack:
        yield stack


@pytest.fixture
def person(shared: Stack) -> Iterator[Person]:
    with closing(shared.newcomer()) as newcomer:
        yield newcomer


@pytest.fixture
def visit() -> Iterator[Callable[[dict[str, Any]], Visitor]]:
    """Turns a session's answer into a visitor who is in."""
    with ExitStack() as leaving:

        def enter(session: dict[str, Any]) -> Visitor:
            return leaving.enter_context(closing(entered(session["url"])))

        yield enter
