"""The sessions this node knows: found by their cookie's hash, ended by time, by the feed, or by silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

from runtime.clock import Clock
from runtime.logs import get_logger
from tunnel_server.errors import GatewayUnavailable
from tunnel_server.policy.pool import IdleStreams

if TYPE_CHECKING:
    from tunnel_server.edge.upstream import UpstreamStream

EndReason = Literal["expired", "revoked", "device_revoked", "control_lost"]

# What a cookie of an ended session is told; the oldest go first. A hash and a word: about 150 bytes each.
ENDED_COOKIES = 10_000
# Revoked ids that a slower answer of the gateway could still bring in.
REVOKED_IDS = 100_000
REVOKED_KEPT_S = 120.0  # no call to the gateway takes longer (gateway.call_s is 60 at most)

_log = get_logger("tunnel_server.sessions")


class LiveExchange(Protocol):
    """One request of a session that is being served."""

    def session_ended(self, session: Session) -> None:
        """Stop now: not one byte more may pass."""
        ...


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session as the gateway tells it; ``expires_at`` is Unix seconds."""

    sid: str
    label: str
    service: str
    device_id: str
    device_name: str
    expires_at: float
    grant: bytes
    grant_id: bytes
    service_kind: str = "web"
    act: str | None = None
    """The engineer's id where support acts for the owner: what passes is logged."""

    @classmethod
    def from_json(cls, data: Any) -> SessionFacts:
        """From the internal API's Session; GatewayUnavailable when it is malformed."""
        try:
            return cls(
                sid=str(UUID(data["sid"])),
                label=str(data["label"]),
                service=str(data["service"]),
                device_id=str(data["device_id"]),
                device_name=str(data["device_name"]),
                expires_at=float(data["expires_at"]),
                grant=str(data["grant"]).encode("ascii"),
                grant_id=bytes.fromhex(data["grant_id"]),
                service_kind=str(data["service_kind"]),
                act=None if (act := data.get("act")) is None else str(UUID(act["id"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed session: {error!r}") from error


class Session:
    """One session on this node. ``ends_at`` is monotonic seconds; ``live`` turns False once, for ever.

    ``grant_number`` rises when its grant is fetched again, which happens under ``grant_lock`` and not before
    ``grant_again_at`` (monotonic).
    """

    __slots__ = (
        "cookie_hash",
        "ends_at",
        "exchanges",
        "facts",
        "grant_again_at",
        "grant_lock",
        "grant_number",
        "idle",
        "live",
    )

    def __init__(self, facts: SessionFacts, cookie_hash: bytes, ends_at: float, idle_limit: int) -> None:
        self.facts = facts
        self.cookie_hash = cookie_hash
        self.ends_at = ends_at
        self.live = True
        self.grant_number = 1
        self.grant_lock = asyncio.Lock()
        self.grant_again_at = 0.0
        self.exchanges: set[LiveExchange] = set()
        self.idle: IdleStreams[UpstreamStream] = IdleStreams(idle_limit)

    def __repr__(self) -> str:
        state = "live" if self.live else "ended"
        return f"<Session {self.facts.sid} {state}, {len(self.exchanges)} in flight, {len(self.idle)} idle>"

    def renew_grant(self, grant: bytes) -> None:
        """The gateway signed it again."""
        self.facts = replace(self.facts, grant=grant)
        self.grant_number += 1


class SessionTable:
    """All of them. ``on_end`` is called once a session after its exchanges were cut."""

    def __init__(
        self, clock: Clock, *, idle_streams: int, on_end: Callable[[Session, EndReason], None]
    ) -> None:
        self._clock = clock
        self._idle_streams = idle_streams
        self._on_end = on_end
        self._by_cookie: dict[bytes, Session] = {}
        self._by_sid: dict[str, Session] = {}
        self._by_device: dict[str, set[Session]] = {}
        self._ended_cookies: dict[bytes, EndReason] = {}
        self._revoked: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._by_sid)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_sid.values()))

    def find(self, cookie_hash: bytes, label: str, now: float) -> Session | None:
        """The live session of this cookie on this label at ``now`` (monotonic seconds)."""
        session = self._by_cookie.get(cookie_hash)
        if session is None or session.facts.label != label:
            return None
        if session.ends_at <= now:
            self._end(session, "expired")
            return None
        return session

    def why_ended(self, cookie_hash: bytes) -> EndReason | None:
        """Why this cookie's session ended, when this node saw it end."""
        return self._ended_cookies.get(cookie_hash)

    def remember_ended(self, cookie_hash: bytes, reason: EndReason) -> None:
        """This cookie's session has ended, here or elsewhere."""
        if len(self._ended_cookies) >= ENDED_COOKIES:
            del self._ended_cookies[next(iter(self._ended_cookies))]
        self._ended_cookies[cookie_hash] = reason

    def of_device(self, device_id: str) -> Iterable[Session]:
        """The live sessions of one device."""
        return self._by_device.get(device_id, ())

    def add(self, facts: SessionFacts, cookie_hash: bytes) -> Session | None:
        """Take in what the gateway told; None when it has ended in the meantime."""
        known = self._by_cookie.get(cookie_hash)
        if known is not None and known.facts.sid == facts.sid:
            return known
        left_s = facts.expires_at - self._clock.wall()
        if facts.sid in self._revoked or left_s <= 0:
            return None
        older = self._by_sid.get(facts.sid)
        if older is not None:
            self._end(older, "revoked")
        session = Session(facts, cookie_hash, self._clock.monotonic() + left_s, self._idle_streams)
        self._by_cookie[cookie_hash] = session
        self._by_sid[facts.sid] = session
        self._by_device.setdefault(facts.device_id, set()).add(session)
        return session

    def revoke(self, sid: str) -> bool:
        """The feed ended it; whether it was live here. Remembered, since an older answer of the gateway may
        still be on its way.
        """
        now = self._clock.monotonic()
        while self._revoked and (
            len(self._revoked) >= REVOKED_IDS or next(iter(self._revoked.values())) < now
        ):
            del self._revoked[next(iter(self._revoked))]
        self._revoked[sid] = now + REVOKED_KEPT_S
        session = self._by_sid.get(sid)
        if session is None:
            return False
        self._end(session, "revoked")
        return True

    def revoke_device(self, device_id: str) -> None:
        """The feed ended the device: all its sessions go."""
        for session in list(self.of_device(device_id)):
            self._end(session, "device_revoked")

    def end_all(self, reason: EndReason) -> None:
        """Nobody could revoke them any more, or the process ends."""
        for session in list(self._by_sid.values()):
            self._end(session, reason)

    def end_expired(self, now: float) -> None:
        """Called by the sweep: streams of an expired session are cut even when no request comes."""
        for session in [session for session in self._by_sid.values() if session.ends_at <= now]:
            self._end(session, "expired")

    def _end(self, session: Session, reason: EndReason) -> None:
        session.live = False
        del self._by_sid[session.facts.sid]
        if self._by_cookie.get(session.cookie_hash) is session:
            del self._by_cookie[session.cookie_hash]
        siblings = self._by_device[session.facts.device_id]
        siblings.discard(session)
        if not siblings:
            del self._by_device[session.facts.device_id]
        self.remember_ended(session.cookie_hash, reason)
        for exchange in list(session.exchanges):
            exchange.session_ended(session)
        self._on_end(session, reason)
        _log.info(
            "session ended",
            extra={"sid": session.facts.sid, "device": session.facts.device_id, "reason": reason},
        )
