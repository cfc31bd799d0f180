"""Names of the headers that ingest gives an entry, for whoever reads it. Values are UTF-8."""

from __future__ import annotations

from typing import Final

TOPIC: Final = "topic"
"""The MQTT topic that the message came on. In the topic DEAD it may be none: then what of it can be shown."""
DEAD: Final = "dead"
"""The message is a dead letter for this reason. In the topic UP its number counts in its device's line."""
DETAIL: Final = "detail"
"""Of a dead letter: what was wrong, for people; never in the device's words."""
SIZE: Final = "size"
"""Bytes of the message, in decimal; only where the value holds less of it."""
