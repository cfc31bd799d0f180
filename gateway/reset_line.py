"""`python -m gateway reset-line DEVICE --config FILE`: forget how far a device's messages were taken.

For a device whose line stands beyond all its numbers, so that nothing it says is new: its storage was copied
from another one's, or a bridge that is not ours any more said things in its name.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from device_protocol.numbers import NOTHING
from gateway.errors import StoreUnavailableError
from gateway.settings import Settings
from gateway.store import devices, messages
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent
from runtime.clock import SYSTEM_CLOCK
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK
from runtime.settings import SettingsError, load

RESET_LINE = "reset-line"
EXIT_NOT_DONE = 1


def reset_line(arguments: Sequence[str]) -> int:
    """0: done, and in the audit log; 1: no such device, or no database; 2: bad settings."""
    parser = argparse.ArgumentParser(
        prog=f"python -m gateway {RESET_LINE}",
        description="Forget how far a device's messages were taken: the next one it says is taken, from where"
        " it says that it stands. History stays.",
    )
    parser.add_argument("device", help="its id")
    parser.add_argument("--config", type=Path, required=True, help="a gateway's settings file")
    parsed = parser.parse_args(arguments)
    try:
        settings = load(Settings, parsed.config)
        told = asyncio.run(reset(settings, parsed.device))
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except StoreUnavailableError as error:
        print(f"gateway: the database does not answer: {error}", file=sys.stderr)
        return EXIT_NOT_DONE
    print(told or f"there is no device {parsed.device}", file=sys.stderr if told is None else sys.stdout)
    return EXIT_NOT_DONE if told is None else EXIT_OK


async def reset(settings: Settings, device_id: str) -> str | None:
    """What was done, in words; None: there is no such device. StoreUnavailableError, SettingsError."""
    database = Database(settings.database(), pool_max=1, wall=SYSTEM_CLOCK.wall)
    await database.check_url(settings.database_field)
    await database.open()
    database.prepared = True  # a schema that is not there says so itself
    try:
        async with database.transaction() as tx:
            device = await devices.get(tx, device_id)
            if device is None:
                return None
            had = (await messages.lines_of(tx, [device_id], hold=True)).get(device_id, NOTHING)
            await messages.forget_line(tx, device_id)
            detail = {"boot": had.boot, "seq": had.seq}
            tx.audit(
                AuditEvent(
                    "device.line_reset", "operator", site=device.site_id, device=device_id, detail=detail
                )
            )
        return f"the line of {device_id} stood at boot {had.boot}, message {had.seq}; it begins anew"
    finally:
        await database.close()
