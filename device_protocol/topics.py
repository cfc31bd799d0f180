"""Topics: `{org}/{site}/{type}/{device}/{kind}`, and the same five tokens as a dotted subject."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from device_protocol.errors import BadTopicError

TOKEN: Final = re.compile(r"[a-z0-9_-]{1,64}")
TOKENS: Final = 5
TOPIC_MAX: Final = TOKENS * 64 + TOKENS - 1
"""Characters of the longest topic."""


class Kind(StrEnum):
    """The last token: what a message is."""

    HELLO = "hello"
    STATE = "state"
    TELEMETRY = "telemetry"
    EVENT = "event"
    HEARTBEAT = "heartbeat"
    ACK = "ack"
    CMD = "cmd"
    CONFIG = "config"
    ACCEPTED = "accepted"

    # Of the text, as its equality is; Enum's own is a Python function, and kinds are looked up all the time.
    __hash__ = str.__hash__


UP: Final = frozenset({Kind.HELLO, Kind.STATE, Kind.TELEMETRY, Kind.EVENT, Kind.HEARTBEAT, Kind.ACK})
"""What a device says."""
DOWN: Final = frozenset({Kind.CMD, Kind.CONFIG, Kind.ACCEPTED})
"""What it is told."""
NUMBERED: Final = frozenset({Kind.STATE, Kind.TELEMETRY, Kind.EVENT, Kind.HEARTBEAT})
"""What stands in the device's line; hello and ack repeat until they are answered."""


@dataclass(frozen=True, slots=True)
class Topic:
    """Five tokens of `[a-z0-9_-]{1,64}`."""

    org: str
    site: str
    type: str
    device: str
    kind: Kind

    def __str__(self) -> str:
        return "/".join(self._tokens)

    @property
    def subject(self) -> str:
        """Dotted, as buses with subjects name it."""
        return ".".join(self._tokens)

    @property
    def prefix(self) -> str:
        """All but the kind: what a device is told once."""
        return "/".join(self._tokens[:-1])

    def of(self, kind: Kind) -> Topic:
        """The same device's topic of another kind."""
        return Topic(self.org, self.site, self.type, self.device, kind)

    @property
    def _tokens(self) -> tuple[str, ...]:
        return (self.org, self.site, self.type, self.device, self.kind.value)


def parse_topic(text: str) -> Topic:
    """BadTopicError for anything but a topic."""
    return _parse(text, "/")


def parse_subject(text: str) -> Topic:
    """BadTopicError for anything but a subject."""
    return _parse(text, ".")


def _parse(text: str, separator: str) -> Topic:
    if len(text) > TOPIC_MAX:
        raise BadTopicError(f"longer than {TOPIC_MAX} characters")
    tokens = text.split(separator)
    if len(tokens) != TOKENS:
        raise BadTopicError(f"{len(tokens)} tokens where there must be {TOKENS}")
    for token in tokens:
        if TOKEN.fullmatch(token) is None:
            raise BadTopicError("a token is not 1..64 characters of a-z, 0-9, _ and -")
    try:
        kind = Kind(tokens[-1])
    except ValueError:
        raise BadTopicError("the last token is no kind of message") from None
    return Topic(tokens[0], tokens[1], tokens[2], tokens[3], kind)
