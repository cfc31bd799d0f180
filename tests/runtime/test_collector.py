"""The collector of cycles is seldom, and still there."""

from __future__ import annotations

import gc
import weakref

from runtime import collector


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.self = self


def test_what_was_made_before_is_left_alone_and_cycles_still_go() -> None:
    before = gc.get_threshold()
    try:
        collector.be_rare()
        assert gc.get_threshold() == (collector.YOUNG, *collector.OLDER)
        assert gc.get_freeze_count() > 0
        gone = weakref.ref(Knot())
        kept = [[] for _ in range(2 * collector.YOUNG)]  # type: list[list[int]]
        assert gone() is None, "the youngest were looked through"
        assert len(kept) == 2 * collector.YOUNG
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
