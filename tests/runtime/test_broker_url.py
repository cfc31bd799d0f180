"""Addresses of brokers, as settings have them."""

from __future__ import annotations

import pytest

from runtime.broker_url import BrokerUrl, is_broker_url, parse_broker_url


@pytest.mark.parametrize(
    ("text", "host", "port", "encrypted"),
    [
        ("mqtts://broker.example:8884", "broker.example", 8884, True),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884, False),
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtts://[::1]:9", "::1", 9, True),
    ],
)
def test_what_is_one(text: str, host: str, port: int, encrypted: bool) -> None:
    assert parse_broker_url(text) == BrokerUrl(host, port, encrypted)
    assert is_broker_url(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "broker.example:1883", "http://localhost:1883", "mqtts://", "mqtts://:8883", "mqtts://h:0"),
        *("mqtts://h:65536", "mqtts://h:x", "mqtts://h/path", "mqtts://h?q=1", "mqtts://h#f"),
        *("mqtts://user@h", "mqtts://user:secret@h:8883", "mqtts://@h", "mqtts://[::1", "mqtts://bröker"),
    ],
)
def test_what_is_none(text: str) -> None:
    assert is_broker_url(text) == "must be mqtts://host:port (mqtt:// on loopback alone)"
    with pytest.raises(ValueError, match="must be mqtts"):
        parse_broker_url(text)


@pytest.mark.parametrize("host", ["broker.example", "10.0.0.1", "127.0.0.1.example"])
def test_nothing_goes_unencrypted_beyond_this_machine(host: str) -> None:
    assert is_broker_url(f"mqtt://{host}:1883") == "must be mqtts:// unless it is on loopback"
