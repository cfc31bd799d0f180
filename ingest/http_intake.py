"""Takes from the gateway what devices say over HTTPS, into the same intake as what the broker brings.

HTTP/1.1 for one caller: the gateway, by its certificate of the internal CA. An answer tells what the log has
by then, as `accepted` does over MQTT; without one nothing is known, and the device says it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from device_protocol.errors import BadTopicError
from device_protocol.topics import Kind, parse_topic
from ingest.intake import Arrival, Intake
from ingest.policy.sorting import sort
from ingest.settings import HttpSettings
from runtime.addresses import Address, parse_address
from runtime.logs import get_logger
from runtime.tls_files import load_ca, load_pair

PATH: Final = "/internal/v1/messages"
GATEWAY_UNIT: Final = "gateway"
"""The unit (OU) in the certificate of whom this answers."""
MESSAGES_MAX: Final = 64
"""Of one request: a device's whole window."""
BODY_MAX: Final = 512 * 1024
"""Bytes. The gateway takes 64 KiB of a device; each character may be six on the way here."""
HEAD_MAX: Final = 8192
CONNECTIONS_MAX: Final = 64
"""Gateways keep a few each. With BODY_MAX it bounds the memory of requests that are read: 32 MiB."""
IDLE_S: Final = 75.0
"""Between two requests of a connection; the gateway closes its own long before."""
REQUEST_S: Final = 10.0
"""From a request's head to its last byte, and for its answer to leave."""
WAIT_S: Final = 5.0
"""For the log. An append takes milliseconds; who waited in vain says it again."""
RETRY_S: Final = 5
CLOSE_S: Final = 1.0

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,7}) *(?=\r\n)", re.IGNORECASE)
_log = get_logger("ingest.http")


class _Refused(Exception):
    """What is answered in place of an outcome."""

    def __init__(self, status: HTTPStatus, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class _Outcome:
    """What became of the messages of one request."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.is_lost = False
        self.known = asyncio.Event()
        """What became of each was told."""

    def told(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.known.set()


class _Receipt:
    """One message's."""

    __slots__ = ("_outcome", "is_settled")

    def __init__(self, outcome: _Outcome) -> None:
        self._outcome = outcome
        self.is_settled = False
        """The log has what came of it, which nothing else here says."""

    def settle(self) -> None:
        self.is_settled = True
        self._outcome.told()

    def leave(self) -> None:
        """It is not taken now: what is accepted in the answer says so."""
        self._outcome.told()

    def lost(self) -> None:
        self._outcome.is_lost = True
        self._outcome.told()


@dataclass(frozen=True, slots=True)
class _Said:
    """One request: what a device said, as (kind, envelope's text)."""

    device: str
    prefix: str
    messages: Sequence[tuple[str, str]]


class HttpIntake:
    """`start` listens; `close` ends what is under way. Nothing is taken before the intake has started."""

    def __init__(self, settings: HttpSettings, intake: Intake) -> None:
        """SettingsError for files that hold no certificate."""
        self._listen = parse_address(settings.listen)
        self._intake = intake
        self.context = server_context(settings)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpIntake {self.address} connections={len(self._open)}>"

    @property
    def address(self) -> Address:
        """Where it listens, with the port the kernel chose for port 0."""
        if self._server is None or not self._server.sockets:
            return self._listen
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def start(self) -> None:
        """OSError when the address is taken."""
        self._server = await asyncio.start_server(
            self._serve,
            self._listen.host,
            self._listen.port,
            limit=HEAD_MAX,
            ssl=self.context,
            ssl_handshake_timeout=REQUEST_S,
        )

    def refuse(self) -> None:
        """Take nothing more: 503 from now on. What was taken is answered still."""
        self._closed = True

    async def close(self) -> None:
        self._closed = True
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # gone, slow, or no gateway: there is nobody to answer
        finally:
            self._open.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow."""
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        goes_on = True
        try:
            if _unit_of(writer) != GATEWAY_UNIT:
                raise _Refused(HTTPStatus.FORBIDDEN, "wrong_peer")
            async with asyncio.timeout(REQUEST_S):
                body = await reader.readexactly(_length(head))
            said = _said(body)
            status, answer = HTTPStatus.OK, await self._take(said)
        except _Refused as refused:
            # Of one that was not read the body is still to come.
            goes_on = refused.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.UNPROCESSABLE_ENTITY)
            status, answer = refused.status, {"code": refused.code}
        writer.write(_response(status, answer, goes_on=goes_on))
        async with asyncio.timeout(REQUEST_S):
            await writer.drain()
        return goes_on

    async def _take(self, said: _Said) -> dict[str, Any]:
        intake = self._intake
        if self._closed or not intake.started or intake.budget.paused:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ingest_unavailable")
        outcome = _Outcome(len(said.messages))
        receipts = [_Receipt(outcome) for _ in said.messages]
        arrivals = [
            # Half a surrogate pair has no UTF-8: so it becomes a dead letter, as by a broker.
            Arrival(
                f"{said.prefix}/{kind}",
                text.encode("utf-8", "surrogatepass"),
                receipt,
                via="http",
                device=said.device,
            )
            for (kind, text), receipt in zip(said.messages, receipts, strict=True)
        ]
        for arrival in arrivals:
            intake.offer(arrival)
        try:
            async with asyncio.timeout(WAIT_S):
                await outcome.known.wait()
        except TimeoutError:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ingest_unavailable") from None
        if outcome.is_lost:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ingest_unavailable")
        # What was left is in no log: its device must not think that anybody will look at it.
        kept = [arrival for arrival, receipt in zip(arrivals, receipts, strict=True) if receipt.is_settled]
        return {"accepted": intake.done(said.device), "refused": _refusals(kept)}


def server_context(settings: HttpSettings) -> ssl.SSLContext:
    """TLS 1.3, client certificate demanded, the internal CA trusted alone. SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_ca(context, settings.ca, "http.ca")
    load_pair(context, settings.certificate, settings.key, "http")
    return context


def _unit_of(writer: asyncio.StreamWriter) -> str | None:
    subject = (writer.get_extra_info("peercert") or {}).get("subject", ())
    units = [value for part in subject for kind, value in part if kind == "organizationalUnitName"]
    return units[0] if len(units) == 1 else None


def _length(head: bytes) -> int:
    """Of the body. _Refused for what is no request of ours."""
    line = head.partition(b"\r\n")[0].split(b" ")
    if line != [b"POST", PATH.encode(), b"HTTP/1.1"]:
        raise _Refused(HTTPStatus.NOT_FOUND, "not_found")
    found = _LENGTH.findall(head)
    if len(found) != 1:
        raise _Refused(HTTPStatus.LENGTH_REQUIRED, "bad_request")
    if int(found[0]) > BODY_MAX:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
    return int(found[0])


def _said(body: bytes) -> _Said:
    try:
        told = json.loads(body)
        device, prefix, messages = told["device"], told["prefix"], told["messages"]
        pairs = [(kind, text) for kind, text in messages]
        texts = [device, prefix, *(part for pair in pairs for part in pair)]
        topic = parse_topic(f"{prefix}/{Kind.TELEMETRY.value}")
        whole = all(isinstance(text, str) for text in texts) and all(kind.isascii() for kind, _ in pairs)
        if not whole or topic.device != device or not 1 <= len(pairs) <= MESSAGES_MAX:
            raise ValueError("not what a gateway says")
    except (ValueError, TypeError, KeyError, RecursionError, BadTopicError) as error:
        _log.warning("a request that cannot be read", extra={"error": type(error).__name__})
        raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_field") from None
    return _Said(device, prefix, pairs)


def _refusals(arrivals: Sequence[Arrival]) -> list[dict[str, str | None]]:
    """Of those that became dead letters and are in no line: their devices cannot see it by the number."""
    sorted_ = (sort(one.topic, one.payload, one.device) for one in arrivals)
    return [
        {"id": message.dead.id, "reason": message.dead.reason.value}
        for message in sorted_
        if message.dead is not None and message.standing is None
    ]


def _response(status: HTTPStatus, answer: dict[str, Any], *, goes_on: bool) -> bytes:
    body = json.dumps(answer, separators=(",", ":")).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if goes_on else 'close'}",
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {RETRY_S}")
    return "\r\n".join([*lines, "", ""]).encode() + body
