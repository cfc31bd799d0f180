"""Every transition against a real Postgres, with gateways that die between any two of them."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from device_protocol.bodies import Ack, Stage
from device_protocol.ids import RANDOM_BYTES, uuid7
from gateway.commands.outcome import CALENDAR_END_MS, Answer, acked
from gateway.commands.sending import new_trace
from gateway.policy.commands import DEVICE_REVOKED, FINAL, TABLE, Event, State, moved
from gateway.store import commands
from gateway.store.commands import CLAIMED_MAX, LEASE_S, Command, Order
from gateway.store.transaction import unix
from tests.gateway.commands.conftest import Yard
from tests.gateway.commands.test_table import LOOKED_AT_WITHIN_S

ACKS = {
    Event.RECEIVED: (Stage.RECEIVED, None),
    Event.DONE: (Stage.DONE, True),
    Event.ERROR: (Stage.DONE, False),
    Event.REFUSED: (Stage.REFUSED, None),
}


async def put_into(yard: Yard, state: State) -> UUID:
    """A command that came to be `state` by what happens, nothing else."""
    command_id = await yard.sent(timeout_s=30)
    if state is State.QUEUED:
        return command_id
    if state is State.EXPIRED:
        await happen(yard, command_id, Event.TTL_OVER)
        return command_id
    await happen(yard, command_id, Event.TAKEN)
    if state is State.SENT:
        return command_id
    await happen(yard, command_id, Event.RECEIVED)
    after = {State.SUCCEEDED: Event.DONE, State.FAILED: Event.ERROR, State.TIMED_OUT: Event.DEADLINE}
    if state in after:
        await happen(yard, command_id, after[state])
    return command_id


async def happen(yard: Yard, command_id: UUID, event: Event) -> None:
    """Let it happen to the command, at whatever gateway: a new one each time."""
    command = await yard.get(command_id)
    if event in ACKS:
        stage, ok = ACKS[event]
        await yard.ack(command_id, stage, ok=ok, error="broken" if ok is False else None)
    elif event in {Event.TAKEN, Event.UNHEARD}:
        order = Order(command, (await yard.asked()).org_id)
        async with yard.database.transaction() as tx:
            await commands.published(tx, order, event, tx.now)
    elif event is Event.AWAY:
        async with yard.database.transaction() as tx:
            await commands.turned_away(tx, Order(command, (await yard.asked()).org_id))
    elif event is Event.NOT_ALLOWED:
        async with yard.database.transaction() as tx:
            await tx.execute(
                "UPDATE commands SET login_id = NULL,"
                " next_at = CASE WHEN next_at IS NOT NULL THEN $2::timestamptz END WHERE id = $1",
                command_id,
                tx.at,
            )
        await yard.dispatcher().look()
    elif event is Event.DEVICE_GONE:
        async with yard.database.transaction() as tx:
            await commands.end_of_device(tx, yard.device.id, DEVICE_REVOKED, "ada")
    else:
        yard.clock.advance(61.0 if event is Event.TTL_OVER else 31.0)
        await yard.dispatcher().look()


@pytest.mark.parametrize("state", State)
async def test_each_event_in_each_state(yard: Yard, state: State) -> None:
    yard.broker.connected = False  # nothing is published but by hand
    for event in Event:
        command_id = await put_into(yard, state)
        before = await yard.get(command_id)
        assert before.state is state
        if (state, event) not in UNREACHED:
            await happen(yard, command_id, event)
        after = await yard.get(command_id)
        assert after.state is (moved(state, event) or state), event
        if state in FINAL:
            assert _outcome(after) == _outcome(before), event
        assert after.created_at <= _reached_at(after) <= yard.clock.wall() + 0.001  # as rows round it
        for row in await yard.open_rows():
            assert unix(row["next_at"]) <= yard.clock.wall() + LOOKED_AT_WITHIN_S


# A clock that moves far enough for one of these brings the other end of time.
UNREACHED = {
    (State.QUEUED, Event.DEADLINE),
    (State.SENT, Event.DEADLINE),
    (State.DELIVERED, Event.TTL_OVER),
}


def _outcome(command: Command) -> tuple[object, ...]:
    return command.finished_at, command.result, command.error


def _reached_at(command: Command) -> float:
    """When it came to be what it is."""
    times = {State.QUEUED: command.created_at, State.SENT: command.sent_at}
    at = (times | {State.DELIVERED: command.delivered_at}).get(command.state, command.finished_at)
    assert at is not None
    return at


async def test_a_command_goes_its_way(yard: Yard) -> None:
    yard.broker.listening.add(yard.device.id)
    command_id = await yard.sent(ttl_s=20, timeout_s=7)
    gateway = yard.dispatcher()
    yard.clock.advance(1)
    await gateway.look()
    (message,) = yard.broker.published
    command = await yard.get(command_id)
    assert (message.id, message.name, message.params) == (str(command_id), "ping", {})
    assert (message.ttl_ms, message.timeout_ms) == (19_000, 7_000)
    assert message.expires == int(command.expires_at * 1000)
    assert message.trace == command.trace
    asked = await yard.asked()
    (topic,) = yard.broker.topics
    assert topic == f"{asked.org_id}/{command.site_id}/linux/{yard.device.id}/cmd"
    assert command.state is State.SENT

    yard.clock.advance(1)
    assert await yard.ack(command_id, Stage.RECEIVED) == []
    yard.clock.advance(1)
    (ended,) = await yard.ack(command_id, Stage.DONE, ok=True, result={"pong": 1})
    after = await yard.get(command_id)
    assert (ended.state, after.state, after.result) == (State.SUCCEEDED, State.SUCCEEDED, {"pong": 1})
    assert ended.seconds == pytest.approx(3.0)
    times = [after.created_at, after.sent_at, after.delivered_at, after.finished_at]
    assert times == [pytest.approx(after.created_at + n) for n in range(4)]
    yard.clock.advance(3600)
    await gateway.look()
    assert len(yard.broker.published) == 1  # what has ended is not published any more


async def test_nothing_is_sent_while_nobody_listens(yard: Yard) -> None:
    """Published again and again, and honest about it: queued."""
    command_id = await yard.sent(ttl_s=100)
    gateway = yard.dispatcher()
    for _ in range(100):
        await gateway.look()
        yard.clock.advance(1)
    tries = len(yard.broker.published)
    assert 5 <= tries <= 9  # after 1, 2, 5, 10, 20, 30, 30 seconds
    assert (await yard.get(command_id)).publishes == tries
    await gateway.look()
    command = await yard.get(command_id)
    assert (command.state, command.sent_at, command.error) == (State.EXPIRED, None, None)
    both = (yard.metrics, yard.world.gateway.parts.metrics)  # whichever gateway looked first
    assert sum(metrics.commands.labels("expired").value for metrics in both) == 1


async def test_a_hello_brings_what_waits_at_once_and_in_order(yard: Yard) -> None:
    ids = [str(await yard.sent(ttl_s=3600)) for _ in range(5)]
    gateway = yard.dispatcher()
    yard.clock.advance(10)
    await gateway.look()
    yard.broker.published.clear()
    await gateway.look()
    assert not yard.broker.published
    yard.broker.listening.add(yard.device.id)
    await yard.greet()
    await gateway.look()
    assert [one.id for one in yard.broker.published] == ids
    assert {row["state"] for row in await yard.open_rows()} == {"sent"}


async def test_a_hello_during_a_publish_that_nobody_heard_is_not_forgotten(yard: Yard) -> None:
    await yard.sent()
    gateway = yard.dispatcher()
    yard.broker.gate = asyncio.Event()
    looking = asyncio.create_task(gateway.look())
    await yard.broker.wait_published()
    await yard.greet()
    yard.broker.gate.set()
    await looking
    yard.broker.listening.add(yard.device.id)
    await gateway.look()  # at the same moment: nothing to wait for
    assert [row["state"] for row in await yard.open_rows()] == ["sent"]


async def test_an_answer_that_overtakes_the_note_of_the_publish(yard: Yard) -> None:
    command_id = await yard.sent()
    yard.broker.listening.add(yard.device.id)
    yard.broker.gate = asyncio.Event()
    looking = asyncio.create_task(yard.dispatcher().look())
    await yard.broker.wait_published()
    await yard.ack(command_id, Stage.RECEIVED)
    await yard.ack(command_id, Stage.DONE, ok=True)
    yard.broker.gate.set()
    await looking
    command = await yard.get(command_id)
    assert command.state is State.SUCCEEDED
    assert command.sent_at is not None  # it was, and when is known
    assert await yard.open_rows() == []


@pytest.mark.parametrize("broker_back", [True, False])
async def test_a_gateway_that_dies_with_a_command_in_hand_holds_it_for_no_longer_than_its_lease(
    yard: Yard, broker_back: bool
) -> None:
    command_id = await yard.sent()
    async with yard.database.transaction() as tx:
        (order,) = await commands.claim(tx)  # and it dies here
    other = yard.dispatcher()
    yard.broker.listening.add(yard.device.id)
    await other.look()
    assert order.command.id == command_id
    assert not yard.broker.published
    yard.clock.advance(LEASE_S)
    await other.look()
    assert [one.id for one in yard.broker.published] == [str(command_id)]
    assert await yard.state(command_id) is State.SENT


async def test_two_gateways_never_own_the_same_command(yard: Yard) -> None:
    ids = {str(await yard.sent()) for _ in range(20)}
    yard.broker.listening.add(yard.device.id)
    gateways = [yard.dispatcher() for _ in range(2)]
    for _ in range(5):
        await asyncio.gather(*(gateway.look() for gateway in gateways))
    assert len(yard.broker.published) == 20
    assert {one.id for one in yard.broker.published} == ids


async def test_a_restart_between_any_two_states_leaves_nothing_stuck(yard: Yard) -> None:
    """Each step at a gateway that knows nothing but the rows; the one before it is gone."""
    yard.broker.listening.add(yard.device.id)
    ids = {state: await put_into(yard, state) for state in (State.QUEUED, State.SENT, State.DELIVERED)}
    for second in range(120):
        reborn = yard.dispatcher()
        await reborn.look()
        await reborn.close()
        yard.clock.advance(1)
        if second == 30:
            await yard.ack(ids[State.SENT], Stage.RECEIVED)
    states = {state: await yard.state(command_id) for state, command_id in ids.items()}
    assert states == {
        State.QUEUED: State.EXPIRED,
        State.SENT: State.TIMED_OUT,
        State.DELIVERED: State.TIMED_OUT,
    }
    assert await yard.open_rows() == []


async def test_a_broker_that_goes_away_changes_no_state(yard: Yard) -> None:
    command_id = await yard.sent()
    yard.broker.gate = asyncio.Event()
    looking = asyncio.create_task(yard.dispatcher().look())
    await yard.broker.wait_published()
    yard.broker.connected = False
    yard.broker.gate.set()
    await looking
    assert await yard.state(command_id) is State.QUEUED
    yard.broker.connected = True
    yard.broker.listening.add(yard.device.id)
    yard.clock.advance(30)
    await yard.dispatcher().look()
    assert await yard.state(command_id) is State.SENT


async def test_without_a_broker_time_still_ends_commands(yard: Yard) -> None:
    yard.broker.connected = False
    command_id = await yard.sent(ttl_s=5)
    yard.clock.advance(5)
    await yard.dispatcher().look()
    assert await yard.state(command_id) is State.EXPIRED


async def test_what_is_delivered_is_asked_about_again(yard: Yard) -> None:
    """The answer may have been lost; the device's ledger makes of a repeat only the answer again."""
    yard.broker.listening.add(yard.device.id)
    command_id = await yard.sent(ttl_s=10, timeout_s=300)
    gateway = yard.dispatcher()
    await gateway.look()
    await yard.ack(command_id, Stage.RECEIVED)
    yard.clock.advance(60)
    await gateway.look()
    assert [one.ttl_ms for one in yard.broker.published] == [10_000, 0]
    assert await yard.state(command_id) is State.DELIVERED


@pytest.mark.parametrize("error", ["expired", "busy", "unsupported"])
async def test_a_repeat_that_is_refused_says_nothing_of_what_was_received(yard: Yard, error: str) -> None:
    """The device did a `ping` and was started anew before it said so: it knows nothing of the id."""
    command_id = await put_into(yard, State.DELIVERED)
    assert await yard.ack(command_id, Stage.REFUSED, error=error) == []
    assert await yard.state(command_id) is State.DELIVERED
    await happen(yard, command_id, Event.DEADLINE)
    await yard.ack(command_id, Stage.REFUSED, error=error)
    command = await yard.get(command_id)
    assert (command.state, command.error, command.late_at) == (State.TIMED_OUT, None, None)
    await yard.ack(command_id, Stage.DONE, ok=True, result="after all")
    late = (await yard.get(command_id)).late
    assert late is not None
    assert late["result"] == "after all"


async def test_a_refusal_is_final_where_nothing_was_received(yard: Yard) -> None:
    for state in (State.QUEUED, State.SENT):
        command_id = await put_into(yard, state)
        await yard.ack(command_id, Stage.REFUSED, error="expired")
        command = await yard.get(command_id)
        assert (command.state, command.error) == (State.FAILED, "expired")


async def test_repeated_and_foreign_answers_change_nothing(yard: Yard) -> None:
    command_id = await yard.sent()
    other = await yard.world.enrol(yard.owner)
    assert await yard.ack(command_id, Stage.DONE, ok=True, device_id=other.id) == []
    assert await yard.state(command_id) is State.QUEUED
    assert len(await yard.ack(command_id, Stage.DONE, ok=True, result=1)) == 1
    assert await yard.ack(command_id, Stage.DONE, ok=False, error="again") == []
    assert await yard.ack(UUID(int=7), Stage.DONE, ok=True) == []
    command = await yard.get(command_id)
    assert (command.state, command.result, command.late_at) == (State.SUCCEEDED, 1, None)


async def test_no_time_lies_before_one_that_was_reached_earlier(yard: Yard) -> None:
    """Clocks of bridges and gateways differ a little."""
    yard.broker.listening.add(yard.device.id)
    command_id = await yard.sent()
    yard.clock.advance(10)
    await yard.dispatcher().look()
    for stage, ok in ((Stage.RECEIVED, None), (Stage.DONE, True)):
        ack = Ack(str(command_id), stage, ok=ok)
        async with yard.database.transaction() as tx:
            await acked(tx, yard.device.id, [Answer(ack, tx.now - 5, "control/0/0", None)])
    command = await yard.get(command_id)
    assert command.state is State.SUCCEEDED
    assert command.sent_at == command.delivered_at == command.finished_at


@pytest.mark.parametrize("said_ms", [0, 1, CALENDAR_END_MS, CALENDAR_END_MS + 1, 2**53 - 1])
async def test_a_devices_clock_may_say_anything(yard: Yard, said_ms: int) -> None:
    """It is shown where it is a time at all, and ends nothing else."""
    command_id = await yard.sent()
    for stage, ok in ((Stage.RECEIVED, None), (Stage.DONE, True)):
        ack = Ack(str(command_id), stage, at=said_ms, ok=ok)
        async with yard.database.transaction() as tx:
            await acked(tx, yard.device.id, [Answer(ack, tx.now, "control/0/0", None)])
    command = await yard.get(command_id)
    assert command.state is State.SUCCEEDED
    shown = None if said_ms > CALENDAR_END_MS else pytest.approx(said_ms / 1000, abs=0.001)
    assert (command.took_at, command.done_at) == (shown, shown)
    told = (await yard.owner.get(f"/v1/commands/{command_id}")).json()
    assert (told["hops"][2]["at"] is None) is (shown is None)


@pytest.mark.parametrize("end", [State.EXPIRED, State.TIMED_OUT])
async def test_a_late_answer_is_kept_and_the_state_stays(yard: Yard, end: State) -> None:
    command_id = await put_into(yard, end)
    finished_at = (await yard.get(command_id)).finished_at
    yard.clock.advance(5)
    await yard.ack(command_id, Stage.RECEIVED)
    first = await yard.get(command_id)
    assert (first.state, first.late) == (end, None)
    assert first.late_at is not None
    assert first.late_at > (finished_at or 0.0)
    yard.clock.advance(5)
    await yard.ack(command_id, Stage.DONE, ok=True, result="after all")
    await yard.ack(command_id, Stage.DONE, ok=True, result="once more")
    late = await yard.get(command_id)
    assert (late.state, late.finished_at, late.result) == (end, finished_at, None)
    assert late.late is not None
    assert late.late["result"] == "after all"
    assert late.late_at == first.late_at


async def test_a_revoked_devices_commands_fail_at_once(yard: Yard) -> None:
    ids = [await put_into(yard, state) for state in (State.QUEUED, State.SENT, State.DELIVERED)]
    done = await put_into(yard, State.SUCCEEDED)
    answer = await yard.owner.post(f"/v1/devices/{yard.device.id}/revoke")
    assert answer.status_code == 200, answer.text
    for command_id in ids:
        command = await yard.get(command_id)
        assert (command.state, command.error) == (State.FAILED, DEVICE_REVOKED)
    assert await yard.state(done) is State.SUCCEEDED
    assert yard.world.gateway.parts.metrics.commands.labels("failed").value == 3
    await yard.ack(ids[0], Stage.DONE, ok=True)
    assert (await yard.get(ids[0])).late_at is not None


async def test_a_device_that_moved_is_not_asked_what_others_wanted(yard: Yard) -> None:
    command_id = await yard.sent()
    home = (await yard.owner.get("/v1/sites")).json()["items"][0]
    made = await yard.owner.post(f"/v1/orgs/{home['org_id']}/sites", json={"name": "Elsewhere"})
    path = f"/v1/devices/{yard.device.id}"
    moved_there = await yard.owner.patch(path, json={"site_id": made.json()["id"]})
    assert moved_there.status_code == 200, moved_there.text
    command = await yard.get(command_id)
    assert (command.state, command.error) == (State.FAILED, "device_moved")
    assert (await yard.owner.get(f"/v1/commands/{command_id}")).status_code == 404
    assert (await yard.owner.get(f"{path}/commands")).json()["items"] == []


async def test_whatever_takes_a_device_away_is_noticed_before_a_publish(yard: Yard) -> None:
    """Should something else than the routes do it one day: the row itself is looked at."""
    command_id = await yard.sent()
    async with yard.database.transaction() as tx:
        await tx.execute("UPDATE devices SET status = 'revoked' WHERE id = $1", yard.device.id)
    await yard.dispatcher().look()
    assert not yard.broker.published
    assert (await yard.get(command_id)).error == DEVICE_REVOKED


async def test_one_look_takes_no_more_than_it_can(yard: Yard) -> None:
    site = (await yard.get(await yard.sent())).site_id
    async with yard.database.transaction() as tx:
        for n in range(149):  # past the limit of open ones: older rows, of a greater one
            await commands.add(
                tx,
                command_id=UUID(uuid7(n, bytes(RANDOM_BYTES))),
                device_id=yard.device.id,
                site_id=site,
                device_type="linux",
                author="ada",
                origin="automation",
                grounds=None,
                name="ping",
                params={},
                queue=True,
                expires_at=tx.now + 60,
                timeout_s=10,
                trace=new_trace(),
                lease_s=0,
            )
    yard.broker.listening.add(yard.device.id)
    gateway = yard.dispatcher()
    assert await gateway.look() == CLAIMED_MAX
    assert await gateway.look() == 50
    assert len({one.id for one in yard.broker.published}) == 150


def test_every_transition_was_tried() -> None:
    """The table above is all there is: a new event needs a way to happen here."""
    ways = {*ACKS, Event.TAKEN, Event.UNHEARD, Event.DEVICE_GONE, Event.TTL_OVER, Event.DEADLINE}
    ways |= {Event.AWAY, Event.NOT_ALLOWED}
    assert {event for _, event in TABLE} <= ways == set(Event)
