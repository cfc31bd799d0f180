"""`towline audit …`: whether the log was changed, exports of it, and the keys that sign its heads."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import asyncpg

from gateway.audit import export, verify
from gateway.audit.heads import HeadsReading, open_heads
from gateway.audit.keys import PUBLIC_FILE, public_text, read_public_keys, rotate_audit_key
from gateway.errors import KeyFileError, StoreUnavailableError
from gateway.settings import Settings
from gateway.store import audit
from gateway.store.database import Database
from runtime.clock import SYSTEM_CLOCK
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK
from runtime.settings import SettingsError, load

COMMAND = "audit"
EXIT_CHANGED = 1
EXIT_NOT_DONE = EXIT_BAD_SETTINGS
# A line of progress so often: a million events take a minute or two.
PROGRESS_S = 5.0

T = TypeVar("T")

_VERIFY = """Walk the audit log's hash chain and compare it with the heads that were signed while it grew.
Names the first event that was altered, removed, moved or cut off.

  towline audit verify --config gateway.toml
      the log in the database, with the heads and keys of the settings
  towline audit verify --config gateway.toml --heads DIR --key FILE
      the same, with heads and keys that an auditor keeps
  towline audit verify --export FILE --heads DIR --key FILE
      an export, on any machine
  towline audit verify --export FILE --config gateway.toml
      whether the export's events are in the log

exit codes: 0 nothing was changed, 1 something was, 2 it could not be verified"""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 the log was changed, 2 it could not be done."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except (SettingsError, KeyFileError, export.NoExportError) as error:
        return _failed(str(error))
    except (StoreUnavailableError, asyncpg.PostgresError) as error:
        return _failed(f"the audit log cannot be read: {error}")
    except OSError as error:
        return _failed(f"{error.filename or 'file'}: {error.strerror or error}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"towline {COMMAND}", description="The audit log, for operators.")
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = parsers.add_parser(
        "verify",
        help="was anything changed?",
        description=_VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config(check, required=False)
    check.add_argument("--export", type=Path, metavar="FILE", help="an export, instead of the database")
    check.add_argument("--heads", type=Path, metavar="DIR", help="the second store (default: the settings')")
    check.add_argument(
        "--key", type=Path, metavar="FILE", help="public keys, as `towline audit keys` printed them"
    )
    check.set_defaults(run=_verify)
    written = parsers.add_parser("export", help="write the log, or one site's part, as JSON lines")
    _add_config(written)
    written.add_argument("--site", metavar="ID", help="only this site's events")
    written.add_argument("--out", type=Path, metavar="FILE", help="a new file (default: standard output)")
    written.set_defaults(run=_export)
    keys = parsers.add_parser("keys", help="print the public keys that heads were ever signed with (JWK set)")
    _add_config(keys)
    keys.set_defaults(run=_keys)
    rotate = parsers.add_parser("rotate-key", help="sign heads with a new key from now on")
    _add_config(rotate)
    rotate.set_defaults(run=_rotate)
    return parser


def _add_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--config", type=Path, required=required, metavar="FILE", help="the gateway's settings file"
    )


def _verify(given: argparse.Namespace) -> int:
    if given.config is None and given.export is None:
        return _failed("verify: give --config or --export")
    settings = None if given.config is None else load(Settings, given.config)
    with ExitStack() as files:
        heads = _heads(given, settings, files)
        if given.export is None:
            assert settings is not None
            found = _on_log(settings, lambda database: verify.verify_log(database, heads, _progress()))
        else:
            found = _verify_export(given, settings, heads, files)
    return _report(found, has_heads=heads is not None, in_log=settings is not None)


def _verify_export(
    given: argparse.Namespace, settings: Settings | None, heads: HeadsReading | None, files: ExitStack
) -> verify.Finding:
    def read() -> export.ExportReading:
        return export.read_export(files.enter_context(given.export.open("rb")))

    first = read()
    check = verify.verify_whole_export if first.site is None else verify.verify_part
    found = check(first, heads, _progress())
    if settings is None or not found.is_whole:
        return found
    exported = iter(read())
    in_log = _on_log(
        settings, lambda database: verify.verify_log(database, None, _progress(), exported=exported)
    )
    return found if in_log.is_whole else in_log


def _heads(given: argparse.Namespace, settings: Settings | None, files: ExitStack) -> HeadsReading | None:
    """None: there are none to compare with."""
    folder = given.heads
    if folder is None and settings is not None and given.export is None:
        folder = settings.audit_heads_dir
    if folder is None:
        if given.key is not None:
            raise SettingsError("--key: belongs to --heads")
        return None
    key = given.key
    if key is None:
        if settings is None:
            raise SettingsError("--heads: give the public keys too (--key FILE, from `towline audit keys`)")
        key = settings.keys_dir / PUBLIC_FILE
    lines = files.enter_context(closing(open_heads(folder)))
    return HeadsReading(lines, read_public_keys(key))


def _report(found: verify.Finding, *, has_heads: bool, in_log: bool) -> int:
    for fault in found.heads_faults:
        print(f"towline: {fault}", file=sys.stderr)
    if found.fault is not None:
        print(f"towline: the audit log was changed. {_capital(str(found.fault))}", file=sys.stderr)
    if not found.is_whole:
        return EXIT_CHANGED
    print(f"nothing was changed: {found.events} events")
    if found.last is not None:
        at = datetime.fromtimestamp(found.last.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        print(
            f"{found.heads} signed heads agree; the last is that of event {found.last.head.seq}, signed {at}"
        )
    elif has_heads:
        print("no head was signed yet")
    elif in_log:
        print("no signed heads were compared: who has the database can have rewritten it all (--heads)")
    return EXIT_OK


def _export(given: argparse.Namespace) -> int:
    settings = load(Settings, given.config)
    with ExitStack() as files:
        out = sys.stdout.buffer if given.out is None else files.enter_context(given.out.open("xb"))
        events = _on_log(settings, lambda database: _write_export(database, given.site, out))
        out.flush()
    print(f"towline: {events} events", file=sys.stderr)
    return EXIT_OK


async def _write_export(database: Database, site: str | None, out: BinaryIO) -> int:
    events, after = 0, 0
    async with database.transaction() as tx:
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        head = await audit.head(tx)
        out.write(export.first_line(site, tx.at.isoformat(timespec="milliseconds"), head))
        while True:
            if site is None:
                rows = await audit.chain(tx, after)
            else:
                rows = await audit.rows_of(tx, audit.Wanted(site=site), after, head.seq)
            if not rows:
                break
            for row in rows:
                out.write(export.row_line(row))
            events, after = events + len(rows), rows[-1].seq
    out.write(export.last_line(events))
    return events


def _keys(given: argparse.Namespace) -> int:
    print(public_text(load(Settings, given.config).keys_dir), end="")
    return EXIT_OK


def _rotate(given: argparse.Namespace) -> int:
    kid = rotate_audit_key(load(Settings, given.config).keys_dir, SYSTEM_CLOCK.wall())
    print(f"key {kid} signs from the next head on; give auditors the new `towline audit keys`")
    return EXIT_OK


def _on_log(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` with the settings' database, which only looks."""

    async def run() -> T:
        database = Database(settings.database(), pool_max=1, wall=SYSTEM_CLOCK.wall)
        await database.check_url(settings.database_field)
        await database.open()
        database.prepared = True  # a schema that is not there says so itself
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def _progress() -> verify.Progress:
    """Says on standard error how far it is, when it takes a while."""
    said = time.monotonic()

    def tell(events: int) -> None:
        nonlocal said
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            print(f"towline: {events} events so far", file=sys.stderr)

    return tell


def _failed(why: str) -> int:
    print(f"towline: {why}", file=sys.stderr)
    return EXIT_NOT_DONE


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
