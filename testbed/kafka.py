"""A real Apache Kafka for tests: one node (KRaft), on loopback, plain and by TLS, to start and to break.

Its programs come from Maven Central, once a machine: they stay in the user's cache folder.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.event_log.kafka import KafkaAddress
from testbed.certificates import Authority
from testbed.ports import LOOPBACK, free_ports
from testbed.processes import LOG_END, START_S
from testbed.programs import ended, program, send, wait_listening
from towline.embedded.processes import launch_argv

VERSION: Final = "4.1.0"
DOWNLOAD_S: Final = 240.0  # 43 MB, and what Maven itself needs the first time
FORMAT_S: Final = 60.0  # a second, on a machine that has nothing else to do

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.towline</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
LASTING: Final = ("-XX:+UseSerialGC", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
"""For one that runs for minutes and is measured: its code is compiled as a real one's is."""
# The heap is what one broker with a dozen parts needs; the rest makes it start in a third of the time.
QUICK = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx256m",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
# A killed broker comes back once the session of its former life has lapsed: 12 s by default.
_SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{plain},TLS://{host}:{tls},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{plain},TLS://{host}:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
listener.name.tls.ssl.truststore.type=PEM
listener.name.tls.ssl.truststore.location={ca}
listener.name.tls.ssl.client.auth=required
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.threads=1
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
"""


class KafkaServer:
    """One broker below `folder`; `start` after an end goes on where it was."""

    def __init__(self, folder: Path, java: Sequence[str] = QUICK) -> None:
        """`java`: options of the virtual machine."""
        self.folder = folder
        self._options = java
        self.port, self._tls_port, self._controller_port = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = ""

    def address(self, prefix: str) -> KafkaAddress:
        """Plain."""
        return KafkaAddress((f"{LOOPBACK}:{self.port}",), prefix)

    def tls_address(self, prefix: str) -> KafkaAddress:
        """By TLS, with a certificate of ours, which it demands."""
        ca, issued = self.folder / "ca.pem", self.folder / "client"
        return KafkaAddress(
            (f"{LOOPBACK}:{self._tls_port}",),
            prefix,
            ca=ca,
            certificate=issued.with_suffix(".crt"),
            key=issued.with_suffix(".key"),
        )

    def start(self) -> None:
        """Returns when its port is open; a client may have to ask for a second more."""
        wait_listening(self.port, self.begin(), START_S)

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        if not self._classpath:
            self._classpath = f"{programs()}/*"
            self._prepare()
        with (self.folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch_argv(self._java("kafka.Kafka"), death_signal=signal.SIGKILL), stdout=log, stderr=log
            )
        return self._process

    @property
    def pid(self) -> int:
        assert self._process is not None, "kafka runs"
        return self._process.pid

    def kill(self) -> None:
        """kill -9, and gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self._end(signal.SIGTERM)

    close = stop

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None, "kafka runs"
        send(self._process, number)

    def logs(self) -> str:
        log = self.folder / "kafka.log"
        return log.read_text(errors="replace")[-LOG_END:] if log.exists() else ""

    def _prepare(self) -> None:
        authority = Authority(self.folder)
        server = authority.issue("server", LOOPBACK)
        authority.issue("client", "ingest")
        settings = _SETTINGS.format(
            host=LOOPBACK,
            plain=self.port,
            tls=self._tls_port,
            controller=self._controller_port,
            keystore=server.both,
            ca=authority.ca,
            logs=self.folder / "log",
        )
        (self.folder / "server.properties").write_text(settings)
        # From a digit on: it may begin with a hyphen, which the tool takes for an option.
        cluster = "0" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        argv = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=FORMAT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"kafka's storage was not made: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _java(self, *words: str) -> list[str]:
        java = program("java", "openjdk-17-jre-headless")
        settings = str(self.folder / "server.properties")
        return [java, *self._options, "-cp", self._classpath, *words, settings]

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            assert ended(self._process), "kafka did not end"
            self._process = None


def programs() -> Path:
    """The folder of Kafka's jars; fetched when they are not there. RuntimeError names what is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "towline"
    found = cache / f"kafka-{VERSION}"
    if found.is_dir():
        return found
    cache.mkdir(parents=True, exist_ok=True)
    # Several runs may begin at once on a machine that has none.
    with (cache / f"kafka-{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_dir():
            _fetch(found)
    return found


def _fetch(found: Path) -> None:
    mvn = program("mvn", "maven")
    program("java", "openjdk-17-jre-headless")
    with tempfile.TemporaryDirectory(dir=found.parent) as folder:
        pom = Path(folder) / "pom.xml"
        pom.write_text(_POM)
        argv = [mvn, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        argv.append(f"-DoutputDirectory={folder}/lib")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(
                f"Kafka {VERSION} was not fetched from Maven Central (once a machine, 43 MB):\n"
                f"{(done.stdout + done.stderr)[-1500:]}"
            )
        shutil.move(Path(folder) / "lib", found)
