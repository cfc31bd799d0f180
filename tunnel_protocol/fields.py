"""AUTH and HELLO: sequences of tag u8, length u16, value (sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from tunnel_protocol.codes import (
    INSTANCE_SIZE,
    KEY_ID_SIZE,
    MAX_HELLO_PAYLOAD,
    MAX_KEEPALIVE_MS,
    MIN_KEEPALIVE_MS,
    SIGNATURE_SIZE,
)
from tunnel_protocol.errors import Misuse, ProtocolViolation
from tunnel_protocol.frames import is_name, parse_text

_TAG: Final = Struct(">BH")
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_U32_MAX: Final = 2**32 - 1

AUTH_CONTEXT: Final = b"towline-auth-v1"
MAX_SOFTWARE: Final = 128
MAX_SERVICES: Final = 64
MAX_SERVICE_FIELD: Final = 512  # name, kind and options; an upstream name is at most 253 bytes and a port
MAX_CHILDREN: Final = 1024
MAX_FEATURES: Final = 1024  # bytes of the whole list


@dataclass(frozen=True, slots=True)
class Service:
    """One service of a device, as its HELLO announces it."""

    name: str  # [a-z0-9_-]{1,64}
    kind: str = "web"  # "web" or "tcp"; a kind that we do not know is kept as it came
    # "rewrite": the server puts `upstream` into Host and Origin; "preserve": it leaves the public name.
    host: str = "rewrite"
    forwarded: bool = False  # whether the server adds X-Forwarded-* and Forwarded
    upstream: str = ""  # the Host value for rewriting, e.g. "127.0.0.1:80"; "" when not told

    def encode(self) -> bytes:
        value = f"{self.name}={self.kind};host={self.host};forwarded={int(self.forwarded)}"
        raw = (f"{value};upstream={self.upstream}" if self.upstream else value).encode()
        try:
            same = Service.decode(raw) == self
        except ProtocolViolation as error:
            raise Misuse(f"service {self.name!r}: {error.reason}") from None
        if not same:
            raise Misuse(f"service {self.name!r}: a value holds ';'")
        return raw

    @classmethod
    def decode(cls, raw: bytes) -> Service:
        head, *options = parse_text(raw, "service", MAX_SERVICE_FIELD).split(";")
        name, equals, kind = head.partition("=")
        if not is_name(name.encode()) or (equals and not is_name(kind.encode())):
            raise ProtocolViolation("service: malformed name or kind")
        values = _options(options)
        host = values.get("host", "rewrite")
        if host not in ("rewrite", "preserve"):
            raise ProtocolViolation("service: host is neither rewrite nor preserve")
        forwarded = values.get("forwarded", "0")
        if forwarded not in ("0", "1"):
            raise ProtocolViolation("service: forwarded is neither 0 nor 1")
        upstream = values.get("upstream", "")
        if not _is_authority(upstream):
            raise ProtocolViolation("service: malformed upstream")
        return cls(name, kind or "web", host, forwarded == "1", upstream)


def _options(options: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key in values:
            raise ProtocolViolation(f"service: option {key!r} stands twice")
        values[key] = value
    return values


def _is_authority(value: str) -> bool:
    """Whether value may stand in a Host header: visible ASCII without what ends or splits headers or URLs."""
    return len(value) <= 260 and all("!" <= char <= "~" and char not in '"/\\;,?#@<>' for char in value)


@dataclass(frozen=True, slots=True)
class Auth:
    """A device's AUTH. `transcript` is what `signature` must sign; the server's machine fills it in."""

    device: str
    instance: bytes  # 16 bytes
    key_id: bytes  # 16 bytes
    signature: bytes  # 64 bytes, r ‖ s
    transcript: bytes = b""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a side says of itself. The numbers are filled in from the machine's Limits when it is sent.

    The defaults are what an absent field means on the wire.
    """

    max_frame: int = 16_384
    max_message: int = 65_536
    stream_window: int = 65_536
    connection_window: int = 1_048_576
    max_streams: int = 64
    keepalive_ms: int = 4_000
    features: tuple[str, ...] = ()
    software: str = ""
    services: tuple[Service, ...] = ()
    key_list: bytes | None = None  # compact JWS, server only
    children: tuple[str, ...] = ()

    def service(self, name: str) -> Service | None:
        return next((service for service in self.services if service.name == name), None)


def auth_transcript(nonce: bytes, server_name: str, device: str, instance: bytes) -> bytes:
    """The bytes that AUTH's signature covers (section 4)."""
    name, device_id = server_name.encode(), device.encode()
    parts = (AUTH_CONTEXT, nonce, _U16.pack(len(name)), name, _U16.pack(len(device_id)), device_id, instance)
    return b"".join(parts)


def encode_auth(auth: Auth) -> bytes:
    sizes = (len(auth.instance), len(auth.key_id), len(auth.signature))
    if not is_name(auth.device.encode()) or sizes != (INSTANCE_SIZE, KEY_ID_SIZE, SIGNATURE_SIZE):
        raise Misuse("authenticate: the device id, instance, key id or signature is malformed")
    values = (auth.device.encode(), auth.instance, auth.key_id, auth.signature)
    return b"".join(_field(tag, value) for tag, value in enumerate(values, start=1))


def decode_auth(payload: bytes) -> Auth:
    """Raises ProtocolViolation when a field is missing, doubled or malformed."""
    found: dict[int, bytes] = {}
    for tag, value in _fields(payload, "AUTH"):
        if tag in found and tag in (1, 2, 3, 4):
            raise ProtocolViolation(f"AUTH: tag {tag} stands twice")
        found[tag] = value
    device = found.get(1, b"")
    sizes = tuple(len(found.get(tag, b"")) for tag in (2, 3, 4))
    if not is_name(device) or sizes != (INSTANCE_SIZE, KEY_ID_SIZE, SIGNATURE_SIZE):
        raise ProtocolViolation("AUTH: a field is missing or malformed")
    return Auth(device.decode(), found[2], found[3], found[4])


def encode_hello(hello: Hello) -> bytes:
    numbers = (
        hello.max_frame,
        hello.max_message,
        hello.stream_window,
        hello.connection_window,
        hello.max_streams,
        hello.keepalive_ms,
    )
    parts = [_field(tag, _U32.pack(value)) for tag, value in enumerate(numbers, start=1)]
    if hello.features:
        parts.append(_field(7, ",".join(hello.features).encode()))
    if hello.software:
        parts.append(_field(8, hello.software.encode()[:MAX_SOFTWARE].decode(errors="ignore").encode()))
    parts += [_field(9, service.encode()) for service in hello.services]
    if hello.key_list is not None:
        parts.append(_field(10, hello.key_list))
    parts += [_field(11, child.encode()) for child in hello.children]
    payload = b"".join(parts)
    try:
        decode_hello(payload, key_list_allowed=True)
    except ProtocolViolation as error:
        raise Misuse(f"hello: {error.reason}") from None
    return payload


def decode_hello(payload: bytes, *, key_list_allowed: bool) -> Hello:
    """Raises ProtocolViolation for doubled or malformed fields. `key_list_allowed`: a server sent it."""
    if len(payload) > MAX_HELLO_PAYLOAD:
        raise ProtocolViolation("HELLO: too long")
    values: dict[str, object] = {}
    services: list[Service] = []
    children: list[str] = []
    for tag, value in _fields(payload, "HELLO"):
        if tag == 9:
            services.append(Service.decode(value))
        elif tag == 11:
            children.append(_child(value))
        elif tag in _HELLO_SINGLE:
            name, parse = _HELLO_SINGLE[tag]
            if name in values:
                raise ProtocolViolation(f"HELLO: {name} stands twice")
            values[name] = parse(name, value)
    if "key_list" in values and not key_list_allowed:
        raise ProtocolViolation("HELLO: key_list from a device")
    if len(services) > MAX_SERVICES or len(children) > MAX_CHILDREN:
        raise ProtocolViolation("HELLO: too many services or children")
    if len({service.name for service in services}) != len(services):
        raise ProtocolViolation("HELLO: a service stands twice")
    return Hello(services=tuple(services), children=tuple(children), **values)  # type: ignore[arg-type]


def _fields(payload: bytes, what: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(payload):
        start = position + _TAG.size
        if start > len(payload):
            raise ProtocolViolation(f"{what}: a field is cut short")
        tag, length = _TAG.unpack_from(payload, position)
        position = start + length
        if position > len(payload):
            raise ProtocolViolation(f"{what}: a field is cut short")
        yield tag, payload[start:position]


def _field(tag: int, value: bytes) -> bytes:
    return _TAG.pack(tag, len(value)) + value


def _child(value: bytes) -> str:
    if not is_name(value):
        raise ProtocolViolation("HELLO: malformed child")
    return value.decode()


def _number(low: int, high: int) -> Callable[[str, bytes], int]:
    def parse(name: str, value: bytes) -> int:
        if len(value) != _U32.size:
            raise ProtocolViolation(f"HELLO: {name} has a wrong length")
        number: int = _U32.unpack(value)[0]
        if not low <= number <= high:
            raise ProtocolViolation(f"HELLO: {name} is not within {low}..{high}")
        return number

    return parse


def _features(name: str, value: bytes) -> tuple[str, ...]:
    text = parse_text(value, name, MAX_FEATURES)
    return tuple(text.split(",")) if text else ()


def _software(name: str, value: bytes) -> str:
    return parse_text(value, name, MAX_SOFTWARE)


def _key_list(name: str, value: bytes) -> bytes:
    if not value.isascii():
        raise ProtocolViolation(f"HELLO: {name} is not ASCII")
    return value


_HELLO_SINGLE: Final[dict[int, tuple[str, Callable[[str, bytes], object]]]] = {
    1: ("max_frame", _number(256, 65_535)),
    2: ("max_message", _number(2_048, _U32_MAX)),
    3: ("stream_window", _number(1, _U32_MAX)),
    4: ("connection_window", _number(1, _U32_MAX)),
    5: ("max_streams", _number(0, _U32_MAX)),
    6: ("keepalive_ms", _number(MIN_KEEPALIVE_MS, MAX_KEEPALIVE_MS)),
    7: ("features", _features),
    8: ("software", _software),
    10: ("key_list", _key_list),
}
