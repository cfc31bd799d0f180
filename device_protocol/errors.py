"""What can be wrong with what a device says."""

from __future__ import annotations


class DeviceProtocolError(Exception):
    """The other side broke docs/protocol/device-v1.md; the text says how, never with its own words."""


class BadTopicError(DeviceProtocolError):
    """No topic or subject."""
