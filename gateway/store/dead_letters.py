"""What could not be taken, with its reason: each record of the log once, and not without end.

A device, a site, and those that nobody knows, each have room for so many. What was replayed takes none: it is
in the history. What comes when there is none is counted in a letter of reason `no_space`, one of each device
and site, which says how many it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from device_protocol.errors import Reason
from gateway.policy.messages import Letter
from gateway.store.transaction import Transaction

# Some 30 MB of the largest. Whoever looks for what is wrong with a device finds it in far fewer.
DEVICE_MAX: Final = 1_000
# Ten devices that send nothing good, before the others' letters find no room either.
SITE_MAX: Final = 10_000
# Of no device that there is: what a topic's name holds cannot be told apart from what somebody made up.
NOBODYS_MAX: Final = 10_000


async def add(tx: Transaction, letters: Sequence[Letter]) -> int:
    """One that is there already stays as it is. How many found no room."""
    if not letters:
        return 0
    kept, left = _divided(letters, await _room(tx, letters))
    await tx.executemany(
        "INSERT INTO dead_letters (at, reason, detail, topic, device_id, site_id, size, body, log_topic,"
        " log_part, log_offset) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " ON CONFLICT (log_topic, log_part, log_offset) DO NOTHING",
        [
            (
                letter.received_at,
                letter.reason.value,
                letter.detail,
                letter.topic,
                letter.device_id,
                letter.site_id,
                letter.size,
                letter.body,
                *letter.place,
            )
            for letter in kept
        ],
    )
    if left:
        await _count(tx, left)
    return len(left)


Holder = tuple[str, str | None]
"""A device, a site or nobody: whose room it is."""


def _holders(letter: Letter) -> tuple[Holder, ...]:
    if letter.device_id is None:
        return (("nobody", None),)
    return (("device", letter.device_id), ("site", letter.site_id))


_MOST: Final = {"device": DEVICE_MAX, "site": SITE_MAX, "nobody": NOBODYS_MAX}


# Never more than it matters: a place that is full is not counted to its end.
_COUNTED: Final = (
    "(SELECT count(*) FROM (SELECT 1 FROM dead_letters d"
    " WHERE {} AND d.replayed_at IS NULL LIMIT w.most) found)"
)


async def _room(tx: Transaction, letters: Sequence[Letter]) -> dict[Holder, int]:
    """How many more each may have; as it stands now: two who look at once may both fill it."""
    holders = sorted({holder for letter in letters for holder in _holders(letter)}, key=str)
    rows = await tx.fetch(
        "SELECT w.n, CASE w.what"
        f" WHEN 'device' THEN {_COUNTED.format('d.device_id = w.id')}"
        f" WHEN 'site' THEN {_COUNTED.format('d.site_id = w.id')}"
        f" ELSE {_COUNTED.format('d.device_id IS NULL')} END AS count"
        " FROM unnest($1::text[], $2::text[], $3::integer[]) WITH ORDINALITY AS w(what, id, most, n)",
        [what for what, _ in holders],
        [id for _, id in holders],
        [_MOST[what] for what, _ in holders],
    )
    return {holders[row["n"] - 1]: _MOST[holders[row["n"] - 1][0]] - row["count"] for row in rows}


def _divided(letters: Sequence[Letter], room: Mapping[Holder, int]) -> tuple[list[Letter], list[Letter]]:
    """Those that there is room for, and those that there is none for."""
    taken: Counter[Holder] = Counter()
    kept, left = [], []
    for letter in letters:
        holders = _holders(letter)
        if all(taken[holder] < room[holder] for holder in holders):
            taken.update(holders)
            kept.append(letter)
        else:
            left.append(letter)
    return kept, left


async def _count(tx: Transaction, left: Sequence[Letter]) -> None:
    """Those of one device at one site in one letter of reason `no_space`; the first of them makes it."""
    firsts = {(letter.device_id, letter.site_id): letter for letter in reversed(left)}
    counts = Counter((letter.device_id, letter.site_id) for letter in left)
    for whose in sorted(firsts, key=str):
        first = firsts[whose]
        known = await tx.execute(
            "UPDATE dead_letters SET left_out = left_out + $3, at = $4 WHERE n = (SELECT max(n)"
            " FROM dead_letters WHERE reason = 'no_space' AND device_id IS NOT DISTINCT FROM $1"
            " AND site_id IS NOT DISTINCT FROM $2)",
            *whose,
            counts[whose],
            first.received_at,
        )
        if known:
            continue
        await tx.execute(
            "INSERT INTO dead_letters (at, reason, detail, topic, device_id, site_id, size, body, log_topic,"
            " log_part, log_offset, left_out) VALUES ($1, $2, $3, $4, $5, $6, 0, '', $7, $8, $9, $10)"
            " ON CONFLICT (log_topic, log_part, log_offset) DO NOTHING",
            first.received_at,
            Reason.NO_SPACE.value,
            "there is no room for more: left_out of them are not kept",
            first.topic,
            *whose,
            *first.place,
            counts[whose],
        )
