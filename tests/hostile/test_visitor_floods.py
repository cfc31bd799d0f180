"""Floods at the visitors' door behind a TCP proxy: no header, no handshake, and one line's whole /64."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runtime.accepting import HEADER_S, PENDING_MAX
from runtime.open_files import raise_limit
from runtime.proxy_protocol import V2_SIGNATURE
from tests.hostile.scene import HONEST_ANSWER_S, Bounds, NodeProcess
from tunnel_server.edge.listener import TLS_HANDSHAKE_S

DOMAIN = "tunnel.test"
OF_ONE = 20
RESOLVES_PER_S = 2.0
BURST = 8  # RESOLVE_BURST_S of them
SILENT = 9_000
BATCH = 200
SLACK_S = 5.0  # thousands of connections end in the same second, on a machine that others use
# A task and a socket object for each that waits, some 4 KiB; the allocator's own beside them.
SILENT_MB = 60.0
HANDSHAKES_MB = 12.0
LINE = ipaddress.ip_network("2001:db8:7:1::/64")
REFUSED = "towline_proxy_connections_refused_total"


@pytest.fixture(scope="module")
def front() -> Iterator[NodeProcess]:
    """A node whose visitors come over TLS and through a TCP proxy."""
    folder = Path(tempfile.mkdtemp(prefix="towline-floods-"))
    visitors = {
        "domain": DOMAIN,
        "tls": True,
        "trusted_proxies": ["127.0.0.1"],
        "proxy_protocol": True,
    }
    limits = {"connections_per_address": OF_ONE, "resolves_per_s": RESOLVES_PER_S}
    node = NodeProcess(folder, visitors=visitors, limits=limits)
    yield node
    node.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def writers(front: NodeProcess) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """What a test opens, closed when it ends."""
    opened: list[asyncio.StreamWriter] = []
    yield opened
    for writer in opened:
        writer.transport.abort()
    await front.until(lambda state: not state["visitors"] and not state["visitor_handshakes"])


def header(address: str) -> bytes:
    """PROXY version 2, TCP over IPv6."""
    source = ipaddress.IPv6Address(address).packed
    return V2_SIGNATURE + b"\x21\x21\x00\x24" + source + source + b"\x9c\x40\x01\xbb"


def addresses(count: int) -> list[str]:
    """All of one line."""
    return [str(LINE[n * 0x1_0000_0001]) for n in range(1, count + 1)]


class Client:
    """A visitor whom the proxy names by this address."""

    def __init__(self, node: NodeProcess, address: str) -> None:
        self._node = node
        self._address = address
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._node.ports["visitors"])
        self.writer.write(header(self._address))

    async def ask(self, path: str, *lines: str) -> bytes:
        """The answer's status line, over TLS; b"" when the connection was cut before it."""
        await self.connect()
        try:
            async with asyncio.timeout(HONEST_ANSWER_S):
                await self.writer.start_tls(self._node.context, server_hostname="127.0.0.1")
                head = [f"GET {path} HTTP/1.1", f"Host: {'v' * 26}.{DOMAIN}", *lines, "", ""]
                self.writer.write("\r\n".join(head).encode())
                return await self.reader.readline()
        except OSError:
            return b""
        finally:
            self.writer.transport.abort()


async def test_one_line_takes_no_more_handshakes_than_its_share(
    front: NodeProcess, writers: list[asyncio.StreamWriter]
) -> None:
    bounds = Bounds(front)
    refused = "towline_visitors_refused_total"
    before = await front.metric(refused)
    for address in addresses(400):
        silent = Client(front, address)
        await silent.connect()
        writers.append(silent.writer)
    await front.until_metric(refused, before + 400 - OF_ONE)
    assert (await front.call("state"))["visitor_handshakes"] == OF_ONE
    assert await Client(front, str(LINE[9])).ask("/.towline/open") == b""
    assert (await Client(front, "2001:db8:7:2::9").ask("/.towline/open")).startswith(b"HTTP/1.1 200 ")
    started = time.monotonic()
    await front.until(lambda state: not state["visitor_handshakes"], TLS_HANDSHAKE_S + SLACK_S)
    assert time.monotonic() - started <= TLS_HANDSHAKE_S + SLACK_S
    await bounds.check(mb=HANDSHAKES_MB, lines=0)


async def test_one_line_guesses_no_faster_than_one_address(front: NodeProcess) -> None:
    """Each guess is another cookie from another address of the line."""
    bounds = Bounds(front)
    asked = (await front.call("state"))["resolved"]
    started = time.monotonic()
    answers = [
        (await Client(front, address).ask("/", f"Cookie: __Host-towline={'g' * 30}{n:013d}"))[9:12]
        for n, address in enumerate(addresses(200))
    ]
    passed = (await front.call("state"))["resolved"] - asked
    assert passed <= BURST + RESOLVES_PER_S * (time.monotonic() - started) + 1
    assert passed == answers.count(b"403")
    assert set(answers) == {b"403", b"429"}
    other = await Client(front, "2001:db8:7:3::1").ask("/", f"Cookie: __Host-towline={'h' * 43}")
    assert other.startswith(b"HTTP/1.1 403 ")
    await bounds.check(mb=HANDSHAKES_MB, lines=0)


async def test_nine_thousand_connections_without_a_header_end_in_time(front: NodeProcess) -> None:
    assert raise_limit() > SILENT + 500, "this test needs a limit of open files (RLIMIT_NOFILE) above 9,500"
    bounds = Bounds(front)
    over = await front.metric(REFUSED, listener="visitors", why="too_many")
    late = await front.metric(REFUSED, listener="visitors", why="no_header")
    started = time.monotonic()
    silent: list[socket.socket] = []
    try:
        for n in range(SILENT):
            if n % BATCH == 0:
                await front.call("state")  # it accepts, or the kernel's queue would drop them
            silent.append(socket.socket())
            silent[-1].setblocking(False)
            silent[-1].connect_ex(("127.0.0.1", front.ports["visitors"]))
        connected = time.monotonic()
        await front.until(lambda state: True)  # it answers its control port meanwhile
        assert time.monotonic() - connected < HONEST_ANSWER_S
        # Places that came free again before all were there, on a machine that took as long as that.
        freed = await front.metric(REFUSED, listener="visitors", why="no_header") - late
        ended = 0.0
        while ended < SILENT:
            assert time.monotonic() - connected < HEADER_S + SLACK_S, ended
            await asyncio.sleep(0.1)
            ended = await front.metric(REFUSED, listener="visitors", why="too_many") - over
            ended += await front.metric(REFUSED, listener="visitors", why="no_header") - late
        turned = await front.metric(REFUSED, listener="visitors", why="too_many") - over
        assert SILENT - PENDING_MAX - freed <= turned <= SILENT - PENDING_MAX
        assert all(one.recv(1) == b"" for one in silent)
    finally:
        for one in silent:
            one.close()
    print(f"{SILENT} in {connected - started:.1f} s, all ended after {time.monotonic() - started:.1f} s")
    assert (await Client(front, "2001:db8:7:4::1").ask("/.towline/open")).startswith(b"HTTP/1.1 200 ")
    await bounds.check(mb=SILENT_MB, lines=0)
