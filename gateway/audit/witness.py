"""Each minute the log's end is signed and put where the database's administrators do not reach."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gateway.audit.heads import HeadsFile, SignedHead, digest_of, read_head, sign_head
from gateway.audit.keys import PUBLIC_FILE, load_audit_keys, read_public_keys
from gateway.errors import BadTokenError, KeyFileError, StoreUnavailableError
from gateway.keys.signing import KeySet
from gateway.metrics import GatewayMetrics
from gateway.policy.audit_chain import GENESIS, Head
from gateway.store import audit
from gateway.store.database import Database
from runtime.clock import Clock
from runtime.logs import get_logger

EVERY_S = 60.0
# Until this process knows of a head: the store is not ready yet, or nothing has happened ever.
BEGINNING_S = 0.5
# A day of them; a second store that is away for longer still gets the last ones, which vouch for all before.
WAITING_MAX = 1440
# A disk that hangs must not hold up anything: who waits longer tries again in a minute.
WRITE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 3.0

T = TypeVar("T")
log = get_logger("gateway.audit")


class _StoreAwayError(Exception):
    """The second store did not take or show a head."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The log's end as the database had it at `at` (Unix seconds)."""

    head: Head
    at: float


class Witness:
    """Signs heads of one gateway's log into `folder`. Several gateways may write there: they take turns.

    Before it signs, it looks whether the last head that it knows of is still in the log: what was changed
    before is never signed over.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        keys_dir: Path,
        *,
        issuer: str,
        clock: Clock,
        metrics: GatewayMetrics,
    ) -> None:
        self._database = database
        self._file = HeadsFile(folder)
        self._keys_dir = keys_dir
        self._issuer = issuer
        self._clock = clock
        self._metrics = metrics
        self._waiting: deque[_Seen] = deque(maxlen=WAITING_MAX)
        self._known = Head(0, GENESIS)
        """The newest that we signed, or saw, or found in the file."""
        self._said: str | None = None
        """What is wrong with the second store, or the log, and was logged; None: nothing."""
        self._disk = _Disk()

    async def run(self) -> None:
        """For ever; first as soon as there is something to sign."""
        while True:
            await self.witness()
            await asyncio.sleep(EVERY_S if self._known.seq else BEGINNING_S)

    async def close(self) -> None:
        """The last head, so that nothing of before a stop can go unnoticed."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.witness()
        except TimeoutError:
            log.warning("the last head of the audit log was not signed in time")

    async def witness(self) -> None:
        """Look at the log and put what is new into the second store, with what waits for it."""
        away: _StoreAwayError | None = None
        try:
            last = await self._on_disk(self._last)
        except _StoreAwayError as error:
            last, away = None, error
        try:
            if not await self._look([] if last is None else [last.head]):
                return
        except StoreUnavailableError:
            return  # its own metrics and log lines tell; nothing is added to the log meanwhile
        try:
            if away is not None:
                raise away
            if self._waiting:
                self._written(await self._on_disk(self._write))
        except _StoreAwayError as error:
            self._metrics.audit_heads_failed.inc()
            self._tell("the second store takes no audit heads", reason=str(error), waiting=len(self._waiting))
        else:
            self._at_rest()

    async def _look(self, more: list[Head]) -> bool:
        """Whether the log still has what it had; its end then waits to be signed."""
        async with self._database.transaction() as tx:
            head = await audit.head(tx)
            for known in (self._known, *more):
                there = await audit.hash_of(tx, known.seq)
                if known.seq and (there != known.hash or head.seq < known.seq):
                    self._metrics.audit_broken.set(1)
                    self._tell("the audit log was changed behind our back", event_number=known.seq)
                    return False
            if await audit.hash_of(tx, head.seq) != head.hash and head.seq:
                self._metrics.audit_broken.set(1)
                self._tell("the audit log's end is not its last event", event_number=head.seq)
                return False
            at = tx.now
        self._metrics.audit_broken.set(0)
        if head != self._known and head.seq:
            self._waiting.append(_Seen(head, at))
            self._known = head
        return True

    def _last(self) -> SignedHead | None:
        """The newest head in the file."""
        token = self._file.last()
        if token is None:
            return None
        load_audit_keys(self._keys_dir)  # publishes ours, should nobody have yet
        return read_head(token, read_public_keys(self._keys_dir / PUBLIC_FILE))

    def _write(self) -> list[_Seen]:
        keys = load_audit_keys(self._keys_dir)
        public = read_public_keys(self._keys_dir / PUBLIC_FILE)
        wanted = list(self._waiting)

        def make(last: str | None) -> list[str]:
            # Another gateway may have been faster since we looked.
            known = -1 if last is None else read_head(last, public).head.seq
            return self._sign(keys, [seen for seen in wanted if seen.head.seq > known], last)

        self._file.append(make)
        return wanted

    def _written(self, wanted: list[_Seen]) -> None:
        for _ in wanted:
            self._waiting.popleft()
        self._metrics.audit_head_signed.set(wanted[-1].head.seq)

    def _sign(self, keys: KeySet, wanted: list[_Seen], last: str | None) -> list[str]:
        prev = None if last is None else digest_of(last)
        tokens = []
        for seen in wanted:
            token = sign_head(
                keys, seen.head, issuer=self._issuer, at=seen.at, prev=prev, now=self._clock.wall()
            )
            tokens.append(token)
            prev = digest_of(token)
        return tokens

    async def _on_disk(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                return await self._disk.do(work)
        except TimeoutError:
            raise _StoreAwayError("it hangs") from None
        except OSError as error:
            raise _StoreAwayError(error.strerror or str(error)) from error
        except KeyFileError as error:
            raise _StoreAwayError(str(error)) from error
        except BadTokenError as error:
            raise _StoreAwayError(f"its last line is no head of ours: {error}") from error

    def _tell(self, what: str, **extra: object) -> None:
        """Once for each thing that goes wrong: the metrics tell how long it lasts."""
        self._metrics.audit_heads_away.set(1)
        if self._said != what:
            self._said = what
            log.error(what, extra={"folder": str(self._file.path.parent), **extra})

    def _at_rest(self) -> None:
        self._metrics.audit_heads_away.set(0)
        if self._said is not None:
            self._said = None
            log.info("the second store has all audit heads")


class _Disk:
    """Runs one thing at a time in a thread that nobody waits for when it hangs (a dead network mount)."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """OSError while an earlier one hangs."""
        if not self._busy.acquire(blocking=False):
            raise OSError("an earlier write hangs")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def put(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(result)  # type: ignore[arg-type]
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as caught:
                error = caught
            finally:
                self._busy.release()
            if not loop.is_closed():
                loop.call_soon_threadsafe(put, result, error)

        threading.Thread(target=run, name="audit-heads", daemon=True).start()
        return await done
