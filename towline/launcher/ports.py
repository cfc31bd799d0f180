"""The ports of `towline up`: one base, nine after it, each of which can be set apart."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from towline.errors import TowlineError

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Ports:
    """All on 127.0.0.1."""

    gateway: int
    visitors: int
    agents: int
    internal: int
    gateway_ops: int
    server_ops: int
    demo: int
    mqtt: int
    ingest_ops: int
    ingest: int

    @classmethod
    def from_arguments(cls, base: int, apart: Sequence[str]) -> Ports:
        """``apart`` holds PART=PORT texts; TowlineError names the flag that is wrong."""
        numbers = dict(zip(cls.__annotations__, range(base, base + len(cls.__annotations__)), strict=True))
        for text in apart:
            part, equals, port = text.partition("=")
            name = part.replace("-", "_")
            if not equals or name not in numbers or not (port.isascii() and port.isdigit()):
                raise TowlineError(f"--listen {text}: must be PART=PORT with one of {', '.join(PARTS)}")
            numbers[name] = int(port)
        ports = cls(**numbers)
        ports._check(base)
        return ports

    def _check(self, base: int) -> None:
        numbers = asdict(self)
        for name, port in numbers.items():
            if not 1 <= port <= MAX_PORT:
                raise TowlineError(
                    f"--port {base}: the {name} port would be {port}; it must be 1..{MAX_PORT}"
                )
        if len(set(numbers.values())) != len(numbers):
            raise TowlineError("two parts have the same port: change --port or --listen")

    def ensure_free(self) -> None:
        """TowlineError that names the first port somebody else listens on, and the flag that moves it."""
        for name, port in asdict(self).items():
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is nobody
                try:
                    probe.bind((LOOPBACK, port))
                except OSError as error:
                    flag = (
                        "--port" if name == "gateway" else f"--listen {name.replace('_', '-')}=PORT or --port"
                    )
                    if error.errno == errno.EADDRINUSE:
                        raise TowlineError(
                            f"port {port} ({name}) is in use by another program: choose another with {flag}"
                        ) from None
                    raise TowlineError(
                        f"port {port} ({name}) cannot be used ({error.strerror}): choose another with {flag}"
                    ) from None

    def at(self, name: str) -> str:
        """``127.0.0.1:PORT`` of a part."""
        port: int = getattr(self, name)
        return f"{LOOPBACK}:{port}"


PARTS: Final = tuple(name.replace("_", "-") for name in Ports.__annotations__)
"""As `--listen` names them."""
