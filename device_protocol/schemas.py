"""The schemas of docs/protocol/schemas, which are written from here (JSON Schema, draft 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from device_protocol.numbers import NUMBER_MAX

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Source = dict[str, Any]

TOKEN: Final[Source] = {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}
UUID7: Final[Source] = {
    "type": "string",
    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
}
TRACE: Final[Source] = {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}
# What no parser rounds (RFC 7493 section 2.2).
COUNT: Final[Source] = {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}
COUNT_OR_NULL: Final[Source] = {**COUNT, "type": ["integer", "null"]}
NUMBER: Final[Source] = {"type": "array", "minItems": 2, "maxItems": 2, "items": COUNT}
VERSION: Final[Source] = {"const": 1}
SHA256: Final[Source] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
ERROR: Final[Source] = {"type": "string", "maxLength": 512}

READING_NAME: Final[Source] = {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"}
READINGS_MAX: Final = 64
"""Readings in a report: one of as many aggregates stays below 16 KiB."""
PLAIN: Final[tuple[Source, ...]] = (
    {"type": ["number", "boolean"]},
    {"type": "string", "maxLength": 256},
)
COMMANDS_MAX: Final = 64
COMMAND_NAME: Final[Source] = {"type": "string", "pattern": "^[a-z0-9_-]{1,64}:?[a-z0-9_-]{0,64}$"}
"""A capability's name; `run:NAME` for an executable that the device's owner declared."""

OUTBOX: Final[Source] = {
    "type": "object",
    "properties": {name: COUNT for name in ("entries", "bytes", "dropped", "refused")},
    "required": ["entries", "bytes", "dropped", "refused"],
}

ENVELOPE: Final[Source] = {
    "title": "A message of a device",
    "description": "Other members are ignored. floor and prev: of numbered kinds, when they are sent.",
    "type": "object",
    "properties": {
        "id": UUID7,
        "v": VERSION,
        "type": TOKEN,
        "ts": COUNT_OR_NULL,
        "up": COUNT,
        "boot": COUNT,
        "seq": COUNT,
        "payload": {"type": "object"},
        "floor": NUMBER,
        "prev": NUMBER,
        "trace": {"description": "W3C traceparent; one that cannot be read is ignored."},
    },
    "required": ["id", "v", "type", "ts", "up", "boot", "seq", "payload"],
}

TELEMETRY: Final[Source] = {
    "title": "Payload of telemetry",
    "description": "Readings of the time from `from` to `to` (Unix milliseconds), aggregated or as they are.",
    "type": "object",
    "properties": {
        "from": COUNT,
        "to": COUNT,
        "values": {
            "type": "object",
            "maxProperties": READINGS_MAX,
            "propertyNames": READING_NAME,
            "additionalProperties": {
                "anyOf": [
                    *PLAIN,
                    {
                        "type": "object",
                        "properties": {
                            "n": {**COUNT, "minimum": 1},
                            **{name: {"type": "number"} for name in ("min", "max", "mean", "last")},
                        },
                        "required": ["n", "min", "max", "mean", "last"],
                    },
                ]
            },
        },
    },
    "required": ["values"],
}

STATE: Final[Source] = {
    "title": "Payload of state",
    "description": "What the device is now, in its own words; replaces what it said before.",
    "type": "object",
}

REPORTED: Final[Source] = {
    "title": "Payload of state with type config",
    "description": "What the device runs with. told: the version it was told last; error: why not with that.",
    "type": "object",
    "properties": {"version": COUNT_OR_NULL, "sha256": SHA256, "told": COUNT, "error": ERROR},
    "required": ["version"],
}

EVENT: Final[Source] = {
    "title": "Payload of event",
    "description": "What happened; the envelope's type is its name.",
    "type": "object",
}

HEARTBEAT: Final[Source] = {
    "title": "Payload of heartbeat",
    "description": "Memory in bytes; load of the last minute; sensors: at most 512 bytes of JSON.",
    "type": "object",
    "properties": {
        "uptime_s": {"type": "number", "minimum": 0},
        "memory": {"type": "object", "properties": {name: COUNT for name in ("rss", "total", "available")}},
        "load": {"type": "number", "minimum": 0},
        "rssi": {"type": "number", "minimum": -200, "maximum": 50},
        "outbox": OUTBOX,
        "sensors": {
            "type": "object",
            "propertyNames": READING_NAME,
            "additionalProperties": {"anyOf": list(PLAIN)},
        },
    },
    "required": ["uptime_s"],
}

HELLO: Final[Source] = {
    "title": "Payload of hello",
    "description": "Who is there, or, as the connection's will, that nobody is any more.",
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "gone": {"const": False},
                "boot": COUNT,
                "instance": TOKEN,
                "software": {"type": "string", "maxLength": 128},
                "type": TOKEN,
                "commands": {"type": "array", "maxItems": COMMANDS_MAX, "items": COMMAND_NAME},
                "config": COUNT_OR_NULL,
                "outbox": OUTBOX,
            },
            "required": ["boot", "instance", "software", "type"],
        },
        {
            "type": "object",
            "properties": {"gone": {"const": True}, "instance": TOKEN},
            "required": ["gone", "instance"],
        },
    ],
}

ACK: Final[Source] = {
    "title": "Payload of ack",
    "description": "ok: there with the stage done, and only then. result: at most 4096 bytes of JSON.",
    "type": "object",
    "properties": {
        "command": UUID7,
        "stage": {"enum": ["received", "done", "refused"]},
        "at": COUNT_OR_NULL,
        "ok": {"type": "boolean"},
        "error": ERROR,
    },
    "required": ["command", "stage"],
}

PREFIX: Final[Source] = {"type": "string", "maxLength": 4 * 64 + 3}
"""Four tokens with / between them."""

KEPT: Final[Source] = {
    "type": "object",
    "properties": {"v": VERSION, "boot": COUNT, "seq": COUNT},
    "required": ["v", "boot", "seq"],
}

HELLO_ANSWER: Final[Source] = {
    "type": "object",
    "properties": {
        "v": VERSION,
        "hello": COUNT,
        "boot": COUNT,
        "seq": COUNT,
        "time": COUNT,
        "prefix": PREFIX,
    },
    "required": ["v", "hello", "boot", "seq", "time", "prefix"],
}

REFUSED: Final[Source] = {
    "type": "object",
    "properties": {
        "v": VERSION,
        "refused": {"type": "string", "maxLength": 64},
        "id": {**UUID7, "type": ["string", "null"]},
    },
    "required": ["v", "refused"],
}

ACCEPTED: Final[Source] = {
    "title": "What a device is told on accepted",
    "description": "The answer to a hello where `hello` is, a refusal where `refused` is, else what is kept.",
    "anyOf": [HELLO_ANSWER, REFUSED, KEPT],
}

COMMAND: Final[Source] = {
    "title": "What a device is told on cmd",
    "type": "object",
    "properties": {
        "id": UUID7,
        "v": VERSION,
        "name": TOKEN,
        "params": {"type": "object"},
        "ttl_ms": COUNT,
        "expires": COUNT,
        "timeout_ms": COUNT,
        "trace": TRACE,
    },
    "required": ["id", "v", "name", "params", "ttl_ms", "expires", "timeout_ms"],
}

DESIRED: Final[Source] = {
    "title": "What a device is told on config",
    "description": "sha256: the gateway's name for the body; a device says it back and computes nothing.",
    "type": "object",
    "properties": {
        "v": VERSION,
        "version": {**COUNT, "minimum": 1},
        "body": {"type": "object"},
        "sha256": SHA256,
    },
    "required": ["v", "version", "body", "sha256"],
}

PUBLISHED: Final[Mapping[str, Source]] = {
    "envelope": ENVELOPE,
    "telemetry": TELEMETRY,
    "state": STATE,
    "state-config": REPORTED,
    "event": EVENT,
    "heartbeat": HEARTBEAT,
    "hello": HELLO,
    "ack": ACK,
    "accepted": ACCEPTED,
    "cmd": COMMAND,
    "config": DESIRED,
}
"""By the name of their file."""
