"""What one sets about the log that the gateway reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from runtime.settings import not_empty, readable_file, setting

HISTORY_DAYS_MAX: Final = 390  # the database makes at most 400 parts, one a day, in one go


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log between ingest and the gateway."""

    kind: Literal["off", "table", "kafka"] = setting(
        "off: devices send no messages. table: the log is in this database, and ingest appends through the"
        " internal listener (one machine). kafka: Apache Kafka.",
        default="off",
    )
    servers: tuple[str, ...] = setting("Kafka's brokers, host:port each.", default=())
    prefix: str = setting(
        "Of Kafka's topics: PREFIX.up, PREFIX.control, PREFIX.dead.", default="towline", check=not_empty
    )
    ca: Path | None = setting(
        "PEM of the CA that signed Kafka's certificates; left out: plain.", default=None, check=readable_file
    )
    certificate: Path | None = setting(
        "PEM of our client certificate for Kafka.", default=None, check=readable_file
    )
    key: Path | None = setting("PEM key of that certificate.", default=None, check=readable_file)

    def __post_init__(self) -> None:
        if self.kind == "kafka" and not self.servers:
            raise ValueError("kafka needs its servers")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.certificate is not None and self.ca is None:
            raise ValueError("a client certificate needs the ca: without it nothing is encrypted")
