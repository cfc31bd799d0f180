"""Heads of images, good and bad, as docs/protocol/vectors/image.json has them; as a module it writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from scripts.sign_firmware import (
    SIGNED_BYTES,
    TARGETS,
    Head,
    key_id,
    public_point,
    sign_part,
)

FILE: Final = Path(__file__).parents[2] / "docs" / "protocol" / "vectors" / "image.json"
ABOUT: Final = (
    "Firmware image heads (firmware-image-v1.md): `device` says what runs and what it takes; a case is a "
    "head, whether it is forced, and why it is refused (null: it is taken)."
)
_BINARY: Final = b"what the chip runs"
_KEY: Final = ec.derive_private_key(
    int.from_bytes(hashlib.sha256(b"firmware key").digest(), "big"), ec.SECP256R1()
)
_SPARE: Final = ec.derive_private_key(
    int.from_bytes(hashlib.sha256(b"spare key").digest(), "big"), ec.SECP256R1()
)
_FOREIGN: Final = ec.derive_private_key(
    int.from_bytes(hashlib.sha256(b"foreign").digest(), "big"), ec.SECP256R1()
)
DEVICE: Final[dict[str, Any]] = {
    "keys": [public_point(key.public_key()).hex() for key in (_KEY, _SPARE)],
    "target": TARGETS["simulator"],
    "hardware": "towline-simulator",
    "version": [1, 2, 3],
    "security": 2,
    "floor": 3,
    "largest": 100_000,
}
GOOD: Final = Head(
    target=TARGETS["simulator"],
    hardware="towline-simulator",
    version=(1, 2, 4),
    security=3,
    size=len(_BINARY),
    digest=hashlib.sha256(_BINARY).digest(),
    key_id=key_id(public_point(_KEY.public_key())),
)
NO_IMAGE: Final = "It is no firmware image."
UNKNOWN_KEY: Final = "It was signed with a key that is not known here."
BAD_SIGNATURE: Final = "Its signature does not hold."
MORE: Final = "It asks for more than this firmware knows."
OTHER_CHIP: Final = "It is for another chip."
OTHER_HARDWARE: Final = "It is for other hardware."
NO_ROOM: Final = "It does not fit."
TOO_OLD: Final = "Its security version is too old."
NOT_NEWER: Final = "It is not newer than what runs here."


@dataclass(frozen=True)
class Case:
    name: str
    head: bytes
    why: str | None
    force: bool = False

    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "head": self.head.hex(), "force": self.force, "why": self.why}


def signed(part: bytes, key: ec.EllipticCurvePrivateKey = _KEY) -> bytes:
    return part + sign_part(part, key)


def _with(**changes: Any) -> bytes:
    return signed(replace(GOOD, **changes).signed_part())


def _patched(at: int, raw: bytes) -> bytes:
    """A good signature over a part that no honest tool writes."""
    part = bytearray(GOOD.signed_part())
    part[at : at + len(raw)] = raw
    return signed(bytes(part))


def _good() -> Iterator[Case]:
    spare = replace(GOOD, key_id=key_id(public_point(_SPARE.public_key())))
    yield Case("the next patch", _with(), None)
    yield Case("by the spare key", signed(spare.signed_part(), _SPARE), None)
    yield Case("the next minor", _with(version=(1, 3, 0)), None)
    yield Case("the next major", _with(version=(2, 0, 0)), None)
    yield Case("a large number", _with(version=(1, 2, 0xFFFF_FFFF), security=0xFFFF_FFFF), None)
    yield Case("as large as fits", _with(size=100_000), None)
    yield Case("of one byte", _with(size=1), None)
    yield Case("the same version, forced", _with(version=(1, 2, 3)), None, force=True)
    yield Case("an older version, forced", _with(version=(0, 9, 0)), None, force=True)


def _forms() -> Iterator[Case]:
    yield Case("another magic", _patched(3, b"G"), NO_IMAGE)
    yield Case("format 0", _patched(5, b"\x00"), NO_IMAGE)
    yield Case("format 2", _patched(5, b"\x02"), NO_IMAGE)
    yield Case("a longer head", _patched(7, b"\x01"), NO_IMAGE)
    yield Case("all zero", bytes(256), NO_IMAGE)
    yield Case("a binary without a head", b"\xe9\x06\x02\x2f" + bytes(252), NO_IMAGE)
    yield Case("reserved bytes behind the target", _patched(11, b"\x01"), MORE)
    yield Case("reserved bytes behind the key", _patched(112, b"\x01"), MORE)
    yield Case("reserved bytes before the signature", _patched(SIGNED_BYTES - 1, b"\x80"), MORE)


def _signatures() -> Iterator[Case]:
    foreign = replace(GOOD, key_id=key_id(public_point(_FOREIGN.public_key())))
    good = _with()
    yield Case("by a foreign key", signed(foreign.signed_part(), _FOREIGN), UNKNOWN_KEY)
    yield Case("by a foreign key under our name", signed(GOOD.signed_part(), _FOREIGN), BAD_SIGNATURE)
    yield Case("by the spare key under the first's name", signed(GOOD.signed_part(), _SPARE), BAD_SIGNATURE)
    yield Case("no key id", _patched(96, bytes(16)), UNKNOWN_KEY)
    yield Case("no signature", good[:SIGNED_BYTES] + bytes(64), BAD_SIGNATURE)
    yield Case("all ones", good[:SIGNED_BYTES] + b"\xff" * 64, BAD_SIGNATURE)
    yield Case("r and s the other way round", good[:192] + good[224:] + good[192:224], BAD_SIGNATURE)
    for at in (8, 12, 23, 27, 28, 31, 32, 63, 64, 80, 112, 191, 192, 223, 224, 255):
        flipped = bytearray(good)
        flipped[at] ^= 1
        yield Case(f"a bit of byte {at} changed", bytes(flipped), BAD_SIGNATURE)


def _devices() -> Iterator[Case]:
    yield Case("for an ESP32-C3", _with(target=TARGETS["esp32c3"]), OTHER_CHIP)
    yield Case("for other hardware", _with(hardware="towline-simulatox"), OTHER_HARDWARE)
    yield Case("for hardware with a longer name", _with(hardware="towline-simulator2"), OTHER_HARDWARE)
    yield Case("for hardware with a shorter name", _with(hardware="towline-simulato"), OTHER_HARDWARE)
    yield Case("for no hardware", _with(hardware=""), OTHER_HARDWARE)
    yield Case("a name that goes on behind its end", _patched(95, b"x"), OTHER_HARDWARE)
    yield Case("empty", _with(size=0), NO_ROOM)
    yield Case("a byte too large", _with(size=100_001), NO_ROOM)
    yield Case("as large as numbers get", _with(size=0xFFFF_FFFF), NO_ROOM)
    yield Case("the same version", _with(version=(1, 2, 3)), NOT_NEWER)
    yield Case("the patch before", _with(version=(1, 2, 2)), NOT_NEWER)
    yield Case("an older minor with a larger patch", _with(version=(1, 1, 9)), NOT_NEWER)
    yield Case("an older major with a larger minor", _with(version=(0, 9, 9)), NOT_NEWER)
    yield Case("below the floor", _with(security=2), TOO_OLD)
    yield Case("below what runs", _with(security=1), TOO_OLD)
    yield Case("below the floor, forced", _with(security=2), TOO_OLD, force=True)
    yield Case("for another chip, forced", _with(target=TARGETS["esp32"]), OTHER_CHIP, force=True)
    yield Case("a broken signature, forced", _with()[:-1] + b"\x00", BAD_SIGNATURE, force=True)


def cases() -> list[Case]:
    return [*_good(), *_forms(), *_signatures(), *_devices()]


def document() -> str:
    whole = {"about": ABOUT, "device": DEVICE, "cases": [case.entry() for case in cases()]}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
