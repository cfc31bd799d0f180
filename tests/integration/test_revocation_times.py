"""What somebody may no longer see ends while they look at it: within two seconds, whichever way it was taken.

Each kind of revocation ends a running download, a WebSocket and an event stream on a real node. Time counts
from the begin of the call that revokes: the commit comes later, so the bound is kept with something to spare.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import httpx
import pytest

from testbed.people import CALL_TIMEOUT_S, Person, Visitor, entered
from testbed.processes import short_folder, started
from testbed.settings_tables import ADMIN, PASSWORD
from testbed.small_site import SmallSite
from testbed.waiting import eventually
from tests.integration.test_impostors import CUT_S, Chart, Download

FEW, MANY = 5, 30  # of each kind; the worst counts
DEADLINE_S = 15.0  # a stream that still runs then is not cut at all
FRESH = itertools.count(1)


class DeviceEvents:
    """The device's log as server-sent events, which have no end of their own."""

    def __init__(self, visitor: Visitor) -> None:
        self.started = threading.Event()
        self.ended_at = 0.0
        self._visitor = visitor
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._visitor.http.stream("GET", "/api/log") as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        self.started.set()
        except httpx.HTTPError:
            pass
        self.ended_at = time.monotonic()


class GatewayEvents:
    """What changes at the gateway, as the opener's own app follows it."""

    def __init__(self, opener: Person) -> None:
        self.started = threading.Event()
        self.ended_at = 0.0
        self._opener = opener
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._opener.http.stream("GET", "/v1/events") as answer:
                for line in answer.iter_lines():
                    if line == "event: ready":
                        self.started.set()
        except httpx.HTTPError:
            pass
        self.ended_at = time.monotonic()


Stream = Download | Chart | DeviceEvents | GatewayEvents


@dataclass
class Opened:
    """Who opens a session on which device, and what takes it from them."""

    opener: Person
    device: str
    revoke: Callable[[], object]
    comes_back: bool = False
    """Whether the opener may ask for another session afterwards."""
    out: bool = False
    """Whether the opener is out altogether: then their app's events end as well."""
    session: str = ""
    """Its id, once it is open."""


class Ground:
    """A small site with an owner and one device; people come to it and go."""

    def __init__(self, site: SmallSite, leaving: ExitStack) -> None:
        """`leaving` closes everybody's connections."""
        self.site = site
        self._leaving = leaving
        self.owner = site.gateways.owner()
        self.owner_id = self.owner.call("GET", "/v1/me")["id"]
        self.site_id = self.owner.call("GET", "/v1/sites")["items"][0]["id"]
        self.device = site.add_device("greenhouse", self.owner)

    def newcomer(self, staff: str = "user") -> tuple[str, Person]:
        """Somebody new: their id, and their program from an address of its own."""
        number = next(FRESH)
        name, password = f"person-{number}", secrets.token_urlsafe(16)
        wish = {"username": name, "password": password, "role": staff}
        user_id: str = self.owner.call("POST", "/v1/users", wish)["id"]
        return user_id, self.logged_in(name, password, number)

    def logged_in(self, name: str, password: str, number: int) -> Person:
        stranger = self.site.gateways.person(address=f"127.77.{number // 250}.{number % 250 + 1}")
        return self._leaving.enter_context(closing(stranger.bearer(stranger.log_in(name, password))))

    def member(self) -> tuple[str, Person]:
        """A newcomer who may open the site's devices."""
        user_id, person = self.newcomer()
        invited = self.owner.call("POST", f"/v1/sites/{self.site_id}/invitations", {"role": "member"})
        person.call("POST", "/v1/invitations/accept", {"token": invited["token"]})
        return user_id, person


def user(ground: Ground) -> Opened:
    user_id, person = ground.member()
    disable = {"disabled": True}
    path = f"/v1/users/{user_id}"
    return Opened(person, ground.device, lambda: ground.owner.call("PATCH", path, disable), out=True)


def login(ground: Ground) -> Opened:
    _, person = ground.member()
    return Opened(person, ground.device, lambda: person.call("POST", "/v1/logout"), out=True)


def role(ground: Ground) -> Opened:
    user_id, person = ground.member()
    path = f"/v1/sites/{ground.site_id}/members/{user_id}"
    return Opened(person, ground.device, lambda: ground.owner.call("DELETE", path))


def session(ground: Ground) -> Opened:
    program = ground.logged_in(ADMIN, PASSWORD, next(FRESH))
    opened = Opened(program, ground.device, lambda: None, comes_back=True)
    opened.revoke = lambda: ground.owner.call("DELETE", f"/v1/sessions/{opened.session}")
    return opened


def device(ground: Ground) -> Opened:
    made = ground.site.add_device(f"pump-{next(FRESH)}", ground.owner)
    return Opened(ground.owner, made, lambda: ground.owner.call("POST", f"/v1/devices/{made}/revoke"))


def consent(ground: Ground) -> Opened:
    _, engineer = ground.newcomer("support")
    wish = {"reason": "The fan stands still"}
    asked = engineer.call("POST", f"/v1/devices/{ground.device}/support-requests", wish)
    path = f"/v1/support-requests/{asked['id']}"
    ground.owner.call("POST", f"{path}/approve", {})
    return Opened(engineer, ground.device, lambda: ground.owner.call("POST", f"{path}/end"))


KINDS = (user, login, session, device, consent, role)


def opened_streams(opened: Opened, leaving: ExitStack) -> list[Stream]:
    """A session of the opener's with all three running in it."""
    made = opened.opener.open_session(opened.device)
    opened.session = made["id"]
    visitor = leaving.enter_context(closing(entered(made["url"])))
    eventually("the page", lambda: visitor.http.get("/").status_code == 200)
    streams: list[Stream] = [Download(visitor), Chart(visitor), DeviceEvents(visitor)]
    if opened.out:
        streams.append(GatewayEvents(opened.opener))
    for stream in streams:
        assert stream.started.wait(CALL_TIMEOUT_S), type(stream).__name__
    return streams


def after_a_restart(ground: Ground, opened: Opened, leaving: ExitStack) -> list[Stream]:
    """The streams of a session that outlived the gateway; its own events are followed anew."""
    before = opened_streams(opened, leaving)
    ground.site.restart_gateway()
    ground.site.wait_online(opened.device, ground.owner)
    assert ground.site.redis is not None
    assert ground.site.redis.ask("FLUSHALL") == "+OK"
    streams: list[Stream] = [stream for stream in before if not isinstance(stream, GatewayEvents)]
    ends([stream for stream in before if isinstance(stream, GatewayEvents)])
    if opened.out:
        events = GatewayEvents(opened.opener)
        assert events.started.wait(CALL_TIMEOUT_S), "no events after the restart"
        streams.append(events)
    for stream in streams:
        assert stream.thread.is_alive(), f"{type(stream).__name__} ended with the gateway"
    return streams


def ends(streams: list[Stream]) -> float:
    """When the last byte of all of them has come."""
    for stream in streams:
        stream.thread.join(DEADLINE_S)
        assert not stream.thread.is_alive(), f"{type(stream).__name__} goes on"
        assert not getattr(stream, "complete", False), "a cut body looked complete"
    return max((stream.ended_at for stream in streams), default=0.0)


def cut_after(opened: Opened) -> float:
    """Seconds from the call that revokes until the last byte of the last stream."""
    with ExitStack() as leaving:
        return revoked_after(opened, opened_streams(opened, leaving))


def revoked_after(opened: Opened, streams: list[Stream]) -> float:
    began = time.monotonic()
    opened.revoke()
    took = ends(streams) - began
    assert min(stream.ended_at for stream in streams) > began, "it ended before it was revoked"
    return took


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with (
        short_folder("cut-") as folder,
        started(SmallSite(folder, redis=True)) as site,
        ExitStack() as leaving,
    ):
        yield Ground(site, leaving)


def worst(ground: Ground, kind: Callable[[Ground], Opened], times: int) -> float:
    return max(cut_after(kind(ground)) for _ in range(times))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_way_to_revoke_cuts_what_runs(
    ground: Ground, kind: Callable[[Ground], Opened], figures: Callable[[str, str], None]
) -> None:
    took = worst(ground, kind, FEW)
    figures(f"{kind.__name__} revoked to last byte, worst of {FEW}", f"{took:.2f} s")
    assert took < CUT_S


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_worst_of_many(
    ground: Ground, kind: Callable[[Ground], Opened], figures: Callable[[str, str], None]
) -> None:
    took = sorted(cut_after(kind(ground)) for _ in range(MANY))
    text = f"median {took[MANY // 2]:.2f} s, worst of {MANY} {took[-1]:.2f} s"
    figures(f"{kind.__name__} revoked to last byte", text)
    assert took[-1] < CUT_S


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_holds_over_a_restart_and_after_redis_forgot_everything(
    ground: Ground, kind: Callable[[Ground], Opened]
) -> None:
    """What was opened before is still cut, and what has ended stays ended."""
    before, gone = kind(ground), kind(ground)
    assert cut_after(gone) < CUT_S
    with ExitStack() as leaving:
        assert revoked_after(before, after_a_restart(ground, before, leaving)) < CUT_S
    for one in (before, gone):
        assert may_open(one) is one.comes_back, "what was revoked opens again"


def may_open(opened: Opened) -> bool:
    """Whether the opener gets a session there."""
    wish = {"service": "web", "binding": "click"}
    path = f"/v1/devices/{opened.device}/sessions"
    return opened.opener.http.post(path, json=wish).status_code == 201
