"""The state directory: who this device is and whom it trusts. Every file is replaced whole or not at all.

device.key       P-256 private key, PEM, mode 0600
device.crt       certificate of the gateway's CA, PEM
device_ca.pem    that CA
device_root.pem  the pinned key that signs key lists, SubjectPublicKeyInfo PEM; never changes
server_ca.pem    CA of the tunnel servers, where it is not a public one
gateway_ca.pem   CA of the gateway's HTTPS, where one was given at enrolment
keylist.jws      the newest verified list of grant keys
identity.toml    device id, addresses, the certificate's times; written last: there, the rest is complete
revoked.json     grants that were revoked and have not ended yet; only ids and times
enrolment.json   an enrolment that still waits for approval; gone afterwards
"""

from __future__ import annotations

import json
import re
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from runtime.private_files import write_private
from tunnel_agent import p256
from tunnel_agent.certificate import Certificate
from tunnel_agent.device_key import DeviceKey
from tunnel_agent.errors import IdentityError
from tunnel_agent.policy.jws import TokenRefused
from tunnel_agent.policy.key_list import KeyList, may_replace, verify_key_list
from tunnel_agent.urls import gateway_url_problem, tunnel_url_problem

MAX_FILE_BYTES = 1 << 20  # any of these files is a few KiB
_DEVICE_ID = re.compile(r"[a-z0-9_-]{1,64}")  # specification, section 4


@dataclass(frozen=True, slots=True)
class Identity:
    """What enrolment gave. `server_ca` and `gateway_ca` are PEM text; None means the system's roots."""

    device_id: str
    gateway_url: str
    tunnel_urls: tuple[str, ...]
    key: DeviceKey
    certificate: Certificate
    device_ca: str
    device_root: ec.EllipticCurvePublicKey
    key_list: KeyList
    server_ca: str | None
    gateway_ca: str | None


class IdentityStore:
    """Reads and writes the state directory; all methods block on the file system.

    Threads may share it: one writes at a time, and never a key list older than the one it wrote last.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writing = threading.RLock()  # a renewal and a key list of a HELLO come in threads of their own
        self._newest: KeyList | None = None  # of those written here; None before the first

    def __repr__(self) -> str:
        return f"<IdentityStore {self.directory}>"

    def is_enrolled(self) -> bool:
        """True once `save` was complete."""
        return (self.directory / "identity.toml").is_file()

    def load(self) -> Identity:
        """Read and check everything; raises IdentityError that names the file."""
        if not self.is_enrolled():
            raise IdentityError(f"{self.directory} holds no identity: run `towline agent enrol` first")
        table = self._identity_table()
        device_id = table.get("device_id")
        urls = table.get("tunnel_urls")
        gateway_url = table.get("gateway_url")
        if not isinstance(device_id, str) or not _DEVICE_ID.fullmatch(device_id):
            raise self._wrong("identity.toml", "device_id is not a device id")
        if not isinstance(gateway_url, str) or gateway_url_problem(gateway_url):
            raise self._wrong("identity.toml", "gateway_url is not an https address")
        if not isinstance(urls, list) or not all(
            isinstance(u, str) and not tunnel_url_problem(u) for u in urls
        ):
            raise self._wrong("identity.toml", "tunnel_urls is not a list of wss addresses")
        key, root = self._stored_key(), self._root()
        try:
            key_list = verify_key_list(self._read("keylist.jws"), root)
        except TokenRefused as refused:
            raise self._wrong("keylist.jws", str(refused)) from refused
        return Identity(
            device_id=device_id,
            gateway_url=gateway_url,
            tunnel_urls=tuple(urls),
            key=key,
            certificate=self._certificate(table),
            device_ca=self._optional("device_ca.pem") or "",
            device_root=root,
            key_list=key_list,
            server_ca=self._optional("server_ca.pem"),
            gateway_ca=self._optional("gateway_ca.pem"),
        )

    def save(self, identity: Identity) -> None:
        """Write all of it, identity.toml last."""
        with self._writing:
            self._newest = None  # a new enrolment may pin another root, whose numbers start anew
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.directory / "device.key", identity.key.to_pem())
            write_private(self.directory / "device_root.pem", p256.public_pem(identity.device_root))
            self._write_or_remove("gateway_ca.pem", identity.gateway_ca)
            self.save_renewed(identity)
            self.remove_pending()

    def save_renewed(self, identity: Identity) -> None:
        """Write what a renewal may have changed; the pinned root and the key are never touched."""
        with self._writing:
            write_private(self.directory / "device.crt", identity.certificate.pem.encode())
            write_private(self.directory / "device_ca.pem", identity.device_ca.encode())
            self._write_or_remove("server_ca.pem", identity.server_ca)
            self.save_key_list(identity.key_list)
            lines: dict[str, object] = {
                "device_id": identity.device_id,
                "gateway_url": identity.gateway_url,
                "tunnel_urls": list(identity.tunnel_urls),
                "certificate_from": identity.certificate.not_before,
                "certificate_until": identity.certificate.not_after,
            }
            # A JSON string or list of ASCII strings is a TOML one (TOML 1.0, basic strings), and all three
            # are ASCII by check.
            text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
            write_private(self.directory / "identity.toml", text.encode("ascii"))

    def save_key_list(self, key_list: KeyList) -> None:
        """Replace the stored list; the caller verified it and its number.

        A renewal that was asked for before a newer list came ends after it: its list is left out.
        """
        with self._writing:
            if self._newest is None or not may_replace(self._newest, key_list):
                write_private(self.directory / "keylist.jws", key_list.text)
                self._newest = key_list

    def load_revoked(self) -> bytes | None:
        """What `save_revoked` wrote; None before that; raises IdentityError that names the file."""
        return self._read("revoked.json") if (self.directory / "revoked.json").exists() else None

    def save_revoked(self, text: bytes) -> None:
        """Replace the revocations; OSError leaves the old ones."""
        with self._writing:
            write_private(self.directory / "revoked.json", text)

    def device_key(self) -> DeviceKey:
        """The stored key, or a new one that is on disk before anyone else hears of it."""
        with self._writing:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (self.directory / "device.key").is_file():
                return self._stored_key()
            key = DeviceKey.generate()
            write_private(self.directory / "device.key", key.to_pem())
            return key

    def pending(self) -> dict[str, str]:
        """The enrolment that waits for approval, or an empty dict."""
        try:
            value = json.loads(self._read("enrolment.json"))
        except (IdentityError, ValueError):
            # absent, or cut off by a crash before its first use: a new enrolment is the answer to both
            return {}
        return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}

    def save_pending(self, values: dict[str, str]) -> None:
        """Remember an enrolment, so that an interrupted wait needs no second registration token."""
        with self._writing:
            write_private(self.directory / "enrolment.json", json.dumps(values).encode())

    def remove_pending(self) -> None:
        """Forget it: decided."""
        with self._writing:
            (self.directory / "enrolment.json").unlink(missing_ok=True)

    def _stored_key(self) -> DeviceKey:
        try:
            return DeviceKey.from_pem(self._read("device.key"))
        except IdentityError as error:
            raise self._wrong("device.key", str(error)) from error

    def _root(self) -> ec.EllipticCurvePublicKey:
        try:
            return p256.public_from_pem(self._read("device_root.pem"))
        except IdentityError as error:
            raise self._wrong("device_root.pem", str(error)) from error

    def _certificate(self, table: dict[str, object]) -> Certificate:
        """The stored one. It was checked when it came; its times are stored too, as parsing costs 4 MiB."""
        start, end = table.get("certificate_from"), table.get("certificate_until")
        if type(start) is not int or type(end) is not int:
            raise self._wrong("identity.toml", "certificate_from and certificate_until are not Unix seconds")
        return Certificate(self._read("device.crt").decode("utf-8", "replace"), start, end)

    def _identity_table(self) -> dict[str, object]:
        try:
            return tomllib.loads(self._read("identity.toml").decode("utf-8"))
        except ValueError as error:
            raise self._wrong("identity.toml", "is not TOML") from error

    def _read(self, name: str) -> bytes:
        try:
            with (self.directory / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise IdentityError(f"{self.directory / name} cannot be read: {error.strerror}") from error

    def _optional(self, name: str) -> str | None:
        return self._read(name).decode("utf-8", "replace") if (self.directory / name).is_file() else None

    def _write_or_remove(self, name: str, content: str | None) -> None:
        if content is None:
            (self.directory / name).unlink(missing_ok=True)
        else:
            write_private(self.directory / name, content.encode())

    def _wrong(self, name: str, problem: str) -> IdentityError:
        return IdentityError(f"{self.directory / name}: {problem}")
