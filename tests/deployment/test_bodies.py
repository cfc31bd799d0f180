"""200 MB through a proxy, a node and a tunnel, both ways: every byte, and no memory for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.deployment.client import Client
from tests.deployment.device import BLOCK
from tests.deployment.site import Site

MIB = 200
# What may grow while 200 MB pass: windows of the tunnel (6 MiB), buffers, Caddy's garbage. A collected body
# would be 200 MiB.
GROWTH_MAX = 64 << 20
Visit = Callable[..., Client]


class Memory:
    """The largest growth of the resident memory of the processes on the way."""

    def __init__(self, site: Site, *names: str) -> None:
        self._processes = [psutil.Process(site.pid(name)) for name in names]
        self._before = self._now()
        self.grown = 0

    def _now(self) -> list[int]:
        return [
            sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
            for process in self._processes
        ]

    def look(self) -> None:
        self.grown = max(
            self.grown, *(now - then for now, then in zip(self._now(), self._before, strict=True))
        )


@pytest.mark.parametrize("front", ["nginx", "caddy"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_arrives_byte_for_byte(site: Site, front: str, framing: str, visit: Visit) -> None:
    size = MIB if framing == "length" else MIB // 4
    visitor = visit(front)
    sent, memory = hashlib.sha256(), Memory(site, front, "node-a", "node-b")

    def pieces() -> Iterator[bytes]:
        for number in range(size):
            sent.update(BLOCK)
            if number % 10 == 0:
                memory.look()
            yield BLOCK

    headers = {"Content-Length": str(size * len(BLOCK))} if framing == "length" else {}
    answer = visitor.ask("POST", "/upload", pieces(), headers)
    assert answer.read().decode() == sent.hexdigest()
    assert memory.grown < GROWTH_MAX


@pytest.mark.parametrize("front", ["nginx", "caddy"])
def test_a_download_arrives_byte_for_byte(site: Site, front: str, visit: Visit) -> None:
    answer = visit(front).ask("GET", f"/download/{MIB}")
    seen, made, memory = hashlib.sha256(), hashlib.sha256(), Memory(site, front, "node-a", "node-b")
    for _ in range(MIB):
        seen.update(answer.read(len(BLOCK)))
        made.update(BLOCK)
        memory.look()
    assert answer.read() == b""
    assert seen.digest() == made.digest()
    assert memory.grown < GROWTH_MAX
