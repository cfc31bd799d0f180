"""Which entries of the revocation feed still matter, and where a reader may continue."""

from __future__ import annotations

# A `replaced` entry matters while an old instance may still hold a connection somewhere: an hour is far
# beyond every keepalive, and beyond the flap window that counts these entries.
REPLACED_RELEVANT_S = 3600.0
# A session's own expiry ends it everywhere; this covers clocks that differ.
SESSION_SLACK_S = 120.0


def must_reset(after: int, pruned: int, head: int) -> bool:
    """Whether a reader that has seen everything up to `after` must start over.

    `pruned` is the highest number that was deleted, `head` the last one given. A reader beyond the
    head has followed another database.
    """
    return after < pruned or after > head
