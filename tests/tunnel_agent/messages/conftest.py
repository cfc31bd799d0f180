"""A folder in memory: what is shown here is what becomes of files, not how fast a disk syncs them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="towline-messages-", dir=_MEMORY) as name:
        yield Path(name)
