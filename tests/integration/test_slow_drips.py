"""Who sends a byte now and then to any listener of the product is gone by that listener's deadline."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.connection import REQUEST_S
from gateway.listener import TLS_HANDSHAKE_S as INTERNAL_TLS_S
from runtime.ops_server import EXCHANGE_TIMEOUT_S
from testbed.up import Stack
from tunnel_server.settings import TunnelSettings, VisitorLimits

AT_ONCE = 15  # of each kind
EVERY_S = 0.25
SLACK_S = 4.0  # some hundred connections end in the same second, on a machine that others use
GROWTH_MB = 12.0
MB = 1 << 20
HEAD_S = VisitorLimits().head_s
AGENTS_S = TunnelSettings(listen="127.0.0.1:0", server_names=("localhost",)).handshake_s
HEAD = b"GET /tunnel HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 500
BODY = b"POST /v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"
# A ClientHello's first bytes: a record of 512, and a handshake message of 508 (RFC 8446, sections 4 and 5).
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 501


@dataclass(frozen=True)
class Drip:
    """`at_once` goes first, the rest byte by byte. `tls`: behind a whole handshake, with a node's certificate
    where `internal`.
    """

    name: str
    port: str
    seconds: float
    rest: bytes
    at_once: bytes = b""
    tls: bool = False


DRIPS = (
    Drip("a visitor's head", "visitors", HEAD_S, HEAD),
    Drip("an agent's TLS", "agents", AGENTS_S, HELLO),
    Drip("an agent's upgrade", "agents", AGENTS_S, HEAD, tls=True),
    Drip("the API's head", "gateway", REQUEST_S, HEAD),
    Drip("the API's body", "gateway", REQUEST_S, b" " * 500, BODY),
    Drip("a node's TLS", "internal", INTERNAL_TLS_S, HELLO),
    Drip("a node's head", "internal", REQUEST_S, HEAD, tls=True),
    Drip("a node's body", "internal", REQUEST_S, b" " * 500, BODY, tls=True),
    Drip("the gateway's operators", "gateway-ops", EXCHANGE_TIMEOUT_S, HEAD),
    Drip("the node's operators", "server-ops", EXCHANGE_TIMEOUT_S, HEAD),
)


def node_context(data: Path) -> ssl.SSLContext:
    """A node's own certificate, whoever answers."""
    (certificate,) = data.glob("**/node.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


async def drip(port: int, what: Drip, context: ssl.SSLContext) -> float:
    """Seconds until the listener had enough; of what was sent, nothing may be a whole request."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context if what.tls else None)
    begun = loop.time()

    async def send() -> None:
        writer.write(what.at_once)
        for index in range(len(what.rest)):
            writer.write(what.rest[index : index + 1])
            await asyncio.sleep(EVERY_S)

    sending = loop.create_task(send())
    try:
        async with asyncio.timeout(what.seconds + SLACK_S):
            while await reader.read(65_536):
                pass
    except TimeoutError:
        raise AssertionError(f"{what.name}: not ended after {what.seconds + SLACK_S:.0f} s") from None
    except OSError:
        pass  # reset, as who sends on is
    finally:
        sending.cancel()
        writer.transport.abort()
    return loop.time() - begun


def rss(pid: int) -> int:
    """Resident bytes."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) << 10


@pytest.mark.timeout(120)
async def test_every_listener_ends_who_drips(shared: Stack) -> None:
    context = node_context(shared.data)
    pids = [shared.pid(name) for name in ("gateway", "tunnel_server")]
    before = [rss(pid) for pid in pids]
    work = {what: [drip(shared.ports[what.port], what, context) for _ in range(AT_ONCE)] for what in DRIPS}
    took = await asyncio.gather(*(asyncio.gather(*calls) for calls in work.values()))
    for what, seconds in zip(work, took, strict=True):
        print(f"{what.name}: {min(seconds):.1f} to {max(seconds):.1f} s of {what.seconds:.0f}")
    growth = [(rss(pid) - known) / MB for pid, known in zip(pids, before, strict=True)]
    print(f"{growth[0]:.1f} MB more at the gateway, {growth[1]:.1f} MB at the node")
    assert max(growth) <= GROWTH_MB
