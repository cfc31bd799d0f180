"""Who may do what. One function, deny by default: an action that no rule names is refused to everybody."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Literal, cast
from uuid import UUID

RoleWord = Literal["support", "member", "admin", "owner"]


class Role(IntEnum):
    """What a person is at a site; of two the greater counts (the schema's `site_role` has this order)."""

    SUPPORT = 1
    MEMBER = 2
    ADMIN = 3
    OWNER = 4

    @property
    def word(self) -> RoleWord:
        """As the API and the store write it."""
        return cast(RoleWord, self.name.lower())

    @classmethod
    def of(cls, word: str) -> Role:
        """ValueError for a word that is none."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"{word!r} is no role") from None


class Staff(StrEnum):
    """What a person is for the whole installation. None of these opens a device."""

    USER = "user"
    SUPPORT = "support"
    ADMIN = "admin"


class Scope(StrEnum):
    """What a personal API token may be limited to."""

    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    COMMANDS = "commands"
    SESSIONS = "sessions"
    SITES_READ = "sites:read"
    SITES_WRITE = "sites:write"
    SUPPORT = "support"
    AUDIT_READ = "audit:read"


class Action(StrEnum):
    """Everything that a person can ask of the gateway."""

    ACCOUNT = "account"
    WHO_AM_I = "account.who"
    API_TOKEN_MANAGE = "api_token.manage"
    APP_ALLOW = "app.allow"
    USER_MANAGE = "user.manage"
    KEY_ROTATE = "key.rotate"
    HARDWARE_ID_FREE = "hardware_id.free"
    ORG_READ = "org.read"
    ORG_CREATE = "org.create"
    ORG_CHANGE = "org.change"
    SITE_LIST = "site.list"
    SITE_CREATE = "site.create"
    SITE_READ = "site.read"
    SITE_CHANGE = "site.change"
    SITE_DELETE = "site.delete"
    MEMBER_LIST = "member.list"
    MEMBER_MANAGE = "member.manage"
    MEMBER_RUNNERS = "member.runners"
    MEMBER_LEAVE = "member.leave"
    INVITATION_ACCEPT = "invitation.accept"
    TOKEN_CREATE = "registration_token.create"
    DEVICE_LIST = "device.list"
    DEVICE_READ = "device.read"
    DEVICE_CHANGE = "device.change"
    DEVICE_APPROVE = "device.approve"
    DEVICE_REJECT = "device.reject"
    DEVICE_REVOKE = "device.revoke"
    DEVICE_RELEASE = "device.release"
    DEVICE_TYPE_LIST = "device_type.list"
    DEVICE_TYPE_CHANGE = "device_type.change"
    COMMAND_SEND = "command.send"
    COMMAND_READ = "command.read"
    CONFIGURATION_READ = "configuration.read"
    CONFIGURATION_WRITE = "configuration.write"
    DEAD_LETTER_READ = "dead_letter.read"
    SESSION_CREATE = "session.create"
    SESSION_LIST = "session.list"
    SESSION_LIST_DEVICE = "session.list_device"
    SESSION_END = "session.end"
    LINK_INSPECT = "link.inspect"
    LINK_CODE = "link.code"
    SUPPORT_ASK = "support.ask"
    SUPPORT_LIST = "support.list"
    SUPPORT_READ = "support.read"
    SUPPORT_DECIDE = "support.decide"
    SUPPORT_END = "support.end"
    SUPPORT_LOG_READ = "support.log.read"
    AUDIT_LIST = "audit.list"
    AUDIT_READ = "audit.read"
    EVENTS_FOLLOW = "events.follow"


@dataclass(frozen=True, slots=True)
class Actor:
    """A person whose login or API token was verified in this request."""

    user_id: UUID
    name: str
    login_id: UUID | None
    """None: by an API token."""
    staff: Staff = Staff.USER
    scopes: frozenset[Scope] | None = None
    """None: everything that the person may (a login); otherwise what the API token is limited to."""
    api_token_id: UUID | None = None
    """None: by a login."""
    until: float | None = None
    """When the API token ends, Unix seconds; None: by a login."""

    def within(self, end: float) -> float:
        """`end`, or the API token's own if that comes first: what a token makes does not outlive it."""
        return end if self.until is None else min(end, self.until)


@dataclass(frozen=True, slots=True)
class Resource:
    """What the action is about, as the actor sees it. No role and not mine: as if it did not exist."""

    role: Role | None = None
    """The actor's role where the thing is; for an org: their role in the whole of it."""
    mine: bool = False
    """It is the actor's own: their session, request, link, account."""
    consented: bool = False
    """Its owner consented to the actor's support of it, and that has not ended."""


class Verdict(Enum):
    """`HIDDEN` is told as 404: whoever has nothing to do with a thing does not learn that it exists."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Rule:
    """Any of the ways that is given allows. `staff`: everything of its kind, without a role there."""

    scope: Scope | None
    """What an API token needs for it; None: a person alone says this, by a login (but for `any_token`)."""
    any_token: bool = False
    anyone: bool = False
    """About nothing that is somebody else's: every person may."""
    roles: frozenset[Role] = frozenset()
    mine: bool = False
    consented: bool = False
    staff: frozenset[Staff] = frozenset()


_EVERY_ROLE = frozenset(Role)
_RUNNERS = frozenset({Role.ADMIN, Role.OWNER})
_OWNERS = frozenset({Role.OWNER})
_USERS = frozenset({Role.MEMBER, Role.ADMIN, Role.OWNER})

RULES: dict[Action, Rule] = {
    Action.ACCOUNT: Rule(None, anyone=True),
    Action.WHO_AM_I: Rule(None, any_token=True, anyone=True),
    Action.API_TOKEN_MANAGE: Rule(None, anyone=True),
    Action.APP_ALLOW: Rule(None, anyone=True),
    Action.USER_MANAGE: Rule(None, staff=frozenset({Staff.ADMIN})),
    Action.KEY_ROTATE: Rule(None, staff=frozenset({Staff.ADMIN})),
    Action.HARDWARE_ID_FREE: Rule(None, staff=frozenset({Staff.ADMIN})),
    Action.ORG_READ: Rule(Scope.SITES_READ, roles=_EVERY_ROLE),
    Action.ORG_CREATE: Rule(Scope.SITES_WRITE, anyone=True),
    Action.ORG_CHANGE: Rule(Scope.SITES_WRITE, roles=_OWNERS),
    Action.SITE_LIST: Rule(Scope.SITES_READ, anyone=True),
    Action.SITE_CREATE: Rule(Scope.SITES_WRITE, roles=_OWNERS),
    Action.SITE_READ: Rule(Scope.SITES_READ, roles=_EVERY_ROLE),
    Action.SITE_CHANGE: Rule(Scope.SITES_WRITE, roles=_RUNNERS),
    Action.SITE_DELETE: Rule(Scope.SITES_WRITE, roles=_OWNERS),
    Action.MEMBER_LIST: Rule(Scope.SITES_READ, roles=_USERS),
    Action.MEMBER_MANAGE: Rule(Scope.SITES_WRITE, roles=_RUNNERS),
    # Who runs a place decides what becomes of it, and of whatever made them that.
    Action.MEMBER_RUNNERS: Rule(None, roles=_OWNERS, mine=True),
    Action.MEMBER_LEAVE: Rule(Scope.SITES_WRITE, mine=True),
    Action.INVITATION_ACCEPT: Rule(None, anyone=True),
    Action.TOKEN_CREATE: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEVICE_LIST: Rule(Scope.DEVICES_READ, anyone=True),
    Action.DEVICE_READ: Rule(Scope.DEVICES_READ, roles=_EVERY_ROLE, consented=True),
    Action.DEVICE_CHANGE: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEVICE_APPROVE: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEVICE_REJECT: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEVICE_REVOKE: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEVICE_RELEASE: Rule(None, roles=_OWNERS),
    Action.DEVICE_TYPE_LIST: Rule(Scope.DEVICES_READ, anyone=True),
    # What every device of a type is asked to do, at all sites: nobody's but the installation's.
    Action.DEVICE_TYPE_CHANGE: Rule(None, staff=frozenset({Staff.ADMIN})),
    # The capability says more: which role, and whether a consent is enough (policy/capabilities.py).
    Action.COMMAND_SEND: Rule(Scope.COMMANDS, roles=_USERS, consented=True),
    Action.COMMAND_READ: Rule(Scope.DEVICES_READ, roles=_EVERY_ROLE, consented=True),
    Action.CONFIGURATION_READ: Rule(Scope.DEVICES_READ, roles=_EVERY_ROLE, consented=True),
    Action.CONFIGURATION_WRITE: Rule(Scope.DEVICES_WRITE, roles=_RUNNERS),
    Action.DEAD_LETTER_READ: Rule(Scope.AUDIT_READ, roles=_RUNNERS),
    Action.SESSION_CREATE: Rule(Scope.SESSIONS, roles=_USERS, consented=True),
    Action.SESSION_LIST: Rule(Scope.SESSIONS, anyone=True),
    Action.SESSION_LIST_DEVICE: Rule(Scope.SESSIONS, roles=_RUNNERS),
    Action.SESSION_END: Rule(Scope.SESSIONS, roles=_RUNNERS, mine=True),
    Action.LINK_INSPECT: Rule(None, mine=True),
    Action.LINK_CODE: Rule(None, mine=True),
    Action.SUPPORT_ASK: Rule(
        Scope.SUPPORT, roles=frozenset({Role.SUPPORT}), staff=frozenset({Staff.SUPPORT})
    ),
    Action.SUPPORT_LIST: Rule(Scope.SUPPORT, anyone=True),
    Action.SUPPORT_READ: Rule(Scope.SUPPORT, roles=_RUNNERS, mine=True),
    # The consent is the owner's alone (glossary): an administrator of the site runs it for them, no more.
    Action.SUPPORT_DECIDE: Rule(None, roles=_OWNERS),
    Action.SUPPORT_END: Rule(Scope.SUPPORT, roles=_RUNNERS, mine=True),
    Action.SUPPORT_LOG_READ: Rule(Scope.SUPPORT, roles=_RUNNERS),
    Action.AUDIT_LIST: Rule(Scope.AUDIT_READ, anyone=True),
    Action.AUDIT_READ: Rule(Scope.AUDIT_READ, roles=_RUNNERS),
    Action.EVENTS_FOLLOW: Rule(Scope.DEVICES_READ, anyone=True),
}


def judge(actor: Actor | None, action: Action, resource: Resource | None = None) -> Verdict:
    """Whether `actor` may do `action` to `resource` (None: there is none, or the action is about no thing).

    Somebody without a role at a thing gets HIDDEN for it and for what does not exist alike, so that the
    caller cannot tell the two apart by accident: both become the same 404.
    """
    rule = RULES.get(action)
    if actor is None or rule is None:
        return Verdict.HIDDEN
    if resource is None and (rule.roles or rule.mine):
        return Verdict.HIDDEN
    staff = actor.staff in rule.staff
    here = resource or Resource()
    by_thing = here.role in rule.roles or (rule.mine and here.mine) or (rule.consented and here.consented)
    in_scope = actor.scopes is None or rule.any_token or rule.scope in actor.scopes
    if in_scope and (rule.anyone or staff or by_thing):
        return Verdict.ALLOWED
    seen = resource is None or here.role or here.mine or here.consented or staff
    return Verdict.FORBIDDEN if seen else Verdict.HIDDEN


def may(actor: Actor | None, action: Action, resource: Resource | None = None) -> bool:
    return judge(actor, action, resource) is Verdict.ALLOWED


def giving(role: Role) -> Action:
    """What it is to give, change or take away `role`."""
    return Action.MEMBER_RUNNERS if role in _RUNNERS else Action.MEMBER_MANAGE


def leaving(role: Role) -> Action:
    """What it is to let go of one's own `role`: what no token gives back, no token takes."""
    return Action.MEMBER_RUNNERS if role in _RUNNERS else Action.MEMBER_LEAVE


def place_seen(role: Role | None, *, sees: bool, mine: bool = False) -> Resource | None:
    """An org or a site, for whom it is `role` there; None: they do not see it.

    `sees`: they are somebody at it or, for an org, at one of its sites. Then they know the org, as its least.
    """
    return Resource(role or Role.SUPPORT, mine=mine) if sees else None


def consent_decides(actor: Actor, action: Action, resource: Resource) -> bool:
    """Whether the actor may do it with the owner's consent alone: then it must be looked up."""
    return RULES[action].consented and not may(actor, action, resource)


def may_give(giver: Role, role: Role) -> bool:
    """Whether `giver` may give, change or take away `role`: owners any, admins what is below them."""
    return giver in RULES[giving(role)].roles
