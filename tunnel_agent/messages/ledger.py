"""Commands that were begun and how they ended, on disk before anything happens: none is executed twice.

One line a fact: crc32 in hex, a space, JSON. Only the last line can be torn, by whatever stopped the process.
All methods block on the disk; one thread at a time may call those that write.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from device_protocol.bodies import Ack, Stage
from device_protocol.errors import BadMessageError
from runtime.logs import get_logger
from runtime.private_files import write_private

KEPT: Final = 1000  # ids: a gateway repeats only what it holds open, 50 a device
RESULTS_KEPT: Final = 64  # of the newest: a result may be 4 KiB, all of them are in memory
REMEMBERED_MS: Final = 7 * 24 * 3600 * 1000
"""After a command's end of time: until then a copy of it may turn up somewhere on the way."""
LINES_PER_ENTRY: Final = 4  # two are needed; above that the file is written anew

INTERRUPTED: Final = "interrupted"
REBOOT: Final = "reboot"

_log = get_logger("tunnel_agent.messages.ledger")


@dataclass(frozen=True, slots=True)
class Entry:
    """One command. `outcome` None: it was begun, and nothing is known of its end."""

    name: str
    expires: int
    """Unix milliseconds."""
    machine_boot: str
    """In which start of the machine it was begun."""
    outcome: Ack | None = None


class Ledger:
    """`open` comes first."""

    def __init__(self, path: Path, machine_boot: str) -> None:
        """`machine_boot`: another text after each start of the machine; "" where that is not known."""
        self._path = path
        self._machine_boot = machine_boot
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._descriptor = -1
        self._lines = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, command: str) -> Entry | None:
        """What is known of it; does not touch the disk."""
        return self._entries.get(command)

    def open(self, now_ms: int) -> list[Ack]:
        """Read it; returns the outcomes of those that were begun and never ended, which are final now. What
        is forgotten by now leaves the file. OSError.
        """
        self._read()
        for command, entry in list(self._entries.items()):
            if entry.expires + REMEMBERED_MS < now_ms and entry.outcome is not None:
                del self._entries[command]
        ended = []
        for command, entry in self._entries.items():
            if entry.outcome is None:
                ended.append(self._interrupted(command, entry, now_ms))
        for ack in ended:
            self._entries[ack.command] = replace(self._entries[ack.command], outcome=ack)
        self._rewrite()
        return ended

    def close(self) -> None:
        """May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, command: str, name: str, expires: int) -> None:
        """It is about to be executed: on disk for good when this returns. OSError: it must not be."""
        entry = Entry(name, expires, self._machine_boot)
        self._write({"id": command, "name": name, "expires": expires, "machine": self._machine_boot})
        os.fdatasync(self._descriptor)
        self._keep(command, entry)

    def end(self, ack: Ack, expires: int, name: str = "") -> None:
        """It ended so, also if it was never begun. OSError: a restart will call it interrupted."""
        entry = self._entries.get(ack.command) or Entry(name, expires, self._machine_boot)
        self._keep(ack.command, replace(entry, outcome=ack))
        self._write({"id": ack.command, "expires": entry.expires, "end": ack.dump()})
        os.fdatasync(self._descriptor)

    def _interrupted(self, command: str, entry: Entry, now_ms: int) -> Ack:
        if entry.name == REBOOT and self._machine_boot and entry.machine_boot not in ("", self._machine_boot):
            return Ack(command, Stage.DONE, at=now_ms, ok=True)  # that is what was asked
        return Ack(command, Stage.DONE, at=now_ms, ok=False, error=INTERRUPTED)

    def _keep(self, command: str, entry: Entry) -> None:
        self._entries[command] = entry
        ended = [each for each, kept in self._entries.items() if kept.outcome is not None]
        for old in ended[: max(0, len(self._entries) - KEPT)]:
            del self._entries[old]
        for old in ended[:-RESULTS_KEPT]:
            kept = self._entries.get(old)
            if kept is not None and kept.outcome is not None and kept.outcome.result is not None:
                self._entries[old] = replace(kept, outcome=replace(kept.outcome, result=None))

    def _write(self, fact: dict[str, Any]) -> None:
        if self._descriptor < 0 or self._lines > LINES_PER_ENTRY * max(KEPT // 10, len(self._entries)):
            self._rewrite()
        line = _line(fact)
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("the disk took a part of a line")
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise
        self._lines += 1

    def _rewrite(self) -> None:
        lines: list[bytes] = []
        for command, entry in self._entries.items():
            fact = {"id": command, "name": entry.name, "expires": entry.expires}
            lines.append(_line(fact | {"machine": entry.machine_boot}))
            if entry.outcome is not None:
                lines.append(_line({"id": command, "expires": entry.expires, "end": entry.outcome.dump()}))
        self.close()
        write_private(self._path, b"".join(lines))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(lines)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.split(b"\n"):
            fact = _fact(line)
            if fact is None:
                if line:
                    _log.warning("a line of the ledger is torn", extra={"bytes": len(line)})
                continue
            try:
                self._take_over(fact)
            except (KeyError, TypeError, ValueError, BadMessageError) as error:
                _log.error("a line of the ledger makes no sense", extra={"reason": repr(error)})

    def _take_over(self, fact: dict[str, Any]) -> None:
        command = str(fact["id"])
        if "end" in fact:
            known = self._entries.get(command) or Entry("", int(fact["expires"]), "")
            self._keep(command, replace(known, outcome=Ack.parse(fact["end"])))
        else:
            self._keep(command, Entry(str(fact["name"]), int(fact["expires"]), str(fact["machine"])))


def _line(fact: dict[str, Any]) -> bytes:
    text = json.dumps(fact, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (crc32(text), text)


def _fact(line: bytes) -> dict[str, Any] | None:
    """None: torn, or no such line."""
    check, _, text = line.partition(b" ")
    if check != b"%08x" % crc32(text):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
