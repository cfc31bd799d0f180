"""The embedded log's own: who commits late, and what the internal listener takes and refuses."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_node_certificate
from gateway.store import log_table
from gateway.store.database import Database
from gateway.store.log_table import UNREAD_MAX
from ingest.gateway_log import GatewayWriter
from runtime.event_log import wire
from runtime.event_log.interface import APPEND_MAX, ENTRY_OVERHEAD, UP, Entry, LogUnavailableError
from runtime.internal_http import InternalHttp
from runtime.tasks import TaskOwner
from testbed.ops import metric
from tests.event_log.logs import (
    EmbeddedLog,
    InternalApi,
    RunningLog,
    entry,
    numbered,
    numbers_of,
    read_all,
)

pytestmark = pytest.mark.xdist_group("embedded log")

PART = 6
PATH = f"/internal/v1/log/{UP}/{PART}"


@pytest.fixture
async def database(embedded: EmbeddedLog) -> AsyncIterator[Database]:
    async with AsyncExitStack() as ends:
        yield await embedded.database(ends)


@pytest.fixture
async def ingest(embedded: EmbeddedLog) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with ingest's certificate who says what they like."""
    api = embedded.api(embedded.gateways.ports[0].internal)
    context = ssl.create_default_context(cafile=str(api.ca))
    context.load_cert_chain(api.certificate, api.key)
    async with httpx.AsyncClient(base_url=api.internal_url, verify=context, trust_env=False) as client:
        yield client


async def test_who_commits_late_is_waited_for(embedded_log: RunningLog, database: Database) -> None:
    """Offsets are seen in their order: with a sequence the later append would be read first, and a reader
    that went on behind it would never see the earlier one.
    """
    writer, reader = await embedded_log.writer(), await embedded_log.reader()
    base = (await reader.ends(UP))[PART]
    tasks = TaskOwner("test")
    async with database.transaction() as late:
        assert await log_table.append(late, UP, PART, numbered([1, 2])) == base
        behind = tasks.start(writer.append(UP, PART, numbered([3])), "append")
        elsewhere = await writer.append(UP, PART + 1, numbered([4]))
        assert await reader.read({(UP, PART): base}, most=10, wait_s=0.5) == []
        assert not behind.done(), "nor may it be told that it is in"
        assert numbers_of(await read_all(reader, UP, PART + 1, elsewhere)) == [4]
    assert await behind == base + 2
    assert numbers_of(await read_all(reader, UP, PART, base)) == [1, 2, 3]


async def test_an_append_that_is_rolled_back_leaves_no_hole(
    embedded_log: RunningLog, database: Database
) -> None:
    writer, reader = await embedded_log.writer(), await embedded_log.reader()
    base = (await reader.ends(UP))[PART]

    async def fail() -> None:
        async with database.transaction() as tx:
            await log_table.append(tx, UP, PART, numbered([1, 2]))
            raise RuntimeError("whatever comes between")

    with pytest.raises(RuntimeError):
        await fail()
    assert await writer.append(UP, PART, numbered([3])) == base
    assert numbers_of(await read_all(reader, UP, PART, base)) == [3]


async def test_a_part_that_nobody_reads_takes_so_much_and_then_waits_for_a_reader(
    embedded: EmbeddedLog, embedded_log: RunningLog, database: Database, ingest: httpx.AsyncClient
) -> None:
    """Ingest is told to come again later, so that devices keep what they say; the disk stays as it is."""
    writer, reader, part = await embedded_log.writer(), await embedded_log.reader(), PART + 3
    large = [entry(b"x" * (APPEND_MAX // 2 - 2 * ENTRY_OVERHEAD))] * 2
    assert not await read_so_far(database, part, (await reader.ends(UP))[part])
    # What tests before this one left is read, so there is room for all of it.
    size = sum(one.size for one in large)
    for _ in range(UNREAD_MAX // size):
        await append_here(database, part, large)
    full = (await reader.ends(UP))[part]
    turned_away = metric(embedded.gateways.ports[0].ops, "towline_gateway_log_full_total ")
    with pytest.raises(LogUnavailableError):
        await writer.append(UP, part, large)
    answer = await ingest.post(f"/internal/v1/log/{UP}/{part}", json=wire.to_json(large))
    assert (answer.status_code, answer.json()["code"]) == (503, "log_full")
    assert metric(embedded.gateways.ports[0].ops, "towline_gateway_log_full_total ") == turned_away + 2
    assert (await reader.ends(UP))[part] == full
    # Its neighbours have room of their own.
    await append_here(database, part - 1, large)
    # A consumer stores one append's worth: there is room for one, and not for two.
    assert await read_so_far(database, part, full - 2 * (UNREAD_MAX // size) + 2)
    assert await append_here(database, part, large) == full
    with pytest.raises(log_table.LogFullError):
        await append_here(database, part, large)
    # All is stored, and what was is deleted: a part that was full once is like any other.
    await read_so_far(database, part, full + 2)
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM log_records WHERE topic = $1 AND part = $2", UP, part)
    assert await append_here(database, part, large) == full + 2


async def append_here(database: Database, part: int, entries: Sequence[Entry]) -> int:
    async with database.transaction() as tx:
        return await log_table.append(tx, UP, part, entries)


async def read_so_far(database: Database, part: int, next: int) -> bool:
    """As a consumer's batch leaves it. Whether it was known before."""
    async with database.transaction() as tx:
        return bool(
            await tx.fetchval(
                "INSERT INTO log_positions AS p (topic, part, next) VALUES ($1, $2, $3)"
                " ON CONFLICT (topic, part) DO UPDATE SET next = excluded.next RETURNING xmax <> 0",
                UP,
                part,
                next,
            )
        )


def test_the_form_of_an_append_holds_everything() -> None:
    entries = [entry(bytes(range(256))), entry(b""), *numbered([7])]
    assert wire.from_json(json.loads(json.dumps(wire.to_json(entries)))) == entries


def spoilt(change: Callable[[Any], Any]) -> bytes:
    body = wire.to_json([entry(b"v")])
    return json.dumps(change(body["entries"][0]) or body).encode()


def put(at: int, value: Any) -> Callable[[Any], Any]:
    def change(one: list[Any]) -> None:
        one[at] = value

    return change


BAD_BODIES = {
    "no JSON": b"{",
    "no UTF-8": b'{"entries": "\xff"}',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no entries": b"{}",
    "none": b'{"entries": []}',
    "null": b'{"entries": null}',
    "a number": b'{"entries": 3}',
    "an entry that is none": b'{"entries": [3]}',
    "an entry with too little": b'{"entries": [["", ""]]}',
    "a key that is no text": spoilt(put(0, 3)),
    "a value that is no base64": spoilt(put(1, "ä?")),
    "base64 with signs between": spoilt(put(1, "dg\n==")),
    "a time that is no number": spoilt(put(2, "1")),
    "a time that is no whole number": spoilt(put(2, 1.5)),
    "a time that is true": spoilt(put(2, True)),
    "a time below 0": spoilt(put(2, -1)),
    "a time beyond all": spoilt(put(2, 10**30)),
    "headers that are none": spoilt(put(3, {"a": "b"})),
    "a header that is no pair": spoilt(put(3, [["a"]])),
    "a header without a name": spoilt(put(3, [[3, "dg=="]])),
    "a header whose name is odd": spoilt(put(3, [["a\u0000", "dg=="]])),
}


@pytest.mark.parametrize("what", BAD_BODIES)
async def test_what_is_no_append_is_refused(
    embedded_log: RunningLog, ingest: httpx.AsyncClient, what: str
) -> None:
    reader = await embedded_log.reader()
    base = (await reader.ends(UP))[PART]
    answer = await ingest.post(PATH, content=BAD_BODIES[what])
    assert (answer.status_code, answer.json()["code"]) == (422, "log_refused")
    assert (await reader.ends(UP))[PART] == base


@pytest.mark.parametrize(
    ("path", "code"),
    [(f"/internal/v1/log/{UP}/12", "log_refused"), ("/internal/v1/log/other/0", "log_refused"),
     (f"/internal/v1/log/{UP}/-1", "invalid_field"), (f"/internal/v1/log/{UP}/{2**40}", "invalid_field"),
     ("/internal/v1/log/UP/0", "invalid_field"), ("/internal/v1/log/%00/0", "invalid_field")],
)  # fmt: skip
async def test_no_append_goes_where_there_is_nothing(
    embedded_log: RunningLog, ingest: httpx.AsyncClient, path: str, code: str
) -> None:
    await embedded_log.writer()
    answer = await ingest.post(path, json=wire.to_json(numbered([1])))
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_no_body_is_larger_than_an_append(ingest: httpx.AsyncClient) -> None:
    answer = await ingest.post(PATH, content=b" " * (wire.BODY_MAX + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_node_opens_no_log(embedded: EmbeddedLog, tmp_path: Path) -> None:
    folder = embedded.gateways.folder
    keyring, now = load_keyring(folder / "keys", time.time()), time.time()
    issue_node_certificate(keyring, "node-a", ["localhost"], tmp_path, now)
    context = ssl.create_default_context(cafile=str(tmp_path / "internal_ca.crt"))
    context.load_cert_chain(tmp_path / "node.crt", tmp_path / "node.key")
    url = f"https://localhost:{embedded.gateways.ports[0].internal}"
    async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False) as node:
        for answer in (
            await node.get("/internal/v1/log"),
            await node.post(PATH, json=wire.to_json(numbered([1]))),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "wrong_peer")


class OddGateway(InternalHttp):
    """Answers these, one after the other."""

    def __init__(self, api: InternalApi, *answers: Any) -> None:
        super().__init__(api)
        self._answers = list(answers)

    async def call(self, *_: Any, **__: Any) -> Any:
        return self._answers.pop(0)


async def test_an_answer_that_is_none_is_no_offset(embedded: EmbeddedLog) -> None:
    odd = OddGateway(embedded.api(1), {"parts": {UP: 12}}, {"parts": 3}, {}, {"first": None}, None)
    writer = GatewayWriter(odd)
    await writer.start()
    assert writer.parts(UP) == 12
    with pytest.raises(LogUnavailableError):
        await writer.start()
    for _ in range(3):
        with pytest.raises(LogUnavailableError):
            await writer.append(UP, 0, numbered([1]))
