"""A real Mosquitto (Debian's) that runs infra/mosquitto's own configuration, with certificates of the run."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.keys.authority import Authority, Issued, load_authority
from gateway.keys.signing import private_pem
from gateway.store.transaction import utc
from testbed.ports import LOOPBACK, free_ports
from testbed.processes import ROOT, Processes
from testbed.programs import program
from testbed.waiting import eventually

INFRA = ROOT / "infra/mosquitto"
_SERVED = "/etc/mosquitto/towline/"
CRL_S = 7 * 86400  # from now to its next update


class Mosquitto:
    """One broker below `folder`: its CAs, its files, its process. Nothing of the machine's configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        devices: Authority | None = None,
        internal: Authority | None = None,
        server: Authority | None = None,
        follows: bool = False,
    ) -> None:
        """The CAs are a gateway's, or made here. `server`: signs what the broker shows, else `internal`.
        `follows`: it reads its list again by itself, as in infra/compose.yaml.
        """
        self.folder = folder
        self._follows = follows
        now = time.time()
        self.devices = devices or load_authority(folder, "devices", "Test devices", now)
        self.internal = internal or load_authority(folder, "internal", "Test internal", now)
        self.server = server or self.internal
        self.port, self.internal_port = free_ports(2)
        self.crl = folder / "devices-crl.pem"
        self.pid_file = folder / "mosquitto.pid"
        self._processes = Processes(folder, death_signal=signal.SIGKILL)
        self._config = folder / "mosquitto.conf"
        self._write_files(now)

    def start(self) -> None:
        """Returns when it listens. May be repeated after an end."""
        if "mosquitto" in self._processes:
            self._processes.again("mosquitto")
        else:
            plain = [program("mosquitto", "mosquitto"), "-c", str(self._config)]
            following = [program("sh", "dash"), str(INFRA / "serve.sh"), str(self._config), str(self.crl)]
            self._processes.run("mosquitto", following if self._follows else plain)
        self._processes.wait_ready("mosquitto", self._listens)

    def close(self) -> None:
        self._processes.close()

    def kill(self) -> None:
        """kill -9, and gone."""
        self._processes.kill("mosquitto")

    def signal(self, number: signal.Signals) -> None:
        self._processes.signal("mosquitto", number)

    @property
    def pid(self) -> int:
        return self._processes.pid("mosquitto")

    def logs(self) -> str:
        return self._processes.logs()

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def wait_logged(self, text: str) -> None:
        eventually(f"mosquitto logs {text!r}", lambda: text in self.log())

    def device(self, device_id: str) -> ssl.SSLContext:
        """What a device of that id connects with."""
        return self.context(self.issue_device(device_id))

    def service(self, name: str) -> ssl.SSLContext:
        """What ingest, gateway and keeper connect to the internal listener with."""
        return self.context(self.internal.issue_client(name, time.time()))

    def issue_device(self, device_id: str, *, now: float | None = None) -> Issued:
        """A certificate, as the gateway gives it to a device, and the device's key."""
        key = ec.generate_private_key(ec.SECP256R1())
        at = time.time() if now is None else now
        return Issued(self.devices.issue_device(key.public_key(), device_id, at).certificate, key)

    def context(self, shown: Issued | None) -> ssl.SSLContext:
        """Trusts the broker and shows the certificate; None: shows none."""
        context = ssl.create_default_context(cadata=self.server.pem())
        if shown is not None:
            file = self.folder / f"client-{shown.certificate.serial_number:x}.pem"
            file.write_bytes(shown.certificate_pem() + shown.key_pem())
            context.load_cert_chain(file)
        return context

    def revocations(self, *serials: int, next_update_s: float = CRL_S) -> bytes:
        """A list of the device CA, PEM."""
        return revocations(self.devices, serials, next_update_s)

    def _write_files(self, now: float) -> None:
        certificate = self.server.issue_server("broker", [LOOPBACK], now)
        (self.folder / "broker.pem").write_bytes(certificate.certificate_pem())
        assert certificate.key is not None, "it was made here"
        (self.folder / "broker.key").write_bytes(private_pem(certificate.key))
        (self.folder / "devices-ca.pem").write_text(self.devices.pem())
        (self.folder / "internal-ca.pem").write_text(self.internal.pem())
        (self.folder / "acl").write_bytes((INFRA / "acl").read_bytes())
        self.crl.write_bytes(self.revocations())
        text = (INFRA / "mosquitto.conf").read_text()
        words = {
            _SERVED: f"{self.folder}/",
            "/run/mosquitto/towline.pid": str(self.pid_file),
            "\nlistener 8883\n": f"\nlistener {self.port} {LOOPBACK}\n",
            "\nlistener 8884\n": f"\nlistener {self.internal_port} {LOOPBACK}\n",
        }
        for word, value in words.items():
            assert word in text, f"{word!r} is not in the file"
            text = text.replace(word, value)
        # Where root runs it, its own user could not read below the run's folder.
        self._config.write_text(f"user root\n{text}")

    def _listens(self) -> bool:
        for port in (self.port, self.internal_port):
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        return True


def revocations(authority: Authority, serials: tuple[int, ...], next_update_s: float) -> bytes:
    """A CRL of these serial numbers, PEM; negative: its next update is past."""
    now = time.time()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(utc(now + min(0.0, next_update_s) - 3600))
        .next_update(utc(now + next_update_s))
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(now)).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
