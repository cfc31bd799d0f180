"""A tunnel's device side written by hand: TCP, TLS, the upgrade and every frame, rules or no rules."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Iterable
from struct import Struct

from tests.tunnel_server.doubles import DeviceKey

WAIT_S = 10.0
BINARY, TEXT, CONTINUATION, CLOSE, WS_PING = 0x2, 0x1, 0x0, 0x8, 0x9
CHALLENGE, AUTH, HELLO, GRANT, REVOKE, OPEN, OPENED, REFUSED = range(1, 9)
DATA, FIN, RESET, CREDIT, PING, PONG, GOAWAY = range(9, 16)
U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
MAX_MESSAGE = 1 << 18  # what the node says in its HELLO
HEARD_MOST = 5_000  # frames kept by a reader; a flood of answers is not the subject

_HEADER = Struct(">BBHI")


def frame(
    kind: int, payload: bytes = b"", stream: int = 0, *, flags: int = 0, length: int | None = None
) -> bytes:
    """One frame; `length` is what the header claims when that shall not be true."""
    return _HEADER.pack(kind, flags, len(payload) if length is None else length, stream) + payload


def credit(stream: int, offset: int) -> bytes:
    return frame(CREDIT, offset.to_bytes(8), stream)


def goaway(code: int = 0, last_id: int = 0, reason: bytes = b"") -> bytes:
    return frame(GOAWAY, last_id.to_bytes(4) + bytes(4) + code.to_bytes(2) + reason)


def open_frame(stream: int, device: bytes = b"d", service: bytes = b"web") -> bytes:
    names = b"".join(len(name).to_bytes(1) + name for name in (device, service))
    return frame(OPEN, bytes(16) + names, stream)


def field(tag: int, value: bytes) -> bytes:
    return tag.to_bytes(1) + len(value).to_bytes(2) + value


def number(tag: int, value: int) -> bytes:
    return field(tag, value.to_bytes(4))


def hello(*fields: bytes) -> bytes:
    """A HELLO with the one service `web` unless `fields` name services themselves."""
    payload = b"".join(fields)
    if not any(one[:1] == b"\x09" for one in fields):
        payload += field(9, b"web")
    return frame(HELLO, payload)


def websocket_frame(
    payload: bytes, opcode: int = BINARY, *, fin: bool = True, rsv: int = 0, claimed: int | None = None
) -> bytes:
    """A masked client's frame (RFC 6455 section 5.2); the mask is zero, so the payload stands as it is."""
    size = len(payload) if claimed is None else claimed
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8)
    return head + bytes(4) + payload


class Ended(Exception):
    """The server closed the connection."""


class RawTunnel:
    """One connection. `goaway_code`, `status` say how the server ended it; None: it did not say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[tuple[int, int, bytes]] = []  # (type, stream, payload)
        self.answers_pings = True
        self.goaway_code: int | None = None
        self.status: int | None = None
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext) -> RawTunnel:
        """TCP, TLS and the WebSocket upgrade. Ended when the server refuses."""
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1"), WAIT_S
        )
        tunnel = cls(reader, writer)
        await tunnel.upgrade()
        return tunnel

    async def upgrade(self, *extra: str, path: str = "/tunnel") -> None:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol: towline.v1",
            *extra,
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            async with asyncio.timeout(WAIT_S):
                answer = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Ended("during the upgrade") from error
        if not answer.startswith(b"HTTP/1.1 101"):
            self.writer.transport.abort()
            raise Ended(answer.split(b"\r\n")[0].decode())

    # Sending

    def write(self, data: bytes) -> None:
        """Raw bytes, not waited for."""
        if self.ended.is_set():
            raise Ended
        self.writer.write(data)

    async def send(self, *frames: bytes) -> None:
        """One message."""
        await self.send_raw(websocket_frame(b"".join(frames)))

    async def send_raw(self, data: bytes) -> None:
        self.write(data)
        try:
            async with asyncio.timeout(WAIT_S):
                await self.writer.drain()
        except ConnectionError as error:
            raise Ended from error

    async def flood(self, messages: Iterable[bytes]) -> bool:
        """Sends these WebSocket messages until the server has had enough; whether it had."""
        try:
            for message in messages:
                await self.send_raw(message)
                await asyncio.sleep(0)
        except Ended:
            return True
        return False

    # Reading

    def listen(self) -> None:
        """Read in the background from now on."""
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                opcode, payload = await self._next()
                if opcode == CLOSE:
                    self.status = int.from_bytes(payload[:2]) if payload else None
                    break
                self._hear(payload)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.ended.set()
            self._changed.set()

    async def _next(self) -> tuple[int, bytes]:
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2))
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8))
        return head[0] & 0x0F, await self.reader.readexactly(size)

    def _hear(self, message: bytes) -> None:
        position = 0
        while position < len(message):
            kind, _, length, stream = _HEADER.unpack_from(message, position)
            payload = message[position + 8 : position + 8 + length]
            position += 8 + length
            if kind == GOAWAY:
                self.goaway_code = int.from_bytes(payload[8:10])
            if kind == PING and self.answers_pings:
                self.writer.write(websocket_frame(frame(PONG, payload)))
            if len(self.heard) < HEARD_MOST:
                self.heard.append((kind, stream, payload))
        self._changed.set()

    def stop_reading(self) -> None:
        """From now on nothing is taken off the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def sip(self) -> None:
        """Take what one turn of the loop brings: a TLS record or so."""
        transport = self.writer.transport
        transport.resume_reading()  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_soon(transport.pause_reading)  # type: ignore[attr-defined]

    def of(self, kind: int) -> list[tuple[int, bytes]]:
        """(stream, payload) of every frame of this type that was heard."""
        return [(stream, payload) for heard, stream, payload in self.heard if heard == kind]

    async def until_heard(self, kind: int, count: int = 1) -> list[tuple[int, bytes]]:
        async with asyncio.timeout(WAIT_S):
            while len(self.of(kind)) < count:
                if self.ended.is_set():
                    raise Ended(f"before type {kind} came: {self.goaway_code} {self.status}")
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)

    async def until_ended(self, seconds: float = WAIT_S) -> None:
        async with asyncio.timeout(seconds):
            await self.ended.wait()

    # The handshake

    async def say_hello(
        self, key: DeviceKey, device: str, *, instance: bytes | None = None, hello_frame: bytes | None = None
    ) -> None:
        """CHALLENGE, AUTH, HELLO both ways; `listen` must have been called."""
        _, challenge = (await self.until_heard(CHALLENGE))[0]
        await self.send(auth_frame(key, device, challenge, instance=instance))
        await self.until_heard(HELLO)
        await self.send(hello() if hello_frame is None else hello_frame)

    async def close(self) -> None:
        self.writer.transport.abort()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading


def auth_frame(
    key: DeviceKey,
    device: str,
    challenge: bytes,
    *,
    instance: bytes | None = None,
    server_name: bytes | None = None,
) -> bytes:
    """AUTH as section 4 wants it; `challenge` is the payload of CHALLENGE."""
    nonce, name = challenge[:32], challenge[32:] if server_name is None else server_name
    instance = secrets.token_bytes(16) if instance is None else instance
    transcript = b"towline-auth-v1" + nonce + len(name).to_bytes(2) + name
    transcript += len(device).to_bytes(2) + device.encode() + instance
    fields = (device.encode(), instance, key.key_id, key.sign(transcript))
    return frame(AUTH, b"".join(field(tag, value) for tag, value in enumerate(fields, start=1)))
