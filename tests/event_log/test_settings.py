"""What is said of Kafka in the settings."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.messages.settings import LogSettings
from runtime.event_log.kafka import address_of
from runtime.event_log.settings import KafkaSettings

ABROAD = "no TLS to Kafka on another machine"


@pytest.mark.parametrize("server", ["kafka", "kafka:", ":9093", "kafka:tls", "::1:9093"])
def test_a_server_has_its_port(server: str) -> None:
    with pytest.raises(ValueError, match="servers"):
        LogSettings(kind="kafka", servers=("kafka:9093", server))


@pytest.mark.parametrize(
    ("servers", "said"),
    [(("127.0.0.1:9092", "localhost:9092", "[::1]:9092"), False), (("127.0.0.1:9092", "kafka:9092"), True)],
)
def test_kafka_without_tls_elsewhere_is_said(
    servers: tuple[str, ...], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        address_of(KafkaSettings(servers))
    assert (ABROAD in caplog.text) is said


def test_kafka_by_tls_is_not() -> None:
    assert not KafkaSettings(("kafka:9093",), ca=Path("ca.crt")).is_plain_abroad
