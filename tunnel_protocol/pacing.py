"""From the rate that a link takes to how much is handed to it at once.

What has left the machine cannot be overtaken any more: on a slow uplink a keystroke waits behind it. So the
batch follows the rate, and the transport's buffer and the kernel's unsent bytes follow the batch.
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
FAST_RATE: Final = MAX_BATCH / HORIZON_S


class LinkPace:
    """Reads the link's rate off its pauses: from pause to resume there was always something to send.

    `batch` is the most bytes for one message.
    """

    __slots__ = ("_paused_at", "_unsent", "batch", "rate")

    def __init__(self) -> None:
        self.batch = FIRST_BATCH
        self.rate: float | None = None  # bytes per second; None until the link paused once
        self._paused_at = 0.0
        self._unsent = 0

    @property
    def careful(self) -> bool:
        """The link is not known to be fast."""
        return self.batch < MAX_BATCH

    def full_batch_left(self) -> bool:
        """A full batch went out at once: the link may take more. Whether `batch` changed."""
        if self.batch == MAX_BATCH:
            return False
        self.batch = min(2 * self.batch, MAX_BATCH)
        return True

    def paused(self, now: float, unsent: int) -> None:
        """Nothing more is handed over for now; `unsent` bytes wait to be sent."""
        self._paused_at = now
        self._unsent = unsent

    def resumed(self, now: float, unsent: int) -> bool:
        """Whether `batch` changed by so much that the buffers behind it should follow."""
        lasted = now - self._paused_at
        sent = self._unsent - unsent
        sample = FAST_RATE if lasted < SHORTEST_SAMPLE_S else max(sent, 0) / lasted
        self.rate = sample if self.rate is None else self.rate + SMOOTHING * (sample - self.rate)
        before, self.batch = self.batch, min(max(int(self.rate * HORIZON_S), MIN_BATCH), MAX_BATCH)
        return not before / 2 < self.batch < before * 2
