"""Slow and frozen peers beside normal ones, through the real processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import psutil
import pytest

from testbed.people import CALL_TIMEOUT_S, Person, Visitor
from testbed.up import Stack
from testbed.waiting import eventually

Visit = Callable[[dict[str, Any]], Visitor]
Record = Callable[[str, object], None]

FROZEN_S = 12.0  # longer than the keepalive needs to declare a peer dead (specification, section 9)
READERS = 8
MAX_GROWTH_BYTES = 12 << 20  # of the server and the agent together, for READERS that stopped reading
REQUESTS = 50
MAX_ANSWER_S = 1.0  # a small answer takes some ms; this is "not stuck behind somebody", on a loaded machine
TRIES = 3
SLOW_UPLOAD_BYTES = 5_000
SLOW_PIECE_BYTES = 1_000
STILL_LOOKS = 5  # what did not move in so many looks, a tenth of a second apart, has stopped


@pytest.fixture
def visitors(person: Person, visit: Visit) -> list[Visitor]:
    """Sessions of their own on one device: more than it has tunnels, so that some share one."""
    device = person.device()["id"]
    return [visit(person.open_session(device)) for _ in range(4)]


def answer_times(visitors: list[Visitor]) -> list[float]:
    """Seconds of REQUESTS small exchanges, the visitors in turn."""
    taken = []
    for number in range(REQUESTS):
        start = time.monotonic()
        assert visitors[number % len(visitors)].http.get("/app.js").status_code == 200
        taken.append(time.monotonic() - start)
    return taken


def free_times(measure: Callable[[], list[float]]) -> list[float]:
    """Seconds of small exchanges, none of which was stuck. A machine that stands still for a moment delays
    one of a try; who is behind somebody is so in each.
    """
    seconds = measure()
    for _ in range(TRIES - 1):
        if max(seconds) < MAX_ANSWER_S:
            break
        seconds = measure()
    assert max(seconds) < MAX_ANSWER_S
    return seconds


def in_ms(seconds: list[float]) -> str:
    return f"median {median(seconds) * 1000:.1f} ms, longest {max(seconds) * 1000:.1f} ms"


class StalledReader:
    """Asked for 100 MB, takes what its kernel takes by itself, and never reads."""

    def __init__(self, visitor: Visitor) -> None:
        self.raw = socket.socket()
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        self.raw.settimeout(CALL_TIMEOUT_S)
        self.raw.connect(("127.0.0.1", visitor.http.base_url.port))
        host, cookie = visitor.http.headers["Host"], visitor.cookie
        self.raw.sendall(
            f"GET /download/100MB.bin HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode()
        )

    @property
    def unread(self) -> int:
        """Bytes that wait in its kernel."""
        waiting: int = struct.unpack("i", fcntl.ioctl(self.raw, termios.FIONREAD, bytes(4)))[0]
        return waiting


def wait_stalled(readers: list[StalledReader]) -> None:
    looks: list[list[int]] = []

    def still() -> bool:
        looks.append([reader.unread for reader in readers])
        return all(looks[-1]) and looks[-STILL_LOOKS:] == [looks[-1]] * STILL_LOOKS

    eventually("all readers stalled", still)


def memory(stack: Stack) -> dict[str, int]:
    return {name: psutil.Process(stack.pid(name)).memory_info().rss for name in ("tunnel_server", "agent")}


def test_readers_that_stopped_slow_nobody_and_cost_little(
    shared: Stack, visitors: list[Visitor], record_property: Record
) -> None:
    slow, *others = visitors
    alone = answer_times(visitors)
    assert slow.http.get("/download/10MB.bin").status_code == 200
    before = memory(shared)
    with ExitStack() as closing:
        readers = []
        for _ in range(READERS):
            reader = StalledReader(slow)
            closing.callback(reader.raw.close)
            readers.append(reader)
        wait_stalled(readers)
        beside = free_times(lambda: answer_times(others))
        after = memory(shared)
        assert readers[0].raw.recv(12) == b"HTTP/1.1 200"
    growth = {name: after[name] - before[name] for name in before}
    figures = ", ".join(f"{name} {size / 2**20:+.1f} MB" for name, size in growth.items())
    record_property("growth", figures)
    print(
        f"\n{READERS} stalled readers: {figures}; small requests alone {in_ms(alone)}, beside {in_ms(beside)}"
    )
    assert sum(growth.values()) <= MAX_GROWTH_BYTES
    free_times(lambda: answer_times([slow]))


def test_a_slow_upload_slows_nobody_and_arrives(visitors: list[Visitor]) -> None:
    slow, *others = visitors
    beside = free_times(lambda: beside_an_upload(slow, others))
    print(f"\n{len(beside)} small requests beside an upload of 1 KB/s: {in_ms(beside)}")


def beside_an_upload(slow: Visitor, others: list[Visitor]) -> list[float]:
    """Seconds of the others' small exchanges while a slow upload lasts, which arrives whole."""
    content = os.urandom(SLOW_UPLOAD_BYTES)
    pace, answers = threading.Event(), []

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), SLOW_PIECE_BYTES):
            yield content[start : start + SLOW_PIECE_BYTES]
            pace.wait(1.0)

    def upload() -> None:
        headers = {"Origin": slow.origin, "Content-Length": str(len(content))}
        answers.append(
            slow.http.post("/api/uploads", params={"name": "slow.bin"}, content=pieces(), headers=headers)
        )

    thread = threading.Thread(target=upload)
    thread.start()
    beside = []
    while thread.is_alive():
        beside += answer_times(others)
        assert len(beside) < 100_000
    thread.join()
    assert answers[0].status_code == 201
    assert answers[0].json()["sha256"] == hashlib.sha256(content).hexdigest()
    slow.http.delete("/uploads/slow.bin", headers={"Origin": slow.origin})
    return beside


def test_a_frozen_agent_is_found_out_and_comes_back(
    shared: Stack, person: Person, visitors: list[Visitor], record_property: Record
) -> None:
    visitor = visitors[0]
    assert visitor.http.get("/").status_code == 200
    agent = shared.pid("agent")
    os.kill(agent, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        eventually("the device offline", lambda: not person.device()["online"])
        found_out_s = time.monotonic() - stopped
        assert visitor.http.get("/").status_code == 503
        eventually("both ends past their keepalive", lambda: time.monotonic() - stopped > FROZEN_S)
    finally:
        os.kill(agent, signal.SIGCONT)
        thawed = time.monotonic()
    eventually("the page again", lambda: visitor.http.get("/").status_code == 200)
    back_s = time.monotonic() - thawed
    eventually("the device online", lambda: person.device()["online"])
    assert shared.pid("agent") == agent
    record_property("found_out_s", found_out_s)
    record_property("back_s", back_s)
    print(f"\na frozen agent: offline after {found_out_s:.1f} s, the page {back_s:.1f} s after it goes on")
    free_times(lambda: answer_times(visitors))
