"""What one sets about the log that the gateway reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from runtime.event_log.settings import KafkaSettings
from runtime.settings import setting

HISTORY_DAYS_MAX: Final = 390  # the database makes at most 400 parts, one a day, in one go


@dataclass(frozen=True, slots=True)
class LogSettings(KafkaSettings):
    """The log between ingest and the gateway."""

    kind: Literal["off", "table", "kafka"] = setting(
        "off: devices send no messages. table: the log is in this database, and ingest appends through the"
        " internal listener (one machine). kafka: Apache Kafka.",
        default="off",
    )

    def __post_init__(self) -> None:
        self.check(self.kind)
