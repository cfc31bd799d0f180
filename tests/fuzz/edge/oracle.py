"""h11's reading of the same bytes, and what the edge should have made of it.

The rule: what reaches the device is what h11 reads, in the edge's canonical form, and nothing else. The other
way round the edge may refuse more; each reason for that has a name here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from tests.fuzz.edge.inputs import ORIGIN
from tests.fuzz.edge.memory import HEAD_LIMIT, Finding, Outcome, Seen

SERVICE_HOST = b"device.test:8080"
SERVICE_ORIGIN = b"http://" + SERVICE_HOST
OWN_COOKIES = (b"__host-towline", b"towline_session")

# Where llhttp reads on and h11 does not. None of them changes where a request ends or what it says, and none
# is passed on: the device gets the canonical form.
EXTRA_BLANKS = re.compile(rb"([A-Z-]+) +([^ ]+) +([A-Z]+/\d\.\d)")  # RFC 9112 section 3 lets us skip them
LONG_CHUNK_SIZE = re.compile(
    rb"\r\n0{5,}([0-9a-fA-F]{1,16})(?=[;\r])"
)  # h11 stops at 20 digits, zeros and all

ANOTHER_PROTOCOL = "another request in the same read is of RTSP or ICE"

# Why the edge refuses what h11 reads: text of its page → what it is about. In brackets: llhttp's own words.
STRICTER = {
    "This method is not served here": "a method that no page uses",
    "(Invalid method encountered)": "a method that llhttp does not know",
    "(Expected space after method)": "a method that llhttp does not know",
    "(Invalid method for HTTP/x.x request)": "a method of another protocol",
    "(Expected LF after chunk size)": "a bare LF or CR",
    "(Expected LF after chunk data)": "a bare LF or CR",
    "(Missing expected CR after chunk data)": "a bare LF or CR",
    "(Expected SOURCE method for ICE/x.x request)": "another protocol",
    "Its first line names another protocol than HTTP": ANOTHER_PROTOCOL,
    "(Pause on PRI/Upgrade)": "HTTP/2's preface",
    "(Expected HTTP/2 Connection Preface)": "HTTP/2's preface",
    "(Invalid char in url fragment start)": "a fragment in a target",
    "(Unexpected start char in url)": "no form of a target that RFC 9112 names",
    "(Invalid characters in url)": "no form of a target that RFC 9112 names",
    "(Unexpected char in url schema)": "no form of a target that RFC 9112 names",
    "(Unexpected char in url server)": "no form of a target that RFC 9112 names",
    "(Invalid char in url path)": "a byte in a target that is none of a URI's",
    "(Invalid char in url query)": "a byte in a target that is none of a URI's",
    "(Invalid HTTP version)": "a version that does not exist",
    "A request target has no fragment": "a fragment in a target",
    "A request needs exactly one Host": "no Host in HTTP/1.0",
    "The target names another host": "a target for somebody else",
    "(Expected CRLF after version)": "a bare LF or CR",
    "(Missing expected CR after header value)": "a bare LF or CR",
    "(Missing expected LF after header value)": "a bare LF or CR",
    "(Missing expected CR after chunk size)": "a bare LF or CR",
    "(Missing expected CR after chunk extension name)": "a bare LF or CR",
    "(Missing expected CR after chunk extension value)": "a bare LF or CR",
    "(Invalid header field char)": "a bare LF or CR",
    "(Expected LF after headers)": "a bare LF or CR",
    "(Expected LF after CR)": "a bare LF or CR",
    "(Unexpected whitespace after header value)": "obs-fold",
    "(Unexpected space after start line)": "obs-fold",
    "(Invalid header value char)": "a control byte in a value",
    "(Invalid header token)": "what is no header line",
    "(Duplicate Content-Length)": "Content-Length twice, if equal",
    "(Invalid character in Content-Length)": "Content-Length as a list of equals",
    "(Content-Length can&#x27;t be present with Transfer-Encoding)": "two lengths",
    "(Transfer-Encoding can&#x27;t be present with Content-Length)": "two lengths",
    "(Invalid `Transfer-Encoding` header value)": "Transfer-Encoding spelt oddly",
    "(Request has invalid `Transfer-Encoding`)": "Transfer-Encoding spelt oddly",
    "The only transfer coding is chunked, in HTTP/1.1": "Transfer-Encoding in HTTP/1.0",
    "(Invalid character in chunk size)": "a chunk size spelt oddly",
    "(Chunk size overflow)": "a chunk of more than 2⁶⁴ bytes",
    "(Content-Length overflow)": "a body of more than 2⁶⁴ bytes",
    "(Invalid character in chunk extensions)": "a chunk extension spelt oddly",
    "(Invalid character in chunk extensions name)": "a chunk extension spelt oddly",
    "(Invalid character in chunk extensions value)": "a chunk extension spelt oddly",
    "(Invalid character in chunk extensions quoted value)": "a chunk extension spelt oddly",
    "(Invalid character in chunk extensions quote value)": "a chunk extension spelt oddly",
    "The only expectation is 100-continue": "an expectation nobody knows",
    "A request that asks for an upgrade has no body": "a body behind a request for an upgrade",
    "A WebSocket opens with GET in HTTP/1.1": "a WebSocket handshake by other means",
    "Sec-WebSocket-Key is missing or wrong": "a WebSocket handshake without its key",
    "More than one Sec-WebSocket-Key": "a WebSocket handshake with two keys",
    "More than one Origin": "two origins",
    "This server speaks HTTP/1.1": "another version of HTTP",
}


@dataclass(frozen=True)
class Read:
    """One request as h11 reads it. ``whole``: its body came to its end. ``last``: no other may follow."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    last: bool


def read(data: bytes) -> list[Read]:
    """Every request in ``data`` up to the first that h11 refuses."""
    found = []
    rest = data
    while rest := rest.lstrip(b"\r\n"):  # RFC 9112 section 2.2: empty lines before a request are skipped
        one, rest = _first(_normal(rest))
        if one is None:
            break
        found.append(one)
        if not one.whole or one.last:
            break
    return found


def _normal(data: bytes) -> bytes:
    line, mark, rest = data.partition(b"\r\n")
    rest = LONG_CHUNK_SIZE.sub(rb"\r\n\1", rest)
    if extra := EXTRA_BLANKS.fullmatch(line):
        line = b" ".join(extra.groups())
    return line + mark + rest


def _first(data: bytes) -> tuple[Read | None, bytes]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
    connection.receive_data(data)
    request: h11.Request | None = None
    body = b""
    whole = False
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                whole = True
                break
            else:
                break
    except h11.RemoteProtocolError:
        pass
    if request is None:
        return None, b""
    last = connection.their_state is h11.MUST_CLOSE
    one = Read(request.method, request.target, request.http_version, list(request.headers), body, whole, last)
    return one, connection.trailing_data[0] if whole else b""


def compare(data: bytes, outcome: Outcome) -> str:
    """Finding when the edge and h11 disagree; else why the edge refused what h11 reads, or ""."""
    reads = read(data)
    served = [index for index, (_, by_device) in enumerate(outcome.answers) if by_device]
    if len(served) != len(outcome.requests):
        raise Finding(f"the device saw {len(outcome.requests)} requests and {len(served)} were answered")
    for index, seen in zip(served, outcome.requests, strict=True):
        if index >= len(reads) or not reads[index].whole:
            raise Finding(f"request {index} was served; h11 does not read it: {seen}")
        _check(reads[index], seen)
    whole = [one for one in reads if one.whole]
    refused = len(outcome.answers) - 1 if outcome.reason else len(outcome.answers)
    if refused < len(whole) and not outcome.closed:
        raise Finding(f"request {refused} got no answer: {whole[refused]}")
    if not outcome.reason or refused >= len(whole):
        return ""
    reason = outcome.reason.rstrip(".").removeprefix("It is no valid HTTP ")
    if reason not in STRICTER:
        raise Finding(f"refused without a named reason: {reason!r}: {whole[refused]}")
    if STRICTER[reason] is ANOTHER_PROTOCOL and not re.search(rb" (?:RTSP|ICE)/", data):
        raise Finding(f"refused as another protocol, and there is none: {whole[refused]}")
    return STRICTER[reason]


def _check(one: Read, seen: Seen) -> None:
    """The device's request is the canonical form of what h11 read."""
    if seen.method != one.method or seen.target != path_of(one.target) or bytes(seen.body) != one.body:
        raise Finding(f"{seen} is not {one}")
    expected = canonical(one)
    if seen.headers != expected:
        raise Finding(f"headers\n{seen.headers} are not\n{expected} of\n{one}")


def path_of(target: bytes) -> bytes:
    """The origin form of a target (RFC 9112 section 3.2)."""
    if target == b"*" or target.startswith(b"/"):
        return target
    rest = target.split(b"//", 1)[1]
    return b"/" + rest.split(b"/", 1)[1] if b"/" in rest else b"/"


_DROPPED = frozenset(
    b"host connection keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer "
    b"transfer-encoding upgrade http2-settings cookie origin referer content-length expect forwarded "
    b"x-real-ip x-client-ip x-cluster-client-ip true-client-ip cf-connecting-ip fastly-client-ip "
    b"x-original-url x-rewrite-url x-original-host x-host sec-websocket-key".split()
)
# They are looked at and passed on; their underscore twins are not.
_LOOKED_AT = frozenset(b"sec-fetch-site sec-fetch-mode sec-fetch-dest accept content-type".split())


def _is_dropped(name: bytes) -> bool:
    if name in _DROPPED or name.startswith(b"x-forwarded-"):
        return True
    twin = name.replace(b"_", b"-")
    return twin != name and (_is_dropped(twin) or twin in _LOOKED_AT)


def canonical(one: Read) -> list[tuple[bytes, bytes]]:
    """The headers that the device should see, in their order (DESIGN 3.6), written from the text alone."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in one.headers:
        values.setdefault(name, []).append(value)
    connection = _members(values.get(b"connection", []))
    nominated = connection - {b"close", b"keep-alive", b"upgrade", b""}
    result = [(b"host", SERVICE_HOST)]
    result += [
        (name, value) for name, value in one.headers if not _is_dropped(name) and name not in nominated
    ]
    cookie = _cookie(b"; ".join(values.get(b"cookie", [])))
    if cookie:
        result.append((b"cookie", cookie))
    for name in (b"origin", b"referer"):
        if name in values:
            result.append((name, _own_origin(values[name][-1])))
    if b"transfer-encoding" in values:
        result.append((b"transfer-encoding", b"chunked"))
    elif b"content-length" in values:
        result.append((b"content-length", b"%d" % int(values[b"content-length"][0])))
    has_body = b"transfer-encoding" in values or int(values.get(b"content-length", [b"0"])[0]) > 0
    if b"expect" in values and has_body and one.version != b"1.0":
        result.append((b"expect", b"100-continue"))
    if b"upgrade" in connection and _members(values.get(b"upgrade", [])) == {b"websocket"}:
        key = values[b"sec-websocket-key"][0]
        result += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", key)]
    return result


def _members(values: list[bytes]) -> set[bytes]:
    return {part.strip(b" \t").lower() for value in values for part in value.split(b",")}


def _own_origin(value: bytes) -> bytes:
    if value.lower() == ORIGIN or value.lower().startswith(ORIGIN + b"/"):
        return SERVICE_ORIGIN + value[len(ORIGIN) :]
    return value


def _cookie(value: bytes) -> bytes:
    """Without ours; as it came when none of ours can be in it."""
    if b"towline" not in value.lower():
        return value
    pairs = [pair.strip(b" \t") for pair in value.split(b";")]
    kept = [
        pair for pair in pairs if pair and pair.partition(b"=")[0].strip(b" \t").lower() not in OWN_COOKIES
    ]
    return b"; ".join(kept)
