"""Free ports for settings files, which name them before anything listens.

Several test processes run at once: a port that one chose is its own until it ends, by a lock on a file.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below those that the kernel gives to outgoing connections meanwhile (net.ipv4.ip_local_port_range).
PORTS = range(10_000, 32_000)
TRIES = 200  # of a random place for some ports in a row; nearly all of them are free

# One byte of it for each port: record locks (fcntl(2)) end with the process, however that ends.
_LOCKS = Path(tempfile.gettempdir()) / f"towline-test-ports-{os.getuid()}"
_chosen: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now and no other process of ours has chosen."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if _choose(port):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports")


def free_port() -> int:
    return free_ports(1)[0]


def free_row(count: int) -> int:
    """The first of so many free ports in a row."""
    for _ in range(TRIES):
        base = random.randrange(PORTS.start, PORTS.stop - count)
        chosen = [port for port in range(base, base + count) if _choose(port)]
        if len(chosen) == count:
            return base
        for port in chosen:
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
            _chosen.remove(port)
    raise RuntimeError(f"no {count} free ports in a row")


def _choose(port: int) -> bool:
    """Make the port ours, unless somebody listens there or chose it before."""
    if port in _chosen:
        return False
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:  # another process has chosen it
        return False
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:  # somebody listens there
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
            return False
    _chosen.add(port)
    return True


@cache
def _locks() -> int:
    """The open file. Never opened again: closing any of its descriptors would end all of its locks."""
    return os.open(_LOCKS, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
