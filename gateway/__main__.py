"""`python -m gateway --config FILE` serves; `python -m gateway issue-node-certificate …` makes node files;
`python -m gateway audit …` checks and exports the audit log; `python -m gateway rotate-keys …` begins with a
new key for tokens; `python -m gateway migrate …` puts the schema there by the role that owns it; `python -m
gateway consume …` stores what devices say, apart from the API; `python -m gateway reset-line …` lets a device
begin anew whose numbers are all behind."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.app import main
from gateway.audit import command as audit
from gateway.consume import CONSUME, consume
from gateway.errors import KeyFileError
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import (
    issue_gateway_certificate,
    issue_ingest_certificate,
    issue_node_certificate,
)
from gateway.migrate_schema import MIGRATE, migrate_schema
from gateway.policy.peers import PeerRole
from gateway.reset_line import RESET_LINE, reset_line
from gateway.rotate_keys import ROTATE, rotate_keys
from gateway.settings import Settings
from runtime.clock import SYSTEM_CLOCK
from runtime.process import EXIT_BAD_SETTINGS, EXIT_OK, run
from runtime.settings import SettingsError, load

ISSUE = "issue-node-certificate"


def start(arguments: Sequence[str]) -> int:
    """The exit code: 0, 1 after a crash or for a changed audit log, 2 for bad settings or key files."""
    if arguments and arguments[0] in _OTHERS:
        command, _ = _OTHERS[arguments[0]]
        return command(arguments[1:])
    return run("gateway", main, arguments, others={word: what for word, (_, what) in _OTHERS.items()})


def _issue(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m gateway {ISSUE}")
    parser.add_argument("name", help="the node's name, a DNS label")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings file")
    parser.add_argument("--out", type=Path, required=True, help="directory for the node's files")
    parser.add_argument(
        "--role", choices=[*PeerRole], default=PeerRole.NODE, help="what it is for (%(default)s)"
    )
    parser.add_argument(
        "--san",
        nargs="+",
        default=[],
        metavar="HOST",
        help="names and addresses that agents dial (a node needs them), or by which the gateway reaches an"
        " ingest that takes what devices say over HTTPS",
    )
    parsed = parser.parse_args(arguments)
    if not parsed.san and parsed.role == PeerRole.NODE:
        parser.error("--san: a node needs at least one")
    if parsed.role == PeerRole.GATEWAY and (parsed.san or parsed.name != PeerRole.GATEWAY):
        parser.error("--role gateway: the name is gateway, as the broker's ACL knows it, without --san")
    now = SYSTEM_CLOCK.wall()
    try:
        keyring = load_keyring(load(Settings, parsed.config).keys_dir, now, serves=False)
        if parsed.role == PeerRole.NODE:
            files = issue_node_certificate(keyring, parsed.name, parsed.san, parsed.out, now)
        elif parsed.role == PeerRole.GATEWAY:
            files = issue_gateway_certificate(keyring, parsed.out, now)
        else:
            files = issue_ingest_certificate(keyring, parsed.name, parsed.out, now, parsed.san)
    except (SettingsError, KeyFileError, ValueError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    for file in files:
        print(file)
    return EXIT_OK


_OTHERS: Final[Mapping[str, tuple[Callable[[Sequence[str]], int], str]]] = {
    CONSUME: (consume, "store what devices say, apart from the API"),
    MIGRATE: (migrate_schema, "bring the database's schema up to date, as its owner"),
    ISSUE: (_issue, "make the files of a node, an ingest, or the gateway at the broker"),
    ROTATE: (rotate_keys, "begin with a new key for tokens"),
    RESET_LINE: (reset_line, "let a device begin anew whose numbers are all behind"),
    audit.COMMAND: (audit.main, "verify or export the audit log"),
}
"""What this does beside serving, by its word."""


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
