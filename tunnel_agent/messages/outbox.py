"""Keeps what a device has to say on disk until the other side has said that it is kept there.

    boot              the last boot that numbered anything, as text; before the first: no file
    progress          JSON: floor, passed, dropped, refused; may lag, then some is said twice
    NNNNNNNNNN.seg    records in the order of their numbers (tunnel_agent.messages.segments)
    refused/          the last messages that the other side would not take, for a person to look at

Every number is given once. An accepted number that was never given here was given by another life of this
device (a restored image, a copied card): then what waits is numbered anew above it, so that nothing of it is
taken for what that other life said.

All methods block on the disk; one thread at a time may call them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from device_protocol.bodies import OutboxReport
from device_protocol.envelope import Envelope, encode, renumbered
from device_protocol.errors import BadMessageError
from device_protocol.numbers import NOTHING, NUMBER_MAX, Number
from device_protocol.topics import Kind
from runtime.logs import get_logger
from runtime.private_files import write_private
from tunnel_agent.messages.policy.sending import Waiting
from tunnel_agent.messages.segments import (
    BODY_MAX,
    HEADER_BYTES,
    RECORD_BYTES,
    Record,
    pack_header,
    read_epoch,
    records,
)

KINDS: Final = {1: Kind.STATE, 2: Kind.TELEMETRY, 3: Kind.EVENT, 4: Kind.HEARTBEAT}
"""Kinds as records name them; a number is never used for another."""
SEGMENT_BYTES: Final = 1 << 20  # what goes at once when there is no more room; a new file costs two syncs
SEGMENTS_PER_OUTBOX: Final = 8  # at least: a small outbox must not lose half of itself at once
REFUSED_KEPT: Final = 16

_NUMBERS: Final = {kind: number for number, kind in KINDS.items()}
_log = get_logger("tunnel_agent.messages.outbox")


class Verdict(Enum):
    """What an accepted number says to this outbox."""

    NEWS = "news"
    OLD = "old"
    FOREIGN = "foreign"
    """It was never given here: `renumber` is the answer."""


@dataclass(slots=True)
class _Run:
    """Numbers of one boot without a gap."""

    boot: int
    first: int
    last: int

    def beyond(self, number: Number) -> int:
        """How many of them are greater."""
        if number.boot != self.boot:
            return 0 if number.boot > self.boot else self.last - self.first + 1
        return max(0, self.last - max(self.first - 1, number.seq))


@dataclass(slots=True)
class _Segment:
    """`size`: where its whole and synced records end."""

    path: Path
    epoch: int
    size: int
    runs: list[_Run]

    @property
    def last(self) -> Number:
        return Number(self.runs[-1].boot, self.runs[-1].last) if self.runs else NOTHING

    def took(self, number: Number) -> None:
        run = self.runs[-1] if self.runs else None
        if run is not None and (run.boot, run.last + 1) == number:
            run.last += 1
        else:
            self.runs.append(_Run(number.boot, number.seq, number.seq))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the record after `number` begins."""

    number: Number
    path: Path
    offset: int


class Outbox:
    """`open` comes first. `boot` is 0 until it may number: see there."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        """`most_bytes`: of all segments; above it the oldest goes."""
        self.directory = directory
        self.boot = 0
        self.floor = NOTHING
        """The highest number known to be accepted."""
        self.passed = NOTHING
        """Up to here everything left the outbox: accepted, refused or let go."""
        self.said = NOTHING
        """The highest number that this process sent: whoever sends keeps it up to date."""
        self.unfinished: Number | None = None
        """What `renumber` was asked for when the disk refused: it comes before all else."""
        self.dropped = 0
        """Entries let go for want of room, ever."""
        self.refused = 0
        """Entries that the other side, or the protocol, would not take, ever."""
        self.cuts = 0
        """Segments that were found torn or rotten at a start; what came after the tear is gone."""
        self._most_bytes = most_bytes
        self._segment_bytes = min(SEGMENT_BYTES, most_bytes // SEGMENTS_PER_OUTBOX)
        self._segments: list[_Segment] = []
        self._seq = 0
        self._descriptor: int | None = None  # of the last segment; None: the next entry begins a new one
        self._place: _Place | None = None
        self._next_name = 1

    def __repr__(self) -> str:
        return f"<Outbox {self.entries} entries beyond {tuple(self.floor)}, boot {self.boot}>"

    @property
    def entries(self) -> int:
        """That wait."""
        return sum(run.beyond(self.passed) for segment in self._segments for run in segment.runs)

    @property
    def size(self) -> int:
        """On disk."""
        return sum(segment.size for segment in self._segments)

    def report(self) -> OutboxReport:
        """For hello and health."""
        return OutboxReport(self.entries, self.size, self.dropped, self.refused)

    def open(self) -> None:
        """Read what is there; OSError. With a stored counter a new boot begins at once. Without one (a new
        device, or one whose card was wiped) nothing is numbered before the other side said what it knows.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for torn in self.directory.glob(".*"):
            torn.unlink()  # beside a file that a crash kept from being replaced
        self._load_progress()
        last = NOTHING
        for path in sorted(self.directory.glob("*.seg")):
            last = self._load_segment(path, last)
        self._end_renumbering()
        if self._segments and self._segments[-1].size < self._segment_bytes:
            path = self._segments[-1].path
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        boot = self._stored_boot()
        if boot is not None:
            self._begin_boot(boot)

    def begin(self) -> None:
        """The other side knows no number that is not known here: the first boot may begin."""
        if not self.boot:
            self._begin_boot(0)

    def close(self) -> None:
        """Write what `progress` lags behind; OSError."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.save()

    # Taking in

    def store(self, messages: Sequence[Envelope]) -> None:
        """Number them and put them on disk for good. OSError: none of them is in, and the same may be tried
        again. One that the protocol forbids is told and left out.
        """
        assert self.boot, "there is no boot to number in"
        packed = bytearray()
        numbers: list[Number] = []
        for message in messages:
            number = Number(self.boot, self._seq + len(numbers) + 1)
            try:
                body = encode(replace(message, number=number))
            except BadMessageError as error:
                _log.error("message not kept", extra={"type": message.type, "reason": str(error)})
                self.refused += 1
                continue
            packed += Record(_NUMBERS[message.kind], number, body).pack()
            numbers.append(number)
        if not numbers:
            return
        segment = self._append(bytes(packed))
        self._seq += len(numbers)
        for number in numbers:
            segment.took(number)
        self._let_go()

    def _append(self, data: bytes) -> _Segment:
        segment, descriptor = self._current(len(data))
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except OSError:
            self._take_back(segment, descriptor)
            raise
        segment.size += len(data)
        return segment

    def _take_back(self, segment: _Segment, descriptor: int) -> None:
        """What was written of a batch that failed. When even that fails, the file is left as it is."""
        try:
            os.ftruncate(descriptor, segment.size)
        except OSError as error:
            _log.error("segment left as it is", extra={"reason": str(error)})
            self._descriptor = None
            os.close(descriptor)

    def _current(self, needed: int) -> tuple[_Segment, int]:
        if self._descriptor is not None:
            segment = self._segments[-1]
            if segment.size + needed <= self._segment_bytes or not segment.runs:
                return segment, self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
        path = self.directory / f"{self._next_name:010}.seg"
        write_private(path, pack_header(self.boot))
        self._next_name += 1
        segment = _Segment(path, self.boot, HEADER_BYTES, [])
        self._segments.append(segment)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return segment, self._descriptor

    def _let_go(self) -> None:
        """The oldest, when there is more than may be."""
        before = self.dropped
        while self.size > self._most_bytes and len(self._segments) > 1:
            oldest = self._segments.pop(0)
            self.dropped += sum(run.beyond(self.passed) for run in oldest.runs)
            self.passed = max(self.passed, oldest.last)
            oldest.path.unlink(missing_ok=True)
        if self.dropped > before:
            _log.warning("outbox full: the oldest are let go", extra={"entries": self.dropped - before})
            self._save_if_possible()

    # Giving out

    def read(self, after: Number, messages: int, size: int) -> list[Waiting]:
        """The next entries beyond `after` (and beyond `passed`), in order; at least one if there is any, else
        no more than `size` bytes of bodies.
        """
        after = max(after, self.passed)
        found: list[Waiting] = []
        left = size
        for segment in list(self._segments):
            if segment.last <= after:
                continue
            for record in self._read_segment(segment, after, left):
                if len(found) >= messages or (found and len(record.body) > left):
                    return found
                left -= len(record.body)
                after = record.number
                found.append(Waiting(record.number, record.kind, record.body))
        return found

    def _read_segment(self, segment: _Segment, after: Number, size: int) -> Iterator[Record]:
        """Its records beyond `after`, in pieces: a segment is larger than what is wanted of it."""
        place, offset = self._place, HEADER_BYTES
        if place is not None and place.path == segment.path and place.number <= after:
            offset = place.offset
        piece = RECORD_BYTES + BODY_MAX + max(0, size)
        if not segment.path.exists():  # somebody made room by hand
            self._cut(segment, 0)
            return
        with segment.path.open("rb") as file:
            while offset < segment.size:
                file.seek(offset)
                data = file.read(min(piece, segment.size - offset))
                end = 0
                for record, end in records(data):
                    if record.number <= after:
                        continue
                    # Before it is taken: who takes no more comes back for this one.
                    yield record
                    after = record.number
                    self._place = _Place(after, segment.path, offset + end)
                if end == 0:
                    self._cut(segment, offset)
                    return
                offset += end

    def _cut(self, segment: _Segment, offset: int) -> None:
        """The disk gives back something else than it took: the segment ends here."""
        self.cuts += 1
        lost = sum(run.beyond(self.passed) for run in segment.runs)
        segment.size, segment.runs = offset, []
        if offset:
            with segment.path.open("rb") as file:
                for record, _ in records(file.read(offset), HEADER_BYTES):
                    segment.took(record.number)
        lost -= sum(run.beyond(self.passed) for run in segment.runs)
        self.dropped += lost
        _log.error("segment damaged", extra={"segment": segment.path.name, "entries": lost})
        if self._descriptor is not None and segment is self._segments[-1]:
            os.close(self._descriptor)
            self._descriptor = None

    # Letting out

    def accept(self, number: Number) -> Verdict:
        """The other side keeps everything up to `number`."""
        if number <= self.floor:
            return Verdict.OLD
        harmless = number.boot < self.boot and not self._waits_up_to(number)
        ours = number <= self.passed or self._gave(number)
        if number.boot == self.boot and number > self.said:
            ours = False  # given, but not said yet: it is another life that said it
        if self.unfinished is not None:
            return Verdict.FOREIGN
        if not (harmless or ours):
            return Verdict.FOREIGN
        self.floor = number
        self.passed = max(self.passed, number)
        return Verdict.NEWS

    def refuse(self, entry: Waiting) -> None:
        """The other side will never take this one, the first in line: it stands aside, the line goes on."""
        self.refused += 1
        self.passed = max(self.passed, entry.number)
        self._save_if_possible()
        folder = self.directory / "refused"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            boot, seq = entry.number
            write_private(folder / f"{boot:016}-{seq:016}-{KINDS[entry.kind]}.json", entry.body)
            for path in sorted(folder.glob("*.json"))[:-REFUSED_KEPT]:
                path.unlink()
        except OSError as error:
            _log.warning("refused message not kept", extra={"reason": str(error)})

    def save(self) -> None:
        """Write how far it came and remove what is over. OSError when that cannot be written; the files are
        removed all the same, since that may be what makes room.
        """
        text = json.dumps(
            {"floor": self.floor, "passed": self.passed, "dropped": self.dropped, "refused": self.refused}
        )
        try:
            write_private(self.directory / "progress", text.encode("ascii"))
        finally:
            self._remove_passed()

    def _save_if_possible(self) -> None:
        """It may lag; whoever called has done what it was called for."""
        try:
            self.save()
        except OSError as error:
            _log.warning("progress not saved", extra={"reason": str(error)})

    def _remove_passed(self) -> None:
        kept: list[_Segment] = []
        for at, segment in enumerate(self._segments):
            in_use = self._descriptor is not None and at == len(self._segments) - 1
            if in_use or segment.last > self.passed:
                kept.append(segment)
            else:
                segment.path.unlink(missing_ok=True)
        self._segments = kept

    def _gave(self, number: Number) -> bool:
        return any(
            run.boot == number.boot and run.first <= number.seq <= run.last
            for segment in self._segments
            for run in segment.runs
        )

    def _waits_up_to(self, number: Number) -> bool:
        """Whether anything waits that `number` would cover."""
        waiting = (run for segment in self._segments for run in segment.runs if run.beyond(self.passed))
        first = next(waiting, None)
        return first is not None and Number(first.boot, first.first) <= number

    # Numbering anew

    def renumber(self, above: Number) -> None:
        """Give everything that waits a number of a boot above `above`, and begin that boot. OSError: partly
        done; the next `open` or `renumber` ends it. Nothing of it may be sent in between.
        """
        self.unfinished = above
        self._begin_boot(max(self.boot, above.boot))
        self.floor = max(self.floor, above)
        done = self.passed
        for at in range(len(self._segments)):
            done = self._rewrite(at, done)
        self.passed = self.floor
        self.unfinished = None
        _log.warning("numbered anew", extra={"boot": self.boot, "entries": self.entries})
        self._save_if_possible()

    def _end_renumbering(self) -> None:
        """A crash stopped it midway: what follows a segment of a later boot still has its old numbers."""
        highest = NOTHING
        for at, segment in enumerate(self._segments):
            if segment.epoch < highest.boot:
                self.boot, self._seq = highest
                self._rewrite(at, self.passed)
            segment = self._segments[at]
            highest = max(highest, Number(segment.epoch, 0), segment.last)
        self.boot = self._seq = 0

    def _rewrite(self, at: int, done: Number) -> Number:
        """One segment, as a whole or not at all, in the present boot. Up to `done` in old numbers everything
        is over, or was in a segment before; returns the last old number.
        """
        segment = self._segments[at]
        if self._descriptor is not None and at == len(self._segments) - 1:
            os.close(self._descriptor)
            self._descriptor = None
        with segment.path.open("rb") as file:
            old = file.read(segment.size)
        fresh = _Segment(segment.path, self.boot, 0, [])
        packed = bytearray(pack_header(self.boot))
        seq = self._seq
        for record, _ in records(old, HEADER_BYTES):
            if record.number <= done:
                continue
            done = record.number
            number = Number(self.boot, seq + 1)
            try:
                body = renumbered(KINDS[record.kind], record.body, number)
            except BadMessageError as error:
                _log.error("message let go", extra={"reason": str(error)})
                self.dropped += 1
                continue
            packed += Record(record.kind, number, body).pack()
            fresh.took(number)
            seq += 1
        write_private(segment.path, bytes(packed))
        fresh.size = len(packed)
        self._segments[at] = fresh
        self._seq = seq
        self._place = None
        return done

    # At a start

    def _begin_boot(self, last: int) -> None:
        """The one after `last` and after all that are known here, on disk before it numbers anything."""
        known = [self.boot, last, self.floor.boot, self.passed.boot]
        known += [max(segment.epoch, segment.last.boot) for segment in self._segments]
        boot = max(known) + 1
        assert boot <= NUMBER_MAX
        write_private(self.directory / "boot", f"{boot}\n".encode("ascii"))
        self.boot, self._seq = boot, 0

    def _stored_boot(self) -> int | None:
        try:
            text = (self.directory / "boot").read_bytes().strip()
        except FileNotFoundError:
            return None
        if text.isdigit() and 0 < int(text) < NUMBER_MAX:
            return int(text)
        _log.error("the counter of boots cannot be read: the other side is asked for it")
        return None

    def _load_progress(self) -> None:
        try:
            raw = (self.directory / "progress").read_bytes()
        except FileNotFoundError:
            return
        try:
            value = json.loads(raw)
            self.floor, self.passed = Number(*map(int, value["floor"])), Number(*map(int, value["passed"]))
            self.dropped, self.refused = int(value["dropped"]), int(value["refused"])
        except (ValueError, KeyError, TypeError) as error:
            _log.error("progress cannot be read: some is said again", extra={"reason": repr(error)})

    def _load_segment(self, path: Path, last: Number) -> Number:
        data = path.read_bytes()
        epoch = read_epoch(data)
        if path.stem.isdigit():
            self._next_name = max(self._next_name, int(path.stem) + 1)
        if epoch is None:
            self.cuts += 1
            _log.warning("segment not read", extra={"segment": path.name})
            path.unlink()
            return last
        if self._segments and epoch < self._segments[-1].epoch:
            last = NOTHING  # it waits for its new numbers; in its old ones it is in order
        segment = _Segment(path, epoch, HEADER_BYTES, [])
        for record, end in records(data, HEADER_BYTES):
            segment.size = end
            # What a failed write left behind, and what was written again after it, have the same numbers.
            if record.number > last and record.kind in KINDS:
                segment.took(record.number)
                last = record.number
        if segment.size < len(data):
            self.cuts += 1
            _log.warning("segment cut", extra={"segment": path.name, "bytes": len(data) - segment.size})
            with path.open("r+b") as file:
                file.truncate(segment.size)
        self._segments.append(segment)
        return last
