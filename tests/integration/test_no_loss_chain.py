"""Nothing that a device was told to be kept is lost, doubled, reordered or made up: the production chain.

Real Mosquitto, Kafka, PostgreSQL and Redis, two bridges, a gateway and its consumer apart, an agent and
twenty devices; each is killed with -9 while all of them talk and commands go out. Then everything is compared
with what the devices wrote down.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psutil
import pytest

from device_protocol.bodies import Refused
from device_protocol.topics import Kind
from testbed.message_devices import Plan
from testbed.message_proof import Readings, check, orders, settle
from testbed.message_site import AGENT, CONSUMER, DEVICES, MessageSite
from testbed.processes import short_folder, started
from testbed.waiting import eventually
from tests.ingest.world import Talker
from tests.integration.stranger import (
    BROKER_MAX,
    FORBIDDEN_BOOT,
    Said,
    Stranger,
    forbidden,
    insist,
    is_cut_off,
    now_ms,
    say,
    wrongs,
)

pytestmark = pytest.mark.timeout(600)  # with the start of a dozen processes, on a machine with others at work

SHARES: Final = {
    "bridge-0": 4,
    "bridge-1": 4,
    "broker": 6,
    "consumer": 4,
    "gateway": 3,
    "kafka": 3,
    "postgres": 3,
    "redis": 2,
    AGENT: 2,
}
"""How often each is killed in a round, beside the devices, whose kill ends it: their patience begins anew."""
DEVICE_KILLS: Final = 3
AT_ONCE: Final = 0.35
"""How often the next one is killed before this one is well again."""
STORES: Final = (CONSUMER, "postgres")
SOURCES: Final = 4
BYTES_MAX: Final = 1 << 20
"""Of each bridge, the least that may be set."""
BRIDGE: Final = {"bytes_max": BYTES_MAX, "device_messages_s": 100_000, "device_bytes_s": 1 << 30}
"""One device says here what twenty do: its own rate would keep that from the bridge's memory."""
PRESSED: Final = ("towline_ingest_paused", 'towline_ingest_left_total{why="part"}')
"""Too much waits: nothing is read; or a part failed before the others did: what comes for it is left."""
SLACK: Final = 24 << 20
"""What a bridge may grow by beside them: buffers of its connections, and what the allocator keeps."""
PARTS_OF_A_SOAK: Final = 10
ROUNDS_OF_A_PART: Final = 3
"""Of 34 kills each: 1,020 in all, compared after every 102, on one site that grows older."""
WINDOW: Final = 16
"""Messages of 4 KB: 64 KiB in all, what a device may have on its way."""
QUIET_LOOKS: Final = 40
"""A tenth of a second and more each: longer than an answer waits on a busy machine."""
REPEATS_AN_HOUR: Final = 62
"""So often a device that is not answered says its window again in an hour: after 5, 10, 20, 40, 60 … s."""


@pytest.fixture(scope="module")
def readings() -> Iterator[Readings]:
    made = Readings()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(readings: Readings) -> Iterator[MessageSite]:
    source = {"url": readings.url, "sample_s": 0.5, "report_s": 1.0}
    sources = {f"meter{number}": source for number in range(SOURCES)}
    with (
        short_folder("chain-") as folder,
        started(MessageSite(folder, sources=sources, bridges=BRIDGE)) as made,
    ):
        made.goes_on()
        yield made


def victims(chance: random.Random, rounds: int) -> list[str]:
    found: list[str] = []
    for _ in range(rounds):
        some = [name for name, times in SHARES.items() for _ in range(times)]
        some += [DEVICES] * (DEVICE_KILLS - 1)
        chance.shuffle(some)
        found += [*some, DEVICES]
    return found


def prove(
    site: MessageSite,
    readings: Readings,
    rounds: int,
    seed: int | str,
    figures: Callable[[str, str], None],
) -> None:
    """`seed`: of what is killed when."""
    chance = random.Random(f"chain {seed}")
    chosen = victims(chance, rounds)
    began = datetime.now(UTC)
    site.talk(Plan())
    site.agent_talks(True)
    with orders(site, chance):
        for name in chosen:
            site.kill(name)
            if chance.random() > AT_ONCE:
                site.goes_on(stored=name in STORES)
        site.goes_on()
    settle(site)
    kept, commands = check(site, readings)
    took = (datetime.now(UTC) - began).total_seconds()
    figures("kept", f"{kept} messages over {len(chosen)} kills in {took:.0f} s")
    figures("commands", ", ".join(f"{times} {state}" for state, times in sorted(commands.items())))
    assert len(chosen) >= 30 * rounds
    assert commands["succeeded"] > len(chosen) / 2


def test_kafka_is_away_for_what_an_hour_brings(
    site: MessageSite, readings: Readings, figures: Callable[[str, str], None]
) -> None:
    """Twenty devices' repeats of an hour come in as fast as the broker takes them."""
    away(site, readings, Flood(len(site.names) * REPEATS_AN_HOUR), figures)


@dataclass(frozen=True)
class Flood:
    """A device's window, said so often while the log is away. `every_s`: between messages of the others."""

    windows: int
    pause_s: float = 0.0
    every_s: float = 0.1


def away(site: MessageSite, readings: Readings, wanted: Flood, figures: Callable[[str, str], None]) -> None:
    site.talk(Plan(every_s=wanted.every_s, padding=500))
    site.goes_on()
    site.kafka.kill()
    floors = quiet_floors(site)
    name = f"flood{wanted.windows}"
    state = site.folder / name / "state"
    device = site.enrol(state, name)
    stranger, talker = Stranger(state), Talker(device)
    window = [talker.next(ts=now_ms(), type="state", payload={"long": "x" * 3900}) for _ in range(WINDOW)]
    use = asyncio.run(flood(site, stranger, window, wanted))
    assert site.floors() == floors, "accepted, and nobody keeps it"
    assert max(use.pop("pressed")) or wanted.pause_s, "it was not too much for a bridge"
    site.kafka.begin()
    site.goes_on()
    asyncio.run(insist(stranger, window, WINDOW))
    settle(site)
    kept, _ = check(site, readings)
    assert len(site.rows("SELECT 1 FROM device_history WHERE device_id = $1", device)) == WINDOW
    half = len(next(iter(use.values()))) // 2
    for process, sizes in use.items():
        grown = max(sizes) - sizes[0]
        later = max(sizes[half:]) - max(sizes[:half])
        figures(f"{process} grew by", f"{grown / 2**20:.1f} MiB, in the second half by {later / 2**20:.1f}")
        assert grown < BYTES_MAX + SLACK
        assert later < SLACK / 4
    figures("kept", f"{kept} messages; {wanted.windows} windows while the log was away")


def quiet_floors(site: MessageSite) -> dict[str, tuple[int, ...]]:
    """Once answers that were on their way have come."""
    seen: list[dict[str, tuple[int, ...]]] = []

    def quiet() -> bool:
        seen.append(site.floors())
        return len(seen) > QUIET_LOOKS and all(one == seen[-1] for one in seen[-QUIET_LOOKS:])

    eventually("nothing is accepted any more", quiet)
    return seen[-1]


async def flood(
    site: MessageSite, stranger: Stranger, window: list[bytes], wanted: Flood
) -> dict[str, list[int]]:
    """Memory meanwhile, by process, bytes, and whether a bridge turned messages away."""
    pids = {name: site.processes.pid(name) for name in (*site.bridges, "gateway-0", CONSUMER)}
    use: dict[str, list[int]] = {name: [] for name in (*pids, "pressed")}
    async with AsyncExitStack() as stack:
        link = await stranger.connect(stack)
        topic = stranger.topic(Kind.STATE)
        for n in range(wanted.windows):
            for payload in window:
                await link.send(topic, payload)
            if n % 40 == 0:
                looks = [asyncio.to_thread(site.bridge_metric, one) for one in PRESSED]
                use["pressed"].append(int(sum(await asyncio.gather(*looks))))
            for name, pid in pids.items():
                use[name].append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(wanted.pause_s)  # sleeps: an hour is to pass
    return use


def test_bad_input_has_its_place_and_changes_nothing_else(site: MessageSite) -> None:
    """What devices may do wrong, through all of it: a dead letter each, or a refusal, and no row more."""
    state = site.folder / "bad" / "state"
    device = site.enrol(state, "bad")
    stranger = Stranger(state)
    said = [*wrongs(stranger), *forbidden(stranger, site.ids[site.names[0]])]
    asyncio.run(say(stranger, said))
    expected = Counter(one.reason for one in said if one.reason)
    good = {one.id for one in said if one.reason is None}

    asyncio.run(is_cut_off(stranger, b"x" * (BROKER_MAX * 2)))

    def kept() -> tuple[Counter[str], set[str]]:
        letters = site.rows("SELECT reason FROM dead_letters WHERE device_id = $1", device)
        rows = site.rows("SELECT id FROM device_history WHERE device_id = $1", device)
        return Counter(row["reason"] for row in letters), {str(row["id"]) for row in rows}

    with suppress(AssertionError):  # what is missing is told below
        eventually("each has its place", lambda: kept() == (expected, good))
    assert kept() == (expected, good)
    refused = {one.reason.value for one in stranger.heard if isinstance(one, Refused)}
    assert refused
    assert refused <= set(expected)
    # Not past the broker, which confirms it all the same (MQTT 3.1.1 has no other answer).
    assert site.rows("SELECT 1 FROM device_history WHERE boot = $1", FORBIDDEN_BOOT) == []
    assert site.rows("SELECT 1 FROM dead_letters WHERE device_id IS DISTINCT FROM $1", device) == []


def test_a_replayed_capture_changes_nothing(site: MessageSite) -> None:
    """At bridges that know what they took, and at such that do not: then the consumer sees that it has it."""
    state = site.folder / "captured" / "state"
    device = site.enrol(state, "captured")
    stranger, talker = Stranger(state), Talker(device)
    capture = [Said(stranger.topic(), talker.next(ts=now_ms())) for _ in range(20)]
    for amnesia in (None, False, True):
        if amnesia:
            site.kill("bridge-0")
            site.kill("bridge-1")
            site.goes_on()
        asyncio.run(say(stranger, capture))
        eventually("all of it is stored", lambda: len(ids_of(site, device)) >= len(capture))
        eventually("nothing is left in the log", lambda: site.lag() == 0)
        assert ids_of(site, device) == [one.id for one in capture]
    assert site.rows("SELECT 1 FROM dead_letters WHERE device_id = $1", device) == []


def ids_of(site: MessageSite, device: str) -> list[str]:
    """Of all that is kept of it, in the order of its numbers."""
    rows = site.rows("SELECT id FROM device_history WHERE device_id = $1 ORDER BY boot, seq", device)
    return [str(row["id"]) for row in rows]


def test_every_kind_of_process_is_killed(
    site: MessageSite, readings: Readings, seed: int, figures: Callable[[str, str], None]
) -> None:
    prove(site, readings, 1, seed, figures)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS_OF_A_SOAK))
def test_a_thousand_kills(
    site: MessageSite, readings: Readings, seed: int, part: int, figures: Callable[[str, str], None]
) -> None:
    prove(site, readings, ROUNDS_OF_A_PART, f"{seed} {part}", figures)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_kafka_is_away_for_an_hour(
    site: MessageSite, readings: Readings, figures: Callable[[str, str], None]
) -> None:
    away(site, readings, Flood(REPEATS_AN_HOUR, pause_s=3600 / REPEATS_AN_HOUR, every_s=1.0), figures)
