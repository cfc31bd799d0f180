"""The image vectors as Python reads them (C reads the same file), and the tool that signs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.sign_firmware import (
    HEAD_BYTES,
    TARGETS,
    BadImage,
    key_id,
    main,
    make_image,
    read_head,
    signature_holds,
)
from tests.firmware import image_vectors as vectors

WHOLE: Final[dict[str, Any]] = json.loads(vectors.FILE.read_text(encoding="utf-8"))
DEVICE: Final = WHOLE["device"]
KEYS: Final = [bytes.fromhex(point) for point in DEVICE["keys"]]


def _judge_contents(raw: bytes, force: bool) -> str | None:
    head = read_head(raw)
    if head.target != DEVICE["target"]:
        return vectors.OTHER_CHIP
    if head.hardware != DEVICE["hardware"]:
        return vectors.OTHER_HARDWARE
    if not 0 < head.size <= DEVICE["largest"]:
        return vectors.NO_ROOM
    if head.security < max(DEVICE["security"], DEVICE["floor"]):
        return vectors.TOO_OLD
    if not force and head.version <= tuple(DEVICE["version"]):
        return vectors.NOT_NEWER
    return None


def judge(raw: bytes, force: bool) -> str | None:
    """The rules of firmware-image-v1.md, section 3, in their order."""
    try:
        named = read_head(raw).key_id
    except BadImage:
        return vectors.NO_IMAGE
    signer = next((point for point in KEYS if key_id(point) == named), None)
    if signer is None:
        return vectors.UNKNOWN_KEY
    if not signature_holds(raw, signer):
        return vectors.BAD_SIGNATURE
    if any(raw[10:12]) or any(raw[112:192]):
        return vectors.MORE
    return _judge_contents(raw, force)


def test_the_file_is_what_its_writer_says() -> None:
    assert vectors.FILE.read_text(encoding="utf-8") == vectors.document()
    assert len(WHOLE["cases"]) >= 50
    assert len({case["name"] for case in WHOLE["cases"]}) == len(WHOLE["cases"])


@pytest.mark.parametrize("case", WHOLE["cases"], ids=lambda case: case["name"])
def test_heads_are_judged_as_the_vectors_say(case: dict[str, Any]) -> None:
    assert judge(bytes.fromhex(case["head"]), case["force"]) == case["why"]


# --- the tool ---


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert main(["new-key", str(tmp_path / "key.pem")]) == 0
    return tmp_path / "key.pem"


def sign(key: Path, binary: bytes, **words: str) -> Path:
    given = {"target": "esp32c3", "hardware": "board-1", "version": "1.2.3", "security": "4"} | words
    folder = key.parent
    (folder / "app.bin").write_bytes(binary)
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    arguments = ["sign", "--key", str(key), *options, str(folder / "app.bin"), str(folder / "app.twf")]
    assert main(arguments) == 0
    return folder / "app.twf"


def test_a_key_is_its_owners_alone_and_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert main(["new-key", str(key)]) == 1
    assert key.read_bytes() == before


def test_what_is_signed_says_what_was_asked_for(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["public", str(key)]) == 0
    public = capsys.readouterr().out.strip()
    image = sign(key, b"app" * 1000).read_bytes()
    head = read_head(image)
    assert (head.target, head.hardware, head.version, head.security) == (5, "board-1", (1, 2, 3), 4)
    assert head.size == 3000
    assert image[HEAD_BYTES:] == b"app" * 1000
    assert main(["show", str(key.parent / "app.twf"), "--public", public]) == 0
    shown = capsys.readouterr().out
    assert "esp32c3" in shown
    assert "1.2.3" in shown
    assert "signature holds" in shown


@pytest.mark.parametrize("at", [9, 70, 200, HEAD_BYTES, -1])
def test_show_sees_a_changed_byte(key: Path, at: int, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["public", str(key)]) == 0
    public = capsys.readouterr().out.strip()
    image = sign(key, b"app" * 100)
    raw = bytearray(image.read_bytes())
    raw[at] ^= 1
    image.write_bytes(raw)
    assert main(["show", str(image), "--public", public]) == 1


def test_show_refuses_another_key(key: Path) -> None:
    image = sign(key, b"app")
    assert main(["show", str(image), "--public", DEVICE["keys"][0]]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"hardware": ""},
        {"hardware": "x" * 32},
        {"hardware": "tür"},
        {"version": (0, 0, 1 << 32)},
        {"security": -1},
        {"binary": b""},
    ],
)
def test_what_no_head_can_tell_is_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"binary": b"app", "hardware": "b", "version": (1, 0, 0), "security": 0} | wrong
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(BadImage):
        make_image(given.pop("binary"), key, target=TARGETS["esp32"], **given)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(command in told for command in ("new-key", "public", "sign", "show"))
