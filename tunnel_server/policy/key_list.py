"""What a node needs to know of the grant key list that it passes on: its number, and that it fits."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from tunnel_protocol import Hello
from tunnel_protocol.fields import encode_hello

# tunnel-v1.md section 5: small devices refuse a longer one, and with it the whole connection.
MAX_HELLO_BYTES = 2_040


class UnusableKeyList(ValueError):
    """The gateway's list is no list, or too long for HELLO."""


@dataclass(frozen=True, slots=True)
class NumberedKeyList:
    """``number`` rises with every new list. Devices check the signature: a node has no root for that."""

    number: int
    text: bytes


def numbered(text: bytes, software: str) -> NumberedKeyList:
    """The list with its number; UnusableKeyList says why it cannot be sent in a HELLO beside ``software``."""
    try:
        payload = text.split(b".")[1]
        number = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))["n"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UnusableKeyList(f"no key list: {error!r}") from error
    if not isinstance(number, int) or number < 1:
        raise UnusableKeyList("no key list: its number is not positive")
    # The numbers in a HELLO have a fixed width, so these defaults weigh what the node's own do.
    size = len(encode_hello(Hello(software=software, key_list=text)))
    if size > MAX_HELLO_BYTES:
        raise UnusableKeyList(f"HELLO would be {size} bytes, over {MAX_HELLO_BYTES}: it names too many keys")
    return NumberedKeyList(number, text)
