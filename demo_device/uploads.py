"""Uploaded files in one flat directory, bounded in size, number and sum."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 128 << 20  # enough to be called large in a demo, small against any disk
MAX_TOTAL_BYTES = 512 << 20
MAX_FILES = 100
# No separators, no leading dot: a name can mean only a file of this directory, and never a half-written one.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ ()-]{0,99}")


class UploadRefused(Exception):
    """`status` is the HTTP status; the text is for the person."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A complete upload. `sha256` is hex."""

    name: str
    size: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, "size": self.size, "sha256": self.sha256}


class Uploads:
    """The directory. File calls run in threads: a slow SD card must not stop the chart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for partial in directory.glob(".*.part"):
            partial.unlink()  # of a run that was killed
        self._files: dict[str, StoredFile] = {}
        for path in sorted(directory.iterdir()):
            if path.is_file() and _NAME.fullmatch(path.name):
                self._files[path.name] = _stored(path)

    def listing(self) -> list[StoredFile]:
        """All files by name."""
        return [self._files[name] for name in sorted(self._files)]

    def path(self, name: str) -> Path | None:
        """Where a listed file lies, or None: only what is listed can be read."""
        return self._directory / name if name in self._files else None

    async def remove(self, name: str) -> bool:
        """Delete a file; False when there is none."""
        if self._files.pop(name, None) is None:
            return False
        await asyncio.to_thread((self._directory / name).unlink, True)
        return True

    async def store(self, name: str, pieces: AsyncIterator[bytes], announced: int | None) -> StoredFile:
        """Write the pieces as they come; the name appears only when all are on disk. Raises UploadRefused."""
        if not _NAME.fullmatch(name):
            raise UploadRefused(400, "This file name cannot be used: letters, digits, dot, dash, space.")
        room = self._room(name)
        if announced is not None and announced > room:
            raise UploadRefused(413, f"Too large: there is room for {room} bytes.")
        partial = self._directory / f".{secrets.token_hex(8)}.part"
        try:
            stored = await self._write(partial, name, pieces, room)
            await asyncio.to_thread(partial.replace, self._directory / name)
        except OSError as error:
            raise UploadRefused(507, f"The disk did not take it: {error.strerror}.") from error
        finally:
            partial.unlink(missing_ok=True)
        self._files[name] = stored
        return stored

    def _room(self, name: str) -> int:
        others = [file.size for file in self._files.values() if file.name != name]
        if len(others) >= MAX_FILES:
            raise UploadRefused(507, f"There are {MAX_FILES} files already.")
        return min(MAX_FILE_BYTES, MAX_TOTAL_BYTES - sum(others))

    async def _write(self, partial: Path, name: str, pieces: AsyncIterator[bytes], room: int) -> StoredFile:
        digest, size = hashlib.sha256(), 0
        descriptor = await asyncio.to_thread(os.open, partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            async for piece in pieces:
                size += len(piece)
                if size > room:
                    raise UploadRefused(413, f"Too large: there is room for {room} bytes.")
                digest.update(piece)
                await asyncio.to_thread(_write_all, descriptor, piece)
        finally:
            os.close(descriptor)
        return StoredFile(name, size, digest.hexdigest())


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _stored(path: Path) -> StoredFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return StoredFile(path.name, path.stat().st_size, digest.hexdigest())
