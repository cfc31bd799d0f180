"""Keepalive, the late timer and round trips (section 10)."""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final

DEATH_FACTOR: Final = 2.25  # keepalives of silence; 9 s at the default, so a dead peer is found within 10 s
LATE_TIMER_S: Final = 1.0  # a timer later than this says that our own process was stopped
RTT_REFRESH_S: Final = (
    15.0  # while traffic flows nobody pings to prove life; the round trip is measured this often
)
RTT_EPOCH_S: Final = 60.0  # the smallest round trip is that of this epoch and the one before

_NUMBER: Final = Struct(">Q")


class Verdict(Enum):
    FINE = "fine"
    ASK = "ask"  # send a PING
    DEAD = "dead"


class Liveness:
    """When the peer was last heard and what to do about it. Times are the caller's monotonic seconds."""

    __slots__ = (
        "_epoch_began",
        "_epoch_rtt",
        "_measured_at",
        "_past_rtt",
        "_ping_at",
        "_ping_number",
        "keepalive_s",
        "last_inbound",
        "last_rtt_s",
        "timer_at",
    )

    def __init__(self, now: float, first_deadline: float) -> None:
        self.last_inbound = now
        self.timer_at = first_deadline
        self.keepalive_s = 0.0  # set by start()
        self.last_rtt_s: float | None = None
        self._ping_at: float | None = None  # None: no PING is unanswered
        self._ping_number = 0
        self._measured_at = now
        self._epoch_began = now
        self._epoch_rtt: float | None = None
        self._past_rtt: float | None = None

    def start(self, now: float, keepalive_s: float) -> bytes:
        """The connection is open. Returns the first PING's bytes: it measures the round trip."""
        self.keepalive_s = keepalive_s
        self.last_inbound = now
        self.timer_at = now + keepalive_s
        return self.ping(now)

    @property
    def rtt_s(self) -> float | None:
        """The smallest round trip of the last one to two minutes; None before the first PONG."""
        if self._epoch_rtt is None or (self._past_rtt is not None and self._past_rtt < self._epoch_rtt):
            return self._past_rtt
        return self._epoch_rtt

    def ping(self, now: float) -> bytes:
        self._ping_number += 1
        self._ping_at = now
        return _NUMBER.pack(self._ping_number)

    def pong(self, payload: bytes, now: float) -> None:
        """An answer to any but the newest PING says nothing new and is ignored."""
        if self._ping_at is None or payload != _NUMBER.pack(self._ping_number):
            return
        rtt = max(now - self._ping_at, 0.0)
        self._ping_at = None
        self._measured_at = now
        self.last_rtt_s = rtt
        if now - self._epoch_began >= RTT_EPOCH_S:
            self._past_rtt, self._epoch_rtt, self._epoch_began = self._epoch_rtt, None, now
        if self._epoch_rtt is None or rtt < self._epoch_rtt:
            self._epoch_rtt = rtt

    def judge(self, now: float) -> Verdict:
        """To be called when timer_at has come; sets the next timer_at."""
        if now - self.last_inbound >= self.keepalive_s and now - self.timer_at > LATE_TIMER_S:
            self.last_inbound = now - self.keepalive_s  # we slept, not the peer: ask again, judge later
            self._ping_at = None
        silence = now - self.last_inbound
        if silence < self.keepalive_s:
            self.timer_at = self.last_inbound + self.keepalive_s
            return Verdict.ASK if now - self._measured_at >= RTT_REFRESH_S else Verdict.FINE
        dead_at = self.last_inbound + DEATH_FACTOR * self.keepalive_s
        if now >= dead_at:
            return Verdict.DEAD
        self.timer_at = dead_at
        asked = self._ping_at is not None and self._ping_at >= self.last_inbound
        return Verdict.FINE if asked else Verdict.ASK
