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
