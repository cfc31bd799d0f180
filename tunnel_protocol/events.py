"""What a machine tells its driver. Handle every event of a list before the next call into the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tunnel_protocol.codes import CloseCode, RefusedCode, ResetCode
from tunnel_protocol.fields import Auth, Hello

if TYPE_CHECKING:
    from tunnel_protocol.stream import Stream

Fault = Literal["peer", "local", "timeout"]


class Event:
    """Base of all events; its repr shows the fields."""

    __slots__ = ()

    def __repr__(self) -> str:
        names: tuple[str, ...] = self.__slots__
        fields = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({fields})"


def _shown(value: object) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, memoryview | bytes) else repr(value)


class ChallengeReceived(Event):
    """Device side: sign auth_transcript(nonce, server_name, …) and call Connection.authenticate."""

    __slots__ = ("nonce", "server_name")

    def __init__(self, nonce: bytes, server_name: str) -> None:
        self.nonce = nonce
        self.server_name = server_name


class AuthReceived(Event):
    """Server side: verify auth.signature over auth.transcript, then Connection.admit or refuse_peer."""

    __slots__ = ("auth",)

    def __init__(self, auth: Auth) -> None:
        self.auth = auth


class PeerReady(Event):
    """The handshake is over: streams may be opened. `hello` is what the peer said."""

    __slots__ = ("hello",)

    def __init__(self, hello: Hello) -> None:
        self.hello = hello


class GrantReceived(Event):
    """Device side: a grant token to verify; an OPEN that names it may follow."""

    __slots__ = ("grant_id", "token")

    def __init__(self, grant_id: bytes, token: bytes) -> None:
        self.grant_id = grant_id
        self.token = token


class GrantRevoked(Event):
    """Device side: end all streams of this grant with RESET grant_ended; remember the id until its exp."""

    __slots__ = ("grant_id",)

    def __init__(self, grant_id: bytes) -> None:
        self.grant_id = grant_id


class StreamRequested(Event):
    """The peer asks for a stream: Stream.accept(owner) or refuse(code, message), now or later.

    Data that comes before accept is kept by the machine (a window at most) and follows accept as events.
    """

    __slots__ = ("device", "grant_id", "service", "stream")

    def __init__(self, stream: Stream, device: str, service: str, grant_id: bytes) -> None:
        self.stream = stream
        self.device = device
        self.service = service
        self.grant_id = grant_id


class StreamAccepted(Event):
    """The peer answered OPENED."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class StreamRefused(Event):
    """The peer answered REFUSED, or its GOAWAY left this stream unserved. The stream is over."""

    __slots__ = ("code", "message", "stream")

    def __init__(self, stream: Stream, code: RefusedCode, message: str) -> None:
        self.stream = stream
        self.code = code
        self.message = message


class DataReceived(Event):
    """Bytes of the stream. `data` is valid only until the next call into the machine: copy what must stay."""

    __slots__ = ("data", "stream")

    def __init__(self, stream: Stream, data: memoryview) -> None:
        self.stream = stream
        self.data = data


class StreamFinished(Event):
    """The peer's FIN: no more data will come. When our own side is finished too, the stream is over."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class StreamReset(Event):
    """The peer cut the stream. It is over."""

    __slots__ = ("code", "stream")

    def __init__(self, stream: Stream, code: ResetCode) -> None:
        self.stream = stream
        self.code = code


class Writable(Event):
    """After send() said False or send_room() said 0: there is room. After finish(tell=True): all left."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class GoawayReceived(Event):
    """The peer will go: open no stream here any more, reconnect after retry_after_ms."""

    __slots__ = ("code", "last_id", "reason", "retry_after_ms")

    def __init__(self, last_id: int, retry_after_ms: int, code: CloseCode, reason: str) -> None:
        self.last_id = last_id
        self.retry_after_ms = retry_after_ms
        self.code = code
        self.reason = reason


class Drained(Event):
    """After Connection.drain: the last stream is over. ConnectionLost("local", …) follows."""

    __slots__ = ()


class ConnectionLost(Event):
    """The last event of a connection, exactly once. Tell the owner of every stream in Connection.streams().

    fault: "peer" (it broke a rule, said GOAWAY, or its link broke), "local" (we closed), "timeout" (silence).
    code is None when the link broke without one.
    """

    __slots__ = ("code", "fault", "reason")

    def __init__(self, fault: Fault, code: CloseCode | None, reason: str) -> None:
        self.fault = fault
        self.code = code
        self.reason = reason
