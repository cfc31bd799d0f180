"""Which commands were begun and how they ended, whatever stops the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_protocol.bodies import Ack, Stage
from device_protocol.ids import RANDOM_BYTES, uuid7
from tunnel_agent.messages.ledger import KEPT, REMEMBERED_MS, RESULTS_KEPT, Ledger

NOW_MS = 1_800_000_000_000
BOOT, OTHER_BOOT = "machine-boot-1", "machine-boot-2"


def command(n: int) -> str:
    return uuid7(n, n.to_bytes(RANDOM_BYTES, "big"))


def done(n: int, *, ok: bool = True, result: object = None) -> Ack:
    return Ack(command(n), Stage.DONE, at=NOW_MS, ok=ok, result=result)


def opened(folder: Path, boot: str = BOOT, now_ms: int = NOW_MS) -> tuple[Ledger, list[Ack]]:
    ledger = Ledger(folder / "ledger", boot)
    ended = ledger.open(now_ms)
    return ledger, ended


def test_an_outcome_outlives_the_process(folder: Path) -> None:
    ledger, _ = opened(folder)
    ledger.take(command(1), "run", NOW_MS)
    ledger.end(done(1, result={"code": 0}), NOW_MS)
    again, ended = opened(folder)
    assert ended == []
    entry = again.get(command(1))
    assert entry is not None
    assert entry.outcome == done(1, result={"code": 0})
    assert again.get(command(2)) is None


def test_what_was_begun_and_did_not_end_is_interrupted_for_good(folder: Path) -> None:
    ledger, _ = opened(folder)
    ledger.take(command(1), "run", NOW_MS)
    for _ in range(2):
        again, ended = opened(folder)
        entry = again.get(command(1))
        assert entry is not None
        assert entry.outcome == Ack(command(1), Stage.DONE, at=NOW_MS, ok=False, error="interrupted")
    assert ended == []  # told at the first start; whoever asks later is told again


@pytest.mark.parametrize(("boot", "ok"), [(BOOT, False), (OTHER_BOOT, True), ("", False)])
def test_a_reboot_worked_when_the_machine_started_anew(folder: Path, boot: str, ok: bool) -> None:
    ledger, _ = opened(folder)
    ledger.take(command(1), "reboot", NOW_MS)
    _, (ended,) = opened(folder, boot)
    assert ended.ok is ok


def test_torn_at_every_byte_no_begun_command_is_forgotten(folder: Path) -> None:
    ledger, _ = opened(folder)
    ledger.take(command(1), "run", NOW_MS)
    begun = (folder / "ledger").stat().st_size
    ledger.end(done(1, result="x" * 50), NOW_MS)
    data = (folder / "ledger").read_bytes()
    for size in range(begun, len(data) + 1):
        (folder / "ledger").write_bytes(data[:size])
        again, ended = opened(folder)
        entry = again.get(command(1))
        assert entry is not None
        # The line alone is enough, also without its end.
        whole = size >= len(data) - 1
        assert entry.outcome == (done(1, result="x" * 50) if whole else ended[0])


def test_an_id_that_cannot_be_stored_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = opened(folder)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(OSError, match="part of a line"):
        ledger.take(command(1), "run", NOW_MS)
    monkeypatch.undo()
    assert ledger.get(command(1)) is None
    ledger.take(command(2), "run", NOW_MS)
    again, ended = opened(folder)
    assert [ack.command for ack in ended] == [command(2)]
    assert again.get(command(1)) is None


def test_it_is_bounded_and_keeps_what_has_not_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    ledger, _ = opened(folder)
    ledger.take(command(0), "run", NOW_MS)
    for n in range(1, KEPT + 51):
        ledger.take(command(n), "run", NOW_MS)
        ledger.end(done(n, result="x" * 1000), NOW_MS)
    assert len(ledger) == KEPT
    assert ledger.get(command(0)) is not None
    assert ledger.get(command(1)) is None
    with_result = sum(
        entry.outcome.result is not None
        for n in range(KEPT + 51)
        if (entry := ledger.get(command(n))) is not None and entry.outcome is not None
    )
    assert with_result == RESULTS_KEPT
    again, _ = opened(folder)
    assert len(again) == KEPT
    assert (folder / "ledger").stat().st_size < 1 << 20


def test_ids_are_forgotten_a_week_after_their_time(folder: Path) -> None:
    ledger, _ = opened(folder)
    for n in (1, 2):
        ledger.take(command(n), "run", NOW_MS + n)
        ledger.end(done(n), NOW_MS + n)
    again, _ = opened(folder, now_ms=NOW_MS + REMEMBERED_MS + 2)
    assert again.get(command(1)) is None
    assert again.get(command(2)) is not None


def test_lines_that_make_no_sense_cost_themselves_alone(folder: Path) -> None:
    ledger, _ = opened(folder)
    ledger.take(command(1), "run", NOW_MS)
    with (folder / "ledger").open("ab") as file:
        file.write(b"\xff\0\n00000000 {}\nd0345b1a []\n")
    _, ended = opened(folder)
    assert [ack.command for ack in ended] == [command(1)]
