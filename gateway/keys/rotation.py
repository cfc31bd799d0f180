"""Keys that change while gateways run: the folder is the truth, and every gateway that shares it follows it.

A gateway looks each few seconds. Under the folder's lock it does what is due (policy/rotation.py), and then
uses what is there; so does each other one, a look later. `wait_s` is longer than that by far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import KeyFileError
from gateway.keys.files import locked
from gateway.keys.keyring import Keyring, TokenKeys, load_token_keys
from gateway.keys.signing import KeySet, key_files, make_key
from gateway.policy.rotation import Purpose, Schedule, due, retires_at, signing
from runtime.clock import Clock
from runtime.logs import get_logger

# A key that an operator takes out because it leaked must stop everywhere soon; a look reads a few names.
LOOK_EVERY_S = 5.0

_log = get_logger("gateway.keys")


class RotationRefusedError(Exception):
    """Another rotation is not over yet; the text says until when."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation that somebody asked for did; times in Unix seconds."""

    kid: str
    signs_at: float
    retires_at: float | None
    """When the keys before it go; None: they are gone."""


def rotate(
    directory: Path, purpose: Purpose, schedules: Mapping[Purpose, Schedule], now: float, *, leaked: bool
) -> Rotated:
    """Publish a new key. `leaked`: the old ones go at once, and with them all that they signed.

    RotationRefusedError while a rotation is under way, KeyFileError for files that do not fit.
    """
    schedule = schedules[purpose]
    with locked(directory):
        old = _set_of(load_token_keys(directory, now, _waits(schedules)), purpose)
        if leaked:
            for path in key_files(directory, purpose):
                path.unlink()
        elif len(old.keys) > 1:
            raise RotationRefusedError(_under_way(old, schedule, now))
        make_key(directory, purpose, datetime.fromtimestamp(now, UTC))
        new = _set_of(load_token_keys(directory, now, _waits(schedules)), purpose)
    kid = new.keys[-1].kid
    if leaked:
        return Rotated(kid, now, None)
    return Rotated(kid, new.signs_from(kid), new.signs_from(kid) + schedule.life_s)


class KeyWatch:
    """Keeps one keyring as its folder is, and does there what is due."""

    def __init__(self, keyring: Keyring, schedules: Mapping[Purpose, Schedule], clock: Clock) -> None:
        self._keyring = keyring
        self._schedules = schedules
        self._clock = clock
        self._seen = _names(keyring.directory)
        self._told = ""  # the last problem that was logged: not again at each look

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Once. Files that do not fit change nothing: the keys in use stay."""
        try:
            found = await asyncio.to_thread(self._step)
        except (KeyFileError, OSError) as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.error("keys not loaded, the old ones stay", extra={"reason": str(error)})
            return
        self._told = ""
        if found is not None:
            self._keyring.use(found)

    def _step(self) -> TokenKeys | None:
        """In a thread: what to use from now on, or None when nothing changed."""
        now, directory = self._clock.wall(), self._keyring.directory
        current: dict[Purpose, KeySet] = {"login": self._keyring.login, "grant": self._keyring.grant}
        idle = all(not any(_due(current[one], self._schedules[one], now)) for one in current)
        if idle and _names(directory) == self._seen:
            return None
        with locked(directory):
            found = load_token_keys(directory, now, _waits(self._schedules))
            for purpose, schedule in self._schedules.items():
                # Of the folder as it is now: another gateway may have done it while we waited for the lock.
                retire, make = _due(_set_of(found, purpose), schedule, now)
                self._apply(purpose, retire, make, now)
                if retire or make:
                    found = load_token_keys(directory, now, _waits(self._schedules))
            self._seen = _names(directory)
        return found

    def _apply(self, purpose: Purpose, retire: int, make: bool, now: float) -> None:
        for path in key_files(self._keyring.directory, purpose)[:retire]:
            path.unlink()
            _log.info("a key is retired", extra={"purpose": purpose, "file": path.name})
        if make:
            make_key(self._keyring.directory, purpose, datetime.fromtimestamp(now, UTC))


def _due(keys: KeySet, schedule: Schedule, now: float) -> tuple[int, bool]:
    steps = due(_published(keys, now), schedule, now)
    return steps.retire, steps.make


def _published(keys: KeySet, now: float) -> list[float]:
    return [keys.published.get(key.kid, now) for key in keys.keys]


def _set_of(found: TokenKeys, purpose: Purpose) -> KeySet:
    return found.login if purpose == "login" else found.grant


def _waits(schedules: Mapping[Purpose, Schedule]) -> Mapping[str, float]:
    return {purpose: schedule.wait_s for purpose, schedule in schedules.items()}


def _under_way(keys: KeySet, schedule: Schedule, now: float) -> str:
    published = _published(keys, now)
    newest = len(published) - 1
    ends = datetime.fromtimestamp(retires_at(published, schedule, newest), UTC)
    step = (
        "waits to sign" if signing(published, schedule, now) != newest else "signs, the one before it stays"
    )
    return (
        f"a rotation is under way: the newest key {step}; it is over at {ends:%Y-%m-%d %H:%M:%S} UTC"
        " (--leaked does not wait)"
    )


def _names(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """What the folder's token keys look like from outside: cheap, and different after every change."""
    found = []
    for purpose in ("login", "grant"):
        for path in [*key_files(directory, purpose), directory / f"{purpose}_published.json"]:
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # between the listing and here another gateway retired it
            found.append((path.name, state.st_mtime_ns, state.st_ino))
    return tuple(found)
