"""Who speaks on the internal listener, and as what: a certificate opens what its role needs alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple


class PeerRole(StrEnum):
    """The unit (OU) in a certificate of the internal CA. A node's has none."""

    NODE = "node"
    INGEST = "ingest"
    GATEWAY = "gateway"
    """A gateway's own, for brokers and logs that ask for one. It opens nothing on the internal listener."""


class Peer(NamedTuple):
    """`role` is None for a unit that is not known here: it may do nothing."""

    role: PeerRole | None
    name: str


def peer_of(subject: Iterable[Iterable[Sequence[str]]]) -> Peer:
    """Of a certificate's subject as `SSLSocket.getpeercert` gives it. Without a certificate: nobody."""
    names, units = [], []
    for part in subject:
        for kind, value in part:
            if kind == "commonName":
                names.append(value)
            elif kind == "organizationalUnitName":
                units.append(value)
    if len(names) != 1 or len(units) > 1:
        return Peer(None, "")
    if not units:
        return Peer(PeerRole.NODE, names[0])
    return Peer(PeerRole.INGEST if units[0] == PeerRole.INGEST else None, names[0])
