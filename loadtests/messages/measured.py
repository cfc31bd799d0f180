"""What the message side is measured by: how many messages a second, what each costs, how long its way is."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from loadtests.figures import Figure, Figures, Paths, medians, percentile
from loadtests.goals import MESSAGES as CHAIN
from loadtests.idle_tunnels import ordered
from loadtests.lab import Lab, say
from loadtests.measure import family_cpu_ms
from loadtests.messages.chain import NOBODY, Chain, agent, message_chain
from loadtests.messages.embedded import devices_with_passwords, rows_of
from loadtests.messages.rows import Rows
from loadtests.messages.talkers import Order
from loadtests.stack import Product, agent_argv, running_product
from testbed.programs import running
from testbed.waiting import eventually

EMBEDDED: Final = "towline, embedded"
DEVICES: Final = 200
EMBEDDED_DEVICES: Final = 20
ROUNDS: Final = 3  # at most: each is seconds long by itself
FLOOD_S: Final = 10
EMBEDDED_FLOOD_S: Final = 5
WARM_S: Final = 5  # Kafka's code is compiled while it runs
PACES: Final[Mapping[int, int]] = {1_000: 10, 12_000: 20}
"""Messages a second, each for so many seconds: a quiet site, and the goal."""
MEMORY_EVERY_S: Final = 1.0
PINGS: Final = 100  # a round
PING_WAIT_S: Final = 10
WARM_PINGS: Final = 20
KNOWN_S: Final = 60.0  # until the agent's hello was read


class Load:
    """The process of devices, and how many messages it has made."""

    def __init__(self, order: Order, process: subprocess.Popen[str]) -> None:
        self.ids = [login.id for login in order.logins]
        self.made = 0
        self._process = process

    def do(self, **task: float) -> dict[str, Any]:
        """See `talkers`; returns when all of it is accepted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the devices' process ended")
        done: dict[str, Any] = json.loads(line)
        self.made += done["made"]
        return done


@contextmanager
def load_of(order: Order) -> Iterator[Load]:
    """These devices, all connected."""
    with ordered("loadtests.messages.talkers", order.to_json()) as (process, said):
        if not said:
            raise RuntimeError("the devices did not connect")
        yield Load(order, process)


class Memory(threading.Thread):
    """Looks at the parts' memory now and then."""

    def __init__(self, look: Callable[[], dict[str, float]]) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, float]] = []
        self._look = look
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.wait(MEMORY_EVERY_S):
            self.seen.append(self._look())

    def end(self) -> Paths:
        """RSS of each part, in the order of time."""
        self._enough.set()
        self.join()
        return {
            f"towline, {name}": {"rss_mib": Figure(tuple(one[name] for one in self.seen))}
            for name in self.seen[0]
        }


def messages(lab: Lab) -> Figures:
    """Every section of the message side; nothing where Towline does not take part."""
    if lab.towline is None:
        return {}
    rounds = min(lab.options.rounds, ROUNDS)
    made: Figures = {"messages": {}, "messages_way": {}, "messages_memory": {}, "commands": {}}
    say("  Kafka, Mosquitto, PostgreSQL, gateway, consumer and bridge …")
    with message_chain(lab.root / "m") as chain:
        with load_of(chain.devices(DEVICES)) as load:
            _driven(chain, load, rounds, made)
        with agent(chain) as (owner, device):
            made["commands"][CHAIN] = pings(owner.http, device, rounds)
    say("  the embedded broker and log …")
    with running_product(_folder(lab.root, "e")) as product:
        _embedded(product, rounds, made)
    return made


def _driven(chain: Chain, load: Load, rounds: int, made: Figures) -> None:
    load.do(flood=WARM_S)
    chain.rows.wait_stored(load.made, load.ids)
    memory = Memory(chain.rss_mib)
    memory.start()
    try:
        made["messages"][CHAIN] = _floods(chain, load, rounds)
        for rate, seconds in PACES.items():
            made["messages_way"][f"towline, {rate:,} a second"] = _paced(chain, load, rate, seconds, rounds)
    finally:
        made["messages_memory"] = memory.end()


def _floods(chain: Chain, load: Load, rounds: int) -> dict[str, Figure]:
    rates, costs, errors = [], [], 0
    for _ in range(rounds):
        before = chain.spent_ms()
        done = load.do(flood=FLOOD_S)
        chain.rows.wait_stored(load.made, load.ids)
        spent = chain.spent_ms()
        way = chain.rows.way(done["begun_us"], load.ids)
        errors += abs(way.rows - done["made"]) + way.doubled
        rates.append(done["made"] / (way.last_us - done["begun_us"]) * 1e6)
        costs.append({name: (ms - before[name]) * 1000 / done["made"] for name, ms in spent.items()})
    return _cost_figures(rates, costs, errors)


def _cost_figures(
    rates: Sequence[float], costs: Sequence[Mapping[str, float]], errors: int
) -> dict[str, Figure]:
    return {
        "message_us": Figure(tuple(sum(of.values()) for of in costs), medians(costs)),
        "messages_per_s": Figure(tuple(rates)),
        "errors": Figure((float(errors),)),
    }


def _paced(chain: Chain, load: Load, rate: int, seconds: int, rounds: int) -> dict[str, Figure]:
    rates, found, errors = [], list[dict[str, float]](), 0
    for _ in range(rounds):
        done = load.do(pace=rate, seconds=seconds)
        chain.rows.wait_stored(load.made, load.ids)
        way = chain.rows.way(done["begun_us"], load.ids)
        errors += abs(way.rows - done["made"]) + way.doubled
        rates.append(done["made"] / (way.last_us - done["begun_us"]) * 1e6)
        p50, p99 = (us / 1000 for us in done["accept_us"])
        found.append(
            {
                "stored_p50_ms": way.p50_ms,
                "stored_p99_ms": way.p99_ms,
                "accepted_p50_ms": p50,
                "accepted_p99_ms": p99,
            }
        )
    return {
        **{name: Figure(tuple(one[name] for one in found)) for name in found[0]},
        "messages_per_s": Figure(tuple(rates)),
        "errors": Figure((float(errors),)),
    }


def pings(http: httpx.Client, device: str, rounds: int) -> dict[str, Figure]:
    """From the request to its answer that the device has done it, one after the other."""
    eventually("the agent takes commands", lambda: _ping_us(http, device) is not None, KNOWN_S)
    for _ in range(WARM_PINGS):
        _ping_us(http, device)
    took, errors = [], 0
    for _ in range(rounds):
        found = [_ping_us(http, device) for _ in range(PINGS)]
        good = [one for one in found if one is not None]
        errors += len(found) - len(good)
        took.append((percentile(good, 0.5), percentile(good, 0.99)))
    return {
        "p50_us": Figure(tuple(p50 for p50, _ in took)),
        "p99_us": Figure(tuple(p99 for _, p99 in took)),
        "errors": Figure((float(errors),)),
    }


def _ping_us(http: httpx.Client, device: str) -> float | None:
    """None: it was not done in time, or not at all."""
    begun = time.perf_counter_ns()
    answer = http.post(f"/v1/devices/{device}/commands?wait={PING_WAIT_S}", json={"name": "ping"})
    took = (time.perf_counter_ns() - begun) / 1000
    done = answer.status_code == 200 and answer.json()["state"] == "succeeded"
    return took if done else None


def _embedded(product: Product, rounds: int, made: Figures) -> None:
    parts = ("ingest", "gateway", "postgres")
    pids = {part: product.stack.pid(part) for part in parts}
    with ExitStack() as stack:
        rows = stack.enter_context(closing(rows_of(product)))
        with load_of(devices_with_passwords(product, rows, EMBEDDED_DEVICES)) as devices:
            made["messages"][EMBEDDED] = _embedded_floods(rows, devices, pids, rounds)
        config = product.enrol_agent("commanded", {"none": NOBODY}, messages={"enabled": True})
        stack.enter_context(running(agent_argv(config), log=product.root / "commanded.log"))
        device = product.gateway.device("commanded")["id"]
        owner = stack.enter_context(closing(product.stack.newcomer()))
        made["commands"][EMBEDDED] = pings(owner.http, device, rounds)


def _embedded_floods(rows: Rows, load: Load, pids: Mapping[str, int], rounds: int) -> dict[str, Figure]:
    rates, costs = [], []
    load.do(flood=1)
    rows.wait_stored(load.made, load.ids)
    for _ in range(rounds):
        before = {part: family_cpu_ms(pid) for part, pid in pids.items()}
        done = load.do(flood=EMBEDDED_FLOOD_S)
        rows.wait_stored(load.made, load.ids)
        took_us = time.time_ns() // 1000 - done["begun_us"]
        spent = {part: family_cpu_ms(pid) - before[part] for part, pid in pids.items()}
        rates.append(done["made"] / took_us * 1e6)
        costs.append({part: ms * 1000 / done["made"] for part, ms in spent.items()})
    [found] = rows.fetch(
        "SELECT count(*) AS rows, count(DISTINCT (device_id, boot, seq)) AS numbers FROM device_history"
        " WHERE device_id = ANY($1)",
        load.ids,
    )
    errors = abs(found["rows"] - load.made) + found["rows"] - found["numbers"]
    return _cost_figures(rates, costs, errors)


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    (parent / name).chmod(0o755)
    return parent / name
