"""What devices say about commands: in the consumer's transaction, which commits all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from device_protocol.bodies import Ack, Stage
from gateway.metrics import GatewayMetrics
from gateway.policy.commands import FINAL, Event, is_late
from gateway.store import commands
from gateway.store.commands import Command, Ended
from gateway.store.transaction import Transaction


async def acked(tx: Transaction, device_id: str, acks: Sequence[Ack], at: float) -> list[Ended]:
    """Answers of one device, in the order in which it gave them; `at`: Unix seconds when the log took them.

    Repeating them changes nothing, nor does an answer to a command that is another device's or nobody's. The
    commands that ended by this, for `count` once the transaction is committed.
    """
    done: list[Ended] = []
    held = await commands.hold_of_device(tx, device_id, {UUID(ack.command) for ack in acks})
    for ack in acks:
        command = held.get(UUID(ack.command))
        if command is None:
            continue
        event = event_of(ack)
        if command.state in FINAL:
            await _late(tx, command, event, ack, at)
            continue
        error = None if event in {Event.RECEIVED, Event.DONE} else ack.error or str(event)
        after = await commands.reach(tx, command, event, at, by=device_id, result=ack.result, error=error)
        if after is not None:
            held[command.id] = after
            done += [commands.ended(after)] if after.state in FINAL else []
    return done


async def greeted(tx: Transaction, device_ids: Sequence[str]) -> None:
    """These devices said hello: what is open for them is published now, in order."""
    await commands.make_due(tx, device_ids)


def count(metrics: GatewayMetrics, done: Sequence[Ended]) -> None:
    """After the commit: a batch that is tried again must not count twice."""
    for one in done:
        metrics.commands.labels(str(one.state)).inc()
        metrics.command_seconds.observe(one.seconds)


def event_of(ack: Ack) -> Event:
    """What an answer does to its command."""
    if ack.stage is Stage.RECEIVED:
        return Event.RECEIVED
    if ack.stage is Stage.REFUSED:
        return Event.REFUSED
    return Event.DONE if ack.ok else Event.ERROR


async def _late(tx: Transaction, command: Command, event: Event, ack: Ack, at: float) -> None:
    if is_late(command.state, command.error):
        answer = None if event is Event.RECEIVED else ack.dump()
        await commands.note_late(tx, command, at, answer)
