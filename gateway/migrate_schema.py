"""`python -m gateway migrate --config FILE`: the schema, put there by a role that the service has not."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import MigrationError, StoreUnavailableError
from gateway.settings import Settings, read_secret
from gateway.store import migrate, schema
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK
from runtime.settings import SettingsError, load

MIGRATE = "migrate"
EXIT_FAILED = 1


def migrate_schema(arguments: Sequence[str]) -> int:
    """0: the schema is right and the service's role has its rights; 1: it is not; 2: bad settings."""
    parser = argparse.ArgumentParser(
        prog=f"python -m gateway {MIGRATE}",
        description="Bring the database's schema up to date as its owner, and give the gateway's own role"
        " what it needs. Gateways that run without the owner's password wait for this when they are newer"
        " than the schema.",
    )
    parser.add_argument("--config", type=Path, required=True, help="a gateway's settings file")
    parser.add_argument(
        "--owner-url-file",
        type=Path,
        metavar="FILE",
        help="the owner's connection URL (default: migration_database_url of the settings)",
    )
    parsed = parser.parse_args(arguments)
    try:
        settings = load(Settings, parsed.config)
        owner = settings.migration_database()
        if parsed.owner_url_file is not None:
            owner = read_secret(parsed.owner_url_file, "--owner-url-file")
        applied = asyncio.run(schema.put(settings.database(), owner, migrate.load()))
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except (MigrationError, StoreUnavailableError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"the schema is right; {applied} migrations were applied")
    return EXIT_OK
