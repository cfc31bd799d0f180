"""The gateway's live events through every front: each arrives at once, quiet streams stay, and they end when
they must.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Timer
from typing import IO, Any

import pytest

from testbed.programs import program
from tests.deployment.client import TIMEOUT_S
from tests.deployment.live_events import HEARTBEAT, PATH, WAYS, Newcomer, Quiet
from tests.deployment.site import GATEWAY, Site

# The next heartbeat comes 15 s later and might push out what a buffer held back. At once is 0.1 s.
AT_ONCE_S = 5.0
ENDS_S = 2.0  # after the answer to the logout
# nginx leaves a silent answer after 60 s (proxy_read_timeout, in the file and by default), haproxy after 75.
QUIET_S = 80.0


@pytest.mark.parametrize("way", WAYS)
def test_each_event_arrives_before_the_next_one_happens(site: Site, front: str, way: str) -> None:
    person = Newcomer(site, front)
    with closing(WAYS[way](person)) as stream:
        assert stream.next()["kind"] == "ready"
        for number in range(4):
            began = time.monotonic()
            person.rename(f"Works {number}")
            event = stream.next()
            assert event["kind"] == "site.changed"
            assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_ends_with_its_login(site: Site, front: str, way: str) -> None:
    person = Newcomer(site, front)
    with closing(WAYS[way](person)) as stream:
        assert stream.next()["kind"] == "ready"
        person.log_out()
        began = time.monotonic()
        assert stream.ended() == "login_ended"
        assert time.monotonic() - began < ENDS_S


def test_by_http_2_as_browsers_follow(site: Site, front: str) -> None:
    person = Newcomer(site, front)
    with followed_by_curl(site, front, person) as told:
        assert next(told)["kind"] == "ready"
        for number in range(3):
            began = time.monotonic()
            person.rename(f"Works {number}")
            assert next(told)["kind"] == "site.changed"
            assert time.monotonic() - began < AT_ONCE_S


def test_where_nothing_happens_the_stream_stays(quiet: Quiet, front: str) -> None:
    """For longer than any front waits for a silent server; then something happens, and arrives at once."""
    person = quiet.people[front]
    for stream in quiet.streams[front]:
        while time.monotonic() - quiet.opened_at < QUIET_S:
            assert stream.next()["kind"] == HEARTBEAT
    person.rename("Awake")
    for stream in quiet.streams[front]:
        while (event := stream.next())["kind"] == HEARTBEAT:
            continue
        assert event["kind"] == "site.changed"


@pytest.mark.parametrize(
    "check",
    [
        ["nginx", "-t", "-c", "{folder}/nginx/nginx.conf", "-p", "{folder}/nginx", "-e", "stderr"],
        ["haproxy", "-c", "-f", "{folder}/haproxy/haproxy.cfg"],
    ],
    ids=lambda check: check[0],
)
def test_the_shipped_files_are_good_without_a_warning(site: Site, check: list[str]) -> None:
    """As the runbook has the operator look before a reload. (Caddy has no such check that starts nothing.)"""
    argv = [program(check[0], check[0]), *(word.format(folder=site.folder) for word in check[1:])]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warn" not in said.lower(), said


@contextmanager
def followed_by_curl(site: Site, front: str, person: Newcomer) -> Iterator[Iterator[dict[str, Any]]]:
    """The events' data, as curl prints them line by line."""
    command = [program("curl", "curl"), "--silent", "--show-error", "--fail", "--no-buffer", "--http2"]
    command += ["--cacert", str(site.trusted), "--interface", person.address]
    command += ["--connect-to", f"{GATEWAY}:443:127.0.0.1:{site.https[front]}"]
    command += ["--header", f"Cookie: {person.cookie}", "--include"]
    process = subprocess.Popen(
        [*command, f"https://{GATEWAY}{PATH}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    deadline = Timer(TIMEOUT_S, process.kill)
    deadline.start()
    try:
        assert process.stdout.readline().startswith("HTTP/2 200")
        yield _data(process.stdout)
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        deadline.join()


def _data(lines: IO[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
