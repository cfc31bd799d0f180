"""A Redis address: read strictly, so that a mistake is told at start and no option slips in by a query."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PORT = 6379
DATABASES = 1024  # Redis has 16 unless told otherwise


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`path` of a Unix socket, or host and port. Shows no password."""

    host: str
    port: int
    path: str | None
    database: int
    tls: bool
    ca: Path | None
    username: str | None
    password: str | None = field(repr=False)

    def options(self) -> dict[str, Any]:
        """Arguments of redis-py's connections."""
        common = {"db": self.database, "username": self.username, "password": self.password}
        if self.path is not None:
            return {**common, "path": self.path}
        options: dict[str, Any] = {**common, "host": self.host, "port": self.port}
        if self.tls:
            options["ssl_check_hostname"] = True
            options["ssl_ca_certs"] = None if self.ca is None else str(self.ca)
        return options


def parse_redis_url(url: str, ca: Path | None = None) -> RedisAddress:
    """redis://[user[:password]@]host[:port][/database], rediss:// with TLS, unix://[user:password@]/path.

    ValueError says what is wrong and repeats nothing of the URL, which holds a password. `ca`: the authority
    that signed the server's certificate; None: the system's.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("this is no URL; a /, : or @ in the password is written %2F, %3A or %40") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be a redis://, rediss:// or unix:// URL")
    if parts.query or parts.fragment:
        raise ValueError("must have neither ? nor #; in the password they are written %3F and %23")
    if ca is not None and parts.scheme != "rediss":
        raise ValueError("a CA goes with rediss:// alone")
    unix = parts.scheme == "unix"
    if unix and (parts.hostname or not parts.path):
        raise ValueError("must be unix:///path of the socket")
    if not unix and not parts.hostname:
        raise ValueError("names no host")
    return RedisAddress(
        host=parts.hostname or "",
        port=port or PORT,
        path=unquote(parts.path) if unix else None,
        database=0 if unix else _database(parts.path),
        tls=parts.scheme == "rediss",
        ca=ca,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def _database(path: str) -> int:
    number = path.removeprefix("/")
    if not number:
        return 0
    if not (number.isascii() and number.isdigit() and int(number) < DATABASES):
        raise ValueError(f"the path must be the number of a database below {DATABASES}")
    return int(number)
