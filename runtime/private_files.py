"""Files that only their owner reads, and that are the old ones or the new ones after any crash."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_UNIQUE_BYTES = 8  # two writers at once, or a leftover of a crash, never meet


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` whole, for good: written beside under a name of its own, synced, renamed, folder synced.

    `mode` is the new file's, less the umask. OSError leaves the old file and nothing beside it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(_UNIQUE_BYTES)}")
    # O_EXCL follows no link that somebody planted under this name.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """The rename itself must survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
