"""Certificates that change while a process runs: new connections get the new chain, live ones go on.

A pair of files is read, tried, and only then put into the TLS context in use: what cannot serve changes
nothing.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography import x509

from runtime.logs import get_logger
from runtime.metrics import Counter, Family, Gauge, Registry

# Renewed certificates have days left: a minute is soon enough. SIGHUP looks at once.
LOOK_S = 60.0
FILE_MAX = 1 << 20  # a chain with its key is a few KB; a wrong path must not fill the memory

_log = get_logger("runtime.certificates")


class CertificateError(Exception):
    """The files hold no certificate with its key; the text says why, without naming the files."""


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A chain and its key, PEM. Times in Unix seconds: the leaf's own."""

    chain: bytes
    key: bytes
    begins_at: float
    expires_at: float

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show it to everybody who connects from now on. CertificateError when OpenSSL does not take it."""
        with _in_memory(self.chain) as chain, _in_memory(self.key) as key:
            try:
                # Without an answer OpenSSL would ask for the key's password on the terminal, and wait.
                context.load_cert_chain(_path(chain), _path(key), password=_no_password)
            except OSError as error:  # ssl.SSLError is one
                raise CertificateError(getattr(error, "reason", None) or str(error)) from error


def read_pair(chain: Path, key: Path) -> CertificatePair:
    """Read both files and try them. CertificateError says what is wrong with them."""
    try:
        chain_pem, key_pem = _read(chain), _read(key)
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    except ValueError as error:
        raise CertificateError("no certificate in PEM") from error
    pair = CertificatePair(
        chain_pem, key_pem, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    )
    pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # one that serves nobody
    return pair


class LiveCertificate:
    """The certificate that ``context`` shows, and the files it came from."""

    def __init__(self, name: str, context: ssl.SSLContext, chain: Path, key: Path) -> None:
        self.name = name
        self._context = context
        self._chain = chain
        self._key = key
        self._pair = read_pair(chain, key)
        self._pair.load_into(context)
        self._told = ""  # the last problem that was logged: not again each minute

    def __repr__(self) -> str:
        return f"<LiveCertificate {self.name} {self._chain} until {self.expires_at:.0f}>"

    @property
    def expires_at(self) -> float:
        """Unix seconds."""
        return self._pair.expires_at

    def look(self, now: float) -> bool | None:
        """Read the files again, ``now`` in Unix seconds. True: a new pair is in use; False: the files cannot
        serve and the old one stays; None: they are the same."""
        try:
            pair = read_pair(self._chain, self._key)
            if pair == self._pair:
                self._told = ""
                return None
            if not pair.begins_at <= now < pair.expires_at:
                raise CertificateError("the new one is expired" if now >= pair.begins_at else "not valid yet")
            pair.load_into(self._context)
        except CertificateError as error:
            self._tell(str(error))
            return False
        self._pair, self._told = pair, ""
        _log.info(
            "certificate loaded",
            extra={"listener": self.name, "file": str(self._chain), "left_s": self._left(now)},
        )
        return True

    def _left(self, now: float) -> int:
        return int(self.expires_at - now)

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            _log.error(
                "certificate not loaded, the old one stays",
                extra={
                    "listener": self.name,
                    "file": str(self._chain),
                    "key": str(self._key),
                    "error": problem,
                },
            )


class TlsFiles(Protocol):
    """What a client's settings say of TLS."""

    @property
    def ca(self) -> Path | None: ...

    @property
    def certificate(self) -> Path | None: ...

    @property
    def key(self) -> Path | None: ...


class LiveTrust:
    """The CAs that a ``context`` trusts. Those that come into the file are trusted beside the others; one
    that leaves it is trusted until the next start."""

    def __init__(self, name: str, context: ssl.SSLContext, ca: Path) -> None:
        self.name = name
        self._context = context
        self._ca = ca
        self._content = self._read()
        self._told = ""

    def __repr__(self) -> str:
        return f"<LiveTrust {self.name} {self._ca}>"

    def look(self) -> bool | None:
        """As LiveCertificate.look."""
        try:
            content = self._read()
            if content == self._content:
                return None
            self._context.load_verify_locations(cadata=content.decode("ascii"))
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            problem = getattr(error, "reason", None) or str(error)
            if problem != self._told:
                self._told = problem
                _log.error(
                    "CA not loaded, the old ones stay",
                    extra={"listener": self.name, "file": str(self._ca), "error": problem},
                )
            return False
        self._content, self._told = content, ""
        _log.info("CA loaded", extra={"listener": self.name, "file": str(self._ca)})
        return True

    def _read(self) -> bytes:
        return _read(self._ca)


class CertificateWatch:
    """All certificates of a process. ``reload`` looks now; ``run`` each minute until cancelled."""

    def __init__(self, registry: Registry, *, wall: Callable[[], float], prefix: str = "towline") -> None:
        self._wall = wall
        self._live: list[LiveCertificate] = []
        self._trusted: list[LiveTrust] = []
        self._before: list[Callable[[], object]] = []
        self._expiry: Family[Gauge] = registry.gauges(
            f"{prefix}_certificate_expires_in_seconds",
            "Until the certificate in use expires; negative: it has. By whose it is.",
            ["listener"],
        )
        self._loads: Family[Counter] = registry.counters(
            f"{prefix}_certificate_reloads_total",
            "Changed certificate files: loaded, or refused because they cannot serve (the old one stays).",
            ["listener", "outcome"],
        )

    def add(
        self,
        name: str,
        context: ssl.SSLContext,
        chain: Path,
        key: Path,
        *,
        renew: Callable[[], object] | None = None,
    ) -> None:
        """Keep ``context`` up to date with the files. ``renew`` is called before each look, and may write
        them. CertificateError when they cannot serve now."""
        live = LiveCertificate(name, context, chain, key)
        self._live.append(live)
        self._count(name)
        if renew is not None:
            self._before.append(renew)
        self._expiry.labels(name).read = lambda: live.expires_at - self._wall()

    def follow(self, name: str, context: ssl.SSLContext, files: TlsFiles) -> None:
        """Keep a context up to date: what it shows, where it shows anything, and whom it trusts.
        CertificateError when its certificate cannot serve now."""
        if files.certificate is not None and files.key is not None:
            self.add(name, context, files.certificate, files.key)
        if files.ca is not None:
            self._trusted.append(LiveTrust(name, context, files.ca))
            self._count(name)

    def reload(self) -> None:
        """Look at every file now."""
        for renew in self._before:
            try:
                renew()
            except (OSError, ValueError) as error:  # a full disk, a file that is none: the old one serves on
                _log.error("certificate was not renewed", extra={"error": str(error)})
        for live in self._live:
            outcome = live.look(self._wall())
            if outcome is not None:
                self._loads.labels(live.name, "loaded" if outcome else "refused").inc()
        for trust in self._trusted:
            outcome = trust.look()
            if outcome is not None:
                self._loads.labels(trust.name, "loaded" if outcome else "refused").inc()

    def _count(self, name: str) -> None:
        """From 0: in a series that begins at 1 nobody sees the first reload."""
        for outcome in ("loaded", "refused"):
            self._loads.labels(name, outcome)

    async def run(self) -> None:
        """Look each LOOK_S seconds."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.reload()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_MAX)


def _in_memory(content: bytes) -> BinaryIO:
    """A file that no other process can open. load_cert_chain takes paths alone, and what it reads must be
    what was tried; on Linux the key touches no disk."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    file.write(content)
    file.seek(0)  # flushes; and where /dev/fd shares the position, the reader begins at the start
    return file


def _path(file: BinaryIO) -> str:
    return f"/dev/fd/{file.fileno()}"


def _no_password() -> bytes:
    return b""
