"""From the rate that a link takes to how much is handed to it at once, and in all.

What has left the machine cannot be overtaken any more: on a slow uplink a keystroke waits behind it. So the
batch follows the rate, and the transport's buffer and the kernel's unsent bytes follow the batch. A line with
a long queue hides its rate from TCP, whose congestion window may then be many times what the line needs: so
what is under way is bounded too, by the rate at which it is acknowledged.
"""

from __future__ import annotations

from typing import Final

MIN_BATCH: Final = 2_048  # 64 ms of a 256 kbit/s uplink; smaller ones pay more in headers than they win
MAX_BATCH: Final = (
    66_560  # 64 KiB of payload and its headers: larger ones win nothing and re-fault pages in malloc
)
FIRST_BATCH: Final = 16_384
HORIZON_S: Final = 0.05  # how much of the link's time one batch may take
SMOOTHING: Final = 0.5  # weight of the newest sample: rates of radio links change within seconds
SHORTEST_SAMPLE_S: Final = 0.0005  # below this a sample says only "fast"
# Acknowledgements come in lumps: a sample is this much, or what came in so long.
SAMPLE_BYTES: Final = 8_192
SAMPLE_S: Final = 0.25
FAST_RATE: Final = MAX_BATCH / HORIZON_S
# A rate that is nearly 0 for a moment, since nothing came through, must find back within a second.
LEAST_RATE: Final = 4_000.0
MOST_GROWTH: Final = 4.0  # by one sample: a lump that filled a hole says little about the line

# Seconds of the line's time that may wait in its queue beyond the round trip: so long a keystroke waits.
QUEUED_S: Final = 0.1  # a round trip longer by so much than the line's own: there is a queue
MOST_QUEUE_S: Final = 0.2
LEAST_QUEUE_S: Final = 0.04  # at which more is handed over: two looks, so that the line does not run dry
# Without a queue so far. Over any round trip up to half a second it doubles as fast as TCP's slow start.
MOST_BURST_S: Final = 0.5
BATCHES_UNDER_WAY: Final = 4  # a batch grows while so many of the larger ones may be


class LinkPace:
    """Reads the link's rate off its pauses: from pause to resume there was always something to send.

    `batch` is the most bytes for one message.
    """

    __slots__ = ("_paused_at", "_sent", "_took", "_unsent", "batch", "rate")

    def __init__(self) -> None:
        self.batch = FIRST_BATCH
        self.rate: float | None = None  # bytes per second; None until the link paused once
        self._paused_at = 0.0
        self._unsent = 0
        self._sent = 0  # of the sample that is being taken: bytes, and seconds
        self._took = 0.0

    @property
    def careful(self) -> bool:
        """The link is not known to be fast."""
        return self.batch < MAX_BATCH

    def is_full(self, held: int, unsent: int, rtt_s: float, min_rtt_s: float) -> bool:
        """Whether nothing more should be handed over for now.

        The peer has not acknowledged `held` bytes, of which `unsent` were never sent. `rtt_s` is the round
        trip as it is, `min_rtt_s` the line's own.
        """
        if rtt_s - min_rtt_s > QUEUED_S:
            return held > self._window(min_rtt_s + MOST_QUEUE_S)
        return unsent > self.batch or (
            self.rate is not None and held > self._window(min_rtt_s + MOST_BURST_S)
        )

    def stays_full(self, held: int, unsent: int, rtt_s: float, min_rtt_s: float) -> bool:
        """Whether a link that was full is to be left alone still."""
        if rtt_s - min_rtt_s > QUEUED_S:
            return held > self._window(min_rtt_s + LEAST_QUEUE_S)
        return self.is_full(held, unsent, rtt_s, min_rtt_s)

    def _window(self, seconds: float) -> float:
        return self.batch if self.rate is None else max(self.rate * seconds, self.batch)

    def full_batch_left(self, min_rtt_s: float = 0.0) -> bool:
        """A full batch went out at once: the link may take more. Whether `batch` changed."""
        if self.batch == MAX_BATCH:
            return False
        larger = min(2 * self.batch, MAX_BATCH)
        if self.rate is not None and BATCHES_UNDER_WAY * larger > self._window(min_rtt_s + MOST_BURST_S):
            return False
        self.batch = larger
        return True

    def paused(self, now: float, unsent: int) -> None:
        """Nothing more is handed over for now; `unsent` bytes wait to be sent, or acknowledged."""
        self._paused_at = now
        self._unsent = unsent

    def resumed(self, now: float, unsent: int) -> bool:
        """Whether `batch` changed by so much that the buffers behind it should follow."""
        self._sent += max(self._unsent - unsent, 0)
        self._took += max(now - self._paused_at, SHORTEST_SAMPLE_S)
        if self._sent < SAMPLE_BYTES and self._took < SAMPLE_S:
            return False
        self._learn(self._sent / self._took)
        self._sent, self._took = 0, 0.0
        before, self.batch = self.batch, self._batch()
        return not before / 2 < self.batch < before * 2

    def _learn(self, sample: float) -> None:
        if self.rate is None:
            self.rate = max(sample, LEAST_RATE)
        else:
            sample = min(sample, MOST_GROWTH * self.rate)
            self.rate = max(self.rate + SMOOTHING * (sample - self.rate), LEAST_RATE)

    def _batch(self) -> int:
        assert self.rate is not None
        return min(max(int(self.rate * HORIZON_S), MIN_BATCH), MAX_BATCH)
