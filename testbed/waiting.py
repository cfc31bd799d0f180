"""Waiting for what another process does: asked again and again, until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

RECOVERY_TIMEOUT_S = 30.0  # back-off, start and reconnect together take a few seconds
PAUSE_S = 0.1  # between two questions

T = TypeVar("T")


def eventually(what: str, check: Callable[[], T], timeout_s: float = RECOVERY_TIMEOUT_S) -> T:
    """The first truthy answer of ``check``; errors of a service that is away count as not yet.

    AssertionError that names `what` and the last answer after the deadline. `check` is always asked twice:
    one that takes longer than the deadline would else have a single try.
    """
    pause, deadline, last, asked = threading.Event(), time.monotonic() + timeout_s, "nothing", 0
    while asked < 2 or time.monotonic() < deadline:
        try:
            found = check()
        except (httpx.HTTPError, OSError) as error:
            last = repr(error)
        else:
            if found:
                return found
            last = repr(found)
        asked += 1
        pause.wait(PAUSE_S)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s, last {last}")
