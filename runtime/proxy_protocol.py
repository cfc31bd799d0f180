"""The PROXY protocol's header, version 1 (text) and 2 (binary): whom the proxy in front of us speaks for.

Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2. Pure: bytes in, one header out.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_HEAD: Final = 16  # signature, version and command, family and transport, length
# Addresses take at most 216 bytes. What follows them (TLVs) is skipped, and bounded: proxies put names and
# ids of a few hundred bytes there, a client certificate at worst.
V2_BODY_MAX: Final = 2_048
V1_PREFIX: Final = b"PROXY "
V1_MAX: Final = 107  # the longest line that section 2.1 allows, with its CRLF
HEADER_MAX: Final = V2_HEAD + V2_BODY_MAX

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half of the byte
_UNSPECIFIED = 0x00
# Family and transport → size of the addresses. Datagrams do not come over TCP: no such header is one of ours.
_ADDRESS_BYTES: Final = {0x11: 12, 0x21: 36, 0x31: 216}
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_PORT_MAX = 65_535


class ProxyProtocolError(Exception):
    """What came is no PROXY header; the text says why."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """``client`` is the IP address that the proxy names; None when it speaks for itself (a health check) or
    knows no address. The header takes the first ``size`` bytes."""

    client: str | None
    size: int


def parse(data: bytes) -> ProxyHeader | None:
    """The header that ``data`` begins with; None when more bytes are needed. ProxyProtocolError for all else.

    It never asks for more than HEADER_MAX bytes.
    """
    if data.startswith(V2_SIGNATURE[:1]):
        return _version_2(data)
    return _version_1(data)


def _version_2(data: bytes) -> ProxyHeader | None:
    signature = data[: len(V2_SIGNATURE)]
    if not V2_SIGNATURE.startswith(signature):
        raise ProxyProtocolError("the signature of version 2 is broken")
    if len(data) < V2_HEAD:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError(f"version and command 0x{command:02x} are unknown")
    if length > V2_BODY_MAX:
        raise ProxyProtocolError(f"{length} bytes are more than a header may have")
    addresses = 0
    if command == _PROXY and family != _UNSPECIFIED:
        if family not in _ADDRESS_BYTES:
            raise ProxyProtocolError(f"family and transport 0x{family:02x} are unknown")
        addresses = _ADDRESS_BYTES[family]
        if length < addresses:
            raise ProxyProtocolError(f"{length} bytes are too few for the addresses")
    if len(data) < V2_HEAD + length:
        return None
    return ProxyHeader(_source(family, data) if addresses else None, V2_HEAD + length)


def _source(family: int, data: bytes) -> str | None:
    if family == 0x11:
        return str(ipaddress.IPv4Address(data[V2_HEAD : V2_HEAD + 4]))
    if family == 0x21:
        return str(ipaddress.IPv6Address(data[V2_HEAD : V2_HEAD + 16]))
    return None  # a Unix socket's path names no client


def _version_1(data: bytes) -> ProxyHeader | None:
    if not V1_PREFIX.startswith(data[: len(V1_PREFIX)]):
        raise ProxyProtocolError("it is no PROXY header")
    line, end, _ = data[:V1_MAX].partition(b"\r\n")
    if not end:
        if len(data) >= V1_MAX:
            raise ProxyProtocolError("the line has no end")
        return None
    size = len(line) + len(end)
    fields = line[len(V1_PREFIX) :].split(b" ")
    if fields[0] == b"UNKNOWN":
        return ProxyHeader(None, size)  # whatever follows it is to be ignored
    if len(fields) != 5 or fields[0] not in (b"TCP4", b"TCP6"):
        raise ProxyProtocolError("the line is not PROXY TCP4|TCP6|UNKNOWN with two addresses and two ports")
    kind = ipaddress.IPv4Address if fields[0] == b"TCP4" else ipaddress.IPv6Address
    source, _ = [_address(kind, text) for text in fields[1:3]]
    for port in fields[3:]:
        if not _PORT.fullmatch(port) or int(port) > _PORT_MAX:
            raise ProxyProtocolError("a port is none")
    return ProxyHeader(source, size)


def _address(kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], text: bytes) -> str:
    try:
        if b"%" in text:  # a zone means something on the proxy's machine alone
            raise ValueError
        return str(kind(text.decode("ascii")))
    except ValueError:
        raise ProxyProtocolError("an address is none") from None
