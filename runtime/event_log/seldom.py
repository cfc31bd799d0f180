"""A library that says the same again and again while its server is away: each line once in a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 30.0
"""The same line again, at the soonest."""
LINES_MAX: Final = 256
"""Different lines that are remembered; then all is forgotten, and said once more."""


class Seldom(logging.Handler):
    """Passes on to `target` what was not said just before, by the words that the code has for it."""

    def __init__(self, target: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._target = target
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now, line = self._clock(), (record.name, str(record.msg))
        at, left_out = self._said.get(line, (now - EVERY_S, 0))
        if now - at < EVERY_S:
            self._said[line] = (at, left_out + 1)
            return
        if len(self._said) >= LINES_MAX:
            self._said.clear()
        self._said[line] = (now, 0)
        if left_out:
            record.left_out = left_out
        if self._target.isEnabledFor(record.levelno):
            self._target.handle(record)


def say_seldom(library: str, target: logging.Logger) -> None:
    """From now on the library's loggers write their warnings to `target`, seldom. May be called again."""
    logger = logging.getLogger(library)
    if any(isinstance(one, Seldom) for one in logger.handlers):
        return
    logger.addHandler(Seldom(target))
    logger.setLevel(logging.WARNING)
    logger.propagate = False
