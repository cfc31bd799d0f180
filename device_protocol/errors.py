"""What can be wrong with what a device says, or is told."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from device_protocol.numbers import Number


class DeviceProtocolError(Exception):
    """The other side broke docs/protocol/device-v1.md; the text says how, never with its own words."""


class BadTopicError(DeviceProtocolError):
    """No topic or subject."""


class Reason(StrEnum):
    """Why a message is a dead letter. The list is closed: section 9 says what each one means."""

    BAD_TOPIC = "bad_topic"
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    BAD_SCHEMA = "bad_schema"
    WRONG_VERSION = "wrong_version"
    WRONG_KIND = "wrong_kind"
    WRONG_DEVICE = "wrong_device"
    UNKNOWN_DEVICE = "unknown_device"
    DEVICE_REVOKED = "device_revoked"
    WRONG_PLACE = "wrong_place"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    REUSED_NUMBER = "reused_number"
    STORE_REFUSED = "store_refused"
    NO_SPACE = "no_space"


class Standing(NamedTuple):
    """Where a numbered message stands in its device's line: what Line.offer asks for."""

    number: Number
    before: Number
    """Of the entry before it in the device's outbox; less than `number`."""
    floor: Number
    """The highest that the device knows to be accepted; less than `number`."""


class BadMessageError(DeviceProtocolError):
    """A message that no reader takes.

    `standing`: of a numbered message that is bad otherwise; the line has to go on past it, or everything that
    the device says later is stuck behind it. None: not numbered, or its number cannot be read.
    `id`: the message's, where that much could be read.
    """

    def __init__(
        self, reason: Reason, detail: str, *, standing: Standing | None = None, id: str | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.standing = standing
        self.id = id
