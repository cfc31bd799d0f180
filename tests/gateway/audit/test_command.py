"""`towline audit`: what an operator and an auditor type, and what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.audit import command
from gateway.audit.heads import FILE
from tests.gateway.audit.conftest import Log, Witnessed
from towline.cli import main

Run = Callable[..., Awaitable[tuple[int, str]]]
SITE = "s_aaaaaaaaaaaaaaaa"
OTHER = "s_bbbbbbbbbbbbbbbb"


@pytest.fixture
def config(tmp_path: Path, database_url: str, keys_dir: Path, heads_dir: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(
        f'public_url = "http://localhost:8080"\nkeys_dir = "{keys_dir}"\ntunnel_scheme = "http"\n'
        f'agent_tunnel_urls = ["wss://localhost:8082/tunnel"]\ndatabase_url = "{database_url}"\n'
        f'audit_heads_dir = "{heads_dir}"\n'
    )
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`towline audit …`: exit code, and all that it said."""

    async def run(*arguments: object) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["audit", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def edit(config: Path, old: str, new: str) -> None:
    config.write_text(config.read_text().replace(old, new))


async def written(log: Log, witnessed: Witnessed, count: int = 10) -> None:
    """Events with a signed head after each."""
    for number in range(count):
        await log.write(site=SITE if number % 2 else OTHER)
        await witnessed.witness.witness()


async def test_a_log_that_nobody_touched(log: Log, witnessed: Witnessed, config: Path, run: Run) -> None:
    await written(log, witnessed)
    code, said = await run("verify", "--config", config)
    assert code == 0
    assert "nothing was changed: 10 events" in said
    assert "10 signed heads agree; the last is that of event 10" in said


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            ["UPDATE audit_events SET record = replace(record, 'someone', 'nobody') WHERE seq = 4"],
            "Event 4: ",
        ),
        (["UPDATE audit_events SET prev_hash = hash WHERE seq = 3"], "Event 3: "),
        (["DELETE FROM audit_events WHERE seq = 2"], "Event 2: missing"),
        (["DELETE FROM audit_events WHERE seq = 10"], "Event 10: cut off"),
        (
            ["UPDATE audit_events SET seq = CASE seq WHEN 2 THEN 103 ELSE 2 END WHERE seq IN (2, 3)"],
            "Event 2: ",
        ),
        (
            [
                "DELETE FROM audit_events WHERE seq > 7",
                "UPDATE audit_head SET seq = 7, hash = (SELECT hash FROM audit_events WHERE seq = 7)",
            ],
            "Event 8: cut off",
        ),
        (
            [
                "ALTER TABLE audit_events ALTER COLUMN site DROP EXPRESSION",
                f"UPDATE audit_events SET site = '{OTHER}' WHERE seq = 6",
            ],
            "Event 6: altered: its column site",
        ),
        (["TRUNCATE audit_events"], "Event 1: cut off"),
    ],
)
async def test_what_was_done_is_named(
    log: Log, witnessed: Witnessed, config: Path, run: Run, statements: list[str], said: str
) -> None:
    await written(log, witnessed)
    await log.tamper(*statements)
    code, told = await run("verify", "--config", config)
    assert (code, said in told) == (1, True), told


@pytest.mark.parametrize("seq", [1, 5, 10])
async def test_a_log_rewritten_whole_by_a_superuser_is_told_by_its_heads(
    log: Log, witnessed: Witnessed, config: Path, run: Run, seq: int
) -> None:
    await written(log, witnessed)
    await log.rewrite_from(seq)
    code, told = await run("verify", "--config", config)
    assert (code, f"Event {seq}: rewritten" in told) == (1, True), told
    # Without them nobody could tell, and the command says so.
    edit(config, "audit_heads_dir", "# audit_heads_dir")
    code, told = await run("verify", "--config", config)
    assert code == 0
    assert "no signed heads were compared" in told


async def test_an_auditor_verifies_an_export_on_another_machine(
    log: Log, witnessed: Witnessed, config: Path, heads_dir: Path, tmp_path: Path, run: Run
) -> None:
    await written(log, witnessed)
    code, keys = await run("keys", "--config", config)
    assert code == 0
    key, file = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    await asyncio.to_thread(key.write_text, keys)
    code, said = await run("export", "--config", config, "--out", file)
    assert (code, "10 events" in said) == (0, True)
    offline = ("verify", "--export", file, "--heads", heads_dir, "--key", key)
    code, said = await run(*offline)
    assert (code, "10 signed heads agree" in said) == (0, True), said
    rows = (await asyncio.to_thread(file.read_text)).splitlines()
    for changed, told, expected in (
        ([*rows[:4], rows[4].replace("someone", "nobody"), *rows[5:]], "Event 4: altered", 1),
        ([*rows[:4], *rows[5:]], "Event 4: missing", 1),
        (rows[:-1], "cut off", 2),
        (["{}", *rows[1:]], "first line", 2),
        ([rows[0], '{"seq": 1}', *rows[2:]], "line 2 is no event", 2),
    ):
        await asyncio.to_thread(file.write_text, "\n".join(changed) + "\n")
        code, said = await run(*offline)
        assert (code, told in said) == (expected, True), said


async def test_an_export_of_a_log_that_was_rewritten_does_not_pass(
    log: Log, witnessed: Witnessed, config: Path, tmp_path: Path, run: Run
) -> None:
    """A site's owner kept theirs: it shows what the log once said."""
    await written(log, witnessed)
    file = tmp_path / "site.jsonl"
    assert (await run("export", "--config", config, "--site", SITE, "--out", file))[0] == 0
    assert (await run("verify", "--export", file, "--config", config))[0] == 0
    await log.rewrite_from(6)
    code, said = await run("verify", "--export", file, "--config", config)
    assert code == 1
    assert "the export says otherwise" in said


async def test_a_new_key_is_made_by_command(log: Log, witnessed: Witnessed, config: Path, run: Run) -> None:
    await written(log, witnessed, 2)
    code, said = await run("rotate-key", "--config", config)
    assert (code, "signs from the next head on" in said) == (0, True)
    await written(log, witnessed, 2)
    assert (await run("verify", "--config", config))[0] == 0
    assert len(json.loads((await run("keys", "--config", config))[1])["keys"]) == 2


async def test_what_cannot_be_verified_is_not_called_whole(
    log: Log, witnessed: Witnessed, config: Path, heads_dir: Path, tmp_path: Path, run: Run
) -> None:
    await written(log, witnessed, 1)
    for arguments, told in (
        (("verify",), "--config or --export"),
        (("verify", "--config", tmp_path / "none.toml"), "none.toml"),
        (("verify", "--config", config, "--heads", tmp_path / "none"), FILE),
        (("verify", "--config", config, "--key", tmp_path / "none.json", "--heads", heads_dir), "none.json"),
        (("verify", "--export", tmp_path / "none.jsonl"), "none.jsonl"),
        (("verify", "--export", config, "--heads", heads_dir), "--key"),
        (("verify", "--export", config), "no JSON object"),
        (("export", "--config", config, "--out", config), str(config)),
    ):
        code, said = await run(*arguments)
        assert (code, told in said) == (2, True), said
    edit(config, "database_url = ", 'database_url = "postgresql://nobody@127.0.0.1:1/x" # ')
    code, said = await run("verify", "--config", config)
    assert (code, "cannot be read" in said) == (2, True), said


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["export", "--help"]])
def test_it_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 0
    assert "audit" in capsys.readouterr().out


async def test_a_long_log_says_how_far_it_is(
    log: Log, config: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.write(3)
    monkeypatch.setattr(command, "PROGRESS_S", -1.0)
    edit(config, "audit_heads_dir", "# audit_heads_dir")
    assert "3 events so far" in (await run("verify", "--config", config))[1]
