"""Background load that checks every byte: what runs beside each fault.

Four visitors, each a thread: a WebSocket echo whose messages are numbered, downloads and uploads of known
content, and small pages. An error is counted with its time, since a network that is cut makes errors; a
*fault* is what must never be: a wrong byte, a number twice or out of order, a body that was cut and looked
complete, a 500.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from testbed.waiting import eventually
from tests.networks.device import OUT_OF_ORDER, content, message, page
from tests.networks.world import Person, World

ECHO_PERIOD_S = 0.1
ECHO_AHEAD = 4  # messages under way at once: order and loss show
PAUSE_S = 0.05  # between requests of one visitor: the machine is shared
AGAIN_S = 0.2  # after an error
JOIN_S = 60.0
PATIENCE_S = 20.0  # of a visitor, for any one step
KINDS = ("echo", "download", "upload", "page")
# What may be said instead of an answer while something is broken (DESIGN 3.7).
EXCUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is monotonic seconds, when it ended; `error` is "" for a success."""

    at: float
    kind: str
    seconds: float
    error: str


class Fault(Exception):
    """What must never be."""


class Traffic:
    """Use `running`."""

    def __init__(self, world: World, seed: int, sizes: tuple[int, int], kinds: Sequence[str]) -> None:
        self.events: list[Event] = []
        self.faults: list[str] = []
        self.pages: list[str] = []  # what people saw instead of the device
        self._sizes = sizes
        self._stop = threading.Event()
        self._seed = seed
        self._web, self._echo = world.visitor("web"), world.visitor("echo")
        works: dict[str, Callable[[Person, random.Random], None]] = {
            "download": self._download,
            "upload": self._upload,
            "page": self._page,
        }
        self._threads = [
            threading.Thread(target=self._repeat, args=(kind, work), daemon=True)
            for kind, work in works.items()
            if kind in kinds
        ]
        if "echo" in kinds:
            self._threads.append(threading.Thread(target=self._echoes, daemon=True))
        self.kinds = tuple(kinds)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)
        assert not any(thread.is_alive() for thread in self._threads), "a visitor hangs"
        self._web.close()
        self._echo.close()

    # What came of it

    def count(self, kind: str, *, ok: bool, since: float = 0.0) -> int:
        return sum(one.kind == kind and (not one.error) is ok and one.at >= since for one in self.events)

    def errors(self, since: float = 0.0) -> dict[str, int]:
        return dict(
            Counter(f"{one.kind} {one.error}" for one in self.events if one.error and one.at >= since)
        )

    def quantile_s(self, kind: str, q: int, since: float = 0.0, until: float = float("inf")) -> float:
        """The q-th percentile of the successes' times."""
        times = [
            one.seconds
            for one in self.events
            if one.kind == kind and not one.error and since <= one.at < until
        ]
        assert len(times) >= 10, f"only {len(times)} of {kind}: {self.errors()}"
        return statistics.quantiles(times, n=100, method="inclusive")[q - 1]

    def last_error_after_s(self, moment: float) -> float:
        """How long after `moment` the last error ended; 0 without one."""
        return max((one.at - moment for one in self.events if one.error and one.at > moment), default=0.0)

    def wait_success(self, timeout_s: float, kinds: Sequence[str] = ()) -> float:
        """Until one more of each kind (of these) began now and succeeded; how long that took."""
        started = time.monotonic()
        for kind in kinds or self.kinds:

            def again(kind: str = kind) -> bool:
                return any(
                    one.kind == kind and not one.error and one.at - one.seconds >= started
                    for one in list(self.events)
                )

            eventually(f"another {kind} (errors: {self.errors(started)})", again, timeout_s)
        return time.monotonic() - started

    def wait_for_page(self, text: str, timeout_s: float) -> None:
        """Until somebody saw a page with this text instead of the device."""
        eventually(f"a page with {text!r}", lambda: any(text in one for one in list(self.pages)), timeout_s)

    def rest(self, seconds: float) -> None:
        """Let it flow for so long; a fault ends it at once."""
        end = time.monotonic() + seconds
        while not self.faults and (left := end - time.monotonic()) > 0:
            self._stop.wait(min(left, 1.0))

    def check(self) -> None:
        assert not self.faults, self.faults
        for kind in self.kinds:
            assert self.count(kind, ok=True), f"no {kind} at all: {self.errors()}"

    def summary(self) -> str:
        good = ", ".join(f"{self.count(kind, ok=True)} {kind}s" for kind in self.kinds)
        return f"{good}; errors {sum(self.errors().values())}"

    # The visitors

    def _record(self, kind: str, started: float, error: str = "") -> None:
        now = time.monotonic()
        self.events.append(Event(now, kind, now - started, error))

    def _repeat(self, kind: str, work: Callable[[Person, random.Random], None]) -> None:
        person, chance = self._web.twin(), random.Random(f"{self._seed} {kind}")
        person.timeout_s = PATIENCE_S
        while not self._stop.is_set():
            started, pause = time.monotonic(), PAUSE_S
            try:
                work(person, chance)
                self._record(kind, started)
            except (OSError, http.client.HTTPException) as error:
                person.close()
                self._record(kind, started, _name(error))
                pause = AGAIN_S
            except Fault as fault:
                self.faults.append(f"{kind}: {fault}")
                return
            self._stop.wait(pause)
        person.close()

    def _answer(self, answer: http.client.HTTPResponse) -> bytes:
        """The whole body of a 200; what is no answer of the device raises."""
        body = answer.read()
        if answer.status == 200:
            return body
        if answer.status not in EXCUSES:
            raise Fault(f"status {answer.status}: {body[:200]!r}")
        self.pages.append(f"{answer.status} {body.decode()}")
        raise http.client.HTTPException(str(answer.status))

    def _page(self, person: Person, chance: random.Random) -> None:
        number = chance.randrange(1_000_000)
        if (body := self._answer(person.ask("GET", f"/page/{number}"))) != page(number):
            raise Fault(f"page {number} came as {body!r}")

    def _download(self, person: Person, chance: random.Random) -> None:
        seed, size = chance.randrange(1_000_000), chance.randint(*self._sizes)
        kind = chance.choice(("length", "chunked"))
        body = self._answer(person.ask("GET", f"/{kind}/{seed}/{size}"))
        if body != b"".join(content(seed, size)):
            raise Fault(f"{kind} {seed}: {len(body)} of {size} bytes looked complete, or were wrong")

    def _upload(self, person: Person, chance: random.Random) -> None:
        body = chance.randbytes(chance.randint(*self._sizes))
        said = self._answer(person.ask("POST", "/hash", body)).decode()
        if said != hashlib.sha256(body).hexdigest():
            raise Fault(f"an upload of {len(body)} bytes arrived as {said}")

    def _echoes(self) -> None:
        person = self._echo.twin()
        person.timeout_s = PATIENCE_S
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                with person.talk() as socket:
                    self._conversation(socket)
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == OUT_OF_ORDER:
                    self.faults.append(f"the device got {closed.rcvd.reason}")
                    return
                self._record("echo", started, "cut")
            except (OSError, EOFError, InvalidHandshake, InvalidMessage) as error:
                self._record("echo", started, _name(error))
            except Fault as fault:
                self.faults.append(f"echo: {fault}")
                return
            self._stop.wait(AGAIN_S)

    def _conversation(self, socket: Any) -> None:
        """Numbers from 0 on, some ahead of their answers, until told to stop."""
        sent: deque[tuple[int, float]] = deque()
        number = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            socket.send(message(number))
            sent.append((number, begun))
            number += 1
            wait = ECHO_PERIOD_S
            while sent and (len(sent) >= ECHO_AHEAD or wait > 0):
                try:
                    got = socket.recv(PATIENCE_S if len(sent) >= ECHO_AHEAD else wait)
                except TimeoutError:
                    if len(sent) >= ECHO_AHEAD:
                        raise
                    wait = 0.0
                    continue
                wanted, at = sent.popleft()
                if got != message(wanted):
                    raise Fault(f"{got[:8]!r} came instead of message {wanted}")
                self._record("echo", at)
                wait = ECHO_PERIOD_S - (time.monotonic() - begun)
            if wait > 0:
                self._stop.wait(wait)


def _name(error: BaseException) -> str:
    """Short: a status, or what broke."""
    if isinstance(error, http.client.IncompleteRead):
        return "cut"
    if type(error) is http.client.HTTPException:
        return str(error)
    return type(error).__name__


@contextmanager
def running(
    world: World, seed: int, sizes: tuple[int, int] = (20_000, 400_000), kinds: Sequence[str] = KINDS
) -> Iterator[Traffic]:
    """Traffic that flows at the start, and is checked at the end. `sizes`: bytes of a transfer."""
    traffic = Traffic(world, seed, sizes, kinds)
    traffic.start()
    try:
        traffic.wait_success(PATIENCE_S)
        yield traffic
    finally:
        traffic.stop()
    traffic.check()
