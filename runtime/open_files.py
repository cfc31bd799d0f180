"""The limit of open files: what a process may have, not what a login shell is given."""

from __future__ import annotations

import contextlib
import resource


def raise_limit() -> int:
    """Raise the soft limit (RLIMIT_NOFILE, setrlimit(2)) to the hard one; the limit that holds now.

    The usual soft limit of 1,024 is for programs that use select(2); a node holds a socket for each of
    thousands of devices and visitors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS calls its hard limit infinite and refuses it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
