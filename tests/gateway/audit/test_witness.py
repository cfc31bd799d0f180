"""Signed heads in a second store: what is written, by whom, and what an ill store or log leads to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from gateway.audit.heads import FILE, HeadsReading, SignedHead, open_heads, read_head, sign_head, token_of
from gateway.audit.keys import PUBLIC_FILE, load_audit_keys, read_public_keys, rotate_audit_key
from gateway.errors import BadTokenError, KeyFileError
from gateway.keys.keyring import load_keyring
from gateway.keys.signing import key_files
from gateway.policy.audit_chain import Head
from gateway.store import audit
from runtime.clock import FakeClock
from tests.gateway.audit.conftest import ISSUER, Log, Witnessed
from tests.gateway.world import World, settings_for


def lines(folder: Path) -> list[str]:
    return (folder / FILE).read_text().splitlines()


def is_there(path: Path) -> bool:
    return path.exists()


def reading(folder: Path, keys_dir: Path) -> HeadsReading:
    return HeadsReading(open_heads(folder), read_public_keys(keys_dir / PUBLIC_FILE))


def heads(folder: Path, keys_dir: Path) -> list[int]:
    """Their numbers; the file must be right."""
    read = reading(folder, keys_dir)
    found = [head.seq for head in read]
    assert read.faults == []
    return found


async def test_a_head_is_a_signed_line_over_number_hash_time_and_the_one_before(
    log: Log, witnessed: Witnessed, heads_dir: Path, keys_dir: Path, clock: FakeClock
) -> None:
    await witnessed.witness.witness()
    assert not is_there(heads_dir / FILE)  # nothing happened yet
    await log.write(3)
    await witnessed.witness.witness()
    await witnessed.witness.witness()
    assert len(lines(heads_dir)) == 1  # once for each end
    clock.advance(60)
    await log.write()
    await witnessed.witness.witness()
    tokens = [token_of(line.encode()) for line in lines(heads_dir)]
    assert None not in tokens
    keys = read_public_keys(keys_dir / PUBLIC_FILE)
    first, second = (read_head(str(token), keys) for token in tokens)
    async with log.database.transaction() as tx:
        for signed, seq in ((first, 3), (second, 4)):
            assert signed.head == Head(seq, await audit.hash_of(tx, seq) or b"")
    assert (first.prev, second.prev) == (None, first.digest)
    assert second.at - first.at == 60
    header, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in str(tokens[1]).split(".")[:2])
    assert header["typ"] == "audit-head+jwt"
    assert claims["iss"] == ISSUER
    assert witnessed.metrics.audit_head_signed.value == 4


async def test_no_other_key_of_the_gateway_signs_heads(keys_dir: Path, clock: FakeClock) -> None:
    load_audit_keys(keys_dir)
    keyring = load_keyring(keys_dir, clock.wall())
    public = read_public_keys(keys_dir / PUBLIC_FILE)
    for other in (keyring.login, keyring.grant):
        token = sign_head(other, Head(1, bytes(32)), issuer=ISSUER, at=1, prev=None, now=clock.wall())
        with pytest.raises(BadTokenError):
            read_head(token, public)


async def test_two_gateways_write_into_one_file(
    log: Log, heads_dir: Path, keys_dir: Path, clock: FakeClock
) -> None:
    replicas = [Witnessed(log, heads_dir, keys_dir, clock) for _ in range(3)]
    for _ in range(5):
        await log.write()
        await asyncio.gather(*(one.witness.witness() for one in replicas))
    assert heads(heads_dir, keys_dir) == [1, 2, 3, 4, 5]
    assert all(one.metrics.audit_broken.value == 0 for one in replicas)


async def test_a_store_that_is_away_is_told_once_and_gets_everything_later(
    log: Log,
    witnessed: Witnessed,
    heads_dir: Path,
    keys_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await log.write()
    await witnessed.witness.witness()
    away = heads_dir.with_name("away")
    os.rename(heads_dir, away)
    for _ in range(3):
        await log.write()
        await witnessed.witness.witness()
    assert not is_there(heads_dir)  # a store that is not mounted is not made up
    assert witnessed.metrics.audit_heads_away.value == 1
    assert witnessed.metrics.audit_heads_failed.value == 3
    assert [r.getMessage() for r in caplog.records].count("the second store takes no audit heads") == 1
    os.rename(away, heads_dir)
    await witnessed.witness.witness()
    assert heads(heads_dir, keys_dir) == [1, 2, 3, 4]
    assert witnessed.metrics.audit_heads_away.value == 0


async def test_a_line_that_a_crash_cut_short_costs_that_line_alone(
    log: Log, witnessed: Witnessed, heads_dir: Path, keys_dir: Path
) -> None:
    await log.write()
    await witnessed.witness.witness()
    with (heads_dir / FILE).open("a") as file:
        file.write('{"head": "eyJhbGciOi')
    await log.write()
    await witnessed.witness.witness()
    read = reading(heads_dir, keys_dir)
    assert [head.seq for head in read] == [1, 2]
    assert (read.faults, read.torn) == ([], 1)


@pytest.mark.parametrize("statement", ["rewrite", "cut"])
async def test_a_log_that_was_changed_is_not_signed(
    log: Log, witnessed: Witnessed, heads_dir: Path, keys_dir: Path, clock: FakeClock, statement: str
) -> None:
    await log.write(5)
    await witnessed.witness.witness()
    if statement == "rewrite":
        await log.rewrite_from(2)
    else:
        await log.tamper(
            "DELETE FROM audit_events WHERE seq > 3",
            "UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit_events WHERE seq = 3)",
        )
    await log.write(4)
    for one in (witnessed, Witnessed(log, heads_dir, keys_dir, clock)):  # the second knows it from the file
        await one.witness.witness()
        assert one.metrics.audit_broken.value == 1
        assert heads(heads_dir, keys_dir) == [5]


async def test_a_new_key_signs_and_the_old_ones_heads_stay_good(
    log: Log, witnessed: Witnessed, heads_dir: Path, keys_dir: Path, clock: FakeClock
) -> None:
    await log.write()
    await witnessed.witness.witness()
    clock.advance(60)
    kid = rotate_audit_key(keys_dir, clock.wall())
    await log.write()
    await witnessed.witness.witness()
    assert heads(heads_dir, keys_dir) == [1, 2]
    assert kid in (keys_dir / PUBLIC_FILE).read_text()
    private = key_files(keys_dir, "audit")
    assert len(private) == 1
    assert os.stat(private[0]).st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", ["{}", "[]", "{", '{"keys": []}', '{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}]}']
)
def test_a_file_that_is_no_key_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(KeyFileError, match=r"keys\.json"):
        read_public_keys(tmp_path / "keys.json")


async def written(log: Log, witnessed: Witnessed, count: int) -> None:
    for _ in range(count):
        await log.write()
        await witnessed.witness.witness()


async def test_what_somebody_does_to_the_heads_themselves_is_told(
    log: Log, witnessed: Witnessed, heads_dir: Path, keys_dir: Path
) -> None:
    await written(log, witnessed, 5)
    whole = lines(heads_dir)
    forged = json.dumps({"head": str(token_of(whole[2].encode()))[:-8] + "AAAAAAAA"})
    for changed, line in (
        (whole[1:], 1),
        ([*whole[:2], *whole[3:]], 3),
        ([whole[0], whole[2], whole[1], *whole[3:]], 2),
        ([*whole[:2], forged, *whole[3:]], 3),
        ([*whole[:2], "garbage", *whole[3:]], 4),
        ([*whole, whole[2]], 6),
    ):
        (heads_dir / FILE).write_text("\n".join(changed) + "\n")
        read = reading(heads_dir, keys_dir)
        list(read)
        assert read.faults, line
        assert read.faults[0].startswith(f"line {line} "), read.faults


async def test_a_gateway_signs_while_it_runs_and_when_it_stops(
    tmp_path: Path, log: Log, database_url: str, keys_dir: Path, clock: FakeClock, heads_dir: Path
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, audit_heads_dir=heads_dir)
    world = World(settings, clock, tmp_path)
    await (await world.start()).prepared()
    await world.person()
    await world.close()
    async with log.database.transaction() as tx:
        assert read_last(heads_dir, keys_dir).head == await audit.head(tx)


def read_last(folder: Path, keys_dir: Path) -> SignedHead:
    read = reading(folder, keys_dir)
    list(read)
    assert read.last is not None
    return read.last
