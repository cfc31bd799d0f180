"""Grants that must not come back: what servers revoked, until each grant would have ended by itself.

A hostile server may have kept a grant from before, shown or not: so an id is remembered whether its grant
came here or not, over a restart too (`text` and `restore`). All of it is bounded, since whoever serves a
tunnel can invent ids.
"""

from __future__ import annotations

import json
from math import ceil

# Revoked grants of ours; the gateway signed each of them, and as many may be in force at once.
MAX_KNOWN = 1024
# Ids remembered after a REVOKE that named no grant of ours, for each server that said so: one that invents
# ids pushes out its own alone, and not what an honest one told.
MAX_UNSEEN = 1024
MAX_SERVERS = 16  # tunnels at once; a server that left the list is forgotten before one that came since
# Of a grant that never came the end is unknown: sessions are shorter than a day. Nor may a clock that stands
# far behind while the file is read keep an entry for longer.
UNKNOWN_S = 24 * 3600.0
_ID_BYTES = 16


class Revoked:
    """Ids with the monotonic seconds until which each is remembered."""

    __slots__ = ("_known", "_unseen")

    def __init__(self) -> None:
        # Apart: a flood of invented ids must not push out a revocation that counts.
        self._known: dict[bytes, float] = {}
        self._unseen: dict[str, dict[bytes, float]] = {}  # by the server's URL

    def __contains__(self, grant_id: bytes) -> bool:
        return grant_id in self._known or any(grant_id in ids for ids in self._unseen.values())

    def __len__(self) -> int:
        return len(self._known) + sum(map(len, self._unseen.values()))

    def add(self, grant_id: bytes, until: float) -> None:
        """A grant of ours was revoked, which would have ended at `until`."""
        _put(self._known, grant_id, until, MAX_KNOWN)

    def add_unseen(self, grant_id: bytes, until: float, server: str) -> bool:
        """The server of this URL revoked what never came; False when that is no news of it."""
        if grant_id in self._known:
            return False
        ids = self._unseen.get(server)
        if ids is None:
            if len(self._unseen) >= MAX_SERVERS:
                del self._unseen[next(iter(self._unseen))]
            ids = self._unseen[server] = {}
        news = grant_id not in ids
        _put(ids, grant_id, until, MAX_UNSEEN)
        return news

    def expire(self, now: float) -> None:
        """Forget those that are over."""
        self._known = {key: until for key, until in self._known.items() if until > now}
        for server, ids in self._unseen.items():
            self._unseen[server] = {key: until for key, until in ids.items() if until > now}

    def text(self, wall: float, now: float) -> bytes:
        """All of it as JSON for `restore`; the times are Unix seconds there, as a restart may be a reboot."""

        def dated(ids: dict[bytes, float]) -> dict[str, int]:
            return {key.hex(): ceil(wall + until - now) for key, until in ids.items() if until > now}

        unseen = {server: dated(ids) for server, ids in self._unseen.items()}
        return json.dumps({"known": dated(self._known), "unseen": unseen}, separators=(",", ":")).encode()

    def restore(self, text: bytes, wall: float, now: float) -> None:
        """Take what `text` once wrote; ValueError, and nothing is taken, when it is something else."""
        value = json.loads(text)
        if not isinstance(value, dict) or not isinstance(value.get("unseen"), dict):
            raise ValueError("it holds no revocations")
        known = _undated(value.get("known"), wall, now)
        unseen = {str(server): _undated(ids, wall, now) for server, ids in value["unseen"].items()}
        for grant_id, until in known.items():
            self.add(grant_id, until)
        for server, ids in unseen.items():
            for grant_id, until in ids.items():
                self.add_unseen(grant_id, until, server)


def _put(ids: dict[bytes, float], grant_id: bytes, until: float, most: int) -> None:
    ids.pop(grant_id, None)
    if len(ids) >= most:
        del ids[next(iter(ids))]  # the oldest
    ids[grant_id] = until


def _undated(ids: object, wall: float, now: float) -> dict[bytes, float]:
    if not isinstance(ids, dict):
        raise ValueError("it holds no revocations")
    found: dict[bytes, float] = {}
    for text, at in ids.items():
        grant_id = bytes.fromhex(text)
        if len(grant_id) != _ID_BYTES or type(at) is not int:
            raise ValueError("an entry is none")
        if at > wall:
            found[grant_id] = now + min(at - wall, UNKNOWN_S)
    return found
