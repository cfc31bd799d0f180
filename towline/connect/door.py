"""The client's side of the TCP door (docs/protocol/tcp-door.md): one WebSocket is one TCP connection."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import deque
from typing import Final

from runtime import websocket_frames as frames
from runtime.tcp_door import PATH, SUBPROTOCOL, DoorClose
from runtime.websocket_frames import (
    MASK_BYTES,
    Close,
    EmptyMessage,
    FrameError,
    FrameEvent,
    FrameReader,
    Opcode,
    Payload,
    Ping,
    Pong,
    close_frame,
    frame,
)
from towline.connect.site import READ_BYTES, Answer, Channel, Site
from towline.errors import TowlineError
from tunnel_server.policy.websocket import accept_value

PING_S: Final = 20.0  # of silence; below the 60 s after which common proxies close what is quiet

_REFUSALS: Final = {
    "device_offline": "the device is offline",
    "device_busy": "the device serves as many connections as it can",
    "too_many_doors": "this session has as many connections open as it may: close one and try again",
    "too_many_live_streams": "the device serves as many connections as it can",
    "unknown_service": "the device does not offer this service any more",
    "unreachable": "the device is there, but its service did not accept the connection",
    "no_time": "the device does not know the time yet",
    "grant_refused": "the device does not accept this session",
    "control_unavailable": "access cannot be checked right now: the gateway is away",
    "bad_gateway": "the connection broke before the device's service accepted it",
    "timeout": "the device did not answer in time",
    "too_many_requests": "too many tries: wait a moment",
}
_ENDS: Final = {
    "expired": "the session has expired",
    "revoked": "the session was revoked",
    "ended": "the session was ended at the gateway: it was revoked, or its device was",
    "device_revoked": "the device was revoked",
    "control_lost": "the session was ended: the gateway has been away for too long",
}


class DoorRefused(TowlineError):
    """This connection did not come about; another one may."""


class SessionOver(TowlineError):
    """The session opens nothing any more."""


class DoorClosed(TowlineError):
    """The connection ended before both directions had their end."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def ended_session(reason: str) -> SessionOver:
    """What a person is told of a session's end."""
    return SessionOver(_ENDS.get(reason, "the session has ended"))


async def open_door(site: Site, session_id: str) -> Door:
    """A connection to the session's service; DoorRefused, SessionOver or Unreachable."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
        "Authorization": f"Bearer {session_id}",
    }
    channel = await site.open()
    try:
        answer = await channel.ask("GET", PATH, headers)
        _check(answer, key)
    except BaseException:
        channel.abort()
        raise
    return Door(channel)


def _check(answer: Answer, key: str) -> None:
    if answer.status != 101:
        raise refusal(answer)
    accepted = answer.headers.get("sec-websocket-accept") == accept_value(key.encode()).decode()
    spoken = answer.headers.get("sec-websocket-protocol") == SUBPROTOCOL
    extended = "sec-websocket-extensions" in answer.headers
    if not accepted or not spoken or extended or answer.headers.get("upgrade", "").lower() != "websocket":
        raise DoorRefused("the tunnel server's answer is no proper WebSocket handshake")


def refusal(answer: Answer) -> TowlineError:
    """What an answer that lets nobody in says to a person."""
    problem = answer.json()
    code = str(problem.get("code", ""))
    if code in ("session_ended", "no_session"):
        return ended_session("")
    text = _REFUSALS.get(code) or str(
        problem.get("detail") or f"the tunnel server answered HTTP {answer.status}"
    )
    return DoorRefused(text)


class Door:
    """An open connection. ``send``, ``send_end`` and ``receive`` wait while the other side takes, or has,
    nothing: no more than one read and one write are ever kept here.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reader, self._writer = channel.reader, channel.writer
        self._frames = FrameReader(masked=False)
        self._events: deque[FrameEvent] = deque()
        self._sent = 0  # payload bytes
        self._confirmed = 0  # of them, those that a pong proved to have been read
        self._pinged = False

    async def send(self, data: bytes) -> None:
        """Bytes of our direction."""
        self._sent += len(data)
        await self._write(Opcode.BINARY, data)

    async def send_end(self) -> None:
        """Our direction is over, as TCP's FIN says it."""
        await self._write(Opcode.BINARY, b"")

    async def receive(self) -> bytes:
        """The next bytes; b"" is the end of their direction. DoorClosed or SessionOver when it broke."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Payload):
                    return event.data
                if isinstance(event, EmptyMessage):
                    return b""
                await self._control(event)
            await self._fill()

    async def finish(self) -> None:
        """Both directions ended: wait for the other side's Close, answer it, and leave.

        That Close alone says that our last bytes have left for the device, however slowly it takes them:
        leaving before it would cut them off. A peer that vanished, or the session's end, ends the wait.
        """
        try:
            await self.receive()
            raise DoorClosed(frames.PROTOCOL_ERROR, "something came behind the end of its direction")
        except DoorClosed as closed:
            if closed.code != frames.NORMAL:
                raise
        finally:
            await self._channel.close()

    async def break_off(self) -> None:
        """The local side broke: tell it, wait for nothing."""
        await self._goodbye(DoorClose.RESET, "the local connection broke")

    def abort(self) -> None:
        self._channel.abort()

    # Inside

    async def _write(self, opcode: Opcode, data: bytes) -> None:
        try:
            self._writer.write(frame(opcode, data, secrets.token_bytes(MASK_BYTES)))
            await self._writer.drain()
        except OSError as error:
            raise _lost(str(error)) from None

    async def _fill(self) -> None:
        """The next bytes of the socket; silence is asked about."""
        try:
            async with asyncio.timeout(PING_S):
                data = await self._reader.read(READ_BYTES)
        except TimeoutError:
            await self._ask()
            return
        except OSError as error:
            raise _lost(str(error)) from None
        if not data:
            raise _lost("the server, or the network between, went away")
        self._pinged = False
        try:
            self._events += self._frames.feed(data)
        except FrameError as error:
            await self._goodbye(error.code, error.reason)
            raise _lost(error.reason) from None

    async def _ask(self) -> None:
        """A ping. Unanswered, nobody is there, unless bytes of ours may stand unread before it."""
        if self._pinged and self._sent == self._confirmed:
            raise _lost("nothing came for too long")
        self._pinged = True
        if not self._writer.transport.get_write_buffer_size():
            await self._write(Opcode.PING, self._sent.to_bytes(8, "big"))

    async def _control(self, event: FrameEvent) -> None:
        if isinstance(event, Ping):
            await self._write(Opcode.PONG, event.data)
        elif isinstance(event, Pong):
            self._confirmed = max(self._confirmed, int.from_bytes(event.data[:8], "big"))
        elif isinstance(event, Close):
            await self._goodbye(frames.NORMAL if event.code == frames.NO_STATUS else event.code, "")
            if event.code == DoorClose.SESSION_ENDED:
                raise ended_session(event.reason)
            raise DoorClosed(event.code, f"the connection was cut: {event.reason or f'code {event.code}'}")

    async def _goodbye(self, code: int, reason: str) -> None:
        """Our Close: the last frame of our side."""
        if not self._writer.transport.get_write_buffer_size():  # else nobody reads it either
            self._writer.write(close_frame(code, reason, secrets.token_bytes(MASK_BYTES)))
        self._writer.close()


def _lost(why: str) -> DoorClosed:
    return DoorClosed(DoorClose.FAILED, f"the connection to the tunnel server broke: {why}")
