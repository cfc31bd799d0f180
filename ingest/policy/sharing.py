"""Which of several bridges takes a device's messages: always the same one, so that their order holds."""

from __future__ import annotations

from typing import Final

from runtime.event_log.interface import part_of

_DEVICE: Final = 3  # the token that names the device, as in device_protocol.topics


def is_ours(topic: str, bridge: int, bridges: int) -> bool:
    """Whether bridge number `bridge` of so many takes it. All see every message: only the topic is looked at.

    What is no topic belongs to the first.
    """
    if bridges == 1:
        return True
    tokens = topic.split("/", _DEVICE + 1)
    if len(tokens) <= _DEVICE:
        return bridge == 0
    return part_of(tokens[_DEVICE].encode(), bridges) == bridge
