"""What of a configuration this device takes: checked as a whole before anything of it is applied. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from tunnel_agent.messages.settings import HEALTH_MAX_S, HEALTH_MIN_S, OWN_MEMBERS

LEVELS: Final = ("debug", "info", "warning", "error")
NAMED_MAX: Final = 32  # characters of a member's name in an error


def fault(body: Mapping[str, Any], declared: Collection[str]) -> str | None:
    """Why it is not taken: the first member that is wrong, by name and never by its value; None: nothing."""
    for name, value in body.items():
        if name == "health_every_s":
            if not _is_number(value) or not HEALTH_MIN_S <= value <= HEALTH_MAX_S:
                return f"health_every_s: must be {HEALTH_MIN_S:g} to {HEALTH_MAX_S:g}"
        elif name == "log_level":
            if value not in LEVELS:
                return f"log_level: must be one of {', '.join(LEVELS)}"
        elif name not in declared:
            shown = name[:NAMED_MAX] if name.isascii() and name.isprintable() else "a member"
            return f"{shown}: not known here"
    return None


def of_device(body: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not the agent's own."""
    return {name: value for name, value in body.items() if name not in OWN_MEMBERS}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
