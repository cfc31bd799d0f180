"""Who may do what. One function, deny by default: an action that no rule names is refused to everybody."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Action(StrEnum):
    """Everything that a person can ask of the gateway."""

    TOKEN_CREATE = "registration_token.create"
    DEVICE_LIST = "device.list"
    DEVICE_READ = "device.read"
    DEVICE_APPROVE = "device.approve"
    DEVICE_REJECT = "device.reject"
    DEVICE_REVOKE = "device.revoke"
    SESSION_CREATE = "session.create"
    SESSION_LIST = "session.list"
    SESSION_END = "session.end"
    LINK_INSPECT = "link.inspect"
    LINK_CODE = "link.code"


@dataclass(frozen=True, slots=True)
class Actor:
    """A person whose login was verified in this request."""

    user_id: UUID
    name: str
    login_id: UUID


@dataclass(frozen=True, slots=True)
class Resource:
    """What the action is about: the device or session's owner. None: no such thing exists."""

    owner_id: UUID | None


# What every logged-in person may do for themselves: these never touch somebody else's things.
_OWN = frozenset({Action.TOKEN_CREATE, Action.DEVICE_LIST, Action.SESSION_LIST})
# What takes ownership of the thing itself.
_OWNED = frozenset(Action) - _OWN


def may(actor: Actor | None, action: Action, resource: Resource | None = None) -> bool:
    """Whether `actor` may do `action` to `resource`.

    False for a resource that does not exist and for one of somebody else's alike, so that the
    caller cannot tell the two apart by accident: both become the same 404.
    """
    if actor is None:
        return False
    if action in _OWN:
        return resource is None or resource.owner_id == actor.user_id
    if action in _OWNED:
        return resource is not None and resource.owner_id == actor.user_id
    return False
