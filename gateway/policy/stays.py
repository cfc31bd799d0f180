"""Where a device was when, and whose its readings are: what was said at one site is never another one's.

A device that moves has readings in its outbox, in the broker and in the log. They belong to the place where
they were made, whenever they are stored (decision 0033). Times are Unix milliseconds. No I/O.
"""

from __future__ import annotations

from typing import NamedTuple

from device_protocol.topics import Topic


class Stay(NamedTuple):
    """A device's time at one place, as one type. `until_ms` None: it is there."""

    org: str
    site: str
    type: str
    until_ms: int | None

    @property
    def place(self) -> tuple[str, str, str]:
        return (self.org, self.site, self.type)


class Making(NamedTuple):
    """When a message says that it was made."""

    at_ms: int
    by_clock: bool
    """The device's own; else it is counted from when its boot was first heard, which may be late."""
    boot: int
    up_ms: int


class Start(NamedTuple):
    """When a boot began, at the latest."""

    boot: int
    at_ms: int


class KnownDevice(NamedTuple):
    """What the store says of a device: where it is now, and was before."""

    org: str
    site: str
    type: str
    status: str
    former: tuple[Stay, ...] = ()
    """The oldest first; of one that was revoked the last is where it was then."""
    start: Start | None = None
    """Of the boot that said hello last; only looked up where there is a former place."""

    @property
    def place(self) -> tuple[str, str, str]:
        return (self.org, self.site, self.type)

    def was_known_at(self, at_ms: int) -> bool:
        """Whether it was an approved device of some place."""
        if not self.former:  # as nearly all: each message asks
            return self.status == "approved"
        return self._index_at(at_ms) is not None

    def was_ever_at(self, topic: Topic) -> bool:
        """Whether it is, or was, at the topic's place as the topic's type."""
        return _place(topic) == self.place or self._index_of(topic) is not None

    def goes_by_an_old_place(self, topic: Topic) -> bool:
        """It is to be told where it is now."""
        return self.status == "approved" and _place(topic) != self.place

    def site_of(self, topic: Topic, received_ms: int, making: Making | None = None) -> str:
        """Whose a message is that was accepted then: of the earliest place that it can have been made at.

        The topic tells where the device was as far as it knew when it sent; a later place it cannot have been
        made at. `making` None: as if it was made when it was accepted.
        """
        if not self.former:
            return self.site
        stays = self._stays
        made_ms = received_ms if making is None else min(received_ms, self._made_by(making))
        last = len(stays) - 1
        named, then = self._index_of(topic), self._index_at(made_ms)
        return stays[min(last if named is None else named, last if then is None else then)].site

    def _made_by(self, making: Making) -> int:
        """When the message was made, at the latest."""
        start = self.start
        if start is not None and making.boot < start.boot:
            return min(making.at_ms, start.at_ms)
        if start is not None and making.boot == start.boot:
            return min(making.at_ms, start.at_ms + making.up_ms)
        # A boot that said no hello yet. Without a clock the message may be as old as anything.
        return making.at_ms if making.by_clock else 0

    @property
    def _stays(self) -> tuple[Stay, ...]:
        if self.status != "approved":
            return self.former
        return (*self.former, Stay(self.org, self.site, self.type, None))

    def _index_at(self, at_ms: int) -> int | None:
        for index, stay in enumerate(self._stays):
            if stay.until_ms is None or at_ms <= stay.until_ms:
                return index
        return None

    def _index_of(self, topic: Topic) -> int | None:
        """The last stay at the topic's place."""
        found = [index for index, stay in enumerate(self._stays) if stay.place == _place(topic)]
        return found[-1] if found else None


def _place(topic: Topic) -> tuple[str, str, str]:
    return (topic.org, topic.site, topic.type)
