"""A command waits no longer than whoever asked for it may ask for it, and for the device that was meant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from device_protocol.bodies import Stage
from gateway.policy.access import Role
from gateway.policy.commands import DEVICE_AWAY, DEVICE_RETYPED, SENDER_NOT_ALLOWED, TTL_NOW_S, State
from gateway.store import commands
from tests.gateway.commands.conftest import Yard
from tests.gateway.commands.test_api import consented, member, post
from tests.gateway.standing_still import paused

pytestmark = pytest.mark.usefixtures("patient_statements")

Take = Callable[[Yard, httpx.AsyncClient], Awaitable[None]]


async def lower(yard: Yard, bob: httpx.AsyncClient) -> None:
    await yard.execute("UPDATE memberships SET role = 'support' WHERE user_id = $1", await who(bob))


async def remove(yard: Yard, bob: httpx.AsyncClient) -> None:
    await yard.execute("DELETE FROM memberships WHERE user_id = $1 AND role <> 'owner'", await who(bob))


async def shut_out(yard: Yard, bob: httpx.AsyncClient) -> None:
    await yard.execute("UPDATE users SET disabled_at = now() WHERE id = $1", await who(bob))


async def log_out(yard: Yard, bob: httpx.AsyncClient) -> None:
    assert (await bob.post("/v1/logout", json={})).status_code == 204


async def who(person: httpx.AsyncClient) -> UUID:
    return UUID((await person.get("/v1/me")).json()["id"])


async def ping(yard: Yard, by: httpx.AsyncClient, **body: Any) -> UUID:
    answer = await post(yard, {"name": "ping", "ttl_s": 3600, **body}, by=by)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


async def look_later(yard: Yard) -> None:
    """When all that is open is due again."""
    yard.clock.advance(60)
    yard.broker.listening.add(yard.device.id)
    yard.broker.published.clear()
    await yard.dispatcher().look()


@pytest.mark.parametrize("take", [lower, remove, shut_out, log_out])
async def test_what_nobody_was_told_falls_with_its_senders_right(yard: Yard, take: Take) -> None:
    """Queued, and sent to a broker that may have had nobody: no device hears of it any more. One that a
    device has is the device's; other people's commands stay.
    """
    bob = await member(yard, "bob", Role.MEMBER)
    yard.broker.listening.add(yard.device.id)
    delivered, sent = await ping(yard, bob, timeout_s=3600), await ping(yard, bob)
    await yard.dispatcher().look()
    await yard.ack(delivered, Stage.RECEIVED)
    queued, owners = await ping(yard, bob), await ping(yard, yard.owner)
    states = [await yard.state(one) for one in (queued, sent, delivered)]
    assert states == [State.QUEUED, State.SENT, State.DELIVERED]
    await take(yard, bob)
    await look_later(yard)
    for command_id in (queued, sent):
        command = await yard.get(command_id)
        assert (command.state, command.error) == (State.FAILED, SENDER_NOT_ALLOWED)
    assert [one.id for one in yard.broker.published] == [str(delivered), str(owners)]
    await yard.ack(sent, Stage.DONE, ok=True)  # that device had it after all
    assert (await yard.get(sent)).late is not None


@pytest.mark.parametrize("take", [remove, shut_out, log_out])
async def test_no_wait_outlives_the_right_to_its_answer(yard: Yard, take: Take) -> None:
    """Somebody waits for what another's and their own command say, and may not see it any more by then."""
    bob = await member(yard, "bob", Role.MEMBER)
    yard.broker.listening.add(yard.device.id)
    owners = await ping(yard, yard.owner, timeout_s=3600)
    waits = yard.world.gateway.parts.waits
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(bob.get(f"/v1/commands/{owners}", params={"wait": 25}))
        sending = group.create_task(post(yard, {"name": "ping", "timeout_s": 3600}, by=bob, wait=25))
        async with asyncio.timeout(10):
            while repr(waits) != "<Waits 2>":  # noqa: ASYNC110 (no one tells when)
                await asyncio.sleep(0.01)
        await yard.dispatcher().look()
        both = [UUID(one.id) for one in yard.broker.published]
        for command_id in both:
            await yard.ack(command_id, Stage.RECEIVED)
        await take(yard, bob)
        for command_id in both:
            await yard.ack(command_id, Stage.DONE, ok=True, result={"secret": "of the device"})
    assert len(both) == 2
    for answer in (reading.result(), sending.result()):
        assert answer.status_code in {401, 404}, answer.text
        assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("falls", "status"),
    [("DELETE FROM memberships", 404), ("UPDATE memberships SET role = 'support'", 403)],
    ids=["removed", "lowered"],
)
async def test_no_command_of_a_role_that_fell_meanwhile(yard: Yard, falls: str, status: int) -> None:
    """It saw the device as a member's, and waits for the role while that is taken away and committed."""
    bob = await member(yard, "bob", Role.MEMBER)
    of_bob = f"user_id = '{await who(bob)}' AND role <> 'owner'"
    async with asyncio.TaskGroup() as group, paused(yard.world, f"{falls} WHERE {of_bob}") as pause:
        sending = group.create_task(post(yard, {"name": "ping"}, by=bob))
        await pause.until_waiting(1)
    assert sending.result().status_code == status, sending.result().text
    assert await yard.open_rows() == []


async def test_what_needs_a_greater_role_falls_with_that_alone(yard: Yard) -> None:
    adm = await member(yard, "adm", Role.ADMIN)
    lesser = await ping(yard, adm)
    greater = UUID((await post(yard, {"name": "reboot", "ttl_s": 3600}, by=adm)).json()["id"])
    await yard.execute("UPDATE memberships SET role = 'member' WHERE user_id = $1", await who(adm))
    await look_later(yard)
    assert [one.id for one in yard.broker.published] == [str(lesser)]
    assert (await yard.get(greater)).error == SENDER_NOT_ALLOWED


async def test_it_falls_with_the_api_token(yard: Yard) -> None:
    made = (await yard.owner.post("/v1/me/api-tokens", json={"name": "s", "scopes": ["commands"]})).json()
    by_token, by_login = await ping(yard, yard.world.program(made["token"])), await ping(yard, yard.owner)
    assert (await yard.owner.delete(f"/v1/me/api-tokens/{made['id']}")).status_code == 204
    await look_later(yard)
    assert [one.id for one in yard.broker.published] == [str(by_login)]
    assert (await yard.get(by_token)).error == SENDER_NOT_ALLOWED


async def test_it_falls_with_the_consent(yard: Yard) -> None:
    types = {"commands": {"ping": {"support": True}}}
    await yard.execute("UPDATE device_types SET capabilities = $1 WHERE id = 'linux'", types)
    engineer = await member(yard, "eng", Role.SUPPORT)
    request_id = await consented(yard, engineer)
    kept, fallen = await ping(yard, engineer), await ping(yard, engineer)
    await look_later(yard)
    assert {one.id for one in yard.broker.published} == {str(kept), str(fallen)}
    await yard.ack(kept, Stage.RECEIVED)
    assert (await yard.owner.post(f"/v1/support-requests/{request_id}/end")).status_code == 200
    await look_later(yard)
    assert str(fallen) not in {one.id for one in yard.broker.published}
    assert (await yard.get(fallen)).error == SENDER_NOT_ALLOWED
    assert (await yard.get(kept)).error is None


async def test_logging_in_again_in_the_same_browser_keeps_what_waits(yard: Yard) -> None:
    bob = await member(yard, "bob", Role.MEMBER)
    command_id = await ping(yard, bob)
    body = {"username": "bob", "password": yard.password}
    assert (await bob.post("/v1/login", json=body)).status_code == 200
    await look_later(yard)
    assert [one.id for one in yard.broker.published] == [str(command_id)]


async def test_what_no_person_asked_for_stays(yard: Yard) -> None:
    """An automation's: nobody's login carries it."""
    command_id = await ping(yard, yard.owner)
    await yard.execute("UPDATE commands SET user_id = NULL, role = NULL, login_id = NULL")
    await look_later(yard)
    assert await yard.state(command_id) is State.SENT


async def test_more_than_one_look_takes_are_not_published_either(yard: Yard) -> None:
    """Those that the same look could not end."""
    first = await ping(yard, yard.owner)
    await yard.execute(
        "INSERT INTO commands (id, device_id, site_id, author, origin, name, params, state, created_at,"
        " expires_at, timeout_s, next_at, device_type, queue, user_id, role) SELECT gen_random_uuid(),"
        " device_id, site_id, author, origin, name, params, state, created_at, expires_at, timeout_s,"
        " next_at, device_type, queue, user_id, role FROM commands, generate_series(1, $1)",
        commands.CLAIMED_MAX + 20,
    )  # of no login
    yard.clock.advance(1)
    yard.broker.listening.add(yard.device.id)
    await yard.dispatcher().look()
    assert {one.id for one in yard.broker.published} <= {str(first)}


async def test_another_types_device_is_not_asked_what_was_meant_for_this_one(yard: Yard) -> None:
    queued, delivered = await ping(yard, yard.owner), await ping(yard, yard.owner)
    await yard.ack(delivered, Stage.RECEIVED)
    changed = await yard.owner.patch(f"/v1/devices/{yard.device.id}", json={"type": "generic"})
    assert changed.status_code == 200, changed.text
    for command_id in (queued, delivered):
        command = await yard.get(command_id)
        assert (command.state, command.error) == (State.FAILED, DEVICE_RETYPED)
    await look_later(yard)
    assert not yard.broker.published


async def test_a_type_that_changed_behind_the_routes_is_noticed_before_a_publish(yard: Yard) -> None:
    command_id = await ping(yard, yard.owner)
    await yard.execute("UPDATE devices SET type = 'generic' WHERE id = $1", yard.device.id)
    await look_later(yard)
    assert not yard.broker.published
    assert (await yard.get(command_id)).error == DEVICE_RETYPED


async def test_what_must_not_wait_fails_when_nobody_listens(yard: Yard) -> None:
    """The device seemed to be there: the broker knows better."""
    await yard.say_hello("ping")
    command_id = await ping(yard, yard.owner, queue=False)
    gateway = yard.dispatcher()
    await gateway.look()
    command = await yard.get(command_id)
    assert (command.state, command.error) == (State.FAILED, DEVICE_AWAY)
    assert yard.metrics.commands.labels("failed").value == 1
    await look_later(yard)
    assert not yard.broker.published


async def test_what_must_not_wait_outlives_a_brokers_restart_and_no_more(yard: Yard) -> None:
    await yard.say_hello("ping")
    first, second = [await ping(yard, yard.owner, queue=False) for _ in range(2)]
    yard.broker.gate = None
    yard.broker.fails = 1  # of the two
    yard.broker.listening.add(yard.device.id)
    gateway = yard.dispatcher()
    await gateway.look()
    assert {await yard.state(first), await yard.state(second)} == {State.QUEUED, State.SENT}
    yard.clock.advance(2)
    await gateway.look()
    assert {await yard.state(first), await yard.state(second)} == {State.SENT}
    yard.clock.advance(TTL_NOW_S - 2)
    yard.broker.published.clear()
    await yard.greet()
    await gateway.look()
    assert not yard.broker.published  # whoever comes back now was away
    assert {await yard.state(first), await yard.state(second)} == {State.EXPIRED}
