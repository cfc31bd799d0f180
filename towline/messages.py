"""What a device says, and what it is asked to do, for people at a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

from towline.commands import table
from towline.errors import TowlineError
from towline.gateway_client import CALL_TIMEOUT_S, GatewayAwayError, GatewayClient

COMMANDS_SHOWN: Final = 5
# One call waits so long for a command's end, then another one does; under what a call may take.
WAIT_A_CALL_S: Final = int(CALL_TIMEOUT_S) - 2
PAUSE_S: Final = 0.5
WAIT_MAX_S: Final = 86_400  # no command waits for longer
FINAL: Final = ("succeeded", "failed", "timed_out", "expired")
# In the order in which they are reached, with the member that says when.
_REACHED: Final = (("queued", "created_at"), ("sent", "sent_at"), ("delivered", "delivered_at"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as it was typed. `queue` False: now or not at all."""

    name: str
    params: Mapping[str, Any]
    ttl_s: int
    wait_s: int
    queue: bool


def device(gateway: GatewayClient, wanted: str) -> str:
    """A device with its newest readings, its health, its configuration and its last commands."""
    found = gateway.device(wanted)
    path = f"/v1/devices/{found['id']}"
    state = gateway.get(f"{path}/state")
    last = gateway.get(f"{path}/commands?" + urlencode({"limit": COMMANDS_SHOWN}))["items"]
    tunnel = "online" if found["online"] else "offline"
    lines = [f"{found['name']} ({found['id']})", f"tunnel    {tunnel}", f"messages  {_connection(state)}"]
    lines.append(f"config    {_configuration(gateway.get(f'{path}/configuration'))}")
    lines += ["", f"readings  {_when(state['telemetry'])}", *_indented(_readings(state["telemetry"]))]
    lines += ["", f"health    {_when(state['heartbeat'])}", *_indented(_health(state["heartbeat"]))]
    rows = [
        (one["created_at"], one["name"], one["state"], _shown(one["error"] or ""), one["author"])
        for one in last
    ]
    lines += ["", "commands", *_indented(table(("ASKED", "NAME", "STATE", "WHY", "BY"), rows).splitlines())]
    return "\n".join(lines)


def command(gateway: GatewayClient, wanted: str, asked: Asked, say: Callable[[str], None]) -> None:
    """Send it, and `say` each state as it is reached. TowlineError unless it succeeds within `wait_s`."""
    found = gateway.device(wanted)
    body = {"name": asked.name, "params": dict(asked.params), "ttl_s": asked.ttl_s, "queue": asked.queue}
    said, end = 0, time.monotonic() + asked.wait_s
    shows = f"`towline device {found['id']}` shows"
    # With a key: an answer that got lost must not have the device do it twice.
    path, key = f"/v1/devices/{found['id']}/commands", uuid4().hex
    told = _patiently(lambda: gateway.post(path, body, key), end, f"{shows} whether it was taken")
    say(f"{asked.name} to {found['name']} ({found['id']}), command {told['id']}")
    while True:
        steps = _steps(told)
        for step in steps[said:]:
            say(step)
        said = len(steps)
        left_s = int(end - time.monotonic())
        if told["state"] in FINAL or left_s <= 0:
            break
        look = partial(_looked_at, gateway, told["id"], min(left_s, WAIT_A_CALL_S))
        told = _patiently(look, end, f"the command is made, and {shows} what became of it")
    if told["state"] == "succeeded":
        if told["result"] is not None:
            say(_shown(json.dumps(told["result"], ensure_ascii=False, indent=2)))
        return
    raise TowlineError(_not_done(told, asked))


def _patiently(call: Callable[[], dict[str, Any]], end: float, else_say: str) -> dict[str, Any]:
    """Its answer; again and again while the gateway is away, until `end` of time.monotonic()."""
    while True:
        try:
            return call()
        except GatewayAwayError as error:
            if time.monotonic() + PAUSE_S >= end:
                raise GatewayAwayError(f"{error} {else_say}") from None
        time.sleep(PAUSE_S)


def _looked_at(gateway: GatewayClient, command_id: str, wait_s: int) -> dict[str, Any]:
    began = time.monotonic()
    told: dict[str, Any] = gateway.get(f"/v1/commands/{command_id}?wait={wait_s}")
    if told["state"] not in FINAL and time.monotonic() - began < PAUSE_S:
        time.sleep(PAUSE_S)  # the gateway had no place for one more to wait
    return told


def params(pairs: Sequence[str]) -> dict[str, Any]:
    """Of NAME=VALUE; a value that is JSON is what it says, any other is text. TowlineError."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or name in found:
            raise TowlineError(f"{pair!r} is no parameter: each is NAME=VALUE, once")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def _steps(told: dict[str, Any]) -> list[str]:
    """The states that it reached, each with the time since it was made."""
    begun = _moment(told["created_at"])
    reached = [(name, told[at]) for name, at in _REACHED if told[at] is not None]
    if told["finished_at"] is not None:
        reached.append((told["state"], told["finished_at"]))
    return [f"  {name:<10} {_since(begun, at)}" for name, at in reached]


def _since(begun: datetime, at: str) -> str:
    moment = _moment(at)
    if moment == begun:
        return at
    return f"+{(moment - begun).total_seconds() * 1000:.0f} ms"


def _not_done(told: dict[str, Any], asked: Asked) -> str:
    if told["state"] not in FINAL:
        return f"after {asked.wait_s} s it is {told['state']}{_goes_on(told)}"
    why = {
        "failed": f"it failed: {_shown(told['error'] or '')}",
        "timed_out": f"the device had it, and no end came in {told['timeout_s']} s",
        "expired": f"no device said within {asked.ttl_s} s that it has it",
    }
    return why[told["state"]]


def _goes_on(told: dict[str, Any]) -> str:
    if told["delivered_at"] is not None:
        return f": the device has {told['timeout_s']} s for it from {told['delivered_at']} on"
    if _moment(told["expires_at"]) <= datetime.now(UTC):
        return f": its time was over at {told['expires_at']}, and the gateway says so soon (`towline device`)"
    return f", and goes on until {told['expires_at']}"


def _configuration(found: dict[str, Any]) -> str:
    """What it should run with beside what it says that it runs with."""
    desired, reported = found["desired"], found["reported"]
    runs = None if reported is None else reported["version"]
    wanted = "none set" if desired is None else f"version {desired['version']}"
    if not found["drift"]:
        return wanted
    told = "nothing told yet" if reported is None else "none" if runs is None else f"version {runs}"
    error = _shown(reported["error"]) if reported is not None and reported["error"] else ""
    return f"{wanted}; the device runs with another: {told}" + (f" ({error})" if error else "")


def _connection(state: dict[str, Any]) -> str:
    connection = state["connection"]
    if connection is None:
        return "never connected"
    return f"{'connected' if connection['online'] else 'not connected'} since {connection['since']}"


def _when(message: dict[str, Any] | None) -> str:
    return "none yet" if message is None else str(message["at"])


def _readings(message: dict[str, Any] | None) -> list[str]:
    rows = []
    for name, value in sorted((message or {"body": {}})["body"].get("values", {}).items()):
        if isinstance(value, dict):
            span = f"{_plain(value['min'])} to {_plain(value['max'])}, {value['n']} samples"
            rows.append((name, _plain(value["last"]), span))
        else:
            rows.append((name, _plain(value), ""))
    return table(("NAME", "LAST", "BETWEEN"), rows).splitlines() if rows else []


def _health(message: dict[str, Any] | None) -> list[str]:
    body = {} if message is None else message["body"]
    memory = body.get("memory", {})
    rows = [(name, _plain(body[name])) for name in ("uptime_s", "load", "rssi") if name in body]
    rows += [(f"memory_{name}", f"{size / 1e6:.0f} MB") for name, size in sorted(memory.items())]
    rows += [(name, _plain(value)) for name, value in sorted(body.get("sensors", {}).items())]
    return table(("NAME", "VALUE"), rows).splitlines() if rows else []


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _shown(value) if isinstance(value, str) else json.dumps(value)


def _shown(text: str) -> str:
    """A device's own words must not move the terminal's cursor, or worse."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
