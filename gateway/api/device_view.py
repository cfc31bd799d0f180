"""What a device's page shows of its messages and commands: words for people, made of what the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.api.models import instant
from gateway.policy import capabilities
from gateway.policy.access import Resource, Role
from gateway.policy.capabilities import BadCapabilitiesError, BadParameterError, UnsupportedError
from gateway.store.commands import Command
from gateway.store.device_types import Asked
from gateway.store.messages import Latest

READINGS_SHOWN: Final = 40  # a page, not an export
COMMANDS_SHOWN: Final = 5
WORD_MAX: Final = 80  # of a reading that is text


@dataclass(frozen=True, slots=True)
class ShownReading:
    """One reading: the last value, and what it moved between where several were made one."""

    name: str
    value: str
    span: str


@dataclass(frozen=True, slots=True)
class ShownCommand:
    """One command; `way` is each hop that it took, with milliseconds since it was stored.

    The broker's receipt stands apart: the device may have answered by the time it comes.
    """

    id: str
    name: str
    state: str
    author: str
    created_at: str
    error: str | None
    way: str


@dataclass(frozen=True, slots=True)
class Offered:
    """A command that this person may send as it is. `grave`: not everybody may, so that it asks twice."""

    name: str
    grave: bool


def readings(telemetry: Latest | None) -> list[ShownReading]:
    """Of the latest telemetry, by name."""
    values = {} if telemetry is None else telemetry.body.get("values", {})
    return [_reading(name, values[name]) for name in sorted(values)[:READINGS_SHOWN]]


def health(heartbeat: Latest | None) -> list[tuple[str, str]]:
    """Words and values of the latest heartbeat."""
    if heartbeat is None:
        return []
    body: Mapping[str, Any] = heartbeat.body
    shown = [("Up for", _duration(body["uptime_s"]))] if "uptime_s" in body else []
    memory = body.get("memory", {})
    if "available" in memory and "total" in memory:
        shown.append(("Memory free", f"{_megabytes(memory['available'])} of {_megabytes(memory['total'])}"))
    if "load" in body:
        shown.append(("Load", _number(body["load"])))
    if "rssi" in body:
        shown.append(("Radio", f"{_number(body['rssi'])} dBm"))
    sensors = body.get("sensors", {})
    return shown + [(name, _plain(sensors[name])) for name in sorted(sensors)[:READINGS_SHOWN]]


def offered(asked: Asked, resource: Resource) -> list[Offered]:
    """The commands without parameters that the device does and the person may ask for. None before its first
    hello: a button would promise what nobody is there to do. The API takes them for when it comes.
    """
    if asked.announced is None:
        return []
    try:
        known = capabilities.read(asked.type.capabilities)
    except BadCapabilitiesError:  # of an older gateway; the API says so when one is sent
        return []
    found = []
    for name, capability in sorted(known.items()):
        try:
            capabilities.choose(known, asked.announced, name, {})
        except (UnsupportedError, BadParameterError):
            continue
        if capabilities.may_send(capability, resource):
            found.append(Offered(name, grave=capability.role > Role.MEMBER))
    return found


def shown_command(command: Command) -> ShownCommand:
    """As the page has it."""
    hops = (
        ("received", command.took_at),
        ("done", command.done_at),
        ("logged", command.logged_at),
        ("finished", command.finished_at),
    )
    chain = [f"{hop} {_after(at - command.created_at)}" for hop, at in hops if at is not None]
    way = [" → ".join(chain)] if chain else []
    if command.sent_at is not None:
        way.insert(0, f"the broker's receipt {_after(command.sent_at - command.created_at)}")
    return ShownCommand(
        id=str(command.id),
        name=command.name,
        state=str(command.state),
        author=command.author,
        created_at=instant(command.created_at),
        error=command.error,
        way=" · ".join(way),
    )


def _reading(name: str, value: Any) -> ShownReading:
    if not isinstance(value, dict):
        return ShownReading(name, _plain(value), "")
    span = f"{_number(value['min'])} to {_number(value['max'])}, {value['n']} samples"
    return ShownReading(name, _number(value["last"]), span)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value)
    text = str(value)
    return text if len(text) <= WORD_MAX else f"{text[:WORD_MAX]}…"


def _number(value: float) -> str:
    """Six digits are more than a sensor has."""
    return f"{value:.6g}"


def _after(seconds: float) -> str:
    """Since the command was stored; the device's clock may be another."""
    if abs(seconds) < 10:
        return f"{seconds * 1000:+.0f} ms"
    return f"{seconds:+.0f} s"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
