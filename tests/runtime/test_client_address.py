"""Who is believed about the client's address, and how far."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.client_address import TrustedProxies, are_networks, canonical, group_of, parse_forwarded

OURS = TrustedProxies(("127.0.0.1/32", "10.0.0.0/8", "2001:db8:ffff::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),  # what the client wrote stands left
        ("127.0.0.1", "1.1.1.1,198.51.100.7 , 10.1.2.3", "198.51.100.7"),
        ("127.0.0.1", "1.1.1.1, 10.1.2.3", "1.1.1.1"),
        ("127.0.0.1", "10.9.9.9", "10.9.9.9"),
        ("127.0.0.1", "garbage", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7, garbage", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7, garbage, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "198.51.100.7,", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7:40000", "198.51.100.7"),
        ("127.0.0.1", "[2001:db8::1]:40000", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1, 2001:db8:ffff::2", "2001:db8::1"),
        ("127.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("::ffff:127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.07", "127.0.0.1"),
        ("127.0.0.1", "1" * 10_000, "127.0.0.1"),
        ("198.51.100.9", "1.1.1.1", "198.51.100.9"),  # no proxy of ours wrote it
        ("198.51.100.9", "127.0.0.1", "198.51.100.9"),
        ("", "1.1.1.1", ""),
        ("unknown", "1.1.1.1", "unknown"),
    ],
)
def test_only_our_proxies_are_believed(peer: str, forwarded: str | None, address: str) -> None:
    assert OURS.client(peer, forwarded) == address


def test_without_proxies_nobody_is_believed() -> None:
    assert not TrustedProxies(())
    assert TrustedProxies(()).client("127.0.0.1", "1.1.1.1") == "127.0.0.1"


@pytest.mark.parametrize(
    "text", ["", " ", "1.2.3", "1.2.3.4:", "1.2.3.4:123456", "[1", "::1]:2", "a:1", "%00"]
)
def test_parts_that_are_no_address(text: str) -> None:
    assert parse_forwarded(text) is None


outside = st.ip_addresses(v=4).map(str).filter(lambda address: not OURS.trusts(address))
inside = st.sampled_from(["10.0.0.1", "10.255.1.2", "127.0.0.1", "2001:db8:ffff::9"])


@given(st.text(max_size=80), outside, st.lists(inside, max_size=4))
def test_nothing_that_a_client_writes_changes_its_address(
    written: str, address: str, proxies: list[str]
) -> None:
    """The first proxy appends whom it heard; each further one appends the one before it."""
    value = ",".join([written, address, *proxies])
    assert OURS.client("127.0.0.1", value) == address


def test_addresses_of_a_socket_for_both_families() -> None:
    assert canonical("::ffff:192.0.2.1") == "192.0.2.1"
    assert canonical("2001:db8:0::1") == "2001:db8::1"
    assert canonical("") == ""


def test_networks_are_checked() -> None:
    assert are_networks(("10.0.0.0/8", "10.0.0.1/8", "::1", "fd00::/8")) is None
    assert "'x'" in str(are_networks(("10.0.0.0/8", "x")))


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_an_ipv6_line_counts_as_one(address: str, group: str) -> None:
    assert group_of(address) == group


def test_what_a_client_may_write_at_length_is_not_remembered() -> None:
    """Thousands of heads, each as long as one may be, would be a hundred megabytes."""
    proxies = TrustedProxies(("127.0.0.1/32",))
    tracemalloc.start()
    try:
        for number in range(200):
            forwarded = f"{number:08}" * 2000 + ", 198.51.100.7"
            assert proxies.client("127.0.0.1", forwarded) == "198.51.100.7"
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 500_000
