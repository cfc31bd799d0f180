"""Filters of `ingest replay` that are none: told before or by the gateway, never an answer of nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from device_protocol.errors import Reason
from ingest.replay import replay as command
from tests.gateway.messages.test_dead_letters import settings_file
from tests.gateway.world import World


def test_a_reason_that_is_none_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        command(["--config", "x.toml", "--reason", "bad_shema"])
    assert wrong.value.code == 2
    said = capsys.readouterr().err
    assert "bad_shema" in said
    assert all(reason.value in said for reason in Reason)


@pytest.mark.parametrize(("option", "field"), [("--device", "device"), ("--site", "site")])
async def test_what_the_gateway_does_not_take_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, field: str
) -> None:
    config = settings_file(world, tmp_path)
    assert await asyncio.to_thread(command, ["--config", str(config), option, "nope!"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"ingest: the gateway: {field}: ")
    assert "(invalid_field)" in said
