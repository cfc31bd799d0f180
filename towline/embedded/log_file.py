"""A log that never fills the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 4 << 20  # of one file; with one older file kept, twice this for each process
TAIL_BYTES = 2048  # what an error message quotes


class LogFile:
    """Appends bytes; a full file becomes ``NAME.1``, and the one before it goes. Mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()

    def write(self, chunk: bytes) -> None:
        """Append; a full disk loses log lines and nothing else."""
        try:
            if self._file.tell() + len(chunk) > MAX_BYTES:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file = self._open()
            self._file.write(chunk)
        except OSError:
            if self._file.closed:
                self._file = open(os.devnull, "ab", buffering=0)  # noqa: SIM115  # closed by close()

    def tail(self) -> str:
        """The last lines, for an error message."""
        with open(self.path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip() or "(it wrote nothing)"

    def close(self) -> None:
        self._file.close()

    def _open(self) -> BinaryIO:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)
