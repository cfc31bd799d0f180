"""From the address that `towline up` prints to the demo device's page, and what one can do there."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from testbed.people import Person, Visitor
from testbed.up import Stack

Visit = Callable[[dict[str, Any]], Visitor]


@pytest.fixture
def visitor(person: Person, visit: Visit) -> Visitor:
    return visit(person.open_session(person.device()["id"]))


def test_the_address_logs_in_and_stays_good(shared: Stack, person: Person) -> None:
    assert person.http.get("/v1/me").json()["username"] == "admin"
    again = shared.newcomer()
    assert [one["name"] for one in again.devices()] == ["Demo device"]
    again.close()


def test_a_wrong_secret_logs_nobody_in(shared: Stack) -> None:
    answer = httpx.post(
        f"{shared.gateway}/v1/login/welcome",
        json={"secret": "wrong"},
        headers={"Origin": shared.gateway},
        trust_env=False,
    )
    assert answer.status_code in (401, 403)
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_devices_page_opens(visitor: Visitor) -> None:
    answer = visitor.http.get("/")
    assert answer.status_code == 200
    assert "<html" in answer.text.lower()
    assert visitor.http.get("/app.js").headers["content-type"].startswith("text/javascript")


def test_nobody_is_in_without_the_cookie(visitor: Visitor) -> None:
    answer = httpx.get(
        str(visitor.http.base_url), headers={"Host": visitor.http.headers["Host"]}, trust_env=False
    )
    assert answer.status_code in (401, 403)


def test_a_link_works_once(person: Person, visit: Visit) -> None:
    session = person.open_session(person.device()["id"])
    visit(session)
    late = Visitor(session["url"])
    assert late.enter().status_code == 410
    late.close()


def test_the_chart_moves(visitor: Visitor) -> None:
    with visitor.websocket("/api/live") as chart:
        first, second = json.loads(chart.recv(timeout=20)), json.loads(chart.recv(timeout=20))
    assert first != second


def test_the_log_streams(visitor: Visitor) -> None:
    assert isinstance(visitor.first_event("/api/log"), str)


def test_an_upload_arrives_whole(visitor: Visitor) -> None:
    content = os.urandom(3_000_001)
    answer = visitor.http.post(
        "/api/uploads", params={"name": "x.bin"}, content=content, headers={"Origin": visitor.origin}
    )
    assert answer.status_code == 201, answer.text
    assert visitor.http.get("/uploads/x.bin").content == content


def test_a_download_arrives_whole(visitor: Visitor) -> None:
    digest = hashlib.sha256()
    with visitor.http.stream("GET", "/download/100MB.bin") as answer:
        for piece in answer.iter_raw():
            digest.update(piece)
    assert digest.hexdigest() == visitor.http.get("/download/100MB.bin.sha256").text.strip()


def test_ending_a_session_cuts_a_running_download(person: Person, visit: Visit) -> None:
    session = person.open_session(person.device()["id"])
    visitor = visit(session)
    started, ended, pace = threading.Event(), threading.Event(), threading.Event()
    cut_after: list[float] = []

    def read_slowly() -> None:
        with visitor.http.stream("GET", "/download/100MB.bin") as answer:
            assert answer.status_code == 200
            began: float | None = None
            try:
                for _ in answer.iter_raw(1 << 14):
                    started.set()
                    if began is None and ended.is_set():
                        began = time.monotonic()
                    # Slower than the tunnel; after the session's end as quickly as what was on its way needs,
                    # and too slowly for the whole file to come before the end on a busy machine.
                    pace.wait(0.002 if ended.is_set() else 0.02)
            except httpx.HTTPError:
                cut_after.append(time.monotonic() - asked_at)

    reader = threading.Thread(target=read_slowly)
    asked_at = float("inf")
    reader.start()
    assert started.wait(20)
    asked_at = time.monotonic()
    assert person.http.delete(f"/v1/sessions/{session['id']}").status_code == 204
    ended.set()
    reader.join(20)
    assert not reader.is_alive()
    assert cut_after, "the body ended as if it were complete"
    assert cut_after[0] <= 2
    assert visitor.http.get("/").status_code in (401, 403, 410)


def test_an_unknown_service_and_an_unknown_device_are_404(person: Person) -> None:
    device = person.device()["id"]
    for path, service in ((device, "nothing"), ("d_aaaaaaaaaaaaaaaa", "web")):
        answer = person.http.post(f"/v1/devices/{path}/sessions", json={"service": service})
        assert answer.status_code == 404, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_commands(shared: Stack, visit: Visit) -> None:
    listed = shared.cli("devices")
    assert listed.returncode == 0, listed.stderr
    assert "Demo device" in listed.stdout
    assert "online" in listed.stdout
    link = shared.cli("link", "Demo device")
    assert link.returncode == 0, link.stderr
    visitor = visit({"url": link.stdout.strip()})
    assert visitor.http.get("/").status_code == 200
    sessions = shared.cli("sessions").stdout.splitlines()
    assert len(sessions) >= 2
    wrong = shared.cli("link", "nobody")
    assert wrong.returncode == 1
    assert "there is no device 'nobody'" in wrong.stderr


def test_every_process_is_ready_and_counted(shared: Stack) -> None:
    for part in ("gateway-ops", "server-ops"):
        base = f"http://127.0.0.1:{shared.ports[part]}"
        assert httpx.get(f"{base}/readyz", trust_env=False).json() == {"ready": True, "failed": []}
        assert "towline_" in httpx.get(f"{base}/metrics", trust_env=False).text


def test_secrets_are_the_owners_alone_and_in_no_log(shared: Stack, person: Person, visit: Visit) -> None:
    session = person.open_session(person.device()["id"])
    visitor = visit(session)
    cookie = next(iter(visitor.http.cookies.values()))
    secret = shared.address.rsplit("#", 1)[1]
    for path in (shared.data / "logs").iterdir():
        text = path.read_text()
        for hidden in (visitor.token, cookie, secret):
            assert hidden not in text, path
    for folder in ("secrets", "keys", "node"):
        for path in (shared.data / folder).rglob("*"):
            public = path.suffix in (".crt", ".pem", ".lock") or path.name == "audit-public.json"
            if path.is_file() and not public:
                assert path.stat().st_mode & 0o077 == 0, path
