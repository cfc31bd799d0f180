"""Live events: what is told of a change, and who sees it: those whom the policy lets read the thing."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from gateway.policy.access import Action, Actor, Resource, Role, may


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened. It names what changed, never to what."""

    kind: str
    org_id: str | None = None
    """None (org, site): of the site, or of the device's site, where those are known."""
    site_id: str | None = None
    user_id: UUID | None = None
    """Whom it is about: they see it wherever it happened."""
    device_id: str | None = None
    ref: str | None = None
    """Id of the session, support request … that it is about."""


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A change with its number; `at` in Unix seconds."""

    n: int
    at: float
    change: Change


# What is told, and which reading it stands for.
KINDS: Final[dict[str, Action]] = {
    "device.enrolled": Action.DEVICE_READ,
    "device.changed": Action.DEVICE_READ,
    "device.added": Action.DEVICE_READ,
    "device.removed": Action.DEVICE_READ,
    "device.online": Action.DEVICE_READ,
    "device.offline": Action.DEVICE_READ,
    "command.changed": Action.COMMAND_READ,
    "configuration.changed": Action.CONFIGURATION_READ,
    "device.state": Action.DEVICE_READ,
    "device.message": Action.DEVICE_READ,
    "session.begun": Action.SESSION_END,
    "session.ended": Action.SESSION_END,
    "support.asked": Action.SUPPORT_READ,
    "support.decided": Action.SUPPORT_READ,
    "support.ended": Action.SUPPORT_READ,
    "member.changed": Action.MEMBER_LIST,
    "site.changed": Action.SITE_READ,
    "org.changed": Action.ORG_READ,
}

# What goes into the audit log about these is told as well, so that no route can forget it.
OF_AUDIT: Final[dict[str, str]] = {
    "device.enrolled": "device.enrolled",
    "device.approved": "device.changed",
    "device.changed": "device.changed",
    "device.rejected": "device.changed",
    "configuration.changed": "configuration.changed",
    "device.released": "device.changed",
    "device.release_withdrawn": "device.changed",
    "device.revoked": "device.changed",
    "device.moved_in": "device.added",
    "device.claimed": "device.added",
    "device.handed_over": "device.removed",
    "session.created": "session.begun",
    "support.asked": "support.asked",
    "support.approved": "support.decided",
    "support.refused": "support.decided",
    "support.ended": "support.ended",
    "support.withdrawn": "support.ended",
    "member.joined": "member.changed",
    "member.changed": "member.changed",
    "member.left": "member.changed",
    "member.removed": "member.changed",
    "site.created": "site.changed",
    "site.renamed": "site.changed",
    "site.deleted": "site.changed",
    "org.created": "org.changed",
    "org.renamed": "org.changed",
    "org.deleted": "org.changed",
    "org.owner_appointed": "member.changed",
}
# After these, who sees what is looked up again.
_OF_ROLES: Final = frozenset({"member.changed", "site.changed", "org.changed"})


def told(
    kind: str,
    *,
    actor: str,
    owner: str | None,
    site: str | None,
    device: str | None,
    detail: Mapping[str, Any],
) -> Change | None:
    """The change that an audit event is told as; None: it is not."""
    live = OF_AUDIT.get(kind)
    if live is None:
        return None
    about = {"session": actor, "support": detail.get("engineer"), "member": owner, "org": owner}
    return Change(
        live,
        org_id=detail.get("org"),
        site_id=site,
        user_id=_uuid(about.get(live.partition(".")[0])),
        device_id=device,
        ref=detail.get("session") or detail.get("request"),
    )


def changes_roles(change: Change) -> bool:
    return change.kind in _OF_ROLES


@dataclass(frozen=True, slots=True)
class Roles:
    """What one person is where. `orgs`: roles that hold in the whole org. `known`: every org where they are
    somebody, if only at one of its sites.
    """

    sites: Mapping[str, Role] = field(default_factory=dict)
    orgs: Mapping[str, Role] = field(default_factory=dict)
    known: Set[str] = frozenset()


def sees(actor: Actor, roles: Roles, change: Change) -> bool:
    """Whether the person is told of it: they may read what changed, or it is about them."""
    role = roles.sites.get(change.site_id or "")
    if role is None and (change.site_id is None or change.kind == "site.changed"):
        role = roles.orgs.get(change.org_id or "")
    if role is None and change.site_id is None and change.org_id in roles.known:
        role = Role.SUPPORT  # knows the org as its least, and none of its other sites
    mine = change.user_id == actor.user_id
    if change.kind == "member.changed" and may(actor, Action.MEMBER_LEAVE, Resource(mine=mine)):
        return True
    return may(actor, KINDS[change.kind], Resource(role, mine=mine))


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:  # a node or the gateway itself acted
        return None
