"""Keeps what was revoked on disk: an agent that restarts must not take a grant again that a server kept."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_agent.errors import IdentityError
from tunnel_agent.identity import IdentityStore
from tunnel_agent.policy.revoked import Revoked

_log = get_logger("tunnel_agent.revocations")

# Between two writes that anyone's invented ids can cause, and before one that failed is tried again: a flash
# memory takes no more for years. A grant that was in force is written at once.
SAVE_EVERY_S: Final = 10.0
CLOSE_S: Final = 1.0  # for the last write; a disk that hangs must not keep the process


class RevocationKeeper:
    """Reads once, writes after changes; one task runs it."""

    def __init__(self, revoked: Revoked, store: IdentityStore, clock: Clock) -> None:
        self._revoked = revoked
        self._store = store
        self._clock = clock
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._failed = False  # told already

    def load(self) -> None:
        """What an earlier run wrote. A file that cannot be read is told, and costs its entries alone."""
        try:
            text = self._store.load_revoked()
            if text is not None:
                self._revoked.restore(text, self._clock.wall(), self._clock.monotonic())
        except (IdentityError, ValueError) as error:
            _log.error(
                "revocations not read: grants revoked before count again", extra={"reason": str(error)}
            )

    def changed(self, *, urgent: bool) -> None:
        """There is more to write. `urgent`: a grant that was in force."""
        self._changed.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._urgent.clear()
            await self._save()
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_EVERY_S):
                    await self._urgent.wait()

    async def close(self) -> None:
        """Write what is not written yet; after `run` was cancelled."""
        if self._changed.is_set():
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._save()
            except TimeoutError:
                _log.error("revocations not saved", extra={"reason": "the disk takes too long"})

    async def _save(self) -> None:
        self._changed.clear()
        clock = self._clock
        text = self._revoked.text(clock.wall(), clock.monotonic())
        try:
            await asyncio.to_thread(self._store.save_revoked, text)
        except OSError as error:
            self._changed.set()  # again after SAVE_EVERY_S, for as long as it takes
            if not self._failed:
                self._failed = True
                _log.error("revocations not saved, trying again", extra={"reason": str(error)})
            return
        except asyncio.CancelledError:
            self._changed.set()
            raise
        if self._failed:
            self._failed = False
            _log.info("revocations saved again")
