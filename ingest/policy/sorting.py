"""What a message is by itself: to which topic of the log it belongs, where it stands in its device's line."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from device_protocol.envelope import decode
from device_protocol.errors import BadMessageError, BadTopicError, Reason, Standing
from device_protocol.topics import NUMBERED, TOPIC_MAX, Topic, parse_topic
from runtime.event_log import headers
from runtime.event_log.interface import CONTROL, DEAD, UP, Entry

DEAD_MAX: Final = 64 * 1024
"""Bytes kept of a dead letter."""
TOPICS_KEPT: Final = 16_384
"""Topics that need not be parsed anew, nor kept again with each message that waits; some 10 MB."""
NO_KIND: Final = "none"
"""In place of the kind of what came on no topic."""


class Dead(NamedTuple):
    """Why a message is a dead letter. Not the error itself, which would keep all that it was raised from."""

    reason: Reason
    detail: str
    id: str | None = None
    """The message's own, where that could be read."""


class Sorted(NamedTuple):
    """`standing` is there exactly in the log's topic UP: its message must be taken in line."""

    log_topic: str
    topic: Topic | None
    """None: what it came on is no topic."""
    standing: Standing | None = None
    dead: Dead | None = None

    @property
    def kind(self) -> str:
        return NO_KIND if self.topic is None else self.topic.kind.value

    @property
    def device(self) -> str:
        """Its id; "" where there is none."""
        return "" if self.topic is None else self.topic.device


def sender(topic_text: str) -> str:
    """The device that the topic names; "" for what is no topic."""
    try:
        return _topic(topic_text).device
    except BadTopicError:
        return ""


def sort(topic_text: str, payload: bytes, device: str | None = None) -> Sorted:
    """`device`: who sent it, where that is known beside the topic, to which a broker's ACL has tied it."""
    try:
        topic = _topic(topic_text)
    except BadTopicError as error:
        return Sorted(DEAD, None, dead=Dead(Reason.BAD_TOPIC, str(error)))
    if device is not None and device != topic.device:
        return Sorted(DEAD, None, dead=Dead(Reason.WRONG_DEVICE, "not the device that sent it"))
    try:
        envelope = decode(topic.kind, payload)
    except BadMessageError as error:
        # One whose number can be read goes where the others go: its device's line must not end at it.
        dead = Dead(error.reason, error.detail, error.id)
        return Sorted(UP if error.standing else DEAD, topic, error.standing, dead)
    if topic.kind not in NUMBERED:
        return Sorted(CONTROL, topic)
    return Sorted(UP, topic, envelope.standing)


def entry(message: Sorted, topic_text: str, payload: bytes, at_ms: int) -> Entry:
    """As it is kept."""
    found = [(headers.TOPIC, _shown(topic_text) if message.topic is None else topic_text.encode())]
    if message.dead is not None:
        found.append((headers.DEAD, message.dead.reason.value.encode()))
        found.append((headers.DETAIL, message.dead.detail.encode()))
    if len(payload) > DEAD_MAX:
        found.append((headers.SIZE, str(len(payload)).encode()))
    return Entry(message.device.encode(), payload[:DEAD_MAX], at_ms, tuple(found))


_topic = lru_cache(TOPICS_KEPT)(parse_topic)


def _shown(topic_text: str) -> bytes:
    """Of what is no topic so much that it can be recognised, in printable ASCII."""
    shown = topic_text[:TOPIC_MAX].encode("ascii", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else "?" for sign in shown)[:TOPIC_MAX].encode()
