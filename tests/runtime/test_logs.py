from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from runtime import logs

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure("test", "debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def one(stream: io.StringIO) -> dict[str, Any]:
    written = stream.getvalue().splitlines()
    assert len(written) == 1
    found: dict[str, Any] = json.loads(written[0])
    return found


def test_one_event_is_one_json_line(lines: io.StringIO) -> None:
    logs.get_logger("a.b").info("tunnel %s", "open\nagain", extra={"device": "d_1", "count": 3})
    line = one(lines)
    assert line["event"] == "tunnel open\nagain"
    assert (line["service"], line["logger"], line["level"]) == ("test", "a.b", "info")
    assert (line["device"], line["count"]) == ("d_1", 3)
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize(
    "key", ["token", "access_token", "Authorization", "set_cookie", "welcome_secret", "passwd", "db_password"]
)
def test_a_field_named_like_a_secret_is_replaced(lines: io.StringIO, key: str) -> None:
    logs.get_logger("x").info("login", extra={key: "hunter2", "nested": {key: ["hunter2"]}})
    assert "hunter2" not in lines.getvalue()
    assert one(lines)[key] == logs.REDACTED


def test_a_jwt_is_replaced_wherever_it_stands(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"bad {JWT}")
    except ValueError:
        logs.get_logger("x").exception(
            "got %s", JWT, extra={"url": f"/open#{JWT}", "list": [JWT], "raw": {1: JWT}}
        )
    assert JWT not in lines.getvalue()
    assert "ValueError: bad [redacted]" in one(lines)["traceback"]


def test_long_values_and_deep_ones_are_bounded(lines: io.StringIO) -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"d": deep}
    logs.get_logger("x").info("x", extra={"long": "y" * 100_000, "bytes": b"\xff" * 100_000, "deep": deep})
    assert len(lines.getvalue()) < 12_000
    assert "(100000 characters)" in one(lines)["long"]


def test_numbers_keep_their_type_even_under_a_secret_name(lines: io.StringIO) -> None:
    logs.get_logger("x").info("x", extra={"tokens": 3, "ok": True, "none": None})
    line = one(lines)
    assert (line["tokens"], line["ok"], line["none"]) == (3, True, None)


def test_levels_below_the_chosen_one_are_silent() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.configure("test", "warning", stream)
        logs.get_logger("x").info("quiet")
        logs.get_logger("x").warning("loud")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert one(stream)["event"] == "loud"
