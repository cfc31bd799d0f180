"""Who may say and hear what at the embedded broker: the same as infra/mosquitto/acl says for Mosquitto."""

from __future__ import annotations

from typing import Final

from device_protocol.errors import BadTopicError
from device_protocol.topics import DOWN, TOKEN, TOKENS, UP, Kind, Topic, parse_topic

BRIDGE: Final = "ingest"
"""User of the bridges: hears all that devices say, tells them what was accepted."""
GATEWAY: Final = "gateway"
"""User of the gateways: tells devices anything, hears nothing."""
SERVICES: Final = frozenset({BRIDGE, GATEWAY})

_SAYS: Final = {BRIDGE: frozenset({Kind.ACCEPTED}), GATEWAY: DOWN}
_HEARS: Final = {BRIDGE: UP, GATEWAY: frozenset[Kind]()}


def may_publish(user: str, topic: str) -> bool:
    """A device under its own token alone, whatever org, site and type it names: the consumer knows those."""
    found = _parsed(topic)
    if found is None:
        return False
    if user in SERVICES:
        return found.kind in _SAYS[user]
    return found.device == user and found.kind in UP


def may_receive(user: str, topic: str) -> bool:
    found = _parsed(topic)
    if found is None:
        return False
    if user in SERVICES:
        return found.kind in _HEARS[user]
    return found.device == user and found.kind in DOWN


def may_subscribe(user: str, pattern: str) -> bool:
    """No `#`; `+` for org, site and type, and for a bridge's devices: never for the kind."""
    levels = pattern.split("/")
    if len(levels) != TOKENS or not all(level == "+" or TOKEN.fullmatch(level) for level in levels[:4]):
        return False
    device, kind = levels[3:]
    if user in SERVICES:
        return kind in _HEARS[user]
    return device == user and kind in DOWN


def _parsed(topic: str) -> Topic | None:
    try:
        return parse_topic(topic)
    except BadTopicError:
        return None
