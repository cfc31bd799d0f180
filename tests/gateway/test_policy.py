"""The pure decisions."""

from __future__ import annotations

from dataclasses import fields, replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import durations, links, presence
from gateway.policy.access import (
    RULES,
    Action,
    Actor,
    Resource,
    Role,
    Rule,
    Scope,
    Staff,
    Verdict,
    consent_decides,
    judge,
    may,
    may_give,
    place_seen,
)
from gateway.policy.feed import must_reset
from gateway.policy.names import clean_name

NOW = 1_000_000.0
ME = Actor(uuid4(), "me", uuid4())


# Who may do what, written out by hand from what is promised (docs/decisions/0016-roles-at-sites.md): every
# way that allows it, and the scope that an API token needs ("any": none; "no": no token does it).
EVERY_ROLE = "support member admin owner"
PROMISED = {
    "account": ("anyone", "no"),
    "account.who": ("anyone", "any"),
    "api_token.manage": ("anyone", "no"),
    "app.allow": ("anyone", "no"),
    "user.manage": ("staff:admin", "no"),
    "key.rotate": ("staff:admin", "no"),
    "hardware_id.free": ("staff:admin", "no"),
    "org.read": (EVERY_ROLE, "sites:read"),
    "org.create": ("anyone", "sites:write"),
    "org.change": ("owner", "sites:write"),
    "site.list": ("anyone", "sites:read"),
    "site.create": ("owner", "sites:write"),
    "site.read": (EVERY_ROLE, "sites:read"),
    "site.change": ("admin owner", "sites:write"),
    "site.delete": ("owner", "sites:write"),
    "member.list": ("member admin owner", "sites:read"),
    "member.manage": ("admin owner", "sites:write"),
    "member.runners": ("owner mine", "no"),
    "member.leave": ("mine", "sites:write"),
    "invitation.accept": ("anyone", "no"),
    "registration_token.create": ("admin owner", "devices:write"),
    "device.list": ("anyone", "devices:read"),
    "device.read": (f"{EVERY_ROLE} consented", "devices:read"),
    "device.change": ("admin owner", "devices:write"),
    "device.approve": ("admin owner", "devices:write"),
    "device.reject": ("admin owner", "devices:write"),
    "device.revoke": ("admin owner", "devices:write"),
    "device.release": ("owner", "no"),
    "device_type.list": ("anyone", "devices:read"),
    "device_type.change": ("staff:admin", "no"),
    "command.send": ("member admin owner consented", "commands"),
    "command.read": (f"{EVERY_ROLE} consented", "devices:read"),
    "configuration.read": (f"{EVERY_ROLE} consented", "devices:read"),
    "configuration.write": ("admin owner", "devices:write"),
    "session.create": ("member admin owner consented", "sessions"),
    "session.list": ("anyone", "sessions"),
    "session.list_device": ("admin owner", "sessions"),
    "session.end": ("admin owner mine", "sessions"),
    "link.inspect": ("mine", "no"),
    "link.code": ("mine", "no"),
    "support.ask": ("support staff:support", "support"),
    "support.list": ("anyone", "support"),
    "support.read": ("admin owner mine", "support"),
    "support.decide": ("owner", "no"),
    "support.end": ("admin owner mine", "support"),
    "support.log.read": ("admin owner", "support"),
    "audit.list": ("anyone", "audit:read"),
    "audit.read": ("admin owner", "audit:read"),
    "dead_letter.read": ("admin owner", "audit:read"),
    "events.follow": ("anyone", "devices:read"),
}


def in_words(rule: Rule) -> tuple[set[str], str]:
    """As `PROMISED` says it."""
    ways = {role.word for role in rule.roles} | {f"staff:{staff}" for staff in rule.staff}
    ways |= {way for way in ("mine", "consented", "anyone") if getattr(rule, way)}
    return ways, "any" if rule.any_token else str(rule.scope or "no")


def test_the_table_is_what_was_promised() -> None:
    promised = {action: (set(ways.split()), token) for action, (ways, token) in PROMISED.items()}
    assert {str(action): in_words(rule) for action, rule in RULES.items()} == promised
    assert len(fields(Rule)) == 7  # a new way to be allowed belongs into the words


@pytest.mark.parametrize("action", list(Action))
def test_access_is_denied_by_default(action: Action) -> None:
    rule = RULES[action]
    for resource in (None, Resource(), Resource(mine=True), Resource(Role.OWNER)):
        assert not may(None, action, resource)
    assert may(ME, action, Resource()) is rule.anyone
    assert may(ME, action) is rule.anyone
    for role in Role:
        assert may(ME, action, Resource(role)) is (rule.anyone or role in rule.roles)
    assert may(ME, action, Resource(mine=True)) is (rule.anyone or rule.mine)


@pytest.mark.parametrize("action", [action for action in Action if RULES[action].roles])
def test_what_somebody_has_nothing_to_do_with_does_not_exist_for_them(action: Action) -> None:
    assert judge(ME, action, Resource()) is judge(ME, action) is Verdict.HIDDEN
    assert judge(ME, action, Resource(Role.SUPPORT)) is not Verdict.HIDDEN


@pytest.mark.parametrize("action", list(Action))
def test_an_api_token_may_what_its_scopes_and_its_person_allow(action: Action) -> None:
    rule = RULES[action]
    everything = Resource(max(rule.roles, default=None), mine=True)
    for scope in Scope:
        limited = replace(ME, login_id=None, scopes=frozenset({scope}))
        wanted = (rule.any_token or rule.scope is scope) and may(ME, action, everything)
        assert may(limited, action, everything) is wanted
        assert not may(limited, action, Resource()) or rule.anyone
    nothing = replace(ME, login_id=None, scopes=frozenset())
    assert may(nothing, action, everything) is rule.any_token


def test_staff_is_no_key_to_devices() -> None:
    for staff in Staff:
        actor = replace(ME, staff=staff)
        opened = {a for a in Action if may(actor, a, Resource()) and not RULES[a].anyone}
        wanted = {
            Staff.USER: set(),
            Staff.SUPPORT: {Action.SUPPORT_ASK},
            Staff.ADMIN: {
                Action.USER_MANAGE,
                Action.KEY_ROTATE,
                Action.HARDWARE_ID_FREE,
                Action.DEVICE_TYPE_CHANGE,
            },
        }
        assert opened == wanted[staff]


def test_whoever_is_somebody_at_a_site_knows_its_org_as_its_least() -> None:
    assert place_seen(None, sees=False) is None
    assert place_seen(None, sees=True) == Resource(Role.SUPPORT)
    assert place_seen(Role.OWNER, sees=True, mine=True) == Resource(Role.OWNER, mine=True)


def test_a_consent_is_looked_up_where_it_decides_alone() -> None:
    """Not for whom their role lets in already, nor for what no consent allows."""
    for action, rule in RULES.items():
        for role in (None, *Role):
            without, under = Resource(role), Resource(role, consented=True)
            changes = may(ME, action, without) is not may(ME, action, under)
            assert consent_decides(ME, action, without) >= changes, action
            if may(ME, action, without) or not rule.consented:
                assert not consent_decides(ME, action, without), action


def test_an_action_without_a_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(RULES) == set(Action)
    monkeypatch.delitem(RULES, Action.DEVICE_READ)
    assert judge(ME, Action.DEVICE_READ, Resource(Role.OWNER)) is Verdict.HIDDEN


def test_nobody_makes_somebody_greater_than_themselves() -> None:
    given = {(giver, role) for giver in Role for role in Role if may_give(giver, role)}
    owners = {(Role.OWNER, role) for role in Role}
    assert given == owners | {(Role.ADMIN, Role.MEMBER), (Role.ADMIN, Role.SUPPORT)}


def test_durations() -> None:
    assert durations.session_expiry(3600, 3600, 10.9) == 3610
    for wrong in (-1, 0, 4, 3601, 10**12):
        with pytest.raises(durations.DurationError):
            durations.session_expiry(wrong, 3600, 0)
    assert durations.link_expiry(60, 30, 0) == 30
    assert durations.link_expiry(60, 3600, 0.5) == 60


FRESH = links.LinkFacts(
    binding="click",
    kind="web",
    burnt=False,
    expires_at=NOW + 60,
    code_expires_at=None,
    session_ended=False,
    session_expires_at=NOW + 3600,
)
CODED = replace(FRESH, binding="browser", code_expires_at=NOW + 10)


@pytest.mark.parametrize(
    ("facts", "presented", "now", "refusal"),
    [
        (FRESH, "token", NOW, None),
        (FRESH, "token", NOW + 60, links.LinkRefusal.EXPIRED),
        (replace(FRESH, burnt=True), "token", NOW, links.LinkRefusal.USED),
        (replace(FRESH, burnt=True), "token", NOW + 90, links.LinkRefusal.USED),
        (replace(FRESH, session_ended=True), "token", NOW, links.LinkRefusal.ENDED),
        (replace(FRESH, session_expires_at=NOW), "token", NOW, links.LinkRefusal.ENDED),
        (FRESH, "code", NOW, links.LinkRefusal.BAD),
        (CODED, "token", NOW, links.LinkRefusal.BINDING),
        (replace(CODED, burnt=True), "token", NOW, links.LinkRefusal.BINDING),
        (CODED, "code", NOW, None),
        (CODED, "code", NOW + 10, links.LinkRefusal.EXPIRED),
        (replace(CODED, code_expires_at=None), "code", NOW, links.LinkRefusal.EXPIRED),
        (replace(CODED, burnt=True), "code", NOW, links.LinkRefusal.USED),
        # A code that was issued in the link's last second still has its ten seconds.
        (replace(CODED, expires_at=NOW + 1), "code", NOW + 5, None),
    ],
)
def test_redeeming(
    facts: links.LinkFacts, presented: links.Presented, now: float, refusal: links.LinkRefusal | None
) -> None:
    assert links.refuse_redeem(facts, presented, "web", now) is refusal


def test_a_link_opens_as_the_kind_of_its_service_alone() -> None:
    tcp = replace(FRESH, kind="tcp")
    assert links.refuse_redeem(tcp, "token", "tcp", NOW) is None
    assert links.refuse_redeem(tcp, "token", "web", NOW) is links.LinkRefusal.KIND
    assert links.refuse_redeem(FRESH, "token", "tcp", NOW) is links.LinkRefusal.KIND


def test_codes_are_for_the_browser_binding_alone() -> None:
    assert links.refuse_code(CODED, NOW) is None
    assert links.refuse_code(FRESH, NOW) is links.LinkRefusal.BINDING
    assert links.refuse_code(CODED, NOW + 60) is links.LinkRefusal.EXPIRED


def test_names() -> None:
    assert clean_name("  Pumpe Süd <b>  ") == "Pumpe Süd <b>"
    for wrong in ("", "   ", "a" * 65, "a\nb", "a\x00", "evil\u202etxt.exe", "zero\u200bwidth", "\ud800"):
        with pytest.raises(ValueError, match="must"):
            clean_name(wrong)


@pytest.mark.parametrize(
    ("after", "pruned", "head", "reset"),
    [
        (0, 0, 0, False),
        (0, 0, 9, False),
        (5, 5, 9, False),
        (4, 5, 9, True),
        (9, 5, 9, False),
        (10, 5, 9, True),
    ],
)
def test_where_a_feed_may_go_on(after: int, pruned: int, head: int, reset: bool) -> None:
    assert must_reset(after, pruned, head) is reset


A, B = b"A" * 16, b"B" * 16


def device(**changes: object) -> presence.DevicePresence:
    values: dict[str, object] = {
        "device_id": "d",
        "instance": None,
        "instance_at": 0.0,
        "since": None,
        "tunnels": {},
        "recent_replacements": 0,
    }
    return presence.DevicePresence(**{**values, **changes})  # type: ignore[arg-type]


def report(instance: bytes = A, state: str = "connected", **changes: object) -> presence.Report:
    values: dict[str, object] = {
        "device_id": "d",
        "instance": instance,
        "connection": 1,
        "state": state,
        "at": NOW,
    }
    return presence.Report(**{**values, **changes})  # type: ignore[arg-type]


def fold(
    known: presence.DevicePresence,
    *reports: presence.Report,
    node: str = "n1",
    full: bool = False,
    now: float = NOW,
) -> presence.PresenceChanges:
    return presence.apply_reports(node, {"d": known}, reports, full=full, now=now)


def test_connections_of_one_instance_coexist() -> None:
    known = device()
    first = fold(known, report(connection=1))
    second = fold(known, report(connection=2), node="n2")
    assert len(known.tunnels) == 2
    assert not first.replaced
    assert not second.replaced
    assert known.since == NOW


def test_a_new_instance_replaces_the_old_on_every_node() -> None:
    known = device()
    fold(known, report(A), now=NOW)
    changes = fold(known, report(B, at=NOW + 5), node="n2", now=NOW + 5)
    assert changes.replaced == {"d": B}
    assert {key.instance for key in known.tunnels} == {B}
    assert {key.node for key in changes.closed} == {"n1"}


def test_an_older_instance_that_is_reported_late_does_not_win() -> None:
    known = device()
    fold(known, report(B, at=NOW + 5), now=NOW + 6)
    changes = fold(known, report(A, at=NOW), node="n2", now=NOW + 6)
    assert changes.replaced == {"d": B}
    assert known.instance == B
    assert not changes.opened


def test_a_restart_without_overlap_replaces_nobody() -> None:
    known = device()
    fold(known, report(A))
    fold(known, report(A, "disconnected", error="keepalive_timeout"), now=NOW + 1)
    assert known.last_error == "keepalive_timeout"
    changes = fold(known, report(B, at=NOW + 2), now=NOW + 2)
    assert not changes.replaced
    assert known.instance == B


def test_a_node_with_a_wrong_clock_cannot_keep_a_device_out() -> None:
    known = device()
    fold(known, report(A, at=NOW + 1e6), now=NOW)
    changes = fold(known, report(B, at=NOW - 1e6), node="n2", now=NOW + 30)
    assert changes.replaced == {"d": B}


def test_a_full_report_drops_what_it_does_not_name() -> None:
    known = device()
    fold(known, report(connection=1), report(connection=2))
    fold(known, report(connection=3), node="n2")
    changes = fold(known, report(connection=2), full=True)
    assert {key.connection for key in known.tunnels} == {2, 3}
    assert {key.connection for key in changes.closed} == {1}
    fold(known, full=True, node="n2")
    fold(known, full=True, now=NOW + 9)
    assert not known.tunnels
    assert known.since == NOW + 9


def test_two_machines_with_one_key_raise_the_alarm() -> None:
    known = device()
    alarms = []
    for step in range(6):
        at = NOW + step
        changes = fold(known, report((A, B)[step % 2], at=at), now=at)
        alarms.append("d" in changes.flapping)
    assert alarms == [False, False, False, False, True, True]


def test_unknown_devices_are_ignored() -> None:
    changes = presence.apply_reports("n1", {}, [report()], full=False, now=NOW)
    assert changes == presence.PresenceChanges()


events = st.lists(
    st.tuples(
        st.sampled_from(["n1", "n2"]),
        st.sampled_from([A, B]),
        st.integers(1, 2),
        st.sampled_from(["connected", "disconnected"]),
        st.floats(0, 20),
        st.booleans(),
    ),
    max_size=30,
)


@given(events)
def test_never_two_instances_and_the_changes_say_it_all(
    steps: list[tuple[str, bytes, int, str, float, bool]],
) -> None:
    known = device()
    stored: dict[presence.TunnelKey, presence.Tunnel] = {}
    for number, (node, instance, connection, state, age, full) in enumerate(steps):
        now = NOW + number
        changes = fold(
            known,
            report(instance, state, connection=connection, at=now - age),
            node=node,
            full=full,
            now=now,
        )
        for key in changes.closed:
            stored.pop(key, None)
        stored.update(changes.opened)
        assert len({key.instance for key in known.tunnels}) <= 1
        assert stored.keys() == known.tunnels.keys()
        if known.tunnels:
            assert {key.instance for key in known.tunnels} == {known.instance}
