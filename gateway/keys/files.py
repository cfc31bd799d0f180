"""Private files: made once, 0600 in a 0700 directory, whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import KeyFileError
from runtime.private_files import write_private

__all__ = ["locked", "read_private", "write_private"]

_OTHERS = 0o077


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make `directory` (0700) and hold its lock: two gateways that start at once make one set of keys."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & _OTHERS:
        raise KeyFileError(f"{directory}: other users may enter it; run chmod 700")
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_private(path: Path) -> bytes:
    """The file's bytes. KeyFileError when other users may read it."""
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    if mode & _OTHERS:
        raise KeyFileError(f"{path}: other users may read it; run chmod 600")
    return data
