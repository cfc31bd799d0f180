"""Commands of several devices that are written at once: whoever waits, waits in one order, nobody in a ring.

Postgres ends a ring by refusing one of the two.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from device_protocol.bodies import Ack, Stage
from gateway.commands.outcome import Answer, heard
from gateway.store import commands
from tests.gateway.commands.conftest import Yard
from tests.gateway.standing_still import paused
from tests.gateway.world import World

pytestmark = pytest.mark.usefixtures("patient_statements")


async def made_backwards(yard: Yard) -> dict[str, UUID]:
    """A command for each of two devices, by device: the later id belongs to the device that is first."""
    first, second = sorted([yard.device.id, (await yard.world.enrol(yard.owner)).id])
    found = {}
    for device_id in (second, first):
        answer = await yard.owner.post(f"/v1/devices/{device_id}/commands", json={"name": "ping"})
        assert answer.status_code == 202, answer.text
        found[device_id] = UUID(answer.json()["id"])
        yard.clock.advance(1)
    assert found[first] > found[second]
    return {first: found[first], second: found[second]}


@pytest.mark.parametrize("held", [0, 1], ids=["first device", "second device"])
@pytest.mark.parametrize(("says", "greets"), [((0, 1), ()), ((1,), (0,)), ((0,), (1,)), ((), (0, 1))])
async def test_a_login_that_is_replaced_while_devices_speak(
    world: World, yard: Yard, says: tuple[int, ...], greets: tuple[int, ...], held: int
) -> None:
    """The batch stands still at one device's command when the login's commands are handed over."""
    ids = await made_backwards(yard)
    devices = list(ids)

    async def hear() -> None:
        async with yard.database.transaction() as tx:
            answers = {
                devices[n]: [Answer(Ack(str(ids[devices[n]]), Stage.RECEIVED), tx.now, "control/0/0", None)]
                for n in says
            }
            await heard(tx, answers, [devices[n] for n in greets])

    async def hand_over() -> None:
        async with yard.database.transaction() as tx:
            login = await tx.fetchval("SELECT login_id FROM commands WHERE id = $1", ids[devices[0]])
            assert login is not None
            await commands.hand_over(tx, login, login)

    lock = f"SELECT 1 FROM commands WHERE id = '{ids[devices[held]]}' FOR UPDATE"
    async with asyncio.TaskGroup() as group, paused(world, lock) as pause:
        group.create_task(hear())
        await pause.until_waiting(1)
        group.create_task(hand_over())
        await pause.until_waiting(2)


async def test_greeted_at_once_with_answers_of_others(yard: Yard) -> None:
    """Each gets what it would have got alone."""
    ids = await made_backwards(yard)
    (first, one), (second, other) = ids.items()
    ack = Ack(str(other), Stage.DONE, ok=True)
    async with yard.database.transaction() as tx:
        await tx.execute("UPDATE commands SET next_at = $1::timestamptz + interval '1 h'", tx.at)
        (ended,) = await heard(tx, {second: [Answer(ack, tx.now, "control/0/0", None)]}, [first])
    assert ended.state == "succeeded"
    rows = await yard.open_rows()
    assert [row["id"] for row in rows] == [one]
    assert rows[0]["next_at"] == tx.at
