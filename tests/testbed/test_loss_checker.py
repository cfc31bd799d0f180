"""The checker sees each kind of fault: one that sees none would prove nothing."""

from __future__ import annotations

import pytest

from device_protocol.numbers import Number
from testbed.loss_checker import Row, faults


def row(boot: int, seq: int, at: int, id: str | None = None) -> Row:
    return Row(Number(boot, seq), id or f"{boot}.{seq}", f"2026-01-01T00:00:{at:02}.000Z")


WHOLE = [row(1, 1, 1), row(1, 2, 2), row(1, 3, 2), row(4, 1, 5), row(4, 2, 6)]
TOLD = [Number(1, 2), Number(4, 1), Number(1, 3)]


def test_what_is_whole() -> None:
    assert faults(WHOLE, TOLD) == []
    assert faults([], []) == []


@pytest.mark.parametrize(
    ("rows", "told", "fault"),
    [
        (WHOLE[:1] + WHOLE[2:], [], "lost between"),
        (WHOLE[1:], [], "lost between"),
        ([*WHOLE[:3], row(4, 2, 6)], [], "lost between"),
        (WHOLE, [Number(4, 3)], "accepted and lost"),
        (WHOLE[:2], TOLD, "accepted and lost"),
        ([*WHOLE, row(4, 2, 6, "other")], [], "twice"),
        ([*WHOLE, row(4, 3, 7, "1.1")], [], "under two numbers"),
        ([*WHOLE, row(4, 3, 4)], [], "came before"),
    ],
)
def test_what_is_not(rows: list[Row], told: list[Number], fault: str) -> None:
    assert any(fault in one for one in faults(rows, told))
