"""The edge and h11 read the same bytes alike (`tests/fuzz/edge/oracle.py` says what may differ, and why)."""

from __future__ import annotations

import asyncio

import pytest

from tests.fuzz.edge import answers
from tests.fuzz.edge.inputs import make
from tests.fuzz.edge.memory import Finding, MemoryEdge, Outcome, Seen
from tests.fuzz.edge.oracle import ANOTHER_PROTOCOL, compare
from tests.fuzz.edge.run import fuzz, new_seed
from tunnel_server.edge.upstream import UpstreamStream

REQUESTS = 20_000
ANSWERS = 5_000
SOAK_REQUESTS = 1_000_000
SOAK_ANSWERS = 100_000
# A generator that drifts into what is always refused would find nothing: of all requests at least so many
# are served, and so many inputs refused.
LEAST_SERVED = 0.3
LEAST_REFUSED = 0.1


async def _fuzzed(requests: int) -> None:
    seed = new_seed()
    print(f"seed {seed}")
    tally = await fuzz(seed, requests)
    print(tally)
    assert tally.served >= LEAST_SERVED * tally.requests
    assert tally.refused >= LEAST_REFUSED * tally.requests


async def test_a_run_finds_nothing() -> None:
    await _fuzzed(REQUESTS)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_million_requests_find_nothing() -> None:
    await _fuzzed(SOAK_REQUESTS)


async def _answers_fuzzed(count: int) -> None:
    seed = new_seed()
    print(f"seed {seed}")
    tally = await answers.fuzz(seed, count)
    print(tally)
    assert tally["relayed"] >= LEAST_SERVED * count
    assert tally["refused"] >= LEAST_REFUSED * count


async def test_a_run_of_answers_finds_nothing() -> None:
    await _answers_fuzzed(ANSWERS)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_hundred_thousand_answers_find_nothing() -> None:
    await _answers_fuzzed(SOAK_ANSWERS)


DEVICE_SAYS = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "seen",
    [
        answers.Read(200, [(b"x", b"y")], b"no", True),
        answers.Read(404, [(b"x", b"y")], b"ok", True),
        answers.Read(200, [], b"ok", True),
        answers.Read(200, [(b"x", b"y"), (b"set-cookie", b"towline_session=1")], b"ok", True),
        answers.Read(200, [(b"x", b"y"), (b"set-cookie", b"a=b; Domain=c")], b"ok", True),
    ],
)
def test_a_difference_in_an_answer_is_found(seen: answers.Read) -> None:
    with pytest.raises(Finding):
        answers.compare(DEVICE_SAYS, seen, ended=False)


def test_a_whole_answer_made_of_half_a_one_is_found() -> None:
    whole = answers.Read(200, [(b"x", b"y")], b"o", True)
    with pytest.raises(Finding):
        answers.compare(DEVICE_SAYS[:-1], whole, ended=True)


def test_what_looks_like_the_size_of_a_chunk_is_left_alone_in_a_body() -> None:
    head, body = b"HTTP/1.1 200 OK\r\n", b"a\r\n00000000000000000000000003;\r\nb"
    out = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert answers.verdict(head + b"\r\n" + body, out, closed=False, ended=True) == "relayed"
    with pytest.raises(Finding):
        answers.verdict(head + b"\r\nc", head + b"Content-Length: 1\r\n\r\nb", closed=False, ended=True)


def test_an_input_follows_from_its_seed_and_number() -> None:
    assert make(7, 3) == make(7, 3)
    assert make(7, 3) != make(8, 3)


SENT = b"GET /a HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaa.localhost\r\nX: y\r\n\r\n"
GOOD = [(b"host", b"device.test:8080"), (b"x", b"y")]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome([(299, True)], [Seen(b"GET", b"/b", GOOD)], False, ""),
        Outcome([(299, True)], [Seen(b"PUT", b"/a", GOOD)], False, ""),
        Outcome([(299, True)], [Seen(b"GET", b"/a", GOOD[:1])], False, ""),
        Outcome([(299, True)], [Seen(b"GET", b"/a", [*GOOD, (b"y", b"z")])], False, ""),
        Outcome([(299, True)], [Seen(b"GET", b"/a", GOOD, bytearray(b"body"))], False, ""),
        Outcome([(299, True)], [], False, ""),
        Outcome([(299, True)] * 2, [Seen(b"GET", b"/a", GOOD)] * 2, False, ""),
        Outcome([], [], False, ""),
        Outcome([(400, False)], [], True, "Some reason without a name"),
        Outcome([(400, False)], [], True, "Its first line names another protocol than HTTP"),
    ],
)
def test_a_difference_is_found(outcome: Outcome) -> None:
    with pytest.raises(Finding):
        compare(SENT, outcome)


def test_no_difference_is_none() -> None:
    assert compare(SENT, Outcome([(299, True)], [Seen(b"GET", b"/a", GOOD)], False, "")) == ""


async def test_a_request_shares_the_fate_of_its_like_in_another_protocol() -> None:
    """Only where it does not begin the read, in which the parser does not say where requests begin."""
    data = b"\r\n" + SENT + SENT.replace(b"HTTP/", b"RTSP/")
    outcome = await MemoryEdge().run((data,))
    assert compare(data, outcome) == ANOTHER_PROTOCOL
    outcome = await MemoryEdge().run((data[2:],))
    assert compare(data[2:], outcome) == ""
    assert [status for status, _ in outcome.answers] == [403, 400]  # it has no session; then the other


async def test_bytes_behind_an_unanswered_request_are_found() -> None:
    edge = MemoryEdge()
    device = edge.edge.registry.find(edge.device.device_id)
    assert device is not None
    upstream = edge.device.open(device, edge.session, UpstreamStream)
    await asyncio.sleep(0)
    with pytest.raises(Finding, match="behind a request"):
        upstream.send(SENT + SENT)
