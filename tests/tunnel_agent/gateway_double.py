"""A gateway's enrolment and renewal calls over real HTTP on loopback, with answers that a test may change."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.tunnel_agent.authority import DEVICE, Authority, b64
from tunnel_agent.device_key import DeviceKey

Json = dict[str, object]
NONCE = b"n" * 32
POLL_SECRET = "poll-me"


class GatewayDouble:
    """`statuses`: what the next polls say; the last one stays."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.statuses = ["approved"]
        self.requests: list[tuple[str, str, Json]] = []
        self.answers: dict[str, tuple[int, Json | bytes]] = {}  # path → instead of the usual answer
        self.changes: Json = {}  # to what an approval or a renewal says
        self.public: ec.EllipticCurvePublicKey | None = None
        self.csr = ""
        double = self

        class Calls(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(json.loads(raw))

            def _answer(self, body: Json) -> None:
                double.requests.append((self.command, self.path, body))
                status, answer = double.respond(self.path, body, self.headers.get("Authorization", ""))
                raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "http://evil.example/")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """The test's output is no access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def respond(self, path: str, body: Json, authorization: str) -> tuple[int, Json | bytes]:
        if path in self.answers:
            return self.answers[path]
        calls: dict[str, Callable[[], tuple[int, Json]]] = {
            "/v1/enrolments": lambda: self._enrol(body),
            "/v1/enrolments/e1": lambda: self._poll(authorization),
            f"/v1/devices/{DEVICE}/certificate/challenge": lambda: (200, {"nonce": b64(NONCE)}),
            f"/v1/devices/{DEVICE}/certificate": lambda: self._renew(body),
        }
        return calls[path]() if path in calls else (404, {"code": "not_found", "detail": "no such call"})

    def _enrol(self, body: Json) -> tuple[int, Json]:
        self.csr = str(body["csr"])
        answer: Json = {"enrolment_id": "e1", "device_id": DEVICE, "status": "pending"}
        answer["poll_secret"] = POLL_SECRET
        return 201, answer

    def _poll(self, authorization: str) -> tuple[int, Json]:
        if authorization != f"Bearer {POLL_SECRET}":
            return 404, {"code": "not_found", "detail": "There is no such enrolment."}
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status != "approved":
            return 200, {"status": status, "device_id": DEVICE}
        more = {"device_root": self.authority.root_pem(), "gateway_url": self.url}
        return 200, {"status": status, "device_id": DEVICE} | more | self._certificate() | self.changes

    def _renew(self, body: Json) -> tuple[int, Json]:
        signature = base64.urlsafe_b64decode(str(body["signature"]) + "==")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        assert self.public is not None
        signed = b"towline-renew-v1" + NONCE + DEVICE.encode()
        self.public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
        self.csr = str(body["csr"])
        return 200, self._certificate() | self.changes

    def _certificate(self) -> Json:
        return {
            "certificate": self.authority.certificate_for(x509.load_pem_x509_csr(self.csr.encode())),
            "ca": "ca",
            "key_list": self.authority.key_list_text(1).decode(),
            "tunnel_urls": ["wss://tunnel.test/tunnel"],
            "server_ca": None,
        }


def foreign_certificate(authority: Authority) -> str:
    """A certificate of the right CA for somebody else's key."""
    return authority.certificate(DeviceKey.generate())
