"""Telling devices: at once, at their hello, again until they answer; any gateway, whatever restarts."""

from __future__ import annotations

import asyncio

import pytest

from gateway.commands.dispatcher import Dispatcher
from gateway.errors import StoreUnavailableError
from gateway.metrics import gateway_metrics
from gateway.policy.configuration import BROKER_AWAY_S, name_of
from gateway.store import configurations
from gateway.store.commands import LEASE_S
from runtime.metrics import Registry
from tests.gateway.configuration.conftest import Yard

BODY = {"log_level": "debug"}


async def test_it_is_told_at_once_and_again_until_it_answers(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    assert await teller.look() == 1
    [(topic, desired)] = yard.broker.told
    assert topic.split("/")[2:] == ["linux", yard.device.id, "config"]
    assert (desired.version, desired.body, desired.sha256) == (1, BODY, name_of(BODY))
    assert (await yard.get())["sent_at"] is not None
    assert await teller.look() == 0
    waits = []
    for _ in range(9):
        wait_s = await yard.due_in()
        assert wait_s is not None
        waits.append(wait_s)
        yard.clock.advance(wait_s)
        assert await teller.look() == 1
    assert waits == [5, 10, 20, 40, 60, 300, 900, 3600, 3600]
    await yard.say(1, desired.sha256, told=1)
    assert await yard.due_in() is None
    yard.clock.advance(100_000)
    assert await teller.look() == 0


async def test_a_refusal_is_an_answer_and_the_next_hello_asks_anew(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    await teller.look()
    await yard.say(None, told=1, error="vent: not known here")
    assert await yard.due_in() is None
    assert (await yard.get())["drift"] is True
    await yard.greet(None)
    assert await teller.look() == 1
    assert yard.broker.versions == [1, 1]


async def test_a_report_of_another_version_is_no_answer(yard: Yard) -> None:
    await yard.put(BODY)
    await yard.put({})
    await yard.say(1, name_of(BODY), told=1)
    assert await yard.due_in() == 0


async def test_who_is_away_is_told_at_its_hello(yard: Yard) -> None:
    teller = yard.teller()
    yard.broker.listening.clear()
    await yard.greet(None, online=False)
    await yard.put(BODY)
    assert await teller.look() == 1  # the broker says that nobody listens
    assert await yard.due_in() is None
    assert (await yard.get())["sent_at"] is None
    yard.clock.advance(86_400)
    assert await teller.look() == 0
    yard.broker.listening.add(yard.device.id)
    await yard.greet(None)
    assert await teller.look() == 1
    assert yard.broker.versions == [1, 1]


async def test_who_passes_for_connected_and_does_not_listen_is_tried_again(yard: Yard) -> None:
    """A hello that was said before the subscription, or a broker that forgot it."""
    teller = yard.teller()
    yard.broker.listening.clear()
    await yard.greet(None)
    await yard.put(BODY)
    assert await teller.look() == 1
    assert await yard.due_in() == 5


async def test_a_hello_with_what_is_wanted_is_told_nothing(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    await teller.look()
    await yard.say(1, name_of(BODY), told=1)
    await yard.greet(1)
    assert await teller.look() == 0
    await yard.greet(7)  # the database was put back: to be told so that it reports, which shows the drift
    assert await teller.look() == 1


async def test_a_flood_of_hellos_is_answered_once_in_five_seconds(yard: Yard) -> None:
    """And the last of them is."""
    teller = yard.teller()
    await yard.put(BODY)
    for _ in range(80):
        await yard.greet(None)
        await teller.look()
        yard.clock.advance(0.125)
    assert len(yard.broker.told) == 2, "at once, and after five seconds; after ten it is due"
    assert await yard.due_in() == 0
    assert await teller.look() == 1
    assert await yard.due_in() == 5


async def test_a_flood_of_hellos_while_one_is_told_is_no_flood_of_publishes(yard: Yard) -> None:
    teller = yard.teller()
    yard.broker.gate = asyncio.Event()
    await yard.put(BODY)
    looking = asyncio.create_task(teller.look())
    await yard.broker.asked.wait()
    yard.broker.gate.set()
    for _ in range(20):
        await yard.greet(None)
        await teller.look()
    await looking
    assert len(yard.broker.told) == 2
    assert await yard.due_in() == 5


async def test_a_hello_before_what_is_due_was_told_puts_nothing_off(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    await yard.greet(None)
    await teller.look()
    await yard.put({})
    await yard.greet(1)
    assert await yard.due_in() == 0


async def test_a_hello_while_it_is_being_told_counts(yard: Yard) -> None:
    """The publish found nobody; before that was noted the device came."""
    teller = yard.teller()
    yard.broker.gate = asyncio.Event()
    yard.broker.listening.clear()
    await yard.greet(None, online=False)
    await yard.put(BODY)
    looking = asyncio.create_task(teller.look())
    await yard.broker.asked.wait()
    await yard.greet(None)
    yard.broker.gate.set()
    await looking
    assert await yard.due_in() == 0


async def test_an_answer_before_the_note_counts(yard: Yard) -> None:
    teller = yard.teller()
    yard.broker.gate = asyncio.Event()
    await yard.put(BODY)
    looking = asyncio.create_task(teller.look())
    await yard.broker.asked.wait()
    await yard.say(1, name_of(BODY), told=1)
    yard.broker.gate.set()
    await looking
    assert await yard.due_in() is None


async def test_a_newer_version_while_one_is_told_is_told_too(yard: Yard) -> None:
    teller = yard.teller()
    yard.broker.gate = asyncio.Event()
    await yard.put(BODY)
    looking = asyncio.create_task(teller.look())
    await yard.broker.asked.wait()
    await yard.put({})
    yard.broker.gate.set()
    await looking
    assert await yard.due_in() == 0
    assert (await yard.get())["sent_at"] is None  # that was the other one
    assert await teller.look() == 1
    assert yard.broker.versions == [1, 2]
    assert (await yard.get())["sent_at"] is not None


async def test_while_the_broker_is_away_nothing_is_claimed(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    yard.broker.connected = False
    assert await teller.look() == 0
    assert await yard.due_in() == 0
    yard.broker.connected, yard.broker.gone = True, True
    assert await teller.look() == 1
    assert await yard.due_in() == BROKER_AWAY_S
    yard.broker.gone = False
    yard.clock.advance(BROKER_AWAY_S)
    assert await teller.look() == 1
    assert yard.broker.versions == [1]


async def test_two_gateways_do_not_both_tell(yard: Yard) -> None:
    devices = [await yard.world.enrol(yard.owner, name=f"Pump {n}") for n in range(20)]
    for device in devices:
        answer = await yard.owner.put(f"/v1/devices/{device.id}/configuration", json={"body": BODY})
        assert answer.status_code == 200
    counts = await asyncio.gather(*(yard.teller().look() for _ in range(4)))
    assert sum(counts) == len(yard.broker.told) == 20
    assert len({topic for topic, _ in yard.broker.told}) == 20


@pytest.mark.parametrize("step", ["claimed", "published"])
async def test_what_a_killed_gateway_had_in_hand_another_tells(
    yard: Yard, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing of the process runs after this."""

    async def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        if step == "claimed":
            dying.setattr(yard.broker, "publish", killed)
        else:
            dying.setattr(configurations, "published", killed)
        await yard.put(BODY)
        with pytest.raises(Killed):
            await yard.teller().look()
    other = yard.teller()
    assert await other.look() == 0  # the lease
    yard.clock.advance(LEASE_S)
    assert await other.look() == 1
    assert yard.broker.versions[-1] == 1
    assert await yard.due_in() == 5


async def test_a_note_that_fails_is_made_up_for(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("gone")

    teller = yard.teller()
    with monkeypatch.context() as failing:
        failing.setattr(configurations, "published", away)
        await yard.put(BODY)
        assert await teller.look() == 1
    yard.clock.advance(LEASE_S)
    assert await teller.look() == 1
    assert yard.broker.versions == [1, 1]


async def test_who_was_revoked_or_moved_is_told_nothing(yard: Yard) -> None:
    teller = yard.teller()
    await yard.put(BODY)
    [site] = (await yard.owner.get("/v1/sites")).json()["items"]
    other = await yard.owner.post(f"/v1/orgs/{site['org_id']}/sites", json={"name": "Other"})
    path = f"/v1/devices/{yard.device.id}"
    assert (await yard.owner.patch(path, json={"site_id": other.json()["id"]})).status_code == 200
    assert await teller.look() == 0
    assert await yard.due_in() is None
    await yard.greet(None)
    assert await teller.look() == 0
    await yard.put(BODY)
    assert (await yard.owner.post(f"{path}/revoke")).status_code == 200
    assert await teller.look() == 0
    assert yard.broker.told == []


async def test_the_dispatcher_tells_as_soon_as_it_is_set(yard: Yard) -> None:
    parts = yard.world.gateway.parts
    made = Dispatcher(parts.database, parts.shortlived, parts.clock, gateway_metrics(Registry()), yard.broker)
    running = asyncio.create_task(made.run())
    try:
        await yard.put(BODY)
        async with asyncio.timeout(5):
            await yard.broker.asked.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.close()
    assert yard.broker.versions == [1]
