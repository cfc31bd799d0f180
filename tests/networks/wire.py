"""A bad network in user space: two TUN devices in two network namespaces, joined by this process.

`python -m tests.networks.wire NAMESPACE_A NAMESPACE_B SEED`, as root. It adds delay, jitter (which
reorders), loss and duplicates, packet by packet; many kernels come without `tc netem`, and this one is the
same everywhere.

Each line on stdin is JSON: `{"to": "a" | "b" | "both", "delay_ms": …, …}` with fields of `Quality` sets the
way towards that end, anything unnamed stays; `{}` only asks. Each is answered by one line with the counts.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

DEVICE = "wire0"  # the TUN device's name in both namespaces
MAX_QUEUE_BYTES = 8 << 20  # what a bad line holds at most: 256 ms of 250 Mbit/s; beyond it packets are lost
MAX_PACKET = 65_536
BURST = 64  # packets read from one side before the other has its turn
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_IDLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Quality:
    """One direction. Loss, duplicates and reorder (sent without delay, ahead of others) are percentages."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


@dataclass(slots=True)
class Counts:
    """Packets of one direction."""

    came: int = 0
    lost: int = 0  # by `Quality.loss`
    duplicated: int = 0
    overtook: int = 0  # delivered before one that came earlier
    overflowed: int = 0  # the queue was full
    refused: int = 0  # the other end's device took none


@dataclass(slots=True)
class Way:
    """From one TUN device to the other."""

    source: int
    target: int
    quality: Quality
    counts: Counts
    delivered: int = 0  # the highest number that was delivered


def enter(namespace: str) -> None:
    """This thread into a named network namespace (setns(2)); OSError."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns {namespace}: {os.strerror(number)}")


def open_tun(namespace: str) -> int:
    """A new TUN device in the namespace; its file descriptor, not blocking."""
    enter(namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


class Wire:
    """The packets under way. Time is monotonic seconds and an argument; chance comes from the seed alone."""

    def __init__(self, a: int, b: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._ways = {"b": Way(a, b, Quality(), Counts()), "a": Way(b, a, Quality(), Counts())}
        self._by_source = {way.source: way for way in self._ways.values()}
        self._queue: list[tuple[float, int, Way, bytes]] = []
        self._queued_bytes = 0
        self._number = 0

    def set(self, to: str, **change: float) -> None:
        """Packets that come from now on; those under way keep their time."""
        for name in self._ways if to == "both" else (to,):
            self._ways[name].quality = replace(self._ways[name].quality, **change)

    def statistics(self) -> dict[str, Any]:
        return {f"to_{name}": asdict(way.counts) for name, way in self._ways.items()} | {
            "queued": len(self._queue)
        }

    def take(self, source: int, packet: bytes, now: float) -> None:
        way = self._by_source[source]
        quality, counts, chance = way.quality, way.counts, self._random.uniform
        counts.came += 1
        if chance(0, 100) < quality.loss:
            counts.lost += 1
            return
        copies = 1
        if chance(0, 100) < quality.duplicate:
            counts.duplicated += 1
            copies = 2
        for _ in range(copies):
            if self._queued_bytes + len(packet) > MAX_QUEUE_BYTES:
                counts.overflowed += 1
                continue
            delay_ms = quality.delay_ms + chance(-quality.jitter_ms, quality.jitter_ms)
            if chance(0, 100) < quality.reorder:
                delay_ms = 0
            self._number += 1
            self._queued_bytes += len(packet)
            heapq.heappush(self._queue, (now + max(0.0, delay_ms) / 1000, self._number, way, packet))

    def due(self, now: float) -> float | None:
        """Deliver what is due; seconds until the next packet is, None without one."""
        while self._queue and self._queue[0][0] <= now:
            _, number, way, packet = heapq.heappop(self._queue)
            self._queued_bytes -= len(packet)
            way.counts.overtook += number < way.delivered
            way.delivered = max(way.delivered, number)
            try:
                os.write(way.target, packet)
            except OSError:  # the device is down, or its queue full: a network loses packets
                way.counts.refused += 1
        return self._queue[0][0] - now if self._queue else None


def _read_burst(wire: Wire, source: int) -> None:
    for _ in range(BURST):
        try:
            packet = os.read(source, MAX_PACKET)
        except BlockingIOError:
            return
        wire.take(source, packet, time.monotonic())


def _obey(wire: Wire, line: bytes) -> None:
    order: dict[str, Any] = json.loads(line)
    if order:
        wire.set(order.pop("to", "both"), **order)
    print(json.dumps(wire.statistics()), flush=True)


def main(namespaces: tuple[str, str], seed: int) -> int:
    """Until stdin ends."""
    a, b = (open_tun(name) for name in namespaces)
    wire = Wire(a, b, seed)
    print("ready", flush=True)
    orders = b""
    wait: float | None = None
    while True:
        ready, _, _ = select.select([a, b, 0], [], [], _IDLE_S if wait is None else max(0.0, wait))
        for source in ready:
            if source != 0:
                _read_burst(wire, source)
                continue
            piece = os.read(0, MAX_PACKET)
            if not piece:
                return 0
            *lines, orders = (orders + piece).split(b"\n")
            for line in lines:
                _obey(wire, line)
        wait = wire.due(time.monotonic())


if __name__ == "__main__":
    if not Path("/dev/net/tun").exists():
        sys.exit("/dev/net/tun is missing: modprobe tun, or give the container the device")
    sys.exit(main((sys.argv[1], sys.argv[2]), int(sys.argv[3])))
