"""Argon2id, off the event loop and a few at a time: each check costs 64 MiB and tens of milliseconds."""

from __future__ import annotations

import asyncio

import argon2
from argon2.profiles import RFC_9106_LOW_MEMORY

# Two checks at once bound the memory at 128 MiB; a login storm queues here instead of filling the machine.
CHECKS_AT_ONCE = 2
# Argon2 hashes any length, but nobody types a kilobyte.
PASSWORD_MAX = 512


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self, parameters: argon2.Parameters = RFC_9106_LOW_MEMORY) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        # Checked when the user does not exist, so that the time tells nothing about names.
        self._decoy = self._hasher.hash("no such user")

    async def hash(self, password: str) -> str:
        """Encoded Argon2id hash."""
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def check(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one behind `stored`; None takes as long and is always False."""
        async with self._slots:
            return (
                await asyncio.to_thread(self._verify, stored or self._decoy, password) and stored is not None
            )

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except argon2.exceptions.VerificationError:
            return False
