"""The PROXY header: what haproxy and nginx send, what nobody may send, byte by byte."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.proxy_protocol import (
    HEADER_MAX,
    V1_MAX,
    V2_BODY_MAX,
    V2_SIGNATURE,
    ProxyHeader,
    ProxyProtocolError,
    parse,
)

V4 = bytes([198, 51, 100, 7, 10, 0, 0, 1]) + struct.pack("!HH", 40_000, 443)
V6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("::1").packed + bytes(4)
WIDE = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
LONGEST_V1 = b"PROXY TCP6 %b %b 65535 65535\r\n" % (WIDE, WIDE)


def v2(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return V2_SIGNATURE + bytes([command, family]) + size.to_bytes(2) + body


GOOD = [
    (b"PROXY TCP4 198.51.100.7 10.0.0.1 40000 443\r\n", "198.51.100.7"),
    (b"PROXY TCP6 2001:db8::7 ::1 40000 443\r\n", "2001:db8::7"),
    (b"PROXY TCP6 2001:DB8:0::7 ::1 0 65535\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None),
    (LONGEST_V1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    (v2(0x21, 0x11, V4), "198.51.100.7"),
    (v2(0x21, 0x21, V6), "2001:db8::7"),
    (v2(0x21, 0x11, V4 + b"\x04\x00\x02ok"), "198.51.100.7"),  # a TLV behind the addresses
    (v2(0x21, 0x11, V4 + b"\xff" * (V2_BODY_MAX - 12)), "198.51.100.7"),
    (v2(0x21, 0x31, bytes(216)), None),
    (v2(0x21, 0x00, b""), None),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, V4), None),  # LOCAL: the addresses are to be ignored
    (v2(0x20, 0x77, b"anything"), None),
]

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PROXY  TCP4 198.51.100.7 10.0.0.1 1 2\r\n",
    b"proxy TCP4 198.51.100.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 +1 2\r\n",
    b"PROXY TCP4 198.51.100.07 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 198.51.100.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY UDP4 198.51.100.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 198.51.100.7 10.0.0.1 1 2\n" + b"x" * V1_MAX,
    b"PROXY " + b"x" * V1_MAX,
    b"PROXY \r\n",
    b"\r\n\r\n\x00\r\nQUIX\n",
    b"\r\nGET",
    v2(0x11, 0x11, V4),  # version 1 in binary
    v2(0x22, 0x11, V4),  # an unknown command
    v2(0x21, 0x12, V4),  # datagrams
    v2(0x21, 0x41, V4),  # an unknown family
    v2(0x21, 0x01, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V4),
    v2(0x21, 0x31, bytes(215)),
    v2(0x21, 0x11, V4, length=V2_BODY_MAX + 1),
    v2(0x20, 0x00, b"", length=0xFFFF),
]


@pytest.mark.parametrize(("data", "client"), GOOD)
def test_a_header_names_the_client_and_its_own_size(data: bytes, client: str | None) -> None:
    assert len(data) <= HEADER_MAX
    assert parse(data) == ProxyHeader(client, len(data))
    assert parse(data + b"\x16\x03\x01 more \r\n") == ProxyHeader(client, len(data))
    for end in range(len(data)):
        assert parse(data[:end]) is None, end


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse(data)


@given(st.binary(max_size=64))
def test_garbage_gives_an_error_or_a_wish_for_more_and_never_without_end(data: bytes) -> None:
    for prefix in (b"", b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11"):
        try:
            header = parse(prefix + data)
        except ProxyProtocolError:
            continue
        assert header is None or header.size <= len(prefix + data)


@given(st.binary(min_size=HEADER_MAX, max_size=HEADER_MAX))
def test_at_the_longest_header_it_is_decided(data: bytes) -> None:
    for prefix in (b"", b"PROXY ", V2_SIGNATURE + b"\x21\x11", V2_SIGNATURE + b"\x20"):
        try:
            assert parse((prefix + data)[:HEADER_MAX]) is not None
        except ProxyProtocolError:
            continue


ports = st.integers(0, 65_535)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports)
def test_every_ipv4_client_in_both_versions(
    source: ipaddress.IPv4Address, target: ipaddress.IPv4Address, sport: int, dport: int
) -> None:
    line = f"PROXY TCP4 {source} {target} {sport} {dport}\r\n".encode()
    binary = v2(0x21, 0x11, source.packed + target.packed + struct.pack("!HH", sport, dport))
    for data in (line, binary):
        assert parse(data) == ProxyHeader(str(source), len(data))


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), ports, st.binary(max_size=200))
def test_every_ipv6_client_in_both_versions(
    source: ipaddress.IPv6Address, target: ipaddress.IPv6Address, port: int, tlvs: bytes
) -> None:
    line = f"PROXY TCP6 {source.exploded} {target} {port} {port}\r\n".encode()
    binary = v2(0x21, 0x21, source.packed + target.packed + struct.pack("!HH", port, port) + tlvs)
    for data in (line, binary):
        assert parse(data) == ProxyHeader(str(source), len(data))
