"""Firmware images: a signed head in front of what the chip runs (docs/protocol/firmware-image-v1.md).

    sign_firmware.py new-key KEY.pem
    sign_firmware.py public KEY.pem
    sign_firmware.py sign --key KEY.pem --target esp32c3 --hardware BOARD --version 1.2.3 APP.bin IMAGE.twf
    sign_firmware.py show IMAGE.twf [--public HEX]

The private key belongs on a machine without a network: whoever has it can make every device run anything.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

HEAD_BYTES: Final = 256
SIGNED_BYTES: Final = 192
HARDWARE_MAX: Final = 31  # bytes; a NUL ends it
KEY_ID_BYTES: Final = 16
MAX_NUMBER: Final = 0xFFFF_FFFF
_MAGIC: Final = b"TWLF"
_FORMAT: Final = 1
# Up to the key id; what follows up to the signature is zero.
_HEAD: Final = struct.Struct(">4sHHHH3III32s32s16s")
# The chips' numbers are ESP-IDF's (esp_chip_id_t); the simulator's is beyond them.
TARGETS: Final = {"esp32": 0x0000, "esp32c3": 0x0005, "esp32s3": 0x0009, "simulator": 0xF001}


class BadImage(Exception):
    """What is wrong with an image, a key or what was asked for."""


@dataclass(frozen=True)
class Head:
    """What a head says. `size`: bytes of the binary behind it; `digest`: their SHA-256."""

    target: int
    hardware: str
    version: tuple[int, int, int]
    security: int
    size: int
    digest: bytes
    key_id: bytes

    def signed_part(self) -> bytes:
        """The 192 bytes that the signature is over."""
        hardware = self.hardware.encode("ascii")
        packed = _HEAD.pack(
            _MAGIC,
            _FORMAT,
            HEAD_BYTES,
            self.target,
            0,
            *self.version,
            self.security,
            self.size,
            self.digest,
            hardware,
            self.key_id,
        )
        return packed.ljust(SIGNED_BYTES, b"\0")


def public_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """The 65 bytes that are compiled into the firmware: 4, x, y."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def key_id(point: bytes) -> bytes:
    return hashlib.sha256(point).digest()[:KEY_ID_BYTES]


def sign_part(part: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """r and s of 32 bytes each (RFC 6979: the same bytes give the same signature)."""
    signature = key.sign(part, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def signature_holds(head: bytes, point: bytes) -> bool:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    r, s = head[SIGNED_BYTES : SIGNED_BYTES + 32], head[SIGNED_BYTES + 32 : HEAD_BYTES]
    signature = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    try:
        key.verify(signature, head[:SIGNED_BYTES], ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def make_image(
    binary: bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    target: int,
    hardware: str,
    version: tuple[int, int, int],
    security: int = 0,
) -> bytes:
    """A whole image: head and binary.

    Raises:
        BadImage: the hardware's name, a number or the binary is none that a head can tell.
    """
    if not (hardware.isascii() and hardware.isprintable() and 0 < len(hardware) <= HARDWARE_MAX):
        raise BadImage(f"hardware is a name of 1 to {HARDWARE_MAX} printable ASCII characters")
    if not all(0 <= number <= MAX_NUMBER for number in (*version, security)):
        raise BadImage(f"numbers of a version are 0 to {MAX_NUMBER}")
    if not 0 < len(binary) <= MAX_NUMBER:
        raise BadImage("the binary is empty, or larger than any flash")
    signer = key_id(public_point(key.public_key()))
    digest = hashlib.sha256(binary).digest()
    head = Head(target, hardware, version, security, len(binary), digest, signer)
    part = head.signed_part()
    return part + sign_part(part, key) + binary


def read_head(image: bytes) -> Head:
    """What the head says, believed or not.

    Raises:
        BadImage: it is no head of this format.
    """
    if len(image) < HEAD_BYTES:
        raise BadImage("shorter than a head")
    magic, form, length, target, *rest = _HEAD.unpack_from(image)
    if (magic, form, length) != (_MAGIC, _FORMAT, HEAD_BYTES):
        raise BadImage("no firmware image of format 1")
    _, major, minor, patch, security, size, digest, hardware, signer = rest
    try:
        name = hardware.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise BadImage("the hardware's name is not ASCII") from error
    return Head(target, name, (major, minor, patch), security, size, digest, signer)


# --- the command line ---


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadImage(f"{path} holds no P-256 key")
    return key


def _new_key(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Never over another key: devices in the field may know no other.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(pem)
    print(public_point(key.public_key()).hex())


def _version(text: str) -> tuple[int, int, int]:
    numbers = text.split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise argparse.ArgumentTypeError("MAJOR.MINOR.PATCH")
    major, minor, patch = map(int, numbers)
    return major, minor, patch


def _sign(given: argparse.Namespace) -> None:
    image = make_image(
        given.binary.read_bytes(),
        _read_key(given.key),
        target=TARGETS[given.target],
        hardware=given.hardware,
        version=given.version,
        security=given.security,
    )
    given.image.write_bytes(image)
    print(f"{given.image}: {len(image)} bytes")


def _show(given: argparse.Namespace) -> None:
    image = given.image.read_bytes()
    head = read_head(image)
    names = {number: name for name, number in TARGETS.items()}
    print(f"target    {names.get(head.target, hex(head.target))}")
    print(f"hardware  {head.hardware}")
    print(f"version   {'.'.join(map(str, head.version))}")
    print(f"security  {head.security}")
    print(f"size      {head.size}")
    print(f"key       {head.key_id.hex()}")
    binary = image[HEAD_BYTES:]
    if len(binary) != head.size or hashlib.sha256(binary).digest() != head.digest:
        raise BadImage("the binary is not what the head tells")
    if given.public is not None:
        point = bytes.fromhex(given.public)
        if key_id(point) != head.key_id or not signature_holds(image, point):
            raise BadImage("the signature is not this key's")
        print("signature holds")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make keys for firmware, sign images, show them.")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new-key", help="make a key (mode 0600), print its public half")
    new.add_argument("key", type=Path, metavar="KEY.pem")
    public = commands.add_parser("public", help="print the public half, as the firmware's build takes it")
    public.add_argument("key", type=Path, metavar="KEY.pem")
    sign = commands.add_parser("sign", help="put a signed head in front of a binary")
    sign.add_argument("--key", type=Path, required=True, metavar="KEY.pem")
    sign.add_argument("--target", choices=TARGETS, required=True, help="the chip")
    sign.add_argument("--hardware", required=True, help="the board's name, as its firmware was built with")
    sign.add_argument("--version", type=_version, required=True, metavar="1.2.3")
    sign.add_argument(
        "--security",
        type=int,
        default=0,
        metavar="N",
        help="raise it when no older image may ever run again (default 0)",
    )
    sign.add_argument("binary", type=Path, metavar="APP.bin")
    sign.add_argument("image", type=Path, metavar="IMAGE.twf")
    show = commands.add_parser("show", help="tell what a head says, check the binary and the signature")
    show.add_argument("image", type=Path, metavar="IMAGE.twf")
    show.add_argument("--public", metavar="HEX", help="the public half that must have signed it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        if given.command == "new-key":
            _new_key(given.key)
        elif given.command == "public":
            print(public_point(_read_key(given.key).public_key()).hex())
        elif given.command == "sign":
            _sign(given)
        else:
            _show(given)
    except (BadImage, OSError, ValueError) as error:
        print(f"sign_firmware: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
