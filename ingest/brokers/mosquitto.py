"""Mosquitto's doors: revoked devices' certificates go on its list, and their connections are taken over.

A list alone keeps nobody out who is in: Mosquitto reads it for new connections. And Mosquitto 2.0.11 that is
told to read an empty or broken one lets revoked devices in, so nothing is put in place that was not read
here before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from runtime.clock import Clock
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp
from runtime.logs import get_logger
from runtime.mqtt_link import MqttError, MqttLink, MqttMessage, MqttOptions, MqttRefusedError

PATH: Final = "/internal/v1/devices/revocation-list"
RENEW_S: Final = 12 * 3600.0  # a list is good for a week; past that Mosquitto refuses every device
RETRY_S: Final = 5.0
LEFT_MIN: Final = timedelta(days=1)  # of a list that is put in place: less would run out before the next
TAKEN_OVER_AT_ONCE: Final = 8  # each is a TLS handshake on both sides
LIST_BYTES: Final = 8 << 20
"""Of the largest list: 150,000 certificates; the gateway's answer may be as long."""

_log = get_logger("ingest.brokers.mosquitto")


class ListError(OSError):
    """No list was put in place; the text says why."""


class MosquittoDoors:
    """`crl_file`: the broker's `crlfile`; `pid_file`: its own, None: it follows the list by itself.
    `options`: how to reach the listener on which a client may take any client id (infra/mosquitto: the
    internal one).
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        *,
        crl_file: Path,
        pid_file: Path | None,
        options: Callable[[], MqttOptions],
        clock: Clock,
    ) -> None:
        """`fetch`: the list, PEM, signed now; GatewayUnavailable, GatewayRefused."""
        self._fetch = fetch
        self._crl_file = crl_file
        self._pid_file = pid_file
        self._options = options
        self._clock = clock
        self._writing = asyncio.Lock()  # an older list must not replace a newer one
        self.refreshed_at: float | None = None
        """Unix seconds at which the broker was last given a list; None: not yet."""

    async def run(self) -> None:
        """Keep the list from running out, until cancelled."""
        while True:
            try:
                await self.refresh()
            except (OSError, GatewayUnavailable, GatewayRefused) as error:
                _log.error("revocation list not renewed", extra={"error": str(error)})
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(RENEW_S)

    async def refresh(self) -> None:
        """Put the gateway's list in place and tell the broker. OSError, GatewayUnavailable,
        GatewayRefused.
        """
        async with self._writing:
            pem = await self._fetch()
            check_list(pem, datetime.fromtimestamp(self._clock.wall(), UTC))
            await asyncio.to_thread(_replace, self._crl_file, pem)
            self._tell_broker()
            self.refreshed_at = self._clock.wall()

    @property
    def is_fresh(self) -> bool:
        """Whether the broker's list does not run out before somebody sees that it is not renewed."""
        at = self.refreshed_at
        return at is not None and self._clock.wall() - at < 3 * RENEW_S

    async def shut_out(self, devices: Sequence[str]) -> list[str]:
        """First the list, then their connections: who comes again at once meets it. Those whose connection
        may be there still; OSError, MqttError, GatewayUnavailable, GatewayRefused: everybody's may.
        """
        await self.refresh()
        room = asyncio.Semaphore(TAKEN_OVER_AT_ONCE)
        options = self._options()
        ended = await asyncio.gather(
            *(self._take_over(device, options, room) for device in devices), return_exceptions=True
        )
        failed = {device: error for device, error in zip(devices, ended, strict=True) if error is not None}
        for error in failed.values():
            # One that the broker said no to is about its device; else where all failed, the broker is away.
            alone = isinstance(error, MqttRefusedError) or len(failed) < len(devices)
            if not (alone and isinstance(error, OSError | MqttError)):
                raise error
        _log.warning("revoked devices were shut out", extra={"count": len(devices) - len(failed)})
        return list(failed)

    async def _take_over(self, device: str, options: MqttOptions, room: asyncio.Semaphore) -> None:
        """A client of the same id ends the older connection (section 3.1.4), and leaves again."""
        async with room:
            link = await MqttLink.connect(replace(options, client_id=device), _ignore, clock=self._clock)
            await link.close()

    def _tell_broker(self) -> None:
        """SIGHUP. ListError when there is no such process, or it is not ours to signal."""
        if self._pid_file is None:
            return
        try:
            pid = int(self._pid_file.read_text())
            if pid <= 1:
                raise ValueError("no process of a broker")
            os.kill(pid, signal.SIGHUP)
        except (ValueError, OSError) as error:
            raise ListError(f"the broker cannot be told: {error}") from error


def gateway_list(http: InternalHttp) -> Callable[[], Awaitable[bytes]]:
    """Fetches the list of a real gateway."""

    async def fetch() -> bytes:
        answer = await http.call("GET", PATH)
        try:
            return str(answer["pem"]).encode("ascii")
        except (KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(f"malformed list: {error!r}") from error

    return fetch


def check_list(pem: bytes, now: datetime) -> None:
    """ListError for what would let revoked devices in, or keep all out."""
    if len(pem) > LIST_BYTES:
        raise ListError(f"a list of more than {LIST_BYTES} bytes")
    try:
        found = x509.load_pem_x509_crl(pem)
    except ValueError as error:
        raise ListError("no revocation list in PEM") from error
    if found.next_update_utc is None or not found.last_update_utc <= now < found.next_update_utc - LEFT_MIN:
        raise ListError("a list that is not good for long enough now")


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all, and readable by the broker's user, as the list before it was."""
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _ignore(_message: MqttMessage) -> None:
    """It subscribes to nothing."""
