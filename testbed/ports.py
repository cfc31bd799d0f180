"""Free ports for settings files, which name them before anything listens."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"
# Below those that the kernel gives to outgoing connections meanwhile (net.ipv4.ip_local_port_range).
PORTS = range(10_000, 32_000)
TRIES = 200  # of a random place for some ports in a row; nearly all of them are free


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held together, so that they differ."""
    found: list[int] = []
    with ExitStack() as holding:
        for port in random.sample(PORTS, len(PORTS)):
            one = holding.enter_context(socket.socket())
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
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
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return base
    raise RuntimeError(f"no {count} free ports in a row")
