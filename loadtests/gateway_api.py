"""What the gateway costs: logins, authorised reads, sessions, and a revocation's way to the last byte.

It runs as `towline up` starts it, with PostgreSQL beside it; both pay for each request, so both are counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from loadtests.figures import Figure, Figures, Paths, medians, percentile
from loadtests.lab import Lab
from loadtests.measure import RequestCost, Target, family_cpu_ms, tokens_cost
from loadtests.seeding import seed_devices
from loadtests.stack import TowlineStack
from testbed.people import Person, entered
from testbed.programs import family
from towline.gateway_client import Credentials

LISTED = 100  # devices of a list
READ_CONNECTIONS = 8
TOKENS = 8  # of each kind, who take turns: one may ask 50 times a second and 1,000 times at once
READ_S = 1  # a round, for each kind of read
LOGINS_PER_ADDRESS = 5  # the gateway lets one account in ten times from one address, then slowly
LOGIN_ADDRESSES = 6
OWN_ADDRESS = "127.98.0.1"  # whose tries to log in nobody else uses up
MINTS = 50  # sessions made and ended, a round
REVOCATIONS = 4  # a round
CUT_DEADLINE_S = 20.0
SOON_S = 0.01  # a download that has begun stays under way for as long before it is cut


@dataclass(frozen=True, slots=True)
class Measured:
    """The gateway of the lab: whose CPU counts, and who asks."""

    origin: str
    pids: dict[str, tuple[int, ...]]
    credentials: Credentials
    owner: Person  # a program with an access token
    tokens: dict[str, Path]  # by kind: a file with one a line
    device: str  # one that is online and whose web service has an endless page

    def spent_ms(self) -> dict[str, float]:
        """CPU-ms so far."""
        return {part: family_cpu_ms(of[0]) for part, of in self.pids.items()}


@contextmanager
def measured(product: TowlineStack, folder: Path) -> Iterator[Measured]:
    """Logged in, with TOKENS of each kind, beside a list of LISTED devices."""
    seed_devices(product.data, LISTED)
    credentials = Credentials.load(product.data.credentials)
    with ExitStack() as leaving:
        stranger = leaving.enter_context(closing(Person(product.gateway.address, address=OWN_ADDRESS)))
        own, *access = [_another_login(stranger, credentials) for _ in range(TOKENS + 1)]
        owner = leaving.enter_context(closing(stranger.bearer(own)))
        wish = {"name": "Benchmark", "scopes": ["devices:read"]}
        api = [owner.call("POST", "/v1/me/api-tokens", wish)["token"] for _ in range(TOKENS)]
        files = {}
        for kind, tokens in (("access tokens", access), ("API tokens", api)):
            files[kind] = folder / kind
            files[kind].write_text("\n".join(tokens) + "\n")
        pids = {"gateway": (product.gateway_pid,), "postgres": family(product.postgres_pid)}
        device = product.gateway.device("bench")["id"]
        yield Measured(product.gateway.address, pids, credentials, owner, files, device)


def _another_login(stranger: Person, credentials: Credentials) -> str:
    """Its access token. A browser's new login ends its former one, so this is a browser without one."""
    stranger.http.cookies.clear()
    return stranger.log_in(credentials.username, credentials.password)


def gateway(lab: Lab) -> Figures:
    """All sections of the gateway; nothing where it does not take part."""
    if lab.towline is None:
        return {}
    with measured(lab.towline, lab.root) as one:
        rounds = lab.options.rounds
        return {
            "gateway_reads": reads(one, rounds),
            "gateway_logins": logins(one, rounds),
            "gateway_sessions": sessions(one, rounds),
            "gateway_cut": cuts(one, rounds),
        }


def reads(one: Measured, rounds: int) -> Paths:
    """GET of one device and of a list, by each kind of token."""
    asked = {
        f"{what}, {kind}": (path, tokens)
        for what, path in (
            ("a device", f"/v1/devices/{one.device}"),
            (f"{LISTED} devices", f"/v1/devices?limit={LISTED}"),
        )
        for kind, tokens in one.tokens.items()
    }
    runs: dict[str, list[RequestCost]] = {name: [] for name in asked}
    for path, tokens in asked.values():  # connections to the database, caches of its plans
        tokens_cost(_target(one), path, tokens, READ_CONNECTIONS, READ_S)
    for _ in range(rounds):
        for name, (path, tokens) in asked.items():
            runs[name].append(tokens_cost(_target(one), path, tokens, READ_CONNECTIONS, READ_S))
    return {
        name: {
            "cpu_us": Figure(tuple(run.total_us for run in of), medians([run.cpu_us for run in of])),
            "per_core_s": Figure(tuple(1e6 / run.total_us for run in of)),
            "requests_per_s": Figure(tuple(run.requests_per_s for run in of)),
            "errors": Figure((float(sum(run.errors for run in of)),)),
        }
        for name, of in runs.items()
    }


def _target(one: Measured) -> Target:
    url = urlsplit(one.origin)
    assert url.port is not None  # `towline up` names it
    # PostgreSQL's processes come and go with the pool's connections.
    pids = {**one.pids, "postgres": family(one.pids["postgres"][0])}
    return Target("gateway", "127.0.0.1", url.port, (("Host", url.netloc),), pids)


def logins(one: Measured, rounds: int) -> Paths:
    """Password logins with the real Argon2 parameters, from several addresses at once."""
    rates, cpu = [], []
    number = LOGINS_PER_ADDRESS * LOGIN_ADDRESSES
    for round_ in range(rounds):
        before, began = one.spent_ms(), time.perf_counter()
        with ThreadPoolExecutor(LOGIN_ADDRESSES) as pool:
            addresses = [f"127.99.{round_}.{last + 1}" for last in range(LOGIN_ADDRESSES)]
            for done in [pool.submit(_log_in, one, address) for address in addresses]:
                done.result()
        rates.append(number / (time.perf_counter() - began))
        cpu.append({part: (ms - before[part]) / number for part, ms in one.spent_ms().items()})
    totals = tuple(sum(of.values()) for of in cpu)
    return {"password": {"logins_per_s": Figure(tuple(rates)), "cpu_ms_login": Figure(totals, medians(cpu))}}


def _log_in(one: Measured, address: str) -> None:
    with closing(Person(one.origin, address=address)) as person:
        for _ in range(LOGINS_PER_ADDRESS):
            person.log_in(one.credentials.username, one.credentials.password)


def sessions(one: Measured, rounds: int) -> Paths:
    """How long a session takes to be made, and to be ended, one after the other."""
    made: list[list[float]] = []
    ended: list[list[float]] = []
    for _ in range(rounds):
        made.append([])
        ended.append([])
        for _ in range(MINTS):
            took, session = _timed_us(lambda: one.owner.open_session(one.device))
            made[-1].append(took)
            path = f"/v1/sessions/{session['id']}"
            ended[-1].append(_timed_us(lambda path=path: one.owner.call("DELETE", path))[0])  # type: ignore[misc]
    return {"make one": _p50_p99(made), "end one": _p50_p99(ended)}


def _timed_us(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter_ns()
    answer = call()
    return (time.perf_counter_ns() - begun) / 1000, answer


def _p50_p99(rounds: Sequence[Sequence[float]]) -> dict[str, Figure]:
    return {
        "p50_us": Figure(tuple(percentile(of, 0.5) for of in rounds)),
        "p99_us": Figure(tuple(percentile(of, 0.99) for of in rounds)),
    }


def cuts(one: Measured, rounds: int) -> Paths:
    """From the call that ends a session to the last byte of a download in it."""
    ms = tuple(_cut_ms(one) for _ in range(rounds * REVOCATIONS))
    return {"a session is ended": {"last_byte_ms": Figure(ms)}}


def _cut_ms(one: Measured) -> float:
    session = one.owner.open_session(one.device)
    with closing(entered(session["url"])) as visitor:
        reader = _Reader(visitor.http)
        try:
            if not reader.began.wait(CUT_DEADLINE_S):
                raise RuntimeError("the download did not begin")
            begun = time.monotonic()
            one.owner.call("DELETE", f"/v1/sessions/{session['id']}")
        finally:
            reader.join(CUT_DEADLINE_S)
        if reader.is_alive():
            raise RuntimeError("the download was not cut")
        return (reader.ended_at - begun) * 1000


class _Reader(threading.Thread):
    """Reads the endless page again and again until it is cut."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__()
        self.began = threading.Event()
        self.ended_at = 0.0  # set when it is cut
        self._http = http
        self.start()

    def run(self) -> None:
        status = 200
        try:
            while status == 200:
                with self._http.stream("GET", "/bulk") as answer:
                    status = answer.status_code
                    for _ in answer.iter_raw(1 << 16):
                        self.began.set()
                        time.sleep(SOON_S)
        except httpx.HTTPError:
            pass  # this is the cut
        self.ended_at = time.monotonic()
