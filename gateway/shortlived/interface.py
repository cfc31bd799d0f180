"""The short-lived store: one small interface, kept by Postgres or Redis, held to the same contract tests.

It holds nothing that must not be lost. Revocations, burnt links and refresh tokens are rows of Postgres;
after a flush of this store a login that was under way begins again, limits start fresh (those marked durable
do not), and whoever follows a channel looks for itself each second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from gateway.policy.limits import Limit, Taken

# An OIDC state with its verifier, nonce and return path is a few hundred bytes.
VALUE_MAX_BYTES = 4096
# A login that takes longer was left alone; it also bounds what strangers can pile up.
TTL_MAX_S = 3600.0


class Heard(Enum):
    """What a follower is told. Whatever it is, look at the truth now."""

    WAKE = "wake"
    """Somebody woke the channel: once or several times since the last look."""
    LIVE = "live"
    """From now on wakes arrive; those before it may have been missed."""
    LOST = "lost"
    """Wakes do not arrive: look at regular times until LIVE."""


class Following(Protocol):
    """One follower of a channel, an async iterator; `close` it (or leave its `with` block).

    `anext` may be cancelled and asked again without losing anything: ``wait_for(anext(following), 1.0)``.
    It never falls behind: what happened since the last look is one WAKE.
    """

    @property
    def live(self) -> bool:
        """Whether wakes arrive now."""
        ...

    def close(self) -> None:
        """Stop to follow; whoever waits in `anext` gets StopAsyncIteration."""
        ...

    def __aiter__(self) -> Following: ...

    async def __anext__(self) -> Heard: ...

    def __enter__(self) -> Following: ...

    def __exit__(self, *error: object) -> None: ...


class ShortLived(Protocol):
    """Every call raises StoreUnavailableError, soon, when its server is away; then nothing is granted."""

    async def put(self, kind: str, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` (≤ VALUE_MAX_BYTES) under a secret key for 0 < ttl_s ≤ TTL_MAX_S seconds by the
        gateway's clock; put again, the last one counts. ValueError beyond the bounds.

        The key itself is not stored, only its digest: it is often a bearer's secret.
        """
        ...

    async def burn(self, kind: str, key: str) -> bytes | None:
        """The value, once over all gateways and for ever; None: never put, burnt, expired or lost."""
        ...

    async def take(self, wanted: Sequence[tuple[Limit, str]]) -> Taken:
        """Take one try from each bucket (limit, whose), in the order of their names, until one is empty.

        Durable at once, whatever becomes of the request: a failed try counts.
        """
        ...

    async def wake(self, channel: str) -> None:
        """Wake the followers of `channel` (letters, digits, _) at every gateway. A wake carries nothing.

        For a change in Postgres use `Transaction.wake`, which comes with the commit.
        """
        ...

    def follow(self, channel: str) -> Following:
        """Follow `channel`. The first thing heard is LIVE, or LOST when the server does not answer."""
        ...

    async def run(self) -> None:
        """Keep followers connected; one task of the gateway. Ends only by cancellation."""
        ...

    async def close(self) -> None:
        """End every follower and connection."""
        ...


def key_digest(kind: str, key: str) -> bytes:
    """SHA-256 of kind and key, 32 bytes: what a store knows of the key."""
    return hashlib.sha256(f"{kind}\0{key}".encode("utf-8", "surrogatepass")).digest()


def check_put(value: bytes, ttl_s: float) -> None:
    """ValueError when the bounds of `put` do not hold."""
    if len(value) > VALUE_MAX_BYTES:
        raise ValueError(f"a short-lived value has at most {VALUE_MAX_BYTES} bytes, not {len(value)}")
    if not 0 < ttl_s <= TTL_MAX_S:
        raise ValueError(f"a short-lived value lives up to {TTL_MAX_S} s, not {ttl_s}")


def in_order(wanted: Sequence[tuple[Limit, str]]) -> list[tuple[Limit, str]]:
    """One order everywhere: two requests over the same buckets cannot deadlock."""
    return sorted(wanted, key=lambda pair: (pair[0].name, pair[1]))
