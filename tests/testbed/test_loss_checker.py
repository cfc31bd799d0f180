"""The checker sees each kind of fault: one that sees none would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_protocol.numbers import Number
from testbed.loss_checker import Journal, Row, command_faults, faults, journal_faults


def row(boot: int, seq: int, at: int, id: str | None = None, token: int | None = None) -> Row:
    time = f"2026-01-01T00:00:{at:02}.000Z"
    return Row(Number(boot, seq), id or f"{boot}.{seq}", time, stored_in=at, token=token)


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
        ([*WHOLE, row(4, 3, 4)], [], "stored before"),
    ],
)
def test_what_is_not(rows: list[Row], told: list[Number], fault: str) -> None:
    assert any(fault in one for one in faults(rows, told))


def journal(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


SAID = journal(
    '["offered", "1.1", 10]',
    '["sent", 1, 1, "1.1"]',
    '["offered", "1.2", 11]',
    '["offered", "never", 12]',
    '["sent", 1, 2, "1.2"]',
    '["sent", 1, 1, "1.1"]',
    '["told", 1, 1]',
    '["sent", 2, 1, "2.1"]',
)
KEPT = [row(1, 1, 1, token=10), row(1, 2, 2, token=11), row(2, 1, 3)]


def read(tmp_path: Path, text: str) -> Journal:
    path = tmp_path / "journal"
    path.write_text(text)
    return Journal.read(path)


def test_a_journal_that_agrees(tmp_path: Path) -> None:
    assert journal_faults(KEPT, read(tmp_path, SAID)) == []
    assert journal_faults(KEPT, read(tmp_path, SAID + '["told", 1')) == []
    assert journal_faults([], Journal.read(tmp_path / "none")) == []
    with pytest.raises(ValueError, match="no line"):
        read(tmp_path, '["heard", 1, 1]\n')


@pytest.mark.parametrize(
    ("rows", "more", "fault"),
    [
        (KEPT[:2], "", "sent, never accepted, and not kept"),
        (KEPT[:2], '["told", 2, 1]', "2.1: accepted and lost"),
        (KEPT, '["told", 2, 2]', "accepted and lost"),
        ([KEPT[0], row(1, 2, 2, "other", 11), KEPT[2]], '["told", 1, 2]', "1.2: accepted and lost"),
        ([*KEPT, row(2, 2, 4)], "", "stored, never sent"),
        ([KEPT[0], row(1, 2, 2, token=99), KEPT[2]], "", "says 99, was 11"),
        (KEPT[:1], "", "sent, never accepted, and not kept"),
    ],
)
def test_a_journal_that_does_not(tmp_path: Path, rows: list[Row], more: str, fault: str) -> None:
    assert any(fault in one for one in journal_faults(rows, read(tmp_path, SAID + f"{more}\n" * bool(more))))


def test_commands() -> None:
    given = {"a": "succeeded", "b": "failed", "c": "expired"}
    assert command_faults(given, ["b", "a"]) == []
    assert "executed 2 times" in command_faults(given, ["a", "a"])[0]
    assert "never given" in command_faults(given, ["a", "d"])[0]
    assert "never executed" in command_faults(given, [])[0]
    assert "left sent" in command_faults({"a": "sent"}, [])[0]
