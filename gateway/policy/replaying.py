"""What becomes of a dead letter that is tried again: the decision that it met when it came, made anew.

Its device's line went past it then. So it is decided as if it were next in line, and the line stays as it is:
what it says is stored late, never twice, and nothing newer is replaced by it. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from device_protocol.errors import Reason
from device_protocol.numbers import NOTHING
from gateway.policy.messages import Applied, Arrival, Facts, Fault, decide, read
from runtime.event_log import headers
from runtime.event_log.interface import UP, Entry, Record

# Whatever was mended meanwhile, these stay what they are.
FINAL: Final[Mapping[str, str]] = {
    Reason.WRONG_DEVICE: "another device said it in its name",
    Reason.REUSED_NUMBER: "another message has its number",
    Reason.NO_SPACE: "it was not kept",
}


def taken_up(place: tuple[str, int, int], topic: str, body: bytes, at_ms: int) -> Arrival:
    """The record again, without the mark that it is dead: what is wrong with it is found anew."""
    _, part, offset = place
    return read(Record(UP, part, offset, Entry(b"", body, at_ms, ((headers.TOPIC, topic.encode()),))))


def try_again(arrival: Arrival, reason: str, facts: Facts, *, whole: bool) -> Applied | Fault:
    """What to store, or why it stays a dead letter. `whole`: all of it was kept."""
    if reason in FINAL:
        return Fault(Reason(reason), FINAL[reason])
    if not whole:
        return Fault(Reason.NO_SPACE, "not all of it was kept")
    if arrival.topic is None or arrival.fault is not None:
        return arrival.fault or Fault(Reason.BAD_TOPIC, "no topic of a device")
    standing = arrival.standing
    if standing is None:
        return Fault(Reason.WRONG_KIND, "not numbered: its device says it again by itself")
    device = arrival.topic.device
    applied = decide([arrival], replace(facts, lines={device: standing.before}))
    if applied.letters:
        return Fault(applied.letters[0].reason, applied.letters[0].detail)
    if standing.number > facts.lines.get(device, NOTHING):
        return Fault(Reason(reason), "its device's line has not come so far: it will be said again")
    return applied
