"""What can be set about the broker of commands, and which mistakes are told at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.commands.settings import BrokerSettings
from runtime.settings import SettingsError, from_table

NOWHERE = Path("settings.toml")


def test_an_address_is_a_host_and_a_port() -> None:
    made = from_table(BrokerSettings, {"url": "mqtts://broker.example.com", "ca": __file__}, source=NOWHERE)
    assert (made.host, made.port, made.version) == ("broker.example.com", 8883, "5")
    local = from_table(BrokerSettings, {"url": "mqtt://127.0.0.1:1884"}, source=NOWHERE)
    assert (local.host, local.port, local.tls()) == ("127.0.0.1", 1884, None)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"url": "mqtt://broker.example.com:1883"}, "url"),
        ({"url": "https://broker.example.com"}, "url"),
        ({"url": "mqtts://user@broker.example.com"}, "url"),
        ({"url": "mqtts://broker.example.com"}, "ca"),
        ({"url": "mqtts://broker.example.com", "ca": __file__, "certificate": __file__}, "certificate"),
        ({"url": "mqtts://broker.example.com", "ca": __file__, "username": "gateway"}, "username"),
        ({"url": "mqtts://broker.example.com", "version": "4"}, "version"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_table(BrokerSettings, table, source=NOWHERE)
    assert named in str(caught.value)


def test_certificates_that_cannot_be_read_are_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for ca in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=r"^broker\.ca: "):
            BrokerSettings("mqtts://broker.example.com", ca=ca).tls()
