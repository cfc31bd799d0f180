"""A new list of grant keys reaches the devices that are connected, and never takes one offline."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from tests.tunnel_server.conftest import Stage, running, settings
from tests.tunnel_server.doubles import TestDevice, answering, make_key_list
from tunnel_protocol import CloseCode
from tunnel_server.policy.key_list import MAX_HELLO_BYTES, UnusableKeyList, numbered
from tunnel_server.tunnels.key_lists import RETURN_S, KeyLists

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SPREAD_S = 86_400.0  # the node's own rounds come to nothing here: tests say when it is time


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running(settings(tunnels={"key_list_spread_s": SPREAD_S})) as started:
        await started.until(lambda: started.node.tunnels.key_lists.current is not None)
        yield started


def gone(stage: Stage) -> list[TestDevice]:
    return [device for device in stage.devices if device.goaways]


async def test_tunnels_with_an_older_list_are_renewed_one_after_the_other(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    first = stage.devices[0]
    second = await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    lists: KeyLists = stage.node.tunnels.key_lists
    now = stage.node.devices.monotonic()
    lists.renew_due(now + SPREAD_S)
    lists.take(make_key_list(1))
    lists.renew_due(now + SPREAD_S)
    assert gone(stage) == []  # it is the list that they have
    lists.take(make_key_list(2))
    lists.renew_due(now)
    later = now + SPREAD_S + 1
    for _ in range(3):
        lists.renew_due(later)
    await stage.until(lambda: gone(stage) and len(stage.node.devices) == 1)
    (leaver,) = gone(stage)
    assert leaver.goaways[0].code is CloseCode.NORMAL
    assert leaver.goaways[0].retry_after_ms > 0
    visitor = await stage.visitor()
    visitor.get()
    assert (await visitor.response())[1] == b"hello"
    assert upstream.connections == 1
    successor = await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    assert successor.hello_received is not None
    assert successor.hello_received.key_list == make_key_list(2)
    lists.renew_due(later)
    await stage.until(lambda: len(gone(stage)) == 2)
    assert set(gone(stage)) == {first, second}
    for _ in range(3):
        lists.renew_due(later + 2 * SPREAD_S)
    visitor.get()
    assert (await visitor.response())[1] == b"hello"
    assert successor.goaways == []


async def test_the_last_tunnel_waits_for_a_successor_of_the_other_but_not_for_ever(stage: Stage) -> None:
    await stage.serve(answering(OK))
    first = stage.devices[0]
    await stage.device(first.target, instance=first.instance)
    await stage.until(lambda: len(stage.node.devices) == 2)
    lists = stage.node.tunnels.key_lists
    now = stage.node.devices.monotonic()
    lists.take(make_key_list(2))
    lists.renew_due(now)
    later = now + SPREAD_S + 1
    lists.renew_due(later)
    lists.renew_due(later + RETURN_S - 1)
    await stage.until(lambda: len(stage.node.devices) == 1 and gone(stage))
    assert len(gone(stage)) == 1
    lists.renew_due(later + RETURN_S + 1)
    await stage.until(lambda: len(gone(stage)) == 2)


async def test_the_node_renews_by_itself_and_spreads_it() -> None:
    async with running(settings(tunnels={"key_list_spread_s": 1.0})) as stage:
        await stage.until(lambda: stage.node.tunnels.key_lists.current is not None)
        await stage.serve(answering(OK))
        stage.node.tunnels.key_lists.take(make_key_list(2))
        assert gone(stage) == []
        await stage.until(lambda: gone(stage))


async def test_a_list_too_long_for_a_small_devices_hello_is_not_sent(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    lists = stage.node.tunnels.key_lists
    with caplog.at_level(logging.ERROR):
        lists.take(make_key_list(2, "k" * MAX_HELLO_BYTES))
        lists.take(b"garbage")
    assert len([record for record in caplog.records if "not used" in record.message]) == 2
    await stage.serve(answering(OK))
    hello = stage.devices[0].hello_received
    assert hello is not None
    assert hello.key_list == make_key_list(1)


def test_the_bound_is_exact() -> None:
    size = next(n for n in range(MAX_HELLO_BYTES) if _too_long("k" * n))
    with pytest.raises(UnusableKeyList, match="over 2040"):
        numbered(make_key_list(1, "k" * size), "s")
    for wrong in (b"", b"a.b.c", b"e30.e30.x", make_key_list(0), b"e30.bnVsbA.x", b"e30.W10.x"):
        with pytest.raises(UnusableKeyList, match="no key list"):
            numbered(wrong, "s")


def _too_long(filler: str) -> bool:
    try:
        numbered(make_key_list(1, filler), "s")
    except UnusableKeyList:
        return True
    return False
