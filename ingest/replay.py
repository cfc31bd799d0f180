"""``towline ingest replay --config FILE …``: tries dead letters again, after what was wrong was mended.

The gateway does it, by the decision that its consumer makes of every message; this asks for it, some at a
time, and tells what comes of it. However often it is run, nothing is stored twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from device_protocol.errors import Reason
from ingest.settings import Settings
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp
from runtime.process import EXIT_BAD_SETTINGS, EXIT_CRASH, EXIT_OK
from runtime.settings import SettingsError, load

REPLAY: Final = "replay"
PATH: Final = "/internal/v1/dead-letters/replay"
AWAY_S: Final = 60.0
"""Of one go: a gateway that restarts, or waits for its database, is back by then. What it did stays done."""
TRY_AGAIN_S: Final = 1.0
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(slots=True)
class Told:
    """What came of it so far. `after`: the number of the last one that was looked at."""

    after: int
    looked: int = 0
    stored: int = 0
    known: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def add(self, answer: dict[str, Any]) -> None:
        self.looked += answer["looked"]
        self.stored += answer["stored"]
        self.known += answer["known"]
        self.left.update(f"{one['reason']}: {one['why']}".removesuffix(": ") for one in answer["left"])

    def summary(self, *, dry: bool) -> list[str]:
        would = "would be stored" if dry else "stored"
        lines = [f"{self.looked} dead letters: {self.stored} {would}, {self.known} were stored already"]
        return lines + [f"  {count} stay ({why})" for why, count in self.left.most_common()]


def replay(arguments: Sequence[str]) -> int:
    """0: all was looked at, whatever came of it; 1: the gateway does not answer, or not us; 2: settings."""
    parsed = _parser().parse_args(arguments)
    try:
        config = load(Settings, parsed.config)
        if config.gateway is None:
            raise SettingsError("gateway: replay asks the gateway: it needs this table")
        http = InternalHttp(config.gateway)
    except SettingsError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    wanted = {
        "site": parsed.site,
        "device": parsed.device,
        "reason": parsed.reason,
        "since": _text(parsed.since),
        "until": _text(parsed.until),
        "dry_run": parsed.dry_run,
    }
    told = Told(parsed.after)
    try:
        asyncio.run(_replay(http, wanted, told))
    except GatewayUnavailable as error:
        _cut_short(told, str(error), dry=parsed.dry_run)
        return EXIT_CRASH
    except GatewayRefused as error:
        why = f"{error.detail} ({error.code})" if error.detail else str(error)
        _cut_short(told, why, dry=parsed.dry_run)
        return EXIT_CRASH
    print(*told.summary(dry=parsed.dry_run), sep="\n")
    return EXIT_OK


def _cut_short(told: Told, why: str, *, dry: bool) -> None:
    """Say what was done all the same, and how to go on."""
    if told.looked:
        print(*told.summary(dry=dry), sep="\n")
    print(f"ingest: the gateway: {why}", file=sys.stderr)
    if told.looked:
        print(f"ingest: there may be more: go on with --after {told.after}", file=sys.stderr)


async def _replay(http: InternalHttp, wanted: dict[str, Any], told: Told) -> None:
    try:
        while True:
            answer = await _asked(http, wanted | {"after": told.after})
            told.add(answer)
            for one in answer["left"]:
                why = f"{one['reason']}: {one['why']}".removesuffix(": ")
                print(f"{one['number']} of {one['at']} on {one['topic']} stays ({why})")
            if answer["next"] is None:
                return
            told.after = answer["next"]
            # To be gone on with by --after, should this be interrupted.
            print(f"looked at {told.looked}, up to number {told.after}", file=sys.stderr)
    finally:
        http.close()


async def _asked(http: InternalHttp, body: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    until: float | None = None
    while True:
        try:
            answer: dict[str, Any] = await http.call("POST", PATH, body)
            return answer
        except GatewayUnavailable as error:
            if until is None:
                until = loop.time() + AWAY_S
                print(f"ingest: the gateway: {error}; trying for {AWAY_S:g} s more", file=sys.stderr)
            if loop.time() + TRY_AGAIN_S > until:
                raise
        await asyncio.sleep(TRY_AGAIN_S)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m ingest {REPLAY}",
        description="Try dead letters again. What is good by now becomes history, as if it had come late;"
        " nothing newer is replaced, nothing is stored twice. What stays a dead letter is told with the"
        " reason. Whoever runs the site finds it in the audit log.",
    )
    parser.add_argument("--config", type=Path, required=True, help="a settings file of ingest")
    parser.add_argument("--site", metavar="ID", help="of this site alone")
    parser.add_argument("--device", metavar="ID", help="of this device alone")
    parser.add_argument(
        "--reason",
        choices=[reason.value for reason in Reason],
        metavar="REASON",
        help="with this reason alone: %(choices)s",
    )
    parser.add_argument(
        "--since", type=_moment, metavar="TIME", help="RFC 3339, or how long ago: 30m, 12h, 7d"
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="the same; not included")
    parser.add_argument("--after", type=int, default=0, metavar="NUMBER", help="begin behind this one")
    parser.add_argument("--dry-run", action="store_true", help="store nothing: say what would come of it")
    return parser


def _moment(text: str) -> datetime:
    digits, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is not None and digits.isascii() and digits.isdigit() and len(digits) <= 5:
        return datetime.now(UTC) - timedelta(**{unit: int(digits)})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time with its offset, and no 30m, 12h or 7d")
    return found


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
