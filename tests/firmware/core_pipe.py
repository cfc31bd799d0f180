"""The firmware's mux in a process of its own (firmware/tests/pipe/core_pipe.c), driven step by step."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from tunnel_protocol import Limits

LINK_BUFFER: Final = 2048  # bytes of a message that the firmware sends
MAX_EXIT_S: Final = 30
_HEADER: Final = struct.Struct(">cI")
_NUMBERS: Final = struct.Struct(">II")


@dataclass(frozen=True)
class Told:
    """One thing the mux told its owner, or one message it let leave.

    kind: challenge, ready, grant, revoked, requested, data, finished, over, goaway, lost; taken (bytes of
    a stream that its owner consumed) and message. `number`: of `over` 0 finished, 2 lost, 100 + the RESET's
    code; of `lost` the close code, None without one; of `goaway` its code.
    """

    kind: str
    stream: int = 0
    number: int | None = 0
    payload: bytes = b""


_BARE: Final = {b"c": "challenge", b"h": "ready", b"g": "grant", b"k": "revoked", b"m": "message"}
_OF_STREAM: Final = {b"o": "requested", b"d": "data", b"f": "finished"}


class CorePipe:
    """One mux at a time; `begin` starts the next. A step may come for a stream that is over: it does nothing.

    A process that died (the sanitizers end it) is reported once; `begin` starts another.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self._start()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def __enter__(self) -> CorePipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Of its input the program ends by itself, and with 0 when the sanitizers saw nothing, leaks too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            code = self._process.wait(MAX_EXIT_S)
            assert code == 0, self._said()
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._errors.close()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        raw = self._process.stdout.read(size)
        assert len(raw) == size, f"the core is gone: {self._last_words()}"
        return raw

    def _last_words(self) -> str:
        self._process.wait(MAX_EXIT_S)
        return self._said()

    def _step(self, op: bytes, payload: bytes = b"") -> list[Told]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_HEADER.pack(op, len(payload)) + payload)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the core is gone: {self._last_words()}") from None
        told: list[Told] = []
        owner = 0
        while True:
            kind, size = _HEADER.unpack(self._read(_HEADER.size))
            raw = self._read(size)
            if kind == b"\0":
                return told
            if kind == b"i":
                owner = int.from_bytes(raw, "big")
            else:
                told.append(_told(kind, raw, owner))

    def begin(self, limits: Limits) -> None:
        if self._process.poll() is not None:
            with suppress(AssertionError):
                self._end()  # it was reported by the step that found it gone
            self._start()
        wire = (limits.max_frame, limits.max_message, limits.stream_window, limits.connection_window)
        self._step(b"I", struct.pack(">6I", *wire, limits.max_streams, limits.keepalive_ms))

    def receive(self, message: bytes) -> list[Told]:
        return self._step(b"R", message)

    def leave(self, number: int, cap: int = LINK_BUFFER) -> tuple[list[bytes], list[Told]]:
        """Up to so many messages, and what the owner was told meanwhile."""
        told = self._step(b"L", _NUMBERS.pack(cap, number))
        messages = [one.payload for one in told if one.kind == "message"]
        return messages, [one for one in told if one.kind != "message"]

    def accept(self, stream: int) -> list[Told]:
        return self._step(b"A", stream.to_bytes(4, "big"))

    def refuse(self, stream: int) -> list[Told]:
        return self._step(b"X", stream.to_bytes(4, "big"))

    def send(self, stream: int, data: bytes) -> list[Told]:
        return self._step(b"S", stream.to_bytes(4, "big") + data)

    def finish(self, stream: int) -> list[Told]:
        """FIN behind what was sent. From here on the owner takes what comes at once."""
        return self._step(b"F", stream.to_bytes(4, "big"))

    def reset(self, stream: int) -> list[Told]:
        return self._step(b"Z", stream.to_bytes(4, "big"))

    def take(self, stream: int, most: int) -> list[Told]:
        return self._step(b"T", _NUMBERS.pack(stream, most))

    def drain(self) -> list[Told]:
        return self._step(b"D")

    def set_time(self, seconds: float) -> list[Told]:
        return self._step(b"N", struct.pack(">Q", int(seconds * 1000)))


def _told(kind: bytes, raw: bytes, owner: int) -> Told:
    if kind in _BARE:
        return Told(_BARE[kind], payload=raw)
    if kind == b"b":
        return Told("taken", owner, payload=raw)
    one, other = _NUMBERS.unpack(raw)
    if kind in _OF_STREAM:
        return Told(_OF_STREAM[kind], one)
    if kind == b"v":
        return Told("over", one, other)
    return Told("goaway" if kind == b"y" else "lost", number=None if other == 2**32 - 1 else other)
