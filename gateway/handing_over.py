"""Hands what devices say over HTTPS to the bridges: to the one that hears the device at the broker too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_protocol.numbers import Number
from gateway.keys.keyring import Keyring, internal_client_files
from runtime.certificates import CertificateWatch
from runtime.clock import Clock
from runtime.event_log.interface import part_of
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp
from runtime.logs import get_logger

PATH: Final = "/internal/v1/messages"
MESSAGES_MAX: Final = 64
"""In one call: a device's whole window."""
CONNECTIONS: Final = 16
"""To each bridge: as many calls at once, others wait for a place."""
CALLS_WAITING: Final = 256
"""For one; at 64 KiB each, 16 MiB. More means that the bridge is away, or its log."""
CALL_S: Final = 8.0
"""A bridge waits 5 s for its log."""

log = get_logger("gateway.handing_over")


class IngestUnavailableError(Exception):
    """The bridge does not answer, or takes nothing now. Whether it took what was said is not known."""


@dataclass(frozen=True, slots=True)
class Taken:
    """`accepted`: the log has all of the device's up to this. `refused`: (id, reason) of dead letters."""

    accepted: Number | None
    refused: Sequence[tuple[str | None, str]]


@dataclass(frozen=True, slots=True)
class _Bridge:
    """The settings of one bridge's client (runtime.internal_http)."""

    internal_url: str
    ca: Path
    certificate: Path
    key: Path
    connections: int = CONNECTIONS
    call_s: float = CALL_S


class HandingOver:
    """One gateway's clients of all bridges."""

    def __init__(self, urls: Sequence[str], keyring: Keyring, clock: Clock) -> None:
        """`urls`: of the bridges, in the order of their numbers."""
        self._keyring = keyring
        self._clock = clock
        self._bridges: list[InternalHttp] = []
        self._said = False
        if not urls:
            return
        certificate, key = self._files()
        ca = keyring.directory / "internal_ca.crt"
        self._bridges = [
            InternalHttp(_Bridge(url, ca, certificate, key), calls_waiting=CALLS_WAITING) for url in urls
        ]

    def __repr__(self) -> str:
        return f"<HandingOver to {len(self._bridges)}>"

    @property
    def is_offered(self) -> bool:
        """Whether devices may say anything this way."""
        return bool(self._bridges)

    def watch(self, certificates: CertificateWatch) -> None:
        """Keep our certificate fresh in all of them."""
        for number, bridge in enumerate(self._bridges):
            assert bridge.context is not None  # the settings take https:// alone
            certificates.add(f"ingest_{number}", bridge.context, *self._files(), renew=self._files)

    def close(self) -> None:
        """Drop the kept connections."""
        for bridge in self._bridges:
            bridge.close()

    async def take(self, device_id: str, prefix: str, messages: Sequence[tuple[str, str]]) -> Taken:
        """(kind, envelope as text) each, in the device's order. IngestUnavailableError."""
        if not self._bridges:
            raise IngestUnavailableError("no bridge is known")
        bridge = self._bridges[part_of(device_id.encode(), len(self._bridges))]
        body = {"device": device_id, "prefix": prefix, "messages": messages}
        try:
            answer = await bridge.call("POST", PATH, body)
            taken = _taken(answer)
        except GatewayUnavailable as error:
            raise IngestUnavailableError(str(error)) from error
        except (GatewayRefused, TypeError, KeyError, ValueError) as error:
            # Our certificate, another version: an operator's affair, told once.
            if not self._said:
                log.error("a bridge does not take what it is handed", extra={"error": str(error)})
            self._said = True
            raise IngestUnavailableError(str(error)) from error
        self._said = False
        return taken

    def _files(self) -> tuple[Path, Path]:
        return internal_client_files(self._keyring, self._clock.wall())


def _taken(answer: Any) -> Taken:
    accepted = answer["accepted"]
    number = None if accepted is None else Number(int(accepted[0]), int(accepted[1]))
    refused = [
        (None if one["id"] is None else str(one["id"]), str(one["reason"])) for one in answer["refused"]
    ]
    return Taken(number, refused)
