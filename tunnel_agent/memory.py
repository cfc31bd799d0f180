"""Gives back what only starting needed: on a small device 10 of 42 MiB.

Most of it is code of shared libraries (two OpenSSLs, the interpreter) that ran once. Such pages are
clean copies of a file: dropped from this process, they come back by a page fault when they run again.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.logs import get_logger

_log = get_logger("tunnel_agent.memory")

_SMAPS: Final = Path("/proc/self/smaps")
_MADV_DONTNEED: Final = 4  # mman-common.h, the same on every architecture Linux calls its own
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ +(/.*)?")
_WRITTEN: Final = re.compile(r"(?:Private_Dirty|Anonymous|Swap): +(\d+) kB")


def release_startup_memory() -> None:
    """Once, when the first tunnel is open. Does nothing where there is no Linux and no glibc."""
    gc.collect()
    library = ctypes.CDLL(None)
    if not _SMAPS.exists() or not hasattr(library, "malloc_trim"):
        return
    library.malloc_trim(0)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in clean_code(_SMAPS.read_text("utf-8", "replace")):
        if library.madvise(start, end - start, _MADV_DONTNEED) != 0:
            _log.debug("code pages were kept", extra={"start": start})


def clean_code(smaps: str) -> Iterator[tuple[int, int]]:
    """Address ranges of executable file mappings of which no page was ever written (proc(5), smaps).

    A written page would lose its content, as with text relocations on some 32-bit systems: such mappings
    are left out.
    """
    current: tuple[int, int] | None = None
    for line in smaps.splitlines():
        mapping = _MAPPING.match(line)
        if mapping is not None:
            if current is not None:
                yield current
            start, end, mode, path = mapping.groups()
            current = (int(start, 16), int(end, 16)) if mode == "r-xp" and path else None
        elif current is not None:
            written = _WRITTEN.match(line)
            if written is not None and written[1] != "0":
                current = None
    if current is not None:
        yield current
