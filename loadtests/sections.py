"""The measurements themselves: each takes the lab and gives the figures of one or more sections.

Rounds are interleaved (every path once a round, then again), so that a noisy neighbour hits all alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice

from loadtests import goals
from loadtests.figures import SNITUN, SSH, TOWLINE, Figure, Figures, Paths, medians, percentile
from loadtests.gateway_api import gateway
from loadtests.idle_tunnels import (
    TUNNELS_PER_DEVICE,
    Dialled,
    agents_in_one_process,
    idle_tunnels,
    write_agent,
)
from loadtests.lab import Lab, say
from loadtests.measure import (
    PacedClient,
    RequestCost,
    Target,
    Transfer,
    bulk_in_background,
    pss_kib,
    request_cost,
    sessions_cost,
    settled_rss_kib,
    stalled_readers,
    transfer,
)
from loadtests.messages.measured import messages
from loadtests.peers.snitun import snitun_client
from loadtests.peers.ssh import ssh_tunnels
from loadtests.seeding import SeededDevice, seed_devices
from loadtests.stack import TowlineStack, agent_argv, open_session, wait_online
from testbed.programs import family, running
from testbed.waiting import eventually

LATENCY_PAUSE_S = 0.001  # low load: one request a millisecond at most
LATENCY_REQUESTS = 400  # a round, for each path
UNDER_BULK_PAUSE_S = 0.002
UNDER_BULK_REQUESTS = 250
UNDER_BULK_MOST_S = 1.5  # a path that takes seconds for one request must not take minutes for all
STALLED_READERS = 8
STALLED_ROUNDS = 2
TUNNELS = 32
FIRST_TUNNELS = 400  # pools and code pages are not charged to the idle tunnels
FEW_TUNNELS = 10
SESSION_ANSWERS_S = 60.0
IDLE_SSH = 20
IDLE_SNITUN = 400


def costs_figures(runs: dict[str, list[RequestCost]]) -> Paths:
    """CPU-µs a request with its parts, the rate, and the errors of all rounds."""
    return {
        name: {
            "cpu_us": Figure(tuple(run.total_us for run in of), medians([run.cpu_us for run in of])),
            "requests_per_s": Figure(tuple(run.requests_per_s for run in of)),
            "errors": Figure((float(sum(run.errors for run in of)),)),
        }
        for name, of in runs.items()
    }


def request_costs(lab: Lab, path: str, connections: int) -> Paths:
    runs: dict[str, list[RequestCost]] = {target.name: [] for target in lab.targets}
    for _ in range(lab.options.rounds):
        for target in lab.targets:
            runs[target.name].append(request_cost(target, path, connections, lab.options.seconds))
    return costs_figures(runs)


def bulk(lab: Lab) -> Figures:
    """MB/s and CPU-ms a MB, down and up."""
    upload = lab.root / "www" / "bulk"
    down: dict[str, list[Transfer]] = {target.name: [] for target in lab.targets}
    up: dict[str, list[Transfer]] = {target.name: [] for target in lab.targets}
    for _ in range(lab.options.rounds):
        for target in lab.targets:
            down[target.name].append(transfer(target, "/bulk"))
            up[target.name].append(transfer(target, "/upload", upload=upload))
    return {"bulk_down": _transfers(down), "bulk_up": _transfers(up)}


def _transfers(runs: dict[str, list[Transfer]]) -> Paths:
    return {
        name: {
            "mb_s": Figure(tuple(run.mb_per_s for run in of)),
            "cpu_ms_mb": Figure(
                tuple(run.total_ms_per_mb for run in of), medians([run.cpu_ms_per_mb for run in of])
            ),
        }
        for name, of in runs.items()
    }


def _paced(client: PacedClient, number: int, pause_s: float, most_s: float = math.inf) -> list[float]:
    """µs of up to `number` exchanges, at least one, as many as `most_s` seconds allow."""
    taken: list[float] = []
    end = time.monotonic() + most_s
    while len(taken) < number and (not taken or time.monotonic() < end):
        taken.append(client.exchange_us())
        time.sleep(pause_s)
    return taken


@contextmanager
def _paced_client(target: Target) -> Iterator[PacedClient]:
    client = PacedClient(target, "/1k")
    try:
        _paced(client, 20, 0)
        yield client
    finally:
        client.close()


def under_bulk(lab: Lab) -> Paths:
    """p50 and p99 of small requests beside an endless download."""
    taken: dict[str, list[tuple[float, float]]] = {target.name: [] for target in lab.targets}
    for _ in range(lab.options.rounds):
        for target in lab.targets:
            with _paced_client(target) as client, bulk_in_background(target, "/bulk"):
                _paced(
                    client, UNDER_BULK_REQUESTS // 10, UNDER_BULK_PAUSE_S, UNDER_BULK_MOST_S
                )  # windows have grown by then
                values = _paced(client, UNDER_BULK_REQUESTS, UNDER_BULK_PAUSE_S, UNDER_BULK_MOST_S)
            taken[target.name].append((percentile(values, 0.5), percentile(values, 0.99)))
    return {
        name: {"p50_us": Figure(tuple(p50 for p50, _ in of)), "p99_us": Figure(tuple(p99 for _, p99 in of))}
        for name, of in taken.items()
    }


def latency(lab: Lab) -> Paths:
    """p50 and p99 at low load, and what each path adds to the direct way; requests of all paths alternate."""
    everyone = list({one.name: one for one in (*lab.bases.values(), *lab.targets)}.values())
    rounds: dict[str, list[list[float]]] = {target.name: [] for target in everyone}
    with ExitStack() as stack:
        clients = [(target, stack.enter_context(_paced_client(target))) for target in everyone]
        for _ in range(lab.options.rounds):
            taken: dict[str, list[float]] = {target.name: [] for target in everyone}
            for _ in range(LATENCY_REQUESTS):
                for target, client in clients:
                    taken[target.name] += _paced(client, 1, LATENCY_PAUSE_S)
            for name, values in taken.items():
                rounds[name].append(values)
    return {target.name: _added(rounds, target, lab.bases.get(target.name, target)) for target in everyone}


def _added(rounds: dict[str, list[list[float]]], target: Target, base: Target) -> dict[str, Figure]:
    figures = {}
    for name, share in (("p50_us", 0.5), ("p99_us", 0.99)):
        own = [percentile(values, share) for values in rounds[target.name]]
        direct = [percentile(values, share) for values in rounds[base.name]]
        figures[name] = Figure(tuple(own))
        if target.name != base.name:
            figures[f"added_{name}"] = Figure(
                tuple(one - other for one, other in zip(own, direct, strict=True))
            )
    return figures


def stalled(lab: Lab) -> Paths:
    """MiB that 8 stalled readers cost; must come before anything that grows the processes."""
    taken: dict[str, list[tuple[float, dict[str, float]]]] = {target.name: [] for target in lab.targets}
    for _ in range(STALLED_ROUNDS):
        for target in lab.targets:
            before = settled_rss_kib(target.pids)
            with stalled_readers(target, "/stalled", STALLED_READERS):
                after = settled_rss_kib(target.pids)
            parts = {part: (kib - before[part]) / 1024 for part, kib in after.items()}
            taken[target.name].append((sum(parts.values()), parts))
    largest = {name: max(of, key=lambda round_: round_[0]) for name, of in taken.items()}
    return {name: {"mib": Figure((total,), parts)} for name, (total, parts) in largest.items()}


def tunnels32(lab: Lab) -> Paths:
    """32 devices with a tunnel and a session each, one request in flight on each."""
    product = lab.towline
    if product is None:
        return {}
    service = f"127.0.0.1:{lab.upstream.port}"
    devices = seed_devices(product.data, TUNNELS)
    with agents_in_one_process(product.agent_state, devices, service) as pids:
        wait_online(product.gateway, [device.id for device in devices])
        visits = [_visit(product, device) for device in devices]
        one = _many(lab, product, visits, pids)
    with ExitStack() as stack:
        agents = []
        for device in devices:
            folder = lab.root / device.id
            argv = agent_argv(write_agent(product, device, service, folder))
            agents.append(stack.enter_context(running(argv, log=folder / "log")))
        each = _many(lab, product, visits, tuple(agent.pid for agent in agents))
    return {goals.ONE_PROCESS: one, goals.MANY_PROCESSES: each}


def _visit(product: TowlineStack, device: SeededDevice) -> Target:
    """An open session of the device as a target."""
    host, port, cookie = open_session(product.gateway, device.id)
    return replace(product.target, port=port, headers=(("Host", host), ("Cookie", cookie)))


def _many(
    lab: Lab, product: TowlineStack, visits: Sequence[Target], agents: tuple[int, ...]
) -> dict[str, Figure]:
    for visit in visits:
        eventually(f"{visit.headers[0][1]} answers", partial(_answers, visit), SESSION_ANSWERS_S)
    sessions = lab.root / "sessions"
    sessions.write_text("".join(f"{one.headers[0][1]} {one.headers[1][1]}\n" for one in visits))
    target = replace(product.target, pids={"server": (product.server_pid,), "agents": agents})
    runs = [
        sessions_cost(target, "/1k", sessions, len(visits), lab.options.seconds)
        for _ in range(lab.options.rounds)
    ]
    return costs_figures({TOWLINE: runs})[TOWLINE]


def _answers(visit: Target) -> bool:
    try:
        client = PacedClient(visit, "/1k")
    except OSError:
        return False
    try:
        client.exchange_us()
    except RuntimeError:  # 503 while the device's new agent is on its way
        return False
    finally:
        client.close()
    return True


def idle(lab: Lab) -> Figures:
    """Memory of idle tunnels, what their handshakes cost, and what a request costs beside them."""
    made: Figures = {"idle": _idle_peers(lab)}
    if lab.towline is not None:
        made |= _idle_towline(lab, lab.towline, made["idle"])
    return made


def _idle_towline(lab: Lab, product: TowlineStack, idle_paths: Paths) -> Figures:
    most = max(lab.options.connected, lab.options.idle + FIRST_TUNNELS)
    steps = [FEW_TUNNELS, FIRST_TUNNELS, lab.options.idle, most - lab.options.idle - FIRST_TUNNELS]
    devices = iter(seed_devices(product.data, sum(_devices(step) for step in steps)))
    dialled: list[Dialled] = []
    rss: list[int] = []

    def more(stack: ExitStack, step: int) -> None:
        say(f"  {steps[step]} idle tunnels more …")
        chosen = list(islice(devices, _devices(steps[step])))
        dialled.append(stack.enter_context(idle_tunnels(product, chosen)))
        rss.append(settled_rss_kib({"server": [product.server_pid]})["server"])

    with ExitStack() as few_stay:
        more(few_stay, 0)
        beside_few = _costs_beside(lab, product)
        with ExitStack() as many_stay:
            for step in (1, 2, 3):
                more(many_stay, step)
            beside_many = _costs_beside(lab, product)
        beside_few += _costs_beside(lab, product)  # again, so that a drift of the machine hits both
    per_tunnel = (rss[2] - rss[1]) / dialled[2].tunnels
    idle_paths[TOWLINE] = {"kib_per_tunnel": Figure((per_tunnel,)), "rss_mib": Figure((rss[2] / 1024,))}
    connected = {f"towline, {FEW_TUNNELS} tunnels": beside_few, f"towline, {most} tunnels": beside_many}
    return {"handshakes": {TOWLINE: _handshakes(dialled[1:])}, "connected": costs_figures(connected)}


def _devices(tunnels: int) -> int:
    return max(1, tunnels // TUNNELS_PER_DEVICE)


def _costs_beside(lab: Lab, product: TowlineStack) -> list[RequestCost]:
    return [request_cost(product.target, "/1k", 32, lab.options.seconds) for _ in range(lab.options.rounds)]


def _handshakes(dialled: Sequence[Dialled]) -> dict[str, Figure]:
    return {
        "cpu_ms_handshake": Figure(
            tuple(sum(one.cpu_ms.values()) for one in dialled), medians([one.cpu_ms for one in dialled])
        ),
        "handshakes_per_s": Figure(tuple(one.tunnels / one.seconds for one in dialled)),
    }


def _idle_peers(lab: Lab) -> Paths:
    """ssh's and snitun's idle connections, a few: a process each, and objects in one process."""
    made: Paths = {}
    if lab.ssh is not None:
        before = sum(pss_kib(pid) for pid in family(lab.ssh.pid))
        with ssh_tunnels(lab.ssh, lab.upstream.port, IDLE_SSH):
            after = sum(pss_kib(pid) for pid in family(lab.ssh.pid))
        made[SSH] = {"kib_per_tunnel": Figure(((after - before) / IDLE_SSH,))}
    if lab.snitun is not None:
        pids = {"server": [lab.snitun.pid]}
        before = settled_rss_kib(pids)["server"]
        names = [f"idle-{number}.localhost" for number in range(IDLE_SNITUN)]
        with snitun_client(lab.snitun, lab.upstream.tls_port, names):
            after = settled_rss_kib(pids)["server"]
        made[SNITUN] = {"kib_per_tunnel": Figure(((after - before) / IDLE_SNITUN,))}
    return made


# In this order: memory first, while the processes are fresh; thousands of tunnels last.
MEASUREMENTS: dict[str, Callable[[Lab], Figures]] = {
    "stalled": lambda lab: {"stalled": stalled(lab)},
    "c32": lambda lab: {"c32": request_costs(lab, "/1k", 32)},
    "c1": lambda lab: {"c1": request_costs(lab, "/1k", 1)},
    "64k": lambda lab: {"64k": request_costs(lab, "/64k", 8)},
    "bulk": bulk,
    "under_bulk": lambda lab: {"under_bulk": under_bulk(lab)},
    "latency": lambda lab: {"latency": latency(lab)},
    "tunnels32": lambda lab: {"tunnels32": tunnels32(lab)},
    "gateway": gateway,
    "messages": messages,
    "idle": idle,
}
