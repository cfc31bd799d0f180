"""When to dial again (specification, section 10; GOAWAY codes in section 6).

The hosts of a fleet lose their server at the same moment. Full jitter spreads their return evenly, and a
doubling ceiling keeps a long outage cheap; randomness and time are arguments so that the rules can be
tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_BACKOFF_S = 60.0
STABLE_AFTER_S = 30.0  # open for so long: the next failure starts a new count
_MAX_EXPONENT = 6  # 2⁶ already exceeds MAX_BACKOFF_S

# Revoked: only a person can help, and each try costs the server a signature check. Somebody may still
# undo it by hand.
REVOKED_FIRST_S = 600.0
REVOKED_MAX_S = 6 * 3600.0
# Replaced: another instance has our key. A restarted agent leaves an old process that dies soon; a clone
# would fight us for the place for ever, and the newest wins each time, so the pace of that fight is ours
# to keep low.
REPLACED_FIRST_S = 30.0
REPLACED_MAX_S = 600.0
# Refused for who we are or whom we dialled: hardly better in a second, but a restored database or a
# mended DNS entry may help.
REFUSED_FIRST_S = 15.0
REFUSED_MAX_S = 300.0
# A server may not send us away for longer than this, whatever its clock or its mood.
MAX_RETRY_AFTER_S = 600.0

# So many times in a row a server may call us back as early as it likes, before one connection was stable; a
# rolling restart needs it once. One that goes on would have the device sign handshakes without an end.
QUICK_GOAWAYS = 3

# More nodes than this are too many for every agent to dial: each tunnel costs the device some 100 KB and a
# keepalive. The rest are tried when one of these fails.
MAX_CONNECTIONS = 16


class Ending(Enum):
    """Why a connection ended, as far as dialling again is concerned."""

    LOST = "lost"  # unplanned: network, timeout, crash, a rule broken on either side
    GOAWAY = "goaway"  # the server asked us to come back later
    REFUSED = "refused"  # auth_failed, wrong_server_name
    REPLACED = "replaced"
    REVOKED = "revoked"


_SLOW = {
    Ending.REVOKED: (REVOKED_FIRST_S, REVOKED_MAX_S),
    Ending.REPLACED: (REPLACED_FIRST_S, REPLACED_MAX_S),
    Ending.REFUSED: (REFUSED_FIRST_S, REFUSED_MAX_S),
}


@dataclass(slots=True)
class Reconnect:
    """One dialler's memory. `failures` is the n of the specification; it falls to 0 only after a stable
    connection.
    """

    failures: int = 0
    opened_at: float | None = None  # monotonic seconds; None while no connection is open

    def opened(self, now: float) -> None:
        """The handshake is complete."""
        self.opened_at = now

    def ended(self, ending: Ending, now: float, random: float, retry_after_ms: int = 0) -> float:
        """Seconds to sleep before the next dial; `random` is uniform in [0, 1)."""
        if self.opened_at is not None and now - self.opened_at >= STABLE_AFTER_S:
            self.failures = 0
        self.opened_at = None
        n, self.failures = self.failures, min(self.failures + 1, 64)
        if ending in _SLOW:
            first, most = _SLOW[ending]
            # Half of the wait is certain: full jitter would give a revoked device quick tries now and then.
            return min(most, first * 2.0 ** min(n, 16)) * (0.5 + 0.5 * random)
        spread = random * min(MAX_BACKOFF_S, 2.0 ** min(n, _MAX_EXPONENT))
        if ending is Ending.GOAWAY and retry_after_ms:
            asked = min(retry_after_ms / 1000, MAX_RETRY_AFTER_S) * (1 + random)
            return asked if n < QUICK_GOAWAYS else max(asked, spread)
        return spread


def next_url(urls: tuple[str, ...], current: str, taken: frozenset[str]) -> str:
    """The address to try after `current` failed: the next one no other connection of ours uses, else
    `current` again. One that a renewal withdrew is left.
    """
    known = current in urls
    at = urls.index(current) if known else -1
    for url in urls[at + 1 :] + urls[: max(at, 0)]:
        if url not in taken:
            return url
    return current if known else urls[0]


def first_urls(urls: tuple[str, ...], connections: int) -> tuple[str, ...]:
    """One address for each connection: every node once, then around again until there are `connections`.

    Nodes do not hand visitors on to each other, so a node without a tunnel cannot reach the device.
    """
    count = min(max(connections, len(urls)), MAX_CONNECTIONS)
    return tuple(urls[at % len(urls)] for at in range(count))
