"""Who follows which channel in this process. One connection serves them all; this hands out what it hears."""

from __future__ import annotations

import asyncio
import re

from gateway.shortlived.interface import Heard

# Postgres cuts a channel's name at 63 bytes, silently.
_CHANNEL = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Wakes:
    """Followers by channel. `connected` and `woken` come from the store's connection."""

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower]] = {}
        self._live: set[str] = set()
        self._all_live = False
        self.wanted = asyncio.Event()
        """Set when a channel gained its first follower: the connection must subscribe to it."""

    def __repr__(self) -> str:
        counts = {channel: len(all_of) for channel, all_of in self._followers.items()}
        return f"<Wakes {counts} live={sorted(self._live)}>"

    @property
    def channels(self) -> set[str]:
        """Those with a follower."""
        return set(self._followers)

    @property
    def missing(self) -> set[str]:
        """Followed, but not subscribed to."""
        return self.channels - self._live

    def follow(self, channel: str) -> Follower:
        """ValueError for a name that a store could not take as it is."""
        if not _CHANNEL.fullmatch(channel):
            raise ValueError(f"not a channel's name: {channel!r}")
        follower = Follower(self, channel, live=self._all_live or channel in self._live)
        if channel not in self._followers:
            self.wanted.set()
        self._followers.setdefault(channel, set()).add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """The subscription stays with the connection: channels are few and come back."""
        followers = self._followers.get(follower.channel, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(follower.channel, None)

    def subscribed(self, channel: str) -> None:
        """From now on the connection hears this channel."""
        self._live.add(channel)
        self._tell({channel}, Heard.LIVE)

    def subscribed_all(self) -> None:
        """From now on the connection hears every channel."""
        self._all_live = True
        self._tell(self.channels, Heard.LIVE)

    def woken(self, channel: str) -> None:
        self._tell({channel}, Heard.WAKE)

    def lost(self) -> None:
        """The connection is gone, or could not be made: everybody looks for themselves."""
        self._live.clear()
        self._all_live = False
        self._tell(self.channels, Heard.LOST)

    def close(self) -> None:
        for channel in self.channels:
            for follower in list(self._followers[channel]):
                follower.close()

    def _tell(self, channels: set[str], heard: Heard) -> None:
        for channel in channels:
            for follower in list(self._followers.get(channel, ())):
                follower.tell(heard)


class Follower:
    """One reader's note of what it has not looked at yet: the state of the line, and whether it was woken.

    Both are flags, so nothing grows while nobody reads.
    """

    def __init__(self, wakes: Wakes, channel: str, *, live: bool) -> None:
        self._wakes = wakes
        self.channel = channel
        self._line: Heard | None = Heard.LIVE if live else None  # None: no attempt to subscribe has ended yet
        self._news = live  # the line changed since the last look
        self._woken = False
        self._closed = False
        self._something = asyncio.Event()
        if live:
            self._something.set()

    def __repr__(self) -> str:
        return f"<Follower {self.channel} line={self._line} woken={self._woken}>"

    @property
    def live(self) -> bool:
        return self._line is Heard.LIVE

    def tell(self, heard: Heard) -> None:
        """Called by Wakes. LOST again and again is said once."""
        if heard is Heard.WAKE:
            self._woken = True
        elif heard is Heard.LOST and self._line is Heard.LOST:
            return
        else:
            self._line, self._news = heard, True
        self._something.set()

    def close(self) -> None:
        self._closed = True
        self._wakes.leave(self)
        self._something.set()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Heard:
        while not self._closed:
            if self._news and self._line is not None:
                # Whoever is told of the line looks anyway: a wake before it is covered.
                self._news = self._woken = False
                return self._line
            if self._woken:
                self._woken = False
                return Heard.WAKE
            self._something.clear()
            await self._something.wait()
        raise StopAsyncIteration
