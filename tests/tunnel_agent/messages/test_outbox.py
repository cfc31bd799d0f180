"""What is in the outbox stays there, whatever happens to the disk, until it is accepted."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from device_protocol.envelope import decode_stored
from device_protocol.numbers import NOTHING, Number
from runtime.private_files import write_private as write_private_for_good
from tests.tunnel_agent.messages.making import begun, event, ids, numbers, opened, told, waiting
from tunnel_agent.messages import outbox as module
from tunnel_agent.messages.outbox import KINDS, REFUSED_KEPT, Outbox, Verdict
from tunnel_agent.messages.segments import HEADER_BYTES, RECORD_BYTES


def said(outbox: Outbox) -> list[int]:
    return [told(entry) for entry in waiting(outbox)]


def store(outbox: Outbox, *ns: int, room: int = 0) -> None:
    for n in ns:
        outbox.store([event(n, room)])


def test_a_device_that_never_counted_numbers_nothing_before_it_is_told_to(folder: Path) -> None:
    outbox = opened(folder)
    assert outbox.boot == 0
    outbox.begin()
    store(outbox, 1, 2)
    assert numbers(waiting(outbox)) == [(1, 1), (1, 2)]
    assert (folder / "boot").read_text() == "1\n"


def test_each_start_is_a_boot_and_what_waits_keeps_its_number(folder: Path) -> None:
    store(begun(folder), 1, 2)
    again = opened(folder)
    assert again.boot == 2
    store(again, 3)
    assert numbers(waiting(again)) == [(1, 1), (1, 2), (2, 1)]
    assert said(again) == [1, 2, 3]
    for entry in waiting(again):
        assert decode_stored(KINDS[entry.kind], entry.body).number == entry.number


def test_only_what_is_accepted_leaves(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, *range(1, 11))
    assert outbox.accept(Number(1, 4)) is Verdict.NEWS
    assert outbox.accept(Number(1, 4)) is Verdict.OLD
    assert outbox.accept(Number(1, 3)) is Verdict.OLD
    assert said(outbox) == list(range(5, 11))
    assert outbox.entries == 6
    outbox.save()
    again = opened(folder)
    assert (again.floor, said(again)) == (Number(1, 4), list(range(5, 11)))


def test_without_the_last_progress_some_is_said_again_and_nothing_is_lost(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, 1, 2, 3)
    outbox.accept(Number(1, 2))  # and the power goes
    assert said(opened(folder)) == [1, 2, 3]
    (folder / "progress").write_bytes(b"\0\0\0")
    assert said(opened(folder)) == [1, 2, 3]


def test_segments_that_are_accepted_are_removed(folder: Path) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(20), room=1000)
    files = len(list(folder.glob("*.seg")))
    assert files > 3
    last = numbers(waiting(outbox))[-1]
    outbox.accept(last)
    outbox.save()
    assert len(list(folder.glob("*.seg"))) == 1
    assert said(outbox) == []
    store(outbox, 99)
    assert said(outbox) == [99]


def test_it_is_bounded_and_lets_the_oldest_go(folder: Path) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(200), room=1000)
    left = said(outbox)
    assert outbox.size <= 8 * 4096
    assert left == list(range(200 - len(left), 200))
    assert outbox.dropped == 200 - len(left)
    assert outbox.report().dropped == outbox.dropped
    again = opened(folder, 8 * 4096)
    assert said(again) == left
    assert again.dropped == outbox.dropped


def test_reading_goes_on_where_it_stopped_and_keeps_to_its_bounds(folder: Path) -> None:
    outbox = begun(folder, 8 * 8192)
    store(outbox, *range(40), room=1000)
    found, after = [], NOTHING
    while piece := outbox.read(after, 7, 4000):
        assert len(piece) <= 7
        assert sum(len(entry.body) for entry in piece) <= 4000
        found += [told(entry) for entry in piece]
        after = piece[-1].number
    assert found == list(range(40))
    assert [told(entry) for entry in outbox.read(NOTHING, 5, 0)] == [0]  # one of any size


# A power cut, a crash


def test_torn_at_every_byte_what_is_whole_is_kept(folder: Path) -> None:
    whole = begun(folder / "whole")
    store(whole, 1, 2, 3)
    (path,) = (folder / "whole").glob("*.seg")
    data = path.read_bytes()
    ends = [HEADER_BYTES]
    for entry in waiting(whole):
        ends.append(ends[-1] + len(entry.body) + RECORD_BYTES)
    assert ends[-1] == len(data)
    torn = folder / "torn"
    for size in range(len(data)):
        shutil.rmtree(torn, ignore_errors=True)
        torn.mkdir()
        (torn / path.name).write_bytes(data[:size])
        (torn / "boot").write_text("1")
        outbox = opened(torn)
        kept = [n for n, end in enumerate(ends) if n and end <= size]
        assert said(outbox) == kept
        store(outbox, 4)
        assert said(opened(torn)) == [*kept, 4]


def test_a_flipped_bit_anywhere_invents_nothing(folder: Path) -> None:
    whole = begun(folder / "whole")
    store(whole, 1, 2, 3)
    (path,) = (folder / "whole").glob("*.seg")
    data = path.read_bytes()
    sick = folder / "sick"
    for at in range(0, len(data), 3):
        shutil.rmtree(sick, ignore_errors=True)
        sick.mkdir()
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        (sick / path.name).write_bytes(flipped)
        assert said(opened(sick)) in ([], [1], [1, 2])
        assert opened(sick).cuts == 0  # told and mended the first time


def test_a_rotten_segment_costs_its_own_entries_alone(folder: Path) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(12), room=1000)
    first = min(folder.glob("*.seg"))
    data = bytearray(first.read_bytes())
    data[HEADER_BYTES + 20] ^= 1
    first.write_bytes(data)
    seen = said(outbox)
    assert seen
    assert seen == list(range(12 - len(seen), 12))
    assert outbox.dropped == 12 - len(seen)
    assert said(opened(folder, 8 * 4096)) == seen


def test_a_segment_that_somebody_removed_stops_nothing(folder: Path) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(12), room=1000)
    min(folder.glob("*.seg")).unlink()
    seen = said(outbox)
    assert seen == list(range(12 - len(seen), 12))
    assert 0 < len(seen) < 12


class Disk:
    """What the outbox asks of the disk, with the answers of one that is full or broken."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.syncs = True
        self.truncates = True
        self._write, self._sync, self._truncate = os.write, os.fdatasync, os.ftruncate
        patch.setattr(os, "write", self.write)
        patch.setattr(os, "fdatasync", self.sync)
        patch.setattr(os, "ftruncate", self.truncate)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return self._write(descriptor, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        some = bytes(data)[: self.room]
        self.room -= len(some)
        return self._write(descriptor, some)

    def sync(self, descriptor: int) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, "Input/output error")
        self._sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        if not self.truncates:
            raise OSError(errno.EIO, "Input/output error")
        self._truncate(descriptor, size)


@pytest.mark.parametrize("room", [0, 1, 50, 200])
def test_a_full_disk_refuses_and_later_takes_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    outbox = begun(folder)
    store(outbox, 1)
    disk = Disk(monkeypatch)
    disk.room = room
    messages = [event(2), event(3)]
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            outbox.store(messages)
        assert said(outbox) == [1]
    assert said(opened(folder)) == [1]
    disk.room = None
    outbox.store(messages)
    assert said(outbox) == said(opened(folder)) == [1, 2, 3]


def test_what_was_not_synced_is_not_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = begun(folder)
    disk = Disk(monkeypatch)
    disk.syncs = False
    with pytest.raises(OSError, match="Input/output"):
        store(outbox, 1)
    assert said(outbox) == []
    disk.syncs = True
    store(outbox, 1)
    assert said(outbox) == said(opened(folder)) == [1]


def test_what_cannot_even_be_taken_back_is_said_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = begun(folder)
    store(outbox, 1)
    disk = Disk(monkeypatch)
    disk.syncs = disk.truncates = False
    messages = [event(2), event(3)]
    with pytest.raises(OSError, match="Input/output"):
        outbox.store(messages)
    assert said(outbox) == [1]
    disk.syncs = disk.truncates = True
    outbox.store(messages)
    assert said(outbox) == [1, 2, 3]
    again = opened(folder)
    assert said(again) == [1, 2, 3]
    assert again.entries == 3
    again.renumber(Number(9, 9))
    assert said(again) == [1, 2, 3]


def test_progress_that_cannot_be_written_still_makes_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(12), room=1000)
    outbox.accept(Number(1, 9))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_private", full)
    before = len(list(folder.glob("*.seg")))
    with pytest.raises(OSError, match="No space"):
        outbox.save()
    assert len(list(folder.glob("*.seg"))) < before
    assert said(outbox) == [9, 10, 11]


# Another life of the same device


def test_numbers_of_another_life_have_what_waits_numbered_anew(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, 1, 2, 3)
    before = ids(waiting(outbox))
    assert outbox.accept(Number(7, 50)) is Verdict.FOREIGN
    assert said(outbox) == [1, 2, 3]
    outbox.renumber(Number(7, 50))
    assert numbers(waiting(outbox)) == [(8, 1), (8, 2), (8, 3)]
    assert ids(waiting(outbox)) == before
    assert outbox.floor == (7, 50)
    store(outbox, 4)
    again = opened(folder)
    assert again.boot == 9
    assert numbers(waiting(again)) == [(8, 1), (8, 2), (8, 3), (8, 4)]


def test_a_restored_image_drops_nothing_for_numbers_that_it_never_gave(folder: Path) -> None:
    """The dangerous one: the same boot, told with a seq that this life did not reach."""
    outbox = begun(folder)
    store(outbox, 1, 2, 3)
    assert outbox.accept(Number(1, 50)) is Verdict.FOREIGN
    assert said(outbox) == [1, 2, 3]


def test_numbers_that_were_given_but_not_said_yet_are_another_lifes(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, 1, 2, 3)
    outbox.said = Number(1, 1)
    assert outbox.accept(Number(1, 2)) is Verdict.FOREIGN
    assert outbox.accept(Number(1, 1)) is Verdict.NEWS
    outbox.renumber(Number(1, 2))
    assert numbers(waiting(outbox)) == [(2, 1), (2, 2)]
    assert said(outbox) == [2, 3]


def test_a_wiped_card_begins_above_what_is_known(folder: Path) -> None:
    outbox = opened(folder)
    assert outbox.accept(Number(7, 50)) is Verdict.FOREIGN
    outbox.renumber(Number(7, 50))
    store(outbox, 1)
    assert numbers(waiting(outbox)) == [(8, 1)]


def test_a_lost_counter_alone_is_found_again(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, 1, 2, 3)
    (folder / "boot").unlink()
    again = opened(folder)
    assert again.boot == 0
    assert again.accept(Number(1, 2)) is Verdict.NEWS
    again.begin()
    store(again, 4)
    assert numbers(waiting(again)) == [(1, 3), (2, 1)]


def test_lost_progress_of_an_empty_outbox_is_no_other_life(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, 1, 2)
    outbox.accept(Number(1, 2))
    outbox.close()
    for path in (*folder.glob("*.seg"), folder / "progress"):
        path.unlink()
    again = opened(folder)
    store(again, 3)
    assert again.accept(Number(1, 2)) is Verdict.NEWS
    assert said(again) == [3]


@pytest.mark.parametrize("stop_after", range(1, 7))
def test_numbering_anew_survives_a_crash_between_any_two_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    outbox = begun(folder, 8 * 4096)
    store(outbox, *range(12), room=1000)
    assert len(list(folder.glob("*.seg"))) >= 4
    outbox.accept(Number(1, 2))
    outbox.save()
    before = ids(waiting(outbox))
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_private", _stops_after(stop_after))
        with suppress(OSError):
            outbox.renumber(Number(7, 50))
    again = opened(folder, 8 * 4096)
    assert ids(waiting(again)) == before
    given = numbers(waiting(again))
    assert given == sorted(set(given))
    if again.accept(Number(7, 50)) is Verdict.FOREIGN:
        again.renumber(Number(7, 50))
    assert ids(waiting(again)) == before
    given = numbers(waiting(again))
    assert given == sorted(set(given))
    assert given[0] > (7, 50)
    store(again, 99)
    assert numbers(waiting(again))[-1] > given[-1]


def _stops_after(count: int) -> Callable[[Path, bytes], None]:
    done: list[Path] = []

    def write_private(path: Path, data: bytes) -> None:
        if len(done) == count:
            raise OSError("the power went")
        done.append(path)
        write_private_for_good(path, data)

    return write_private


# What the other side will not have


def test_a_message_that_nobody_takes_stands_aside(folder: Path) -> None:
    outbox = begun(folder)
    store(outbox, *range(REFUSED_KEPT + 3))
    for _ in range(REFUSED_KEPT + 1):
        outbox.refuse(waiting(outbox)[0])
    assert said(outbox) == [REFUSED_KEPT + 1, REFUSED_KEPT + 2]
    assert outbox.floor == NOTHING
    assert outbox.refused == REFUSED_KEPT + 1
    assert len(list((folder / "refused").iterdir())) == REFUSED_KEPT
    assert said(opened(folder)) == [REFUSED_KEPT + 1, REFUSED_KEPT + 2]


def test_a_message_that_no_reader_takes_is_not_numbered(folder: Path) -> None:
    outbox = begun(folder)
    outbox.store([event(1), event(2, room=20_000), event(3)])
    assert said(outbox) == [1, 3]
    assert numbers(waiting(outbox)) == [(1, 1), (1, 2)]
    assert outbox.refused == 1
