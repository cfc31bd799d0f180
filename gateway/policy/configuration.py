"""What a device should run with: whether its type takes it, its name, when the device is told again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from device_protocol.bodies import Reported
from device_protocol.schema import Schema
from gateway.policy.capabilities import BadParameterError, UnsupportedError, field_of

# Of what a device says that it runs with. No device was ever set so often: whoever says more is not believed,
# since the next version must be above it, and numbers end.
VERSION_MAX: Final = 2**31
_UNNAMED: Final = ("a member: ", "a member's name: ")  # of device_protocol.schema
_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Told again while the device is there and no report answers. The first waits cover a restart of a part on the
# way; the last is for a device that does not know of configurations.
_TAKEN_S: Final = (5.0, 10.0, 20.0, 40.0, 60.0, 300.0, 900.0, 3600.0)
# The broker is away, which the gateway notices when it is back.
BROKER_AWAY_S: Final = 1.0
# A hello is answered at once; those behind it once in so long. A few bytes, said again and again, would have
# up to 8 KiB published each time.
HELLO_S: Final = 5.0


def check(capabilities: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """The type with these capabilities takes `body`. UnsupportedError, BadParameterError."""
    source = capabilities.get("config")
    if source is None:
        raise UnsupportedError("Devices of this type take no configuration.")
    schema = Schema(source)
    fault = schema.fault(dict(body))
    if fault is None:
        return
    name = _odd_member(schema, source, body) if fault.startswith(_UNNAMED) else None
    if name is not None:
        raise BadParameterError(f"body.{name}", f"{name}: {fault.partition(': ')[2]}")
    raise BadParameterError(field_of("body", fault), fault)


def _odd_member(schema: Schema, source: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    """The member that is at fault and that the type does not know by name: a schema's own words leave it out,
    since they are kept. None: it is no plain word, which may be anything.
    """
    known = {name: value for name, value in body.items() if name in source.get("properties", {})}
    for name, value in body.items():
        if name in known or schema.fault({**known, name: value}) is None:
            continue
        return name if _WORD.fullmatch(name) else None
    return None


def name_of(body: Mapping[str, Any]) -> str:
    """SHA-256 of the body as JSON with its members in order, 64 hex digits: equal bodies have one name."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def next_version(newest: int, reported: int | None) -> int:
    """Above every version of the device that is known: it never goes back to a lower one. What it reports may
    be above ours where the database was put back.
    """
    known = reported if reported is not None and reported <= VERSION_MAX else 0
    return max(newest, known) + 1


def drifts(wanted: tuple[int, str] | None, reported: Reported | None) -> bool:
    """Whether the device runs with another one than it should: another version, or another body.

    `wanted`: version and name; None: nobody at its site wants any.
    """
    runs = None if reported is None or reported.version is None else (reported.version, reported.sha256)
    return runs != wanted


def answers(reported: Reported, version: int) -> bool:
    """Whether the device has been told this version, as far as its report goes."""
    return version in {reported.version, reported.told}


def due_at(last: float | None, now: float) -> float:
    """From when on a hello is answered, in Unix seconds. `last`: what this said of the hello before it."""
    if last is None or last > now + HELLO_S:  # the clock went back
        return now
    return last if last > now else max(now, last + HELLO_S)


def again_s(publishes: int) -> float:
    """After as many publishes that the broker took, how long the device has to answer."""
    return _TAKEN_S[min(max(publishes, 1), len(_TAKEN_S)) - 1]
