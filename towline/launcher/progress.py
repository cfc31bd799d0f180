"""What a person sees while everything starts."""

from __future__ import annotations

import contextlib
import time


class Progress:
    """Lines with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        self.show(f"[{self.elapsed_s:5.1f} s] {text}")

    def show(self, text: str) -> None:
        """Print; a terminal or pipe that went away stops nothing."""
        with contextlib.suppress(OSError):
            print(text, flush=True)


def welcome_text(address: str, elapsed_s: float, *, visitors_port: int, ssh_target: str | None) -> str:
    """The closing lines: the address, and what stands between it and a browser."""
    lines = [
        "",
        f"Towline is ready after {elapsed_s:.1f} s. Open:",
        "",
        f"    {address}",
        "",
        "It logs you in, and stays the same; who knows it is you. Ctrl-C stops everything.",
    ]
    if ssh_target is not None:
        port = address.split("//", 1)[1].split("/", 1)[0].rsplit(":", 1)[1]
        lines += [
            "You are here over SSH. On your own computer, first run:",
            f"    ssh -L {port}:localhost:{port} -L {visitors_port}:localhost:{visitors_port} {ssh_target}",
        ]
    lines += [
        "Safari before version 26 does not open *.localhost addresses: use Chrome, Firefox or Edge there.",
        "",
    ]
    return "\n".join(lines)
