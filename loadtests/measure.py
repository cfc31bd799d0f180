"""What the benchmarks measure with: CPU time and memory of processes, wrk, curl, a paced client.

Sources: ``/proc/<pid>/task/*/schedstat`` (first field: nanoseconds on a CPU, all threads) and
``/proc/<pid>/smaps_rollup``.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.programs import family

WRK_DEADLINE_S = 120  # a run is seconds long; this only catches a hang
CURL_DEADLINE_S = 120
CURL_TIME_IS_UP = 28
TRANSFER_MOST_S = 2  # a slow path is cut then: its rate is known
CLIENT_DEADLINE_S = 20  # one small exchange; a tunnel that is full must still answer by then
SETTLE_STEP_S = 0.2
SETTLED_KIB = 512  # memory that moves less than this over four steps has settled
SETTLE_DEADLINE_S = 5.0
_WRK_SESSIONS = Path(__file__).with_name("wrk_sessions.lua")
_WRK_TOKENS = Path(__file__).with_name("wrk_tokens.lua")


def cpu_ns(pids: Iterable[int]) -> int:
    """Nanoseconds that the processes have spent on a CPU so far, all threads together."""
    total = 0
    for pid in pids:
        for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(stat.read_text().split()[0])
    return total


def family_cpu_ms(pid: int) -> float:
    """CPU-ms of a process and all below it, also of threads (Argon2's lanes) and children that have ended
    (PostgreSQL's, with the pool's connections); in steps of a clock tick.
    """
    ticks = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # it ended meanwhile: its parent has the time
        # utime and stime; of the parent also cutime and cstime, of children that it has waited for (proc(5)).
        ticks += sum(int(field) for field in fields[11 : 15 if one == pid else 13])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def rss_kib(pid: int) -> int:
    """Resident memory of one process in KiB."""
    return _rollup(pid, "Rss:")


def pss_kib(pid: int) -> int:
    """The same with pages that processes share divided among them."""
    return _rollup(pid, "Pss:")


def _rollup(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"no {name} in smaps_rollup of process {pid}")


def settled_rss_kib(parts: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The RSS of each part's processes once all together have stopped moving (or the deadline has passed)."""
    seen: list[int] = []
    for _ in range(int(SETTLE_DEADLINE_S / SETTLE_STEP_S)):
        now = {part: sum(rss_kib(pid) for pid in pids) for part, pids in parts.items()}
        seen.append(sum(now.values()))
        if len(seen) >= 4 and max(seen[-4:]) - min(seen[-4:]) < SETTLED_KIB:
            break
        time.sleep(SETTLE_STEP_S)
    return now


@dataclass(frozen=True, slots=True)
class Target:
    """One way to the same upstream: where to connect, which headers to send, whose CPU counts."""

    name: str
    host: str
    port: int
    headers: tuple[tuple[str, str], ...]
    pids: dict[str, tuple[int, ...]]
    upload_headers: tuple[tuple[str, str], ...] = ()  # what an unsafe method needs beside them
    tls: bool = False  # from the visitor on; the certificate is not checked

    def url(self, path: str) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{path}"


@dataclass(frozen=True, slots=True)
class RequestCost:
    """One wrk run: completed requests and CPU-µs a request by part."""

    requests: int
    requests_per_s: float
    errors: int
    cpu_us: dict[str, float]

    @property
    def total_us(self) -> float:
        return sum(self.cpu_us.values())


def request_cost(target: Target, path: str, connections: int, seconds: int) -> RequestCost:
    """Drives `connections` keep-alive connections with wrk and returns the CPU-µs a request of each part."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for name, value in target.headers:
        command += ["-H", f"{name}: {value}"]
    return _wrk(target, [*command, target.url(path)])


def sessions_cost(target: Target, path: str, sessions: Path, number: int, seconds: int) -> RequestCost:
    """The same with one connection for each of `number` sessions; `sessions` holds `HOST COOKIE` a line."""
    threads = [f"-t{number}", f"-c{number}"]  # one connection a thread: only a thread has headers of its own
    script = ["-s", str(_WRK_SESSIONS), target.url(path), "--", str(sessions)]
    return _wrk(target, ["wrk", *threads, f"-d{seconds}s", *script])


def tokens_cost(target: Target, path: str, tokens: Path, connections: int, seconds: int) -> RequestCost:
    """The same with requests that take turns with Bearer tokens; `tokens` holds one a line."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_WRK_TOKENS)]
    for name, value in target.headers:
        command += ["-H", f"{name}: {value}"]
    return _wrk(target, [*command, target.url(path), "--", str(tokens)])


def _wrk(target: Target, command: list[str]) -> RequestCost:
    before = {part: cpu_ns(pids) for part, pids in target.pids.items()}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WRK_DEADLINE_S).stdout
    after = {part: cpu_ns(pids) for part, pids in target.pids.items()}
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done)
    if found is None:
        raise RuntimeError(f"wrk printed no request count for {target.name}:\n{done}")
    requests = int(found[1])
    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", done))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done)
    errors += int(bad[1]) if bad else 0
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    cpu = {part: (after[part] - before[part]) / 1000 / max(1, requests) for part in target.pids}
    return RequestCost(requests, float(rate[1]) if rate else 0.0, errors, cpu)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One bulk transfer: MB/s (10⁶), and CPU-ms for each MB by part."""

    mb_per_s: float
    cpu_ms_per_mb: dict[str, float]

    @property
    def total_ms_per_mb(self) -> float:
        return sum(self.cpu_ms_per_mb.values())


def transfer(target: Target, path: str, *, upload: Path | None = None) -> Transfer:
    """One transfer by curl, cut after TRANSFER_MOST_S; `upload` sends that file, else `path` is fetched."""
    command = ["curl", "-s", "-S", "-f", "-k", "-m", str(TRANSFER_MOST_S), "-o", "/dev/null"]
    for name, value in target.headers:
        command += ["-H", f"{name}: {value}"]
    if upload is not None:
        for name, value in target.upload_headers:
            command += ["-H", f"{name}: {value}"]
        command += ["-T", str(upload), "-H", "Expect:", "-w", "%{speed_upload} %{size_upload}"]
    else:
        command += ["-w", "%{speed_download} %{size_download}"]
    before = {part: cpu_ns(pids) for part, pids in target.pids.items()}
    done = subprocess.run(
        [*command, target.url(path)], capture_output=True, text=True, check=False, timeout=CURL_DEADLINE_S
    )
    if done.returncode not in (0, CURL_TIME_IS_UP):
        raise RuntimeError(f"a transfer by {target.name} failed: {done.stderr}")
    rate, size = (float(text) / 1e6 for text in done.stdout.split())
    cpu = {part: (cpu_ns(pids) - before[part]) / 1e6 / size for part, pids in target.pids.items()}
    return Transfer(rate, cpu)


@contextmanager
def bulk_in_background(target: Target, path: str) -> Iterator[None]:
    """An endless download of `path`, again and again over one connection, until the block ends."""
    command = ["curl", "-s", "-f", "-k", "-o", "/dev/null"]
    for name, value in target.headers:
        command += ["-H", f"{name}: {value}"]
    process = subprocess.Popen([*command, target.url(path) + "?[1-100000]"])
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the bulk transfer of {target.name} ended: curl {process.returncode}")
    finally:
        process.kill()
        process.wait(CURL_DEADLINE_S)


def _connect(target: Target) -> socket.socket:
    host = "127.0.0.1" if target.host == "localhost" else target.host
    plain = socket.create_connection((host, target.port), timeout=CLIENT_DEADLINE_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not target.tls:
        return plain
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=target.host)


def _request(target: Target, path: str) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in target.headers)
    if not any(name.lower() == "host" for name, _ in target.headers):
        headers = f"Host: {target.host}\r\n" + headers
    return f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode()


@contextmanager
def stalled_readers(target: Target, path: str, number: int) -> Iterator[None]:
    """`number` visitors who ask for `path`, see the answer begin, and read no further."""
    with ExitStack() as stack:
        for _ in range(number):
            one = stack.enter_context(_connect(target))
            one.sendall(_request(target, path))
            if not one.recv(1024).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{target.name} did not answer a stalling reader with 200")
        yield


class PacedClient:
    """One keep-alive connection that sends one small request at a time; for latency at low load."""

    def __init__(self, target: Target, path: str) -> None:
        self._request = _request(target, path)
        self._socket = _connect(target)

    def exchange_us(self) -> float:
        """Sends the request, reads the whole answer, returns microseconds."""
        started = time.perf_counter_ns()
        self._socket.sendall(self._request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._read()
        head, _, body = got.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"unexpected answer: {head[:200]!r}")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if length is None:
            raise RuntimeError("the answer has no Content-Length")
        left = int(length[1]) - len(body)
        while left > 0:
            left -= len(self._read())
        return (time.perf_counter_ns() - started) / 1000

    def _read(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the connection was closed in the middle of an answer")
        return data

    def close(self) -> None:
        self._socket.close()
