"""The feed of revocations: numbered, resumable, and itself the proof that the gateway can still revoke."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from runtime.clock import Clock
from runtime.internal_http import GatewayRefused, GatewayUnavailable
from runtime.logs import get_logger

RETRY_S = (0.1, 1.0)  # well inside the 5 s after which no new session is let in; random, so nodes spread

_log = get_logger("runtime.revocation_feed")


class FeedSource(Protocol):
    """The gateway, as the feed needs it."""

    def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        """The feed's lines after number ``after``; GatewayUnavailable, GatewayRefused."""
        ...


class FeedSettings(Protocol):
    """How long the feed may be silent."""

    @property
    def feed_silence_s(self) -> float: ...

    @property
    def revocation_grace_s(self) -> float: ...


class RevocationTarget(Protocol):
    """Who carries out what the feed says."""

    def session_revoked(self, sid: str, device_id: str | None) -> None:
        """``device_id`` None: the gateway no longer knows it."""
        ...

    def device_revoked(self, device_id: str) -> None: ...

    def device_replaced(self, device_id: str, keep_instance: bytes) -> None: ...

    def control_lost(self) -> None:
        """The feed was silent for revocation_grace_s: all sessions end."""
        ...


@dataclass(slots=True)
class FeedPosition:
    """Where the feed stands: highest number handled, monotonic time of the last line (None: never)."""

    number: int = 0
    heard_at: float | None = None
    grace_used: bool = False


class RevocationFeed:
    """Follows the feed for ever; ``is_fresh`` decides whether new sessions are let in."""

    def __init__(
        self, gateway: FeedSource, target: RevocationTarget, clock: Clock, settings: FeedSettings
    ) -> None:
        self._gateway = gateway
        self._target = target
        self._clock = clock
        self._settings = settings
        self.position = FeedPosition()
        self._interrupted = False  # an outage is said once, and its end; it may last for hours

    def is_fresh(self) -> bool:
        """Whether a line came within ``feed_silence_s``."""
        heard = self.position.heard_at
        return heard is not None and self._clock.monotonic() - heard < self._settings.feed_silence_s

    def check_grace(self, now: float) -> None:
        """Called by the sweep: end the sessions once after ``revocation_grace_s`` of silence."""
        position = self.position
        if position.heard_at is None or position.grace_used:
            return
        if now - position.heard_at >= self._settings.revocation_grace_s:
            position.grace_used = True
            _log.error("revocation feed lost: sessions end", extra={"after": position.number})
            self._target.control_lost()

    async def follow(self) -> None:
        """Read until cancelled; reconnects where it left off."""
        while True:
            try:
                await self._read()
            except (GatewayUnavailable, GatewayRefused) as error:
                if not self._interrupted:
                    self._interrupted = True
                    extra = {"error": str(error), "after": self.position.number}
                    _log.warning("revocation feed interrupted", extra=extra)
            await asyncio.sleep(random.uniform(*RETRY_S))

    async def _read(self) -> None:
        lines = self._gateway.revocations(after=self.position.number, silence_s=self._settings.feed_silence_s)
        async with contextlib.aclosing(lines):
            async for line in lines:
                self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._apply(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GatewayUnavailable(f"malformed feed line: {error!r}") from error
        if self._interrupted:
            self._interrupted = False
            _log.info("revocation feed heard again", extra={"after": self.position.number})
        self.position.heard_at = self._clock.monotonic()
        self.position.grace_used = False

    def _apply(self, entry: dict[str, object]) -> None:
        if "heartbeat" in entry:
            # Numbers are given under a lock, so whatever is at or below a heartbeat's came before it.
            self.position.number = max(self.position.number, _number(entry["heartbeat"]))
            return
        if "hello" in entry:
            return
        if "reset" in entry:
            # Everything that still matters follows as ordinary entries. The numbers may begin lower than ours
            # (a database restored from an older copy): resuming from the old one would skip those between.
            self.position.number = 0
            return
        kind, target = entry["kind"], str(entry["id"])
        if kind == "session":
            device = entry.get("device")
            self._target.session_revoked(target, None if device is None else str(device))
        elif kind == "device":
            self._target.device_revoked(target)
        elif kind == "replaced":
            self._target.device_replaced(target, bytes.fromhex(str(entry["keep"])))
        else:
            _log.warning("unknown kind of revocation", extra={"kind": str(kind)})
        self.position.number = max(self.position.number, _number(entry["n"]))


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("a number was expected")
    return value
