"""What devices say about commands: in the consumer's transaction, which commits all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from device_protocol.bodies import Ack, Stage
from gateway.metrics import GatewayMetrics
from gateway.policy.commands import FINAL, Event, is_late, says_nothing
from gateway.store import commands
from gateway.store.commands import Answered, Command, Ended
from gateway.store.transaction import Transaction
from runtime.logs import get_logger

# The end of the year 9999: a device may say any number, and no later one is a time for Python or Postgres.
CALENDAR_END_MS: Final = 253_402_300_799_999

log = get_logger("gateway.commands")


@dataclass(frozen=True, slots=True)
class Answer:
    """An ack as the log has it: when it took it (Unix seconds), where, and the trace that it came with."""

    ack: Ack
    at: float
    place: str
    trace: str | None


async def heard(
    tx: Transaction, answers: Mapping[str, Sequence[Answer]], greetings: Sequence[str]
) -> list[Ended]:
    """What came at once, by device: answers as `acked` takes them, then the devices that said hello."""
    devices = {*answers, *greetings}
    if len(devices) > 1:
        # All before any: an answer of one device must not be held while a hello of another one waits.
        await commands.hold_open(tx, sorted(devices))
    done: list[Ended] = []
    for device_id in sorted(answers):
        done += await acked(tx, device_id, answers[device_id])
    if greetings:
        await greeted(tx, sorted(greetings))
    return done


async def acked(tx: Transaction, device_id: str, answers: Sequence[Answer]) -> list[Ended]:
    """Answers of one device, in the order in which it gave them.

    Repeating them changes nothing, nor does an answer to a command that is another device's or nobody's. The
    commands that ended by this, for `count` once the transaction is committed.
    """
    done: list[Ended] = []
    held = await commands.hold_of_device(tx, device_id, {UUID(one.ack.command) for one in answers})
    for answer in answers:
        ack = answer.ack
        command = held.get(UUID(ack.command))
        if command is None:
            continue
        event = event_of(ack)
        if says_nothing(event, delivered=command.delivered_at is not None):
            continue
        if command.state in FINAL:
            await _late(tx, command, event, answer)
            continue
        error = None if event in {Event.RECEIVED, Event.DONE} else ack.error or str(event)
        after = await commands.reach(
            tx,
            command,
            event,
            # What is left of its time begins when the device took it; it is over when this is written.
            answer.at if event is Event.RECEIVED else max(answer.at, tx.now),
            by=device_id,
            result=ack.result,
            error=error,
            answered=Answered(_said_at(ack), answer.at, answer.place),
        )
        if after is not None:
            held[command.id] = after
            log.info("a device answered a command", extra=_facts(device_id, answer, after))
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


def _said_at(ack: Ack) -> float | None:
    """By the device's clock, however wrong; None where that is no time."""
    return None if ack.at is None or ack.at > CALENDAR_END_MS else ack.at / 1000


def _facts(device_id: str, answer: Answer, after: Command) -> dict[str, object]:
    """For the log: the id of the trace is the one that the device gave back."""
    return {
        "command": str(after.id),
        "device": device_id,
        "state": str(after.state),
        "trace": answer.trace,
        "place": answer.place,
    }


async def _late(tx: Transaction, command: Command, event: Event, answer: Answer) -> None:
    if is_late(command.state, command.error):
        said = None if event is Event.RECEIVED else answer.ack.dump()
        await commands.note_late(tx, command, answer.at, said)
