"""Python's collector of cycles, for processes that make and drop thousands of small objects a second."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 20_000
"""Objects made beyond those dropped until the youngest are looked through. Python's own 700 is a few dozen
messages; what waits for the log was then looked through for cycles again and again, and has none.
"""
OLDER: Final = (50, 100)


def be_rare() -> None:
    """Leave what was made until now alone for good, and look at the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *OLDER)
