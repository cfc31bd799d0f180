"""Signed heads: what the gateway says about the log's end, and the file that keeps it away from the database.

One JSON object a line, `{"head": "<compact JWS>"}`, only ever appended to. The JWS has `typ` `audit-head+jwt`
and the claims `iss`, `seq` (the last event's number), `hash` (hexadecimal), `iat`, and `prev`: the SHA-256 of
the JWS before it in the file (null: it is the first), so that a line that goes missing is missed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.audit.keys import PublicKeys
from gateway.errors import BadTokenError
from gateway.keys.signing import KeySet
from gateway.policy.audit_chain import Head
from gateway.tokens.strict import signed_claims

TYP = "audit-head+jwt"
FILE = "audit-heads.jsonl"
LINE_MAX = 4096  # ours have about 700 bytes
# The last line, also behind what crashes left of some others.
TAIL_BYTES = 64 * 1024
# Another gateway holds the file for as long as it writes a line.
LOCK_WAIT_S = 5.0
LOCK_RETRY_S = 0.02

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A line of the file whose signature is good. `at` in Unix seconds."""

    head: Head
    at: int
    prev: str | None
    token: str

    @property
    def digest(self) -> str:
        return digest_of(self.token)


def digest_of(token: str) -> str:
    """What the next line's `prev` must be."""
    return hashlib.sha256(token.encode()).hexdigest()


def sign_head(keys: KeySet, head: Head, *, issuer: str, at: float, prev: str | None, now: float) -> str:
    """The compact JWS. `at`: when the log ended so; `now`: Unix seconds."""
    claims = {"iss": issuer, "iat": int(at), "seq": head.seq, "hash": head.hash.hex(), "prev": prev}
    return keys.sign(TYP, claims, now)


def read_head(token: str, keys: PublicKeys) -> SignedHead:
    """BadTokenError for anything that is no head of ours."""
    claims = signed_claims(token, keys, typ=TYP)
    seq, digest, at, prev = (claims.get(name) for name in ("seq", "hash", "iat", "prev"))
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0 or not isinstance(at, int):
        raise BadTokenError("seq or iat")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise BadTokenError("hash")
    if prev is not None and not (isinstance(prev, str) and _HASH.fullmatch(prev)):
        raise BadTokenError("prev")
    return SignedHead(Head(seq, bytes.fromhex(digest)), at, prev, token)


class HeadsFile:
    """The file in a folder of the second store. Every call may raise OSError: the store is away."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def last(self) -> str | None:
        """The JWS of the last whole line; None: there is none yet.

        The folder must be there: a store that is not mounted must not become an empty folder of this disk.
        """
        os.stat(self.path.parent)
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return None
        found = [token for token in map(token_of, tail.split(b"\n")) if token is not None]
        if not found and size:
            raise OSError(f"{self.path}: none of its last lines is a head")
        return found[-1] if found else None

    def append(self, make: Callable[[str | None], list[str]]) -> None:
        """Add the JWSs that `make` gives for the last one that is there; on the disk when this returns."""
        with self._locked() as descriptor:
            tokens = make(self.last())
            if not tokens:
                return
            torn = not self._ends_well()  # a writer before us was killed, or the disk was full
            lines = "".join(json.dumps({"head": token}) + "\n" for token in tokens)
            data = (("\n" if torn else "") + lines).encode()
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, ours alone for the while. We only ever append, which `chattr +a` allows."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.path}: another process holds it")
                time.sleep(LOCK_RETRY_S)
            yield descriptor
        finally:
            os.close(descriptor)

    def _ends_well(self) -> bool:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def token_of(line: bytes) -> str | None:
    """The JWS of a line; None for one that a crash cut short, or that somebody garbled."""
    if not line or len(line) > LINE_MAX:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    token = value.get("head") if isinstance(value, dict) else None
    return token if isinstance(token, str) else None


@dataclass(slots=True)
class HeadsReading:
    """Reads the lines of a heads file once, smallest number first, and notes what is wrong with them."""

    lines: Iterable[bytes]
    keys: PublicKeys
    faults: list[str] = field(default_factory=list)
    """What somebody did to the file itself."""
    torn: int = 0
    """Lines that are no head: crashes leave such, and nothing is missing where the next one follows."""
    last: SignedHead | None = None
    _highest: int = 0

    def __iter__(self) -> Iterator[Head]:
        for number, line in enumerate(self.lines, 1):
            signed = self._read(number, line.rstrip(b"\n"))
            if signed is None:
                continue
            before, self.last = self.last, signed
            if signed.prev != (None if before is None else before.digest):
                self._note(number, "a head before this one was removed, altered or moved")
            if signed.head.seq < self._highest:
                self._note(number, f"it says that event {self._highest}, which had been there, was not")
                continue
            self._highest = signed.head.seq
            yield signed.head

    def _read(self, number: int, line: bytes) -> SignedHead | None:
        token = token_of(line)
        if token is None:
            self.torn += bool(line)
            return None
        try:
            return read_head(token, self.keys)
        except BadTokenError as error:
            self._note(number, f"no head of ours ({error})")
            return None

    def _note(self, number: int, why: str) -> None:
        if len(self.faults) < FAULTS_TOLD:
            self.faults.append(f"line {number} of the signed heads: {why}")


# Whoever garbles a file garbles many lines; the first ones say it.
FAULTS_TOLD = 10


def open_heads(folder: Path) -> Generator[bytes, None, None]:
    """The lines of a folder's file, one at a time; to be closed. OSError when it cannot be read."""
    with (folder / FILE).open("rb") as file:
        while line := file.readline(LINE_MAX):
            yield line
