"""`python -m gateway rotate-keys PURPOSE --config FILE`: begin with a new key now, not by the calendar."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.errors import KeyFileError
from gateway.keys.rotation import Rotated, RotationRefusedError, rotate
from gateway.settings import Settings
from runtime.clock import SYSTEM_CLOCK
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK
from runtime.settings import SettingsError, load

ROTATE = "rotate-keys"
EXIT_REFUSED = 1


def rotate_keys(arguments: Sequence[str]) -> int:
    """0: the new key is in the folder, and gateways that run see it in seconds; 1: a rotation is under way;
    2: bad settings or key files."""
    parser = argparse.ArgumentParser(
        prog=f"python -m gateway {ROTATE}",
        description="Publish a new key. It signs after the wait of the settings; the old one goes when what"
        " it signed is over. Nobody is logged out, no session ends, no gateway is restarted.",
    )
    parser.add_argument(
        "purpose",
        choices=("login", "grant"),
        help="login: access and link tokens; grant: what devices verify",
    )
    parser.add_argument("--config", type=Path, required=True, help="a gateway's settings file")
    parser.add_argument(
        "--leaked",
        action="store_true",
        help="somebody else has the old key: remove it now. Programs refresh, devices take no new session"
        " until they have the new list (minutes)",
    )
    parsed = parser.parse_args(arguments)
    try:
        settings = load(Settings, parsed.config)
        done = rotate(
            settings.keys_dir,
            parsed.purpose,
            settings.key_schedules(),
            SYSTEM_CLOCK.wall(),
            leaked=parsed.leaked,
        )
    except RotationRefusedError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except (SettingsError, KeyFileError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    print(_told(done))
    return EXIT_OK


def _told(done: Rotated) -> str:
    if done.retires_at is None:
        return f"key {done.kid} signs now; all before it are removed"
    signs, goes = _utc(done.signs_at), _utc(done.retires_at)
    return f"key {done.kid} is published; it signs from {signs}, the old one goes at {goes}"


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
