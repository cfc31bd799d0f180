"""One session's host: where it is, and HTTP/1.1 exchanges with it (RFC 9112), bounded in size and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from towline.errors import TowlineError

OPEN_S: Final = 15.0  # name, TCP and TLS; what the agent's own dial takes at most
ANSWER_S: Final = 40.0  # a node waits 10 s for a stream and 15 s for the device, and asks the gateway twice
MAX_HEAD: Final = 16_384
MAX_BODY: Final = 65_536
READ_BYTES: Final = 65_536
# A peer that vanished is found after 20 s + 3 x 10 s. Not by TCP_USER_TIMEOUT, which would also end a
# connection whose other side only does not read for a while. Some systems lack some of the names.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Unreachable(TowlineError):
    """The session's host does not answer; another try may."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` by lower-case name; ``body`` is empty for a 101."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; {} when it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Site:
    """``authority`` is the Host value; ``address`` where to dial; ``tls`` None on plain loopback."""

    authority: str
    name: str
    address: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def of_link(cls, url: str, ca: str | None) -> tuple[Site, str]:
        """(site, link token) of a link; ``ca`` is a PEM file to trust beside the system's."""
        parts = urlsplit(url)
        name, token = parts.hostname, parts.fragment
        if parts.scheme not in ("http", "https") or not name or not token:
            raise TowlineError("the gateway's link cannot be understood")
        loopback = name == "localhost" or name.endswith(".localhost")
        if parts.scheme == "http" and not loopback:
            raise TowlineError(f"the sessions of {name} are not encrypted: nothing is sent there")
        if parts.scheme == "http" and ca is not None:
            raise TowlineError(
                f"--ca is of no use here: {name} is this machine itself, over plain HTTP; leave it out"
            )
        tls = None if parts.scheme == "http" else trusting(ca)
        # RFC 6761 section 6.3: such a name is this machine, whatever the system's resolver says.
        address = "127.0.0.1" if loopback else name
        port = parts.port or (443 if tls is not None else 80)
        return cls(parts.netloc, name, address, port, tls), token

    @property
    def origin(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.authority}"

    async def open(self) -> Channel:
        """A connection; Unreachable says why not."""
        try:
            async with asyncio.timeout(OPEN_S):
                reader, writer = await asyncio.open_connection(
                    self.address,
                    self.port,
                    limit=READ_BYTES,
                    ssl=self.tls,
                    server_hostname=None if self.tls is None else self.name,
                )
        except TimeoutError:
            raise Unreachable(f"the tunnel server at {self.authority} does not answer") from None
        except ssl.SSLCertVerificationError as error:
            why = f"the certificate of {self.authority} is not trusted ({error.verify_message})"
            raise TowlineError(f"{why}; --ca names another CA") from None
        except OSError as error:
            # asyncio's own text names the address again; a resolver's error has a number of its own kind
            told = error.errno is not None and error.errno > 0 and not isinstance(error, ssl.SSLError)
            why = os.strerror(error.errno or 0) if told else str(error)
            raise Unreachable(
                f"the tunnel server at {self.authority} cannot be reached: {why}; is it running?"
            ) from None
        find_dead_peer(writer.get_extra_info("socket"))
        return Channel(self, reader, writer)


class Channel:
    """One connection to a site: requests, and what follows a 101."""

    def __init__(self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.site = site
        self.reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """One request and its answer; Unreachable when none comes."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.site.authority}", f"Origin: {self.site.origin}"]
        lines += ["Accept: application/json", *(f"{name}: {value}" for name, value in headers.items())]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        try:
            async with asyncio.timeout(ANSWER_S):
                self.writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
                await self.writer.drain()
                return await self._answer()
        except TimeoutError:
            raise Unreachable(f"the tunnel server at {self.site.authority} does not answer") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise Unreachable(
                f"the tunnel server at {self.site.authority} gave no proper answer: {error}"
            ) from None

    async def _answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if len(head) > MAX_HEAD:
            raise ValueError("its head is too long")
        first, *rest = head.split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)
        }
        status = int(first.split(" ", 2)[1]) if first.startswith("HTTP/1.") and " " in first else 0
        if status == 101:
            return Answer(status, headers, b"")
        length = int(headers.get("content-length", "0"))
        if not 200 <= status <= 599 or not 0 <= length <= MAX_BODY:
            raise ValueError("it is no HTTP")
        return Answer(status, headers, await self.reader.readexactly(length))

    async def close(self) -> None:
        """End it; what was written leaves first."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):  # it is over either way
            async with asyncio.timeout(OPEN_S):
                await self.writer.wait_closed()

    def abort(self) -> None:
        """End it at once."""
        self.writer.transport.abort()


def trusting(ca: str | None) -> ssl.SSLContext:
    """TLS that checks names, against the system's CAs and ``ca``."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # ssl.SSLError is one
            raise TowlineError(f"--ca {ca} cannot be used: {error}") from None
    return context


def find_dead_peer(connection: socket.socket) -> None:
    """TCP keepalive (tcp(7)); small writes leave at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
