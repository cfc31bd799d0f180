"""Who may open a stream: the device's own check of every grant (specification, section 7).

A tunnel server that was taken over speaks the protocol perfectly and holds no key of the gateway. What
it can do here is bounded by this file: it opens exactly the services that unexpired, unrevoked grants
for this device name. One that holds a live grant keeps it until that ends.

Times: `wall` is Unix seconds and is used once, to turn a grant's `exp` into a monotonic end; `now` is
monotonic seconds. So a clock that is set by an hour, or a year, neither ends nor lengthens what is
already accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from uuid import UUID

from tunnel_agent.policy import jws
from tunnel_agent.policy.jws import TokenRefused
from tunnel_agent.policy.key_list import KeyList, verify_rs256
from tunnel_agent.policy.revoked import UNKNOWN_S, Revoked
from tunnel_protocol import RefusedCode

LEEWAY_S = 30  # specification, section 7
MAX_GRANTS = 1024  # sessions at once on one device; beyond it only a server that floods us
MAX_PENDING = 64  # grants kept (1.5 KiB each) until the device knows the time
MAX_REFUSED = 256  # refused ids one connection remembers, for a better answer than no_grant
_MAX_TEXT = 256  # sub, iss, kid are for logs; a grant has 1,536 bytes in all
_MAX_TIME = 2**53


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified grant. `ends_at` is monotonic seconds."""

    id: bytes
    session: str
    person: str
    acting: bool
    service: str
    kid: str
    ends_at: float
    digest: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: the code for the peer, the reason for the log and for the person (nothing of the token)."""

    code: RefusedCode
    reason: str


class Revocation(Enum):
    """What a REVOKE came to: it ended a grant in force, it named one that never came, it was known."""

    ENDED = auto()
    NEWS = auto()
    KNOWN = auto()


NO_GRANT = Refusal(RefusedCode.NO_GRANT, "no such grant came on this connection")
REVOKED = Refusal(RefusedCode.GRANT_REVOKED, "the grant was revoked")
EXPIRED = Refusal(RefusedCode.GRANT_EXPIRED, "the grant is past its end")
NO_TIME = Refusal(RefusedCode.NO_TIME, "the device's clock is behind, or not set yet")
_FULL = Refusal(RefusedCode.GRANT_INVALID, "too many grants at once")
_OTHER_SERVICE = Refusal(RefusedCode.GRANT_INVALID, "the grant is for another service")
_OTHER_DEVICE = Refusal(RefusedCode.GRANT_INVALID, "the grant is for another device")


def verify_grant(
    grant_id: bytes, token: bytes, device: str, keys: KeyList, wall: float, now: float
) -> Grant | Refusal:
    """Check one token by every rule of section 7. `wall` must be a time the device may believe."""
    try:
        unverified = jws.parse(token, alg="RS256", typ="grant+jwt", max_bytes=jws.MAX_GRANT_BYTES)
        verify_rs256(unverified, keys.keys)
        claims = unverified.payload
        if claims.get("aud") != device:
            return _OTHER_DEVICE
        if UUID(bytes=grant_id) != _uuid(claims, "jti"):
            raise TokenRefused("jti is not the frame's grant id")
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
        session, person, service = str(_uuid(claims, "sid")), _text(claims, "sub"), _text(claims, "svc")
        _text(claims, "iss")
        if expires <= issued:
            raise TokenRefused("iat is after exp")
        if issued > wall + LEEWAY_S:
            return NO_TIME  # the gateway signed it, so the time it names has come
    except TokenRefused as refused:
        return Refusal(RefusedCode.GRANT_INVALID, str(refused))
    ends_at = now + (expires + LEEWAY_S - wall)
    if ends_at <= now:
        return EXPIRED
    acting = claims.get("act") is not None
    return Grant(
        grant_id, session, person, acting, service, unverified.kid or "", ends_at, sha256(token).digest()
    )


class GrantBook:
    """All grants of one agent: accepted, waiting for the time, and revoked ones; shared by its
    connections.
    """

    __slots__ = ("_accepted", "_device", "_earliest", "_keys", "_pending", "revoked")

    def __init__(self, device: str, keys: KeyList, *, earliest: float) -> None:
        """`earliest`: Unix seconds before which this device's clock is certainly wrong (its certificate
        is younger).
        """
        self._device = device
        self._keys = keys
        self._earliest = max(earliest, keys.issued_at) - LEEWAY_S
        self._accepted: dict[bytes, Grant] = {}
        self._pending: dict[bytes, bytes] = {}
        self.revoked = Revoked()

    def replace_keys(self, keys: KeyList) -> list[bytes]:
        """Take a newer list; returns the grants that end because their key was withdrawn."""
        self._keys = keys
        self._earliest = max(self._earliest, keys.issued_at - LEEWAY_S)
        ended = [grant.id for grant in self._accepted.values() if grant.kid not in keys.keys]
        for grant_id in ended:
            del self._accepted[grant_id]
        return ended

    def offer(self, grant_id: bytes, token: bytes, wall: float, now: float) -> Grant | Refusal:
        """A GRANT frame came. A token that is already accepted costs a hash; a forged repeat displaces
        nothing.
        """
        if grant_id in self.revoked:
            return REVOKED
        known = self._accepted.get(grant_id)
        if known is not None and known.digest == sha256(token).digest():
            return known
        if wall < self._earliest:
            return self._wait(grant_id, token)
        verdict = verify_grant(grant_id, token, self._device, self._keys, wall, now)
        if verdict is NO_TIME:
            return self._wait(grant_id, token)
        if isinstance(verdict, Refusal):
            return verdict
        if known is None and len(self._accepted) >= MAX_GRANTS:
            return _FULL
        if known is not None and known.service != verdict.service:
            return _OTHER_SERVICE
        self._accepted[grant_id] = verdict
        return verdict

    def _wait(self, grant_id: bytes, token: bytes) -> Refusal:
        """Keep it until the clock is right."""
        if len(self._pending) >= MAX_PENDING and grant_id not in self._pending:
            return _FULL
        self._pending[grant_id] = bytes(token[: jws.MAX_GRANT_BYTES + 1])
        return NO_TIME

    def find(self, grant_id: bytes, wall: float, now: float) -> Grant | Refusal:
        """The grant, if it holds at this moment. One that waited for the time is verified here, once the
        time is known.
        """
        grant = self._accepted.get(grant_id)
        if grant is not None:
            return grant if now < grant.ends_at else EXPIRED
        if grant_id in self.revoked:
            return REVOKED
        token = self._pending.get(grant_id)
        if token is None:
            return NO_GRANT
        if wall < self._earliest:
            return NO_TIME
        del self._pending[grant_id]
        return self.offer(grant_id, token, wall, now)

    def revoke(self, grant_id: bytes, now: float, server: str) -> Revocation:
        """Remember the id until its grant would have ended. ``server`` said so."""
        grant = self._accepted.pop(grant_id, None)
        self._pending.pop(grant_id, None)
        if grant is not None:
            self.revoked.add(grant_id, grant.ends_at)
            return Revocation.ENDED
        news = self.revoked.add_unseen(grant_id, now + UNKNOWN_S, server)
        return Revocation.NEWS if news else Revocation.KNOWN

    def expire(self, now: float) -> list[bytes]:
        """Drop what is over; returns the grants whose streams must end."""
        ended = [grant.id for grant in self._accepted.values() if grant.ends_at <= now]
        for grant_id in ended:
            del self._accepted[grant_id]
        self.revoked.expire(now)
        return ended

    def next_expiry(self) -> float | None:
        """Monotonic seconds at which the first accepted grant ends."""
        return min((grant.ends_at for grant in self._accepted.values()), default=None)

    def __len__(self) -> int:
        return len(self._accepted)


class ConnectionGrants:
    """The view of one connection: it may use only the grants that came on it; revocations are the whole
    book's.
    """

    __slots__ = ("_book", "_device", "_known", "_refused")

    def __init__(self, book: GrantBook, device: str) -> None:
        self._book = book
        self._device = device
        self._known: set[bytes] = set()
        self._refused: dict[bytes, Refusal] = {}

    def __contains__(self, grant_id: bytes) -> bool:
        """Whether a grant of this id was taken on this connection already."""
        return grant_id in self._known

    def offer(self, grant_id: bytes, token: bytes, wall: float, now: float) -> Grant | Refusal:
        """A GRANT frame came on this connection."""
        verdict = self._book.offer(grant_id, token, wall, now)
        if isinstance(verdict, Grant) or verdict is NO_TIME:
            if len(self._known) >= MAX_GRANTS:
                self._known = {
                    key for key in self._known if not isinstance(self._book.find(key, wall, now), Refusal)
                }
            if len(self._known) >= MAX_GRANTS:
                return _FULL
            self._known.add(grant_id)
            self._refused.pop(grant_id, None)
        elif grant_id not in self._known:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)))
            self._refused[grant_id] = verdict
        return verdict

    def open(self, device: str, service: str, grant_id: bytes, wall: float, now: float) -> Grant | Refusal:
        """An OPEN came: the grant that allows it, or why not."""
        if grant_id not in self._known:
            return self._refused.get(grant_id, NO_GRANT)
        if device != self._device:
            return _OTHER_DEVICE
        grant = self._book.find(grant_id, wall, now)
        if isinstance(grant, Grant) and grant.service != service:
            return _OTHER_SERVICE
        return grant


def _uuid(claims: dict[str, object], name: str) -> UUID:
    value = claims.get(name)
    try:
        parsed = UUID(value) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != value:  # UUID() also takes braces, urn: and capitals
        raise TokenRefused(f"{name} is not a UUID")
    return parsed


def _text(claims: dict[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise TokenRefused(f"{name} is not a text of 1 to {_MAX_TEXT} characters")
    return value


def _time(claims: dict[str, object], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value < _MAX_TIME:
        raise TokenRefused(f"{name} is not a whole number of seconds")
    return value
