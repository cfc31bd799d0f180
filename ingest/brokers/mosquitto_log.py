"""What Mosquitto refuses to devices: it says so in its log alone, and there at `log_type debug`.

That writes several lines for each message: for sites that can spare it. It says nothing of subscriptions: it
grants them, and then delivers nothing (the ACL is asked at each delivery).

Devices write into that log: filters and topics of wills stand in it as they came. So a line
counts only whole, from its start to its end, and only where its start was seen.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from ingest.refusals import What
from runtime.logs import get_logger

LOOK_S: Final = 1.0
READ_MAX: Final = 4 << 20
"""Bytes at a time."""
LINE_MAX: Final = 64 << 10
"""Bytes of a line that is not whole yet, and that are kept."""
_DENIED: Final = re.compile(
    rb"(?:\d[\d .:,TZ+/-]{0,63}: )?"  # the time, as seconds or by a log_timestamp_format of digits; or none
    rb"Denied PUBLISH from (\S{1,64}) \(d\d, q\d, r\d, m\d+, '(.*)', \.\.\. \(\d+ bytes\)\)"
)

_log = get_logger("ingest.brokers.mosquitto_log")


class DeniedLines:
    """`run` is to be a lasting task. Begins at the file's end; one that is put in its place is read whole."""

    def __init__(self, file: Path, refused: Callable[[str, What, str], None]) -> None:
        self._file = file
        self._refused = refused
        self._open: BinaryIO | None = None
        self._rest = b""
        self._headless = False
        """What comes up to the next end of a line is the rest of one whose start we do not have."""
        self._told = ""

    def __repr__(self) -> str:
        return f"<DeniedLines {self._file}>"

    async def run(self) -> None:
        """Until cancelled."""
        try:
            self._begin(at_end=True)
            while True:
                await self._look()
                await asyncio.sleep(LOOK_S)
        finally:
            if self._open is not None:
                self._open.close()

    async def _look(self) -> None:
        if self._open is None:
            self._begin(at_end=False)
        while self._open is not None:
            new = await asyncio.to_thread(self._open.read, READ_MAX)
            if not new:
                break
            self._take(new)
        if self._replaced():
            self._begin(at_end=False)

    def _take(self, new: bytes) -> None:
        *lines, self._rest = (self._rest + new).split(b"\n")
        if lines and self._headless:
            lines, self._headless = lines[1:], False
        if len(self._rest) > LINE_MAX:
            self._rest, self._headless = b"", True
        for line in lines:
            found = _DENIED.fullmatch(line)
            if found is not None:
                device, topic = (found[n].decode("utf-8", "replace") for n in (1, 2))
                self._refused(device, "publish", topic)

    def _begin(self, *, at_end: bool) -> None:
        if self._open is not None:
            self._open.close()
        self._rest, self._headless = b"", False
        try:
            self._open = self._file.open("rb")
        except OSError as error:
            self._open = None
            if self._told != str(error):
                self._told = str(error)
                _log.warning("the broker's log cannot be read", extra={"error": self._told})
            return
        self._told = ""
        if at_end and self._open.seek(0, 2):
            self._open.seek(-1, 2)
            self._headless = self._open.read(1) != b"\n"

    def _replaced(self) -> bool:
        """Another file has its name, or it was cut."""
        if self._open is None:
            return False
        try:
            now = self._file.stat()
        except OSError:
            return False  # between a rotation and Mosquitto's next line
        return now.st_ino != _inode(self._open) or now.st_size < self._open.tell()


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
