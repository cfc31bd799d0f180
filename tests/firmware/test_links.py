"""The simulator's link and fetch against servers that keep to the rules, and against those that do not."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
import pytest

from testbed.certificates import self_signed
from testbed.ports import LOOPBACK
from testbed.processes import ROOT, short_folder, started
from tests.firmware.page_device import OURS, PIN, PageDevice

WAIT_S: Final = 60.0  # of a step; sanitizers are slow
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
PROTOCOL_ERROR: Final = 4001
Line = socket.socket
Serve = Callable[[Line], None]


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Of a server: unmasked."""
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
    return bytes([opcode | (0x80 if final else 0)]) + length + payload


def read_head(line: Line) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = line.recv(1)
        assert part
        head += part
    return head


def upgrade(line: Line) -> None:
    head = read_head(line)
    assert b"GET /tunnel HTTP/1.1\r\n" in head
    assert b"towline.v1" in head
    assert b"permessage-deflate" not in head
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + _ACCEPT).digest()).decode()
    line.sendall(
        b"HTTP/1.1 101 -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + f"Sec-WebSocket-Protocol: towline.v1\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )


def close_status(line: Line) -> int:
    """Of the close frame that comes next; its payload is masked."""
    head = line.recv(2)
    assert head[0] == 0x88, head
    mask, payload = line.recv(4), line.recv(head[1] & 0x7F)
    clear = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return int.from_bytes(clear[:2])


class Server:
    """One thread; what `serve` raised is raised by the test."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None) -> None:
        self.failed: BaseException | None = None
        self._serve, self._tls = serve, tls
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:  # closed
                return
            raw.settimeout(WAIT_S)
            try:
                with self._tls.wrap_socket(raw, server_side=True) if self._tls else raw as line:
                    self._serve(line)
            except ssl.SSLError:
                pass  # it does not trust us: the test sees what it says
            except (AssertionError, OSError) as error:
                self.failed = error

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)


class Pipe:
    """Runs port-pipe against a server; its lines."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._issued = self_signed(folder / "server", "localhost")
        self.other = self_signed(folder / "other", "localhost").chain
        self.stranger = self_signed(folder / "stranger", "stranger.example")

    def tls(self, *, stranger: bool = False) -> ssl.SSLContext:
        issued = self.stranger if stranger else self._issued
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.chain, issued.key)
        return context

    def run(
        self, kind: str, port: int, *, ca: Path | None = None, host: str = "localhost", times: int = 1
    ) -> list[str]:
        command = [str(self._program), kind, host, str(port), str(ca or self._issued.chain), str(times)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    @contextmanager
    def server(self, serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
        server = Server(serve, tls or self.tls())
        try:
            yield server
        finally:
            server.close()
        if server.failed is not None:
            raise server.failed


@pytest.fixture(scope="module")
def pipe(asan: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipe:
    return Pipe(asan / "tests" / "port-pipe", tmp_path_factory.mktemp("links"))


def saying(*parts: bytes, status: int | None = None) -> Serve:
    """A server that upgrades, says this, and wants to be closed with `status`."""

    def serve(line: Line) -> None:
        upgrade(line)
        for part in parts:
            line.sendall(part)
        if status is not None:
            assert close_status(line) == status
            line.sendall(frame(8, status.to_bytes(2)))
        else:
            line.recv(100)

    return serve


MESSAGE = frame(2, bytes(2048))


@pytest.mark.parametrize("cuts", [(), (1,), (2, 4, 5), (1000,), (4, 2051)])
def test_a_whole_message_however_it_comes(pipe: Pipe, cuts: tuple[int, ...]) -> None:
    ends = [*cuts, len(MESSAGE)]
    parts = [MESSAGE[begin:end] for begin, end in zip([0, *cuts], ends, strict=True)]
    with pipe.server(saying(*parts, status=1000)) as server:
        assert pipe.run("link", server.port) == ["opened", "message 2048", "closed 0: closed"]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((frame(1, b"text"),), "not one binary frame a message"),
        ((frame(2, b"a", final=False), frame(0, b"b")), "a fragmented message"),
        ((frame(2, bytes(2049)),), "a message over 2048 bytes"),
    ],
)
def test_what_no_message_may_be(pipe: Pipe, parts: tuple[bytes, ...], why: str) -> None:
    with pipe.server(saying(*parts, status=PROTOCOL_ERROR)) as server:
        assert pipe.run("link", server.port) == ["opened", f"closed {PROTOCOL_ERROR}: {why}"]


def test_the_servers_status_is_told(pipe: Pipe) -> None:
    with pipe.server(saying(frame(8, (4011).to_bytes(2)))) as server:
        assert pipe.run("link", server.port) == ["opened", "closed 4011: the server closed"]


def test_a_server_that_is_gone_without_a_word(pipe: Pipe) -> None:
    with pipe.server(upgrade) as server:
        assert pipe.run("link", server.port) == ["opened", "closed 0: the connection broke"]


def test_a_server_that_never_answers_the_close(pipe: Pipe) -> None:
    def serve(line: Line) -> None:
        upgrade(line)
        line.sendall(MESSAGE)
        while line.recv(100):
            pass

    with pipe.server(serve) as server:
        assert pipe.run("link", server.port) == ["opened", "message 2048", "closed 0: closed"]


def test_a_server_that_does_not_upgrade(pipe: Pipe) -> None:
    def serve(line: Line) -> None:
        read_head(line)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with pipe.server(serve) as server:
        (told,) = pipe.run("link", server.port)
    assert told.startswith("closed 0: ")


@pytest.mark.parametrize("kind", ["link", "fetch"])
def test_only_the_given_ca_is_believed(pipe: Pipe, kind: str) -> None:
    with pipe.server(upgrade) as server:
        (told,) = pipe.run(kind, server.port, ca=pipe.other)
    assert told.startswith(("closed 0: ", "failed: "))


@pytest.mark.parametrize("kind", ["link", "fetch"])
def test_the_certificate_must_name_the_host(pipe: Pipe, kind: str) -> None:
    with pipe.server(upgrade, pipe.tls(stranger=True)) as server:
        (told,) = pipe.run(kind, server.port, ca=pipe.stranger.chain)
    assert told.startswith(("closed 0: ", "failed: "))


@pytest.mark.parametrize("kind", ["link", "fetch"])
def test_in_the_clear_to_this_machine_alone(pipe: Pipe, kind: str) -> None:
    (told,) = pipe.run(kind, 80, ca=Path("-"), host="192.0.2.1")
    assert told.endswith("no address that may be dialled")


def answering(head: bytes, *parts: bytes) -> Serve:
    def serve(line: Line) -> None:
        asked = read_head(line)
        assert asked.startswith(b"POST /tunnel HTTP/1.1\r\n")
        assert b"content-length: 8\r\n" in asked.lower()
        assert line.recv(8, socket.MSG_WAITALL if not isinstance(line, ssl.SSLSocket) else 0) == b'{"a": 1}'
        line.sendall(b"HTTP/1.1 " + head + b"\r\n\r\n")
        for part in parts:
            line.sendall(part)

    return serve


def test_an_answer_of_many_pieces(pipe: Pipe) -> None:
    with pipe.server(answering(b"200 OK\r\nContent-Length: 5000", bytes(2500), bytes(2500))) as server:
        head, *pieces, last = pipe.run("fetch", server.port)
    assert (head, last) == ("head 200", "end")
    assert sum(int(piece.removeprefix("data ")) for piece in pieces) == 5000


def test_an_answer_in_chunks(pipe: Pipe) -> None:
    head = b"200 OK\r\nTransfer-Encoding: chunked"
    with pipe.server(answering(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")) as server:
        told = pipe.run("fetch", server.port)
    assert (told[0], told[-1]) == ("head 200", "end")
    assert sum(int(piece.removeprefix("data ")) for piece in told[1:-1]) == 5


def test_half_an_answer_is_none(pipe: Pipe) -> None:
    with pipe.server(answering(b"200 OK\r\nContent-Length: 10", b"12345")) as server:
        assert pipe.run("fetch", server.port)[-1].startswith("failed: ")


def test_no_redirect_is_followed(pipe: Pipe) -> None:
    head = b"302 Found\r\nLocation: /elsewhere\r\nContent-Length: 2"
    with pipe.server(answering(head, b"hi")) as server:
        assert pipe.run("fetch", server.port) == ["head 302", "data 2", "end"]


def test_one_after_another_leaves_nothing(pipe: Pipe) -> None:
    """The sanitizer counts what is left at the end."""
    with pipe.server(saying(MESSAGE, status=1000)) as server:
        told = pipe.run("link", server.port, times=5)
    assert told == ["opened", "message 2048", "closed 0: closed"] * 5


@pytest.fixture(scope="module")
def watched(tsan: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipe:
    return Pipe(tsan / "tests" / "port-pipe", tmp_path_factory.mktemp("tsan"))


@pytest.fixture
def suppressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that were not built for the thread sanitizer do their locking unseen."""
    file = ROOT / "firmware" / "tests" / "tsan.suppressions"
    monkeypatch.setenv(
        "TSAN_OPTIONS", f"suppressions={file} halt_on_error=1 {os.environ.get('TSAN_OPTIONS', '')}"
    )


def test_the_queue_without_races(tsan: Path, suppressed: None) -> None:
    done = subprocess.run([tsan / "tests" / "test_queue"], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_link_without_races(watched: Pipe, suppressed: None) -> None:
    with watched.server(saying(MESSAGE, status=1000)) as server:
        told = watched.run("link", server.port, times=3)
    assert told == ["opened", "message 2048", "closed 0: closed"] * 3


def test_the_fetch_without_races(watched: Pipe, suppressed: None) -> None:
    with watched.server(answering(b"200 OK\r\nContent-Length: 5000", bytes(5000))) as server:
        assert watched.run("fetch", server.port)[-1] == "end"


def use_page(device: PageDevice, failed: list[BaseException]) -> None:
    """What a browser does, with more haste."""
    try:
        with httpx.Client(base_url=device.url, headers=OURS, timeout=WAIT_S) as client:
            client.post(
                "/api/login", json={"pin": PIN}
            )  # four may be in at a time: the others see no more than 401
            for path in ("/", "/api/status", "/nope", "/api/logs", "/api/settings") * 3:
                assert client.get(path).status_code < HTTPStatus.INTERNAL_SERVER_ERROR
            with client.stream("GET", "/api/live") as live:
                next(live.iter_raw())
            client.post("/api/settings", json={"name": "Attic"})
            client.post("/api/firmware", content=bytes(20_000))
    except (AssertionError, httpx.HTTPError) as error:
        failed.append(error)


def test_the_page_without_races(tsan: Path, suppressed: None) -> None:
    failed: list[BaseException] = []
    with short_folder("races-") as folder:
        device = PageDevice(tsan / "port" / "towline-device", folder)
        with started(device):
            threads = [threading.Thread(target=use_page, args=(device, failed)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            device.check_runs()
        assert failed == []
        assert "ThreadSanitizer" not in device.logs()
