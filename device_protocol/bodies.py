"""What is in envelopes, and what a device is told (docs/protocol/device-v1.md, sections 5 to 8).

Bodies that are read for what they say are classes here, with `parse` and `dump`; the others (telemetry,
state, events, health) are checked and kept as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from device_protocol import strict_json
from device_protocol.errors import BadMessageError, BadTopicError, Reason
from device_protocol.numbers import Number
from device_protocol.schema import Schema
from device_protocol.schemas import (
    ACK,
    COMMAND,
    DESIRED,
    EVENT,
    HEARTBEAT,
    HELLO,
    HELLO_ANSWER,
    KEPT,
    REFUSED,
    REPORTED,
    STATE,
    TELEMETRY,
)
from device_protocol.strict_json import StrictJsonError
from device_protocol.topics import Kind, parse_topic

VERSION: Final = 1
RESULT_MAX: Final = 4096
"""Bytes of a command's result as JSON: it is a row's column and a console's line."""
SENSORS_MAX: Final = 512
"""Bytes of all custom sensors of a health report as JSON."""
CONFIG_MAX: Final = 8192
"""Bytes of a configuration's body as JSON: a small device holds two of them, the old and the new."""
CONFIG_TYPE: Final = "config"
"""The type of a state message that reports the configuration."""


@dataclass(frozen=True, slots=True)
class OutboxReport:
    """What a device holds back, and what it had to let go since its outbox was made."""

    entries: int
    bytes: int
    dropped: int
    refused: int

    def dump(self) -> dict[str, Any]:
        """As a member of hello and of the health report."""
        return {
            "entries": self.entries,
            "bytes": self.bytes,
            "dropped": self.dropped,
            "refused": self.refused,
        }


@dataclass(frozen=True, slots=True)
class Hello:
    """First thing a device says on a connection; said again until it is answered."""

    boot: int
    """0: it has no counter yet and waits for the answer."""
    instance: str
    """New at each start of the device's software: tells an old will from the present connection."""
    software: str
    type: str
    commands: tuple[str, ...] = ()
    """Names that it executes; `run:NAME` for executables of its own."""
    config: int | None = None
    """Version of the configuration that it runs with."""
    outbox: OutboxReport | None = None

    @staticmethod
    def parse(body: Mapping[str, Any]) -> Hello | Gone:
        """An envelope's payload of kind hello. BadMessageError."""
        _check(_HELLO, body)
        if body.get("gone"):
            return Gone(body["instance"])
        outbox = body.get("outbox")
        return Hello(
            boot=body["boot"],
            instance=body["instance"],
            software=body["software"],
            type=body["type"],
            commands=tuple(body.get("commands", ())),
            config=body.get("config"),
            outbox=None if outbox is None else _outbox(outbox),
        )

    def dump(self) -> dict[str, Any]:
        """The payload."""
        body: dict[str, Any] = {
            "boot": self.boot,
            "instance": self.instance,
            "software": self.software,
            "type": self.type,
            "commands": list(self.commands),
            "config": self.config,
        }
        if self.outbox is not None:
            body["outbox"] = self.outbox.dump()
        return body


@dataclass(frozen=True, slots=True)
class Gone:
    """A device's will: its connection ended. Means nothing once another instance has said hello."""

    instance: str

    def dump(self) -> dict[str, Any]:
        """The payload, of kind hello."""
        return {"gone": True, "instance": self.instance}


@dataclass(frozen=True, slots=True)
class Accepted:
    """Everything up to `number` is kept: the device drops it from its outbox."""

    number: Number

    def dump(self) -> bytes:
        """The message."""
        return strict_json.dumps({"v": VERSION, "boot": self.number.boot, "seq": self.number.seq})


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """What the gateway knows of the device that said hello."""

    hello: int
    """The boot that the hello told."""
    known: Number
    """The highest number that was taken; a device whose boot is not above its boot jumps past it."""
    time: int
    """Unix milliseconds."""
    prefix: str
    """Of its topics; another than before once it was moved."""

    def dump(self) -> bytes:
        """The message."""
        return strict_json.dumps(
            {
                "v": VERSION,
                "hello": self.hello,
                "boot": self.known.boot,
                "seq": self.known.seq,
                "time": self.time,
                "prefix": self.prefix,
            }
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A message became a dead letter. `id`: None when that could not be read."""

    reason: Reason
    id: str | None

    def dump(self) -> bytes:
        """The message."""
        return strict_json.dumps({"v": VERSION, "refused": self.reason.value, "id": self.id})


def parse_accepted(raw: bytes) -> Accepted | HelloAnswer | Refused:
    """A message of kind accepted. BadMessageError; a reason that is not known reads as bad_schema."""
    body = _told(raw)
    if "refused" in body:
        _check(_REFUSED, body)
        try:
            reason = Reason(body["refused"])
        except ValueError:
            reason = Reason.BAD_SCHEMA
        return Refused(reason, body.get("id"))
    _check(_HELLO_ANSWER if "hello" in body else _KEPT, body)
    number = Number(body["boot"], body["seq"])
    if "hello" in body:
        try:
            parse_topic(f"{body['prefix']}/{Kind.HELLO}")
        except BadTopicError:
            raise BadMessageError(Reason.BAD_SCHEMA, "prefix: not four tokens") from None
        return HelloAnswer(body["hello"], number, body["time"], body["prefix"])
    return Accepted(number)


@dataclass(frozen=True, slots=True)
class Command:
    """What a device is asked to do once."""

    id: str
    name: str
    params: dict[str, Any]
    ttl_ms: int
    """From its receipt: later it must not begin. What was left when this was published."""
    expires: int
    """Unix milliseconds at which its ttl is over: until then, and a week more, its id is remembered."""
    timeout_ms: int
    """From when it begins: what runs longer is stopped."""
    trace: str | None = None

    @staticmethod
    def parse(raw: bytes) -> Command:
        """A message of kind cmd. BadMessageError."""
        body = _loads(raw, _COMMAND)
        return Command(
            id=body["id"],
            name=body["name"],
            params=body["params"],
            ttl_ms=body["ttl_ms"],
            expires=body["expires"],
            timeout_ms=body["timeout_ms"],
            trace=body.get("trace"),
        )

    def dump(self) -> bytes:
        """The message."""
        body: dict[str, Any] = {
            "id": self.id,
            "v": VERSION,
            "name": self.name,
            "params": self.params,
            "ttl_ms": self.ttl_ms,
            "expires": self.expires,
            "timeout_ms": self.timeout_ms,
        }
        if self.trace is not None:
            body["trace"] = self.trace
        return strict_json.dumps(body)


class Stage(StrEnum):
    """How far a command came on the device."""

    RECEIVED = "received"
    """Its id is stored: it will be executed, or an answer given, whatever happens."""
    DONE = "done"
    REFUSED = "refused"
    """It was not begun, and will not be."""


@dataclass(frozen=True, slots=True)
class Ack:
    """A device's answer to a command. Said again whenever the command comes again."""

    command: str
    stage: Stage
    at: int | None = None
    """Unix milliseconds by the device's clock; None: it has none."""
    ok: bool | None = None
    """Of `done`: whether it did what was asked."""
    result: Any = None
    """Of `done`: any JSON of at most RESULT_MAX bytes."""
    error: str | None = None
    """Why not; a token such as `interrupted`, `expired`, `busy`, or a line of text."""

    @staticmethod
    def parse(body: Mapping[str, Any]) -> Ack:
        """An envelope's payload of kind ack. BadMessageError."""
        _check_ack(body)
        return Ack(
            command=body["command"],
            stage=Stage(body["stage"]),
            at=body.get("at"),
            ok=body.get("ok"),
            result=body.get("result"),
            error=body.get("error"),
        )

    def dump(self) -> dict[str, Any]:
        """The payload."""
        body: dict[str, Any] = {"command": self.command, "stage": self.stage.value, "at": self.at}
        if self.ok is not None:
            body["ok"] = self.ok
        if self.result is not None:
            body["result"] = self.result
        if self.error is not None:
            body["error"] = self.error
        return body


@dataclass(frozen=True, slots=True)
class Desired:
    """The configuration that a device should run with."""

    version: int
    """From 1; a device never goes back to a lower one."""
    body: dict[str, Any]
    sha256: str
    """The gateway's name for the body, 64 hex digits."""

    @staticmethod
    def parse(raw: bytes) -> Desired:
        """A message of kind config. BadMessageError."""
        body = _loads(raw, _DESIRED)
        return Desired(body["version"], body["body"], body["sha256"])

    def dump(self) -> bytes:
        """The message."""
        return strict_json.dumps(
            {"v": VERSION, "version": self.version, "body": self.body, "sha256": self.sha256}
        )


@dataclass(frozen=True, slots=True)
class Reported:
    """The configuration that a device runs with."""

    version: int | None
    """None: it has none."""
    sha256: str | None = None
    """As it was told."""
    told: int | None = None
    """The version that it was told last: this report answers it. None: it was told none, or does not say."""
    error: str | None = None
    """Why it does not run with the one that it was told last."""

    @staticmethod
    def parse(body: Mapping[str, Any]) -> Reported:
        """The payload of a state whose type is CONFIG_TYPE. BadMessageError."""
        _check(_REPORTED, body)
        return Reported(body["version"], body.get("sha256"), body.get("told"), body.get("error"))

    def dump(self) -> dict[str, Any]:
        """The payload."""
        body: dict[str, Any] = {"version": self.version}
        if self.sha256 is not None:
            body["sha256"] = self.sha256
        if self.told is not None:
            body["told"] = self.told
        if self.error is not None:
            body["error"] = self.error
        return body


def check_body(kind: Kind, type_: str, body: Mapping[str, Any]) -> None:
    """An envelope's payload is what its kind says. BadMessageError."""
    if kind is Kind.ACK:
        _check_ack(body)
    elif kind is Kind.HEARTBEAT:
        _check(_HEARTBEAT, body)
        _within(body.get("sensors"), SENSORS_MAX, "sensors")
    elif kind is Kind.STATE and type_ == CONFIG_TYPE:
        _check(_REPORTED, body)
    else:
        _check(_BODIES[kind], body)


_HELLO: Final = Schema(HELLO)
_KEPT: Final = Schema(KEPT)
_HELLO_ANSWER: Final = Schema(HELLO_ANSWER)
_REFUSED: Final = Schema(REFUSED)
_COMMAND: Final = Schema(COMMAND)
_ACK: Final = Schema(ACK)
_DESIRED: Final = Schema(DESIRED)
_HEARTBEAT: Final = Schema(HEARTBEAT)
_REPORTED: Final = Schema(REPORTED)
_BODIES: Final = {
    Kind.HELLO: _HELLO,
    Kind.TELEMETRY: Schema(TELEMETRY),
    Kind.STATE: Schema(STATE),
    Kind.EVENT: Schema(EVENT),
}


def _check(schema: Schema, body: object) -> None:
    fault = schema.fault(body)
    if fault is not None:
        raise BadMessageError(Reason.BAD_SCHEMA, fault)


def _check_ack(body: Mapping[str, Any]) -> None:
    _check(_ACK, body)
    if (body["stage"] == Stage.DONE) != ("ok" in body):
        raise BadMessageError(Reason.BAD_SCHEMA, "ok: there with the stage done, and only then")
    _within(body.get("result"), RESULT_MAX, "result")


def _within(value: Any, most: int, name: str) -> None:
    if value is not None and len(strict_json.dumps(value)) > most:
        raise BadMessageError(Reason.BAD_SCHEMA, f"{name}: more than {most} bytes")


def _loads(raw: bytes, schema: Schema) -> dict[str, Any]:
    body = _told(raw)
    _check(schema, body)
    return body


def _told(raw: bytes) -> dict[str, Any]:
    """A message that is told to a device: no envelope is around it."""
    try:
        body = strict_json.loads(raw)
    except StrictJsonError as error:
        raise BadMessageError(Reason.BAD_JSON, error.detail) from None
    if not isinstance(body, dict):
        raise BadMessageError(Reason.BAD_SCHEMA, "not an object")
    version = body.get("v")
    if type(version) is not int or version != VERSION:
        raise BadMessageError(Reason.WRONG_VERSION, f"v is not {VERSION}")
    return body


def _outbox(body: Mapping[str, Any]) -> OutboxReport:
    return OutboxReport(body["entries"], body["bytes"], body["dropped"], body["refused"])
