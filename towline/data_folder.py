"""Where `towline up` keeps everything, and what lies where in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def default_data() -> Path:
    """TOWLINE_DATA; in a checkout its folder ``data``; else ``towline`` in the user's data folder (XDG)."""
    chosen = os.environ.get("TOWLINE_DATA")
    if chosen:
        return Path(chosen)
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / "data"
    xdg = os.environ.get("XDG_DATA_HOME")
    return (Path(xdg) if xdg else Path.home() / ".local" / "share") / "towline"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """One folder, readable by its owner alone; whoever moves or deletes it moves or deletes everything."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked while a `towline up` runs on this folder."""
        return self.root / "up.lock"

    @property
    def credentials(self) -> Path:
        """How the commands (`towline link` and others) log in; mode 0600."""
        return self.root / "credentials.json"

    @property
    def access_token(self) -> Path:
        """The commands' access token: 15 minutes, mode 0600."""
        return self.root / "access-token"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def config(self) -> Path:
        """The services' settings files, written anew at each start."""
        return self.root / "config"

    @property
    def keys(self) -> Path:
        """The gateway's private keys and CAs."""
        return self.root / "keys"

    @property
    def node(self) -> Path:
        """Certificates of the one tunnel server node."""
        return self.root / "node"

    @property
    def ingest(self) -> Path:
        """The certificate of what takes in devices' messages."""
        return self.root / "ingest"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def audit_heads(self) -> Path:
        """Signed heads of the audit log: on this disk they keep the database's users honest, no more."""
        return self.root / "audit-heads"

    @property
    def demo(self) -> Path:
        """The demo device's own files: its uploads, and below ``agent`` its identity."""
        return self.root / "demo"

    @property
    def agent_state(self) -> Path:
        return self.demo / "agent"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def make(self) -> None:
        """Make the folder and those inside that the services expect."""
        for folder in (
            self.root,
            self.secrets,
            self.config,
            self.node,
            self.ingest,
            self.demo,
            self.run,
            self.audit_heads,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.root, 0o700)
