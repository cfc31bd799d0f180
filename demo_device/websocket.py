"""The server's half of RFC 6455, as much as a chart needs: text messages, ping, close, fragments,
bounded sizes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from typing import NoReturn

MAX_MESSAGE_BYTES = 16 << 10  # what a page sends here is a few bytes of JSON
PING_S = 20.0  # keeps the path's timers from calling the chart idle, and finds a page that is gone
SILENCE_S = 60.0
WRITE_TIMEOUT_S = 30.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocketClosed(Exception):
    """The peer is gone, or broke a rule; `code` is the close code of section 7.4."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The fields of the 101, or None when the request is no valid opening handshake (section 4.2.1)."""
    key = headers.get("sec-websocket-key", "")
    try:
        valid_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid_key = False
    asks = (
        "websocket" in headers.get("upgrade", "").lower()
        and "upgrade" in headers.get("connection", "").lower()
    )
    if not asks or not valid_key or headers.get("sec-websocket-version") != "13":
        return None
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
    }


class WebSocket:
    """One connection after its 101."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closing = False

    async def send(self, text: str) -> None:
        """Send a text message; waits while the peer reads slowly; raises WebSocketClosed."""
        await self._send_frame(_TEXT, text.encode())

    async def ping(self) -> None:
        """Ask for a sign of life; the answer counts in `receive`."""
        await self._send_frame(_PING, b"")

    async def receive(self) -> str:
        """The next text message; answers pings on the way; raises WebSocketClosed."""
        message, kind = bytearray(), _CONTINUATION
        while True:
            final, opcode, payload = await self._read_frame(MAX_MESSAGE_BYTES - len(message))
            if opcode == _PING:
                await self._send_frame(_PONG, payload)
                continue
            if opcode == _PONG:
                continue
            if opcode == _CLOSE:
                self._peer_closed(payload)
            if (opcode == _CONTINUATION) == (kind == _CONTINUATION):
                raise WebSocketClosed(1002, "a fragment is out of order")
            kind = opcode if opcode != _CONTINUATION else kind
            message += payload
            if final:
                break
        if kind != _TEXT:
            raise WebSocketClosed(1003, "only text is understood here")
        try:
            return message.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WebSocketClosed(1007, "not UTF-8") from error

    async def close(self, code: int, reason: str = "") -> None:
        """Send a close frame once; the connection is the caller's to end."""
        if not self._closing:
            self._closing = True
            await self._send_frame(_CLOSE, code.to_bytes(2, "big") + reason.encode()[:100])

    def _peer_closed(self, payload: bytes) -> NoReturn:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
        raise WebSocketClosed(
            code if 1000 <= code < 5000 and code not in (1005, 1006, 1015) else 1002, "closed"
        )

    async def _read_frame(self, room: int) -> tuple[bool, int, bytes]:
        try:
            async with asyncio.timeout(SILENCE_S):
                first, second = await self._reader.readexactly(2)
                length = second & 0x7F
                if length >= 126:
                    length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
                opcode = first & 0x0F
                self._check_frame(first, second, opcode, length, room)
                mask = await self._reader.readexactly(4)
                masked = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
            raise WebSocketClosed(1006, "the connection is gone") from error
        # One big-integer XOR instead of a Python loop over the bytes.
        repeated = (mask * (length // 4 + 1))[:length]
        payload = (int.from_bytes(masked, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
        return bool(first & 0x80), opcode, payload

    @staticmethod
    def _check_frame(first: int, second: int, opcode: int, length: int, room: int) -> None:
        if first & 0x70 or not second & 0x80 or opcode not in (0, 1, 2, 8, 9, 10):
            raise WebSocketClosed(1002, "a frame is malformed")
        if opcode >= _CLOSE and (length > 125 or not first & 0x80):
            raise WebSocketClosed(1002, "a control frame is too long or in pieces")
        if opcode < _CLOSE and length > room:
            raise WebSocketClosed(1009, "the message is too long")

    async def _send_frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, size))
        elif size < 1 << 16:
            head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
        try:
            self._writer.write(head + payload)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise WebSocketClosed(1006, "the connection is gone") from error


async def converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    messages: Callable[[], asyncio.Queue[str]],
    leave: Callable[[asyncio.Queue[str]], None],
    received: Callable[[str], None],
) -> None:
    """Send every message of a subscription and hand every received one on, until either side ends."""
    websocket, queue = WebSocket(reader, writer), messages()

    async def listen() -> None:
        while True:
            received(await websocket.receive())

    async def speak() -> None:
        while True:
            await websocket.send(await queue.get())

    async def keep_asking() -> None:
        while True:
            await asyncio.sleep(PING_S)
            await websocket.ping()

    try:
        async with asyncio.TaskGroup() as group:
            for work in (listen, speak, keep_asking):
                group.create_task(work())
    except* WebSocketClosed as ended:
        code = next((e.code for e in ended.exceptions if isinstance(e, WebSocketClosed)), 1000)
        await _say_goodbye(websocket, code)
    finally:
        leave(queue)


async def _say_goodbye(websocket: WebSocket, code: int) -> None:
    if code == 1006:
        return
    try:
        await websocket.close(code)
    except WebSocketClosed:
        return  # the peer did not wait for our half of the goodbye
