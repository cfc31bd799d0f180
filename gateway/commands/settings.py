"""What one sets about the broker by which commands go to devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.broker_settings import BrokerSettings as CommonBrokerSettings
from runtime.settings import setting


@dataclass(frozen=True, slots=True)
class BrokerSettings(CommonBrokerSettings):
    """The devices' broker, as the gateway logs in there to publish commands."""

    version: Literal["3.1.1", "5"] = setting(
        "MQTT's version. By 5 the broker says whether anybody took a command; by 3.1.1 `sent` says only that"
        " the broker has it.",
        default="5",
    )
