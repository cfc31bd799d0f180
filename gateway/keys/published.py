"""Since when each key of a purpose is public: `{purpose}_published.json`, kid → Unix seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.errors import KeyFileError
from gateway.keys.files import read_private, write_private
from gateway.keys.signing import KeySet
from runtime.logs import get_logger

_log = get_logger("gateway.keys")


def read_dates(directory: Path, purpose: str) -> dict[str, float]:
    """Empty when nothing was written yet."""
    path = _path(directory, purpose)
    if not path.exists():
        return {}
    try:
        return {str(kid): float(at) for kid, at in json.loads(read_private(path)).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise KeyFileError(f"{path}: is not a JSON object of times") from error


def put_dates(
    directory: Path,
    purpose: str,
    keys: KeySet,
    known: Mapping[str, float],
    now: float,
    wait_s: float,
    *,
    keep: bool,
) -> KeySet:
    """The keys with the times from which each signs; one that is not `known` is public from `now`.

    `keep` False writes nothing: who only looks must not start a key's wait.
    """
    published = {key.kid: known.get(key.kid, now) for key in keys.keys}
    if keep and published != read_dates(directory, purpose):
        write_private(_path(directory, purpose), json.dumps(published).encode("ascii"))
    dated = replace(keys, published=published, wait_s=wait_s)
    waiting = [key.kid for key in dated.keys if dated.signs_from(key.kid) > now]
    if keep and len(dated.keys) > len(waiting) > 0:
        extra = {"purpose": purpose, "kids": waiting, "wait_s": wait_s}
        _log.info("a new key is published and signs later", extra=extra)
    return dated


def _path(directory: Path, purpose: str) -> Path:
    return directory / f"{purpose}_published.json"
