"""The tables in code and the page that describes them say the same."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tunnel_protocol import (
    CloseCode,
    ConnectionState,
    FrameType,
    Misuse,
    RefusedCode,
    ResetCode,
    Side,
    StreamState,
)
from tunnel_protocol.codes import close_code, refused_code, reset_code
from tunnel_protocol.states import FRAMES_ALLOWED, HANDSHAKE, STREAM, Call

PAGE = (Path(__file__).parents[2] / "docs" / "protocol" / "tunnel-v1.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_pages_pictures_are_paths_through_the_table() -> None:
    for side in Side:
        line = next(line for line in PAGE.splitlines() if line.startswith(f"{side.value}:"))
        states = re.findall(r"[a-z_]+(?= |$)", line.split(":")[1].split(" ─GOAWAY")[0])
        known = [
            ConnectionState[name.upper()] for name in states if name.upper() in ConnectionState.__members__
        ]
        assert known[-1] is ConnectionState.OPEN
        for before, after in pairwise(known):
            assert any(key[:2] == (side, before) and value is after for key, value in HANDSHAKE.items())


def test_the_page_lists_the_frames_that_may_arrive() -> None:
    table = rows(PAGE.split("| state | frames that may arrive |")[1].split("\n\n")[0])
    everything = "everything but CHALLENGE, AUTH, HELLO; GRANT and REVOKE only from the server side"
    for name, text in table[1:]:
        state_names, _, side = name.partition(" (")
        for state in state_names.split(", "):
            sides = [Side(side.rstrip(")"))] if side else list(Side)
            for each in sides:
                allowed = FRAMES_ALLOWED[each, ConnectionState[state.upper()]]
                if text == everything:
                    kept = {FrameType.CHALLENGE, FrameType.AUTH, FrameType.HELLO}
                    kept |= {FrameType.GRANT, FrameType.REVOKE} if each is Side.SERVER else set()
                    assert allowed == frozenset(FrameType) - kept
                else:
                    assert {kind.name for kind in allowed} == set(re.findall(r"\b[A-Z]{4,}\b", text))


@pytest.mark.parametrize("codes", [RefusedCode, ResetCode, CloseCode, FrameType])
def test_the_page_lists_every_code(
    codes: type[RefusedCode] | type[ResetCode] | type[CloseCode] | type[FrameType],
) -> None:
    listed = {(row[0].lower(), row[1].lower()) for row in rows(PAGE) if len(row) >= 2}
    for code in codes:
        found = (code.name.lower(), str(int(code))) in listed or (
            f"0x{int(code):02x}",
            code.name.lower(),
        ) in listed
        assert found, code


def test_unknown_codes_read_as_internal() -> None:
    assert refused_code(999) is RefusedCode.INTERNAL
    assert reset_code(0) is ResetCode.INTERNAL
    assert close_code(65_535) is CloseCode.INTERNAL
    assert close_code(4) is CloseCode.REVOKED


def test_a_stream_that_is_over_has_no_way_on_and_every_other_one_can_end() -> None:
    for state in StreamState:
        ways = [after for (before, _), after in STREAM.items() if before is state]
        assert (StreamState.OVER in ways) == (state is not StreamState.OVER)
        if state is not StreamState.OVER:
            assert STREAM[state, Call.RESET] is StreamState.OVER


def test_limits_name_what_is_wrong() -> None:
    from tunnel_protocol import Limits

    with pytest.raises(Misuse, match="max_frame: must be 256"):
        Limits(max_frame=100)
    with pytest.raises(Misuse, match="keepalive_ms"):
        Limits(keepalive_ms=1)
    with pytest.raises(Misuse, match="whole frame"):
        Limits(max_frame=2048, max_message=2048)
