"""The envelope of every message of a device: bytes in, values out (docs/protocol/device-v1.md, section 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from device_protocol import strict_json
from device_protocol.bodies import check_body
from device_protocol.errors import BadMessageError, Reason, Standing
from device_protocol.ids import UUID7
from device_protocol.numbers import NUMBER_MAX, Number
from device_protocol.strict_json import Fault, StrictJsonError
from device_protocol.topics import NUMBERED, TOKEN, UP, Kind

VERSION: Final = 1
STORED_MAX: Final = 16 * 1024
"""Bytes of an envelope in a device's outbox, before floor, prev and trace are added."""
MESSAGE_MAX: Final = 24 * 1024
"""Bytes of one on the way: a small device holds two of them in its memory."""
READ_MAX: Final = 32 * 1024
"""Bytes up to which a message that is too large is still read for its number; brokers take no more."""
TRACE: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, `traceparent` of version 00."""

_REASONS: Final = {
    Fault.NO_UTF8: Reason.BAD_UTF8,
    Fault.NO_JSON: Reason.BAD_JSON,
    Fault.TWICE: Reason.BAD_JSON,
    Fault.TOO_DEEP: Reason.TOO_DEEP,
    Fault.ODD_TEXT: Reason.BAD_JSON,
}


@dataclass(slots=True)  # not frozen, though nobody changes one: a tenth of what reading it costs
class Envelope:
    """One message of a device."""

    kind: Kind
    id: str
    """UUIDv7; the same however often the message is sent or numbered anew."""
    type: str
    """A token: the kind's own name, or what it is of the kind (an event's name; `config` of state)."""
    ts: int | None
    """Unix milliseconds when it was made; None: the device had no clock."""
    up: int
    """Milliseconds since the boot when it was made."""
    number: Number
    """Of kinds that are not numbered the seq is 0, and the boot of a device that has none yet."""
    payload: dict[str, Any]
    floor: Number | None = None
    """The highest number that the device knew to be accepted when it was sent; None: in the outbox, or of a
    kind that is not numbered.
    """
    prev: Number | None = None
    """Of the entry before it in the outbox; None: the one before it by number."""
    trace: str | None = None
    """`traceparent`."""

    @property
    def standing(self) -> Standing | None:
        """Where it stands in the line; None: it is not numbered, or was not sent yet."""
        if self.floor is None or self.kind not in NUMBERED:
            return None
        return Standing(self.number, self.prev or _before(self.number), self.floor)


def decode(kind: Kind, raw: bytes) -> Envelope:
    """A message as it came. BadMessageError, with its standing where that can be read."""
    return _decode(kind, raw, sent=True)


def decode_stored(kind: Kind, raw: bytes) -> Envelope:
    """An entry of an outbox: numbered or not, it has no floor and no prev. BadMessageError."""
    return _decode(kind, raw, sent=False)


def encode(envelope: Envelope) -> bytes:
    """As it is stored (`floor` is None) or sent. BadMessageError when no reader would take it: the caller
    learns that before it is numbered, and not from a dead letter.
    """
    members: dict[str, Any] = {
        "id": envelope.id,
        "v": VERSION,
        "type": envelope.type,
        "ts": envelope.ts,
        "up": envelope.up,
        "boot": envelope.number.boot,
        "seq": envelope.number.seq,
        "payload": envelope.payload,
    }
    sending = {"floor": envelope.floor, "prev": envelope.prev, "trace": envelope.trace}
    members.update((name, value) for name, value in sending.items() if value is not None)
    try:
        raw = strict_json.dumps(members)
    except (ValueError, TypeError, RecursionError):
        raise BadMessageError(Reason.BAD_JSON, "no JSON can be made of it", id=envelope.id) from None
    sent = envelope.floor is not None or envelope.kind not in NUMBERED
    if not sent and len(raw) > STORED_MAX:
        raise BadMessageError(Reason.TOO_LARGE, f"more than {STORED_MAX} bytes", id=envelope.id)
    _decode(envelope.kind, raw, sent=sent)
    return raw


def sent(stored: bytes, *, floor: Number, prev: Number | None = None, trace: str | None = None) -> bytes:
    """What goes out for a numbered entry that `encode` made without floor, prev and trace: those are added,
    nothing is read anew. `prev`: None where it is (boot, seq - 1) and seq is not 1.
    """
    added: dict[str, Any] = {"floor": floor}
    if prev is not None:
        added["prev"] = prev
    if trace is not None:
        added["trace"] = trace
    return stored[:-1] + b"," + strict_json.dumps(added)[1:]


def renumbered(kind: Kind, stored: bytes, number: Number) -> bytes:
    """The same entry of an outbox under another number; its id stays."""
    return encode(replace(decode_stored(kind, stored), number=number))


def _decode(kind: Kind, raw: bytes, *, sent: bool) -> Envelope:
    if kind not in UP:
        raise BadMessageError(Reason.WRONG_KIND, "no kind that a device says")
    if len(raw) > READ_MAX:
        raise BadMessageError(Reason.TOO_LARGE, f"more than {READ_MAX} bytes")
    try:
        message = strict_json.loads(raw)
    except StrictJsonError as error:
        raise BadMessageError(_REASONS[error.fault], error.detail) from None
    if not isinstance(message, dict):
        raise BadMessageError(Reason.BAD_SCHEMA, "not an object")
    id = message.get("id")
    if not isinstance(id, str) or UUID7.fullmatch(id) is None:
        id = None
    floor = prev = standing = None
    try:
        if kind in NUMBERED:
            number = _number(message)
            if sent:
                floor, prev = _neighbours(message, number)
                standing = Standing(number, prev or _before(number), floor)
        else:
            number = _no_number(message)
    except _WrongError as error:
        raise BadMessageError(Reason.BAD_SCHEMA, str(error), id=id) from None
    try:
        return _rest(kind, message, len(raw), id, number, floor, prev)
    except _WrongError as error:
        raise BadMessageError(error.reason, str(error), standing=standing, id=id) from None
    except BadMessageError as error:
        raise BadMessageError(error.reason, error.detail, standing=standing, id=id) from None


def _rest(
    kind: Kind,
    message: dict[str, Any],
    size: int,
    id: str | None,
    number: Number,
    floor: Number | None,
    prev: Number | None,
) -> Envelope:
    """All but the numbers."""
    if size > MESSAGE_MAX:
        raise _WrongError(f"more than {MESSAGE_MAX} bytes", Reason.TOO_LARGE)
    version = message.get("v")
    if type(version) is not int or version != VERSION:
        raise _WrongError(f"v is not {VERSION}", Reason.WRONG_VERSION)
    if id is None:
        raise _WrongError("id: no UUID of version 7 in lower case")
    type_ = message.get("type")
    if type_ != kind.value and (not isinstance(type_, str) or TOKEN.fullmatch(type_) is None):
        raise _WrongError("type: no token")
    ts = message.get("ts", _MISSING)
    if ts is not None and not _whole(ts):
        raise _WrongError("ts: neither null nor Unix milliseconds")
    up = message.get("up")
    if type(up) is not int or not _whole(up):
        raise _WrongError("up: no milliseconds")
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise _WrongError("payload: not an object")
    check_body(kind, type_, payload)
    trace = message.get("trace")
    if not isinstance(trace, str) or TRACE.fullmatch(trace) is None:
        trace = None  # one that cannot be read is as none (Trace Context section 3.2)
    return Envelope(kind, id, type_, ts, up, number, payload, floor, prev, trace)


_MISSING: Final = object()


class _WrongError(Exception):
    """A member is not what it must be; the text never holds the device's own words."""

    def __init__(self, detail: str, reason: Reason = Reason.BAD_SCHEMA) -> None:
        super().__init__(detail)
        self.reason = reason


def _number(message: dict[str, Any]) -> Number:
    boot, seq = message.get("boot"), message.get("seq")
    # Written out, as `_whole` is below: each message is looked at here, at least twice on its way.
    if type(boot) is int and type(seq) is int and 1 <= boot <= NUMBER_MAX and 1 <= seq <= NUMBER_MAX:
        return Number(boot, seq)
    raise _WrongError(f"boot, seq: not whole numbers of 1..{NUMBER_MAX}")


def _no_number(message: dict[str, Any]) -> Number:
    boot = message.get("boot")
    if type(boot) is not int or not _whole(boot):
        raise _WrongError(f"boot: no whole number of 0..{NUMBER_MAX}")
    seq = message.get("seq")
    if not _whole(seq) or seq != 0:
        raise _WrongError("seq: not 0 in a message that is not numbered")
    return Number(boot, 0)


def _neighbours(message: dict[str, Any], number: Number) -> tuple[Number, Number | None]:
    floor = _pair(message.get("floor"))
    if floor is None or floor >= number:
        raise _WrongError("floor: no number below the message's own")
    if "prev" not in message:
        if number.seq == 1:
            raise _WrongError("prev: missing in a boot's first message")
        return floor, None
    prev = _pair(message["prev"])
    if prev is None or prev >= number:
        raise _WrongError("prev: no number below the message's own")
    return floor, prev


def _pair(value: object) -> Number | None:
    if type(value) is not list or len(value) != 2:
        return None
    boot, seq = value
    if type(boot) is int and type(seq) is int and 0 <= boot <= NUMBER_MAX and 0 <= seq <= NUMBER_MAX:
        return Number(boot, seq)
    return None


def _before(number: Number) -> Number:
    return Number(number.boot, number.seq - 1)


def _whole(value: object) -> bool:
    """An integer that every parser keeps exactly; True and 1.0 are none."""
    return type(value) is int and 0 <= value <= NUMBER_MAX
