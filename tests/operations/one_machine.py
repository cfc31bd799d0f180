"""infra/compose.yaml without containers: its commands and files as they are, by Debian's own programs.

Each service runs in a mount namespace of its own, with the mounts that the file gives it, and all share one
network namespace in which every service's name is loopback. Nothing of the machine's own is touched.
What this is not: the images (their entry points, users and rights), and the way in from outside.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from testbed.debian_postgres import ACCOUNT, BINARIES
from testbed.kafka import FORMAT_S, programs
from testbed.processes import ROOT, START_S, Processes
from testbed.programs import program
from testbed.waiting import eventually

INFRA: Final = ROOT / "infra"
COMPOSE: Final = INFRA / "compose.yaml"
COMMAND_S: Final = 30.0
# Folders of the machine that are empty for a service, so that its mounts find their places there. Those that
# a package makes are there where the package is.
EMPTY: Final = ("/srv", "/mnt", "/run", "/etc/mosquitto", "/etc/prometheus", "/var/lib")
# At the root of the machine nothing can be made without touching it.
ELSEWHERE: Final = {"/prometheus": "/srv/prometheus"}
JAVA: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
KAFKA_SETTINGS: Final = "/mnt/shared/config/server.properties"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


class OneMachine:
    """`start` it and `close` it; `folder` is where the file's `./site` and its volumes are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Any] = compose()["services"]
        self.processes = Processes(folder, death_signal=signal.SIGKILL)
        (folder / "hosts").write_text(
            "".join(f"127.0.0.1 {name}\n" for name in ("localhost", *self.services))
        )

    def start(self) -> None:
        assert os.geteuid() == 0, "namespaces need root"
        assert not any(ROOT.is_relative_to(hidden) for hidden in EMPTY), f"{ROOT} would be hidden"
        loopback = f"ip link set lo up && touch {self.folder}/up && exec sleep infinity"
        self.processes.run("network", [program("unshare", "util-linux"), "--net", "sh", "-c", loopback])
        self.processes.wait_ready("network", (self.folder / "up").exists)
        self.prepare()
        self._start_postgres()
        self.run("redis")
        self._start_kafka()
        self.run("mosquitto")
        self.once("migrate")
        for name in ("gateway", "consumer", "node-a", "ingest-0", "ingest-1"):
            self.run(name)
        path = "--storage.tsdb.path="
        words = [
            path + ELSEWHERE[word.removeprefix(path)] if word.startswith(path) else word
            for word in self.services["prometheus"]["command"]
        ]
        self.run("prometheus", [program("prometheus", "prometheus"), *words])

    def close(self) -> None:
        self.processes.close()

    def logs(self) -> str:
        return self.processes.logs()

    def prepare(self) -> None:
        """The file's own first step; then the files go to the users that Debian's programs have."""
        self.once("prepare")
        for name, account in (("postgres", ACCOUNT), ("mosquitto", "mosquitto"), ("run", "mosquitto")):
            user = pwd.getpwnam(account)
            for path in (self.folder / "site" / name, *(self.folder / "site" / name).iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)

    def run(self, name: str, command: Sequence[str] | None = None) -> None:
        self.processes.run(name, self.argv(name, command or self.services[name]["command"]))

    def once(self, name: str) -> str:
        """A service that ends; what it said."""
        return self.inside(name, self.services[name]["command"])

    def inside(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """A command where that service is; AssertionError with all it said when it failed."""
        done = subprocess.run(
            self.argv(name, command),
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
            capture_output=True, text=True, timeout=max(COMMAND_S, FORMAT_S), check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout

    def argv(self, name: str, command: Sequence[str]) -> list[str]:
        """`command` in the network, with the mounts of that service."""
        program_name, *words = command
        path = sys.executable if program_name == "python" else program_name
        lines = [f"mount --bind {shlex.quote(str(self.folder / 'hosts'))} /etc/hosts"]
        for source, target in self.mounts(name):
            kind = "mkdir -p" if source.is_dir() else "touch"
            lines.append(f"mkdir -p {os.path.dirname(target)} && {kind} {target}")
            lines.append(f"mount --bind {shlex.quote(str(source))} {target}")
        hidden = [f"[ ! -d {folder} ] || mount -t tmpfs tmpfs {folder}" for folder in EMPTY]
        script = " && ".join([*hidden, *lines, f"exec {shlex.join([path, *words])}"])
        network = f"--net=/proc/{self.processes.pid('network')}/ns/net"
        return [program("nsenter", "util-linux"), network, program("unshare", "util-linux"), "--mount",
                "sh", "-c", script]  # fmt: skip

    def mounts(self, name: str) -> list[tuple[Path, str]]:
        """(what is here, where the service sees it)."""
        found = []
        for volume in self.services[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            target = ELSEWHERE.get(target, target)
            if source.startswith("./site"):
                path = self.folder / source
                path.mkdir(parents=True, exist_ok=True)
            elif source.startswith("./"):
                path = INFRA / source
                assert path.exists(), f"{name}: {source} is not there"
            else:
                path = self.folder / f"volume-{source}"
                path.mkdir(exist_ok=True)
            if not target.startswith("/docker-entrypoint"):  # the image's way to run a script once
                found.append((path, target))
        return found

    def _start_postgres(self) -> None:
        """Debian's, as the official image makes it: a cluster, the superuser's password, then our script."""
        where = "/var/lib/postgresql/data"
        cluster = self.folder / "volume-postgres"
        cluster.mkdir()
        shutil.chown(cluster, ACCOUNT)
        password = "/srv/towline/secrets/superuser-password"
        initdb = [
            "initdb",
            "-D",
            where,
            "-U",
            ACCOUNT,
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
            "--no-sync",
        ]
        self.inside("postgres", self._as_postgres(*initdb))
        serve = ["postgres", "-D", where, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self.run("postgres", self._as_postgres(*serve, "-c", "unix_socket_directories="))
        superuser = (self.folder / "site/postgres/superuser-password").read_text()
        answers = self.argv("postgres", [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1"])
        self.processes.wait_ready("postgres", lambda: subprocess.run(answers).returncode == 0)
        known = {"PGHOST": "127.0.0.1", "PGPASSWORD": superuser, "POSTGRES_USER": ACCOUNT}
        self.inside("postgres", ["sh", str(INFRA / "postgres/towline.sh")], known)

    def _as_postgres(self, command: str, *words: str) -> list[str]:
        user = [f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups"]
        return [program("setpriv", "util-linux"), *user, str(BINARIES / command), *words]

    def _start_kafka(self) -> None:
        """Maven's, with the image's way: the storage is formatted once, then the broker starts."""
        java = [program("java", "openjdk-17-jre-headless"), *JAVA, "-cp", f"{programs()}/*"]
        cluster = "0" + secrets.token_urlsafe(16)[1:]
        self.inside(
            "kafka", [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", KAFKA_SETTINGS]
        )
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        self.run("kafka", [*java[:-2], quiet, *java[-2:], "kafka.Kafka", KAFKA_SETTINGS])

    def get(self, name: str, port: int, path: str) -> tuple[int, str]:
        """An HTTP answer of a service, asked from inside; (0, "") while nobody listens."""
        self.processes.check_runs(name)
        url = f"http://{name}:{port}{path}"
        curl = [program("curl", "curl"), "--silent", "--max-time", "5", "--write-out", "\\n%{http_code}", url]
        done = subprocess.run(
            self.argv(name, curl), capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status or 0), text

    def wait_ready(self, name: str, port: int) -> None:
        eventually(f"{name} is ready", lambda: self.get(name, port, "/readyz")[0] == 200, START_S)
