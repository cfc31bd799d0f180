"""The byte vectors in docs/protocol/vectors: the same files that the C tests read."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.tunnel_protocol.pair import End
from tunnel_protocol import (
    Auth,
    AuthReceived,
    ChallengeReceived,
    CloseCode,
    Connection,
    ConnectionLost,
    FrameType,
    Hello,
    Limits,
    Service,
    Side,
    Stream,
    StreamRequested,
    auth_transcript,
)
from tunnel_protocol.codes import HEADER_SIZE
from tunnel_protocol.fields import decode_auth, decode_hello, encode_auth, encode_hello
from tunnel_protocol.frames import (
    HEADER,
    challenge_frame,
    credit_frame,
    frame,
    goaway_frame,
    grant_frame,
    open_frame,
    parse_challenge,
    parse_goaway,
    parse_grant,
    parse_open,
    parse_refused,
    refused_frame,
    reset_frame,
)

FOLDER = Path(__file__).parents[2] / "docs" / "protocol" / "vectors"
DEVICE_LIMITS = Limits(
    max_frame=2032,
    max_message=2048,
    stream_window=4096,
    connection_window=16_384,
    max_streams=4,
    window_budget=0,
)
SERVER_LIMITS = Limits(max_message=1 << 20)
EVENT_NAMES = {
    "ChallengeReceived": "challenge",
    "AuthReceived": "auth",
    "PeerReady": "ready",
    "GrantReceived": "grant",
    "GrantRevoked": "revoked",
    "StreamRequested": "open",
    "StreamAccepted": "accepted",
    "DataReceived": "data",
    "StreamFinished": "finished",
    "GoawayReceived": "goaway",
    "ConnectionLost": "lost",
}


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


AUTH = load("auth.json")
FRAMES = {entry["name"]: entry for entry in load("frames.json")["frames"]}
BAD = load("bad_frames.json")["cases"]
CREDIT = load("credit.json")["cases"]
SERVER_HELLO = bytes.fromhex(FRAMES["hello of a server"]["hex"])
DEVICE_HELLO = bytes.fromhex(FRAMES["hello of a small device"]["hex"])
CHALLENGE = bytes.fromhex(FRAMES["challenge"]["hex"])
AUTH_FRAME = bytes.fromhex(FRAMES["auth"]["hex"])


def hello_of(entry: dict[str, Any]) -> Hello:
    numbers = (
        "max_frame",
        "max_message",
        "stream_window",
        "connection_window",
        "max_streams",
        "keepalive_ms",
    )
    key_list = entry["key_list"]
    return Hello(
        **{name: entry[name] for name in numbers},
        features=tuple(entry["features"]),
        software=entry["software"],
        services=tuple(Service(**service) for service in entry["services"]),
        key_list=None if key_list is None else key_list.encode(),
        children=tuple(entry["children"]),
    )


def encoded(entry: dict[str, Any]) -> bytes | None:
    """The frame that our encoder makes of a vector's fields; None for a HELLO: field order is free."""
    return encoded_on_stream(entry) if entry["stream"] else encoded_on_connection(entry)


def encoded_on_stream(entry: dict[str, Any]) -> bytes:
    stream = entry["stream"]
    match entry["type"]:
        case "OPEN":
            return open_frame(stream, entry["device"], entry["service"], bytes.fromhex(entry["grant_id"]))
        case "REFUSED":
            return refused_frame(stream, entry["code"], entry["message"])
        case "RESET":
            return reset_frame(stream, entry["code"])
        case "CREDIT":
            return credit_frame(stream, entry["offset"])
        case "DATA":
            return frame(FrameType.DATA, bytes.fromhex(entry["data"]), stream)
        case name:
            return frame(FrameType[name], b"", stream)


def encoded_on_connection(entry: dict[str, Any]) -> bytes | None:
    match entry["type"]:
        case "CHALLENGE":
            return challenge_frame(bytes.fromhex(entry["nonce"]), entry["server_name"])
        case "AUTH":
            names = ("instance", "key_id", "signature")
            return frame(
                FrameType.AUTH, encode_auth(Auth(entry["device"], *(bytes.fromhex(entry[n]) for n in names)))
            )
        case "GRANT":
            return grant_frame(bytes.fromhex(entry["grant_id"]), entry["token"].encode())
        case "REVOKE":
            return frame(FrameType.REVOKE, bytes.fromhex(entry["grant_id"]))
        case "CREDIT":
            return credit_frame(0, entry["offset"])
        case "GOAWAY":
            return goaway_frame(entry["last_id"], entry["retry_after_ms"], entry["code"], entry["reason"])
        case "PING" | "PONG" as name:
            return frame(FrameType[name], bytes.fromhex(entry["opaque"]))
        case _:
            return None


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_written_as_the_vectors_say(name: str) -> None:
    raw = bytes.fromhex(FRAMES[name]["hex"])
    ours = encoded(FRAMES[name])
    assert ours is None or ours == raw


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_read_as_the_vectors_say(name: str) -> None:
    entry = FRAMES[name]
    raw = bytes.fromhex(entry["hex"])
    kind, flags, length, stream = HEADER.unpack_from(raw)
    payload = raw[HEADER_SIZE:]
    assert (FrameType(kind).name, flags, length, stream) == (entry["type"], 0, len(payload), entry["stream"])
    match entry["type"]:
        case "CHALLENGE":
            assert parse_challenge(payload) == (bytes.fromhex(entry["nonce"]), entry["server_name"])
        case "AUTH":
            assert decode_auth(payload).key_id.hex() == entry["key_id"]
        case "HELLO":
            hello = decode_hello(payload, key_list_allowed=entry["key_list"] is not None)
            assert hello == hello_of(entry)
            assert decode_hello(encode_hello(hello), key_list_allowed=True) == hello
        case "GRANT":
            assert parse_grant(payload) == (bytes.fromhex(entry["grant_id"]), entry["token"].encode())
        case "OPEN":
            assert parse_open(payload) == (
                bytes.fromhex(entry["grant_id"]),
                entry["device"],
                entry["service"],
            )
        case "REFUSED":
            assert parse_refused(payload) == (entry["code"], entry["message"])
        case "GOAWAY":
            assert parse_goaway(payload) == tuple(
                entry[name] for name in ("last_id", "retry_after_ms", "code", "reason")
            )


def test_every_frame_type_has_a_vector() -> None:
    assert {entry["type"] for entry in FRAMES.values()} == {kind.name for kind in FrameType}


def test_the_signature_covers_the_transcript_and_nothing_else() -> None:
    spki = bytes.fromhex(AUTH["public_key_spki"])
    key = load_der_public_key(spki)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert sha256(spki).hexdigest()[:32] == AUTH["key_id"]
    private = ec.derive_private_key(int(AUTH["private_scalar"], 16), ec.SECP256R1())
    assert private.public_key() == key
    transcript = auth_transcript(
        bytes.fromhex(AUTH["nonce"]), AUTH["server_name"], AUTH["device"], bytes.fromhex(AUTH["instance"])
    )
    assert transcript.hex() == AUTH["transcript"]
    raw = bytes.fromhex(AUTH["signature"])
    signature = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(signature, transcript, ec.ECDSA(hashes.SHA256()))
    for case in AUTH["must_not_verify"]:
        with pytest.raises(InvalidSignature):
            key.verify(signature, bytes.fromhex(case["transcript"]), ec.ECDSA(hashes.SHA256()))


def authenticate(connection: Connection) -> None:
    connection.authenticate(
        AUTH["device"],
        bytes.fromhex(AUTH["instance"]),
        bytes.fromhex(AUTH["key_id"]),
        bytes.fromhex(AUTH["signature"]),
        hello_of(FRAMES["hello of a small device"]),
    )


def sent(end: End) -> list[str]:
    end.leave()
    messages = [message.hex() for message in end.in_flight]
    end.in_flight.clear()
    return messages


def test_the_handshake_goes_as_the_vectors_say() -> None:
    """Both machines say the recorded messages, byte for byte, and hear the recorded events."""
    conversation = load("handshake.json")
    server, device = End(Side.SERVER, SERVER_LIMITS), End(Side.DEVICE, DEVICE_LIMITS)
    server.connection.challenge(bytes.fromhex(conversation["nonce"]), conversation["server_name"])
    for number, message in enumerate(conversation["messages"]):
        sender, receiver = (server, device) if message["from"] == "server" else (device, server)
        if number == 6:
            _request(server.connection)
        if number == 8:
            server.connection.revoke(bytes.fromhex(FRAMES["grant"]["grant_id"]))
            server.connection.drain(1000, "restart")
        assert sent(sender) == [message["hex"]], number
        events = receiver.hear(receiver.connection.receive(bytes.fromhex(message["hex"]), 0.0))
        assert [EVENT_NAMES[type(event).__name__] for event in events] == message["events"], number
        for event in events:
            if isinstance(event, ChallengeReceived):
                authenticate(device.connection)
            elif isinstance(event, AuthReceived):
                assert event.auth.transcript.hex() == AUTH["transcript"]
                server.connection.admit(Hello(software="towline 1", key_list=b"eyJh.eyJu.c2ln"))
            elif isinstance(event, StreamRequested):
                event.stream.accept("local")
                device.hear(device.connection.take_events())
                event.stream.send(b"world", 0.0)
                event.stream.finish()


def _request(connection: Connection) -> None:
    grant = bytes.fromhex(FRAMES["grant"]["grant_id"])
    connection.grant(grant, b"aaa.bbb.ccc")
    stream = connection.open_stream(AUTH["device"], "web", grant, "visitor")
    stream.send(b"hello", 0.0)
    stream.finish()


def taken_to(side: Side, state: str, peer: Hello | None = None) -> End:
    """A fresh machine of `side` in `state`, with all its output taken."""
    end = End(side, DEVICE_LIMITS if side is Side.DEVICE else SERVER_LIMITS)
    connection = end.connection
    hello = frame(FrameType.HELLO, encode_hello(peer)) if peer else SERVER_HELLO
    if side is Side.SERVER:
        connection.challenge(bytes.fromhex(AUTH["nonce"]), AUTH["server_name"])
        steps = {"awaiting_auth": 0, "verifying": 1, "awaiting_hello": 2, "open": 3}[state]
        moves: list[Callable[[], object]] = [
            lambda: connection.receive(AUTH_FRAME, 0.0),
            lambda: connection.admit(Hello()),
            lambda: connection.receive(DEVICE_HELLO, 0.0),
        ]
    else:
        steps = {"awaiting_challenge": 0, "signing": 1, "awaiting_hello": 2, "open": 3}[state]
        moves = [
            lambda: connection.receive(CHALLENGE, 0.0),
            lambda: authenticate(connection),
            lambda: connection.receive(hello, 0.0),
        ]
    for move in moves[:steps]:
        move()
    assert connection.state.name.lower() == state
    sent(end)
    return end


def feed(end: End, message: bytes, *, accept: bool = True) -> list[Stream]:
    streams = []
    for event in end.hear(end.connection.receive(message, 0.0)):
        if isinstance(event, StreamRequested):
            streams.append(event.stream)
            if accept:
                event.stream.accept("local")
    return streams


@pytest.mark.parametrize("case", BAD, ids=lambda case: case["name"])
def test_bad_frames_close_with_their_code(case: dict[str, Any]) -> None:
    end = taken_to(Side(case["side"]), case["state"])
    for message in case["before"]:
        feed(end, bytes.fromhex(message), accept=case["accept"])
    sent(end)
    assert not end.of(ConnectionLost)
    feed(end, bytes.fromhex(case["hex"]))
    lost = end.heard[-1]
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code) == ("peer", CloseCode(case["close_code"]))
    goaway = bytes.fromhex(sent(end)[-1])
    assert goaway[0] == FrameType.GOAWAY
    assert parse_goaway(goaway[HEADER_SIZE:])[2:] == (lost.code, lost.reason)


@pytest.mark.parametrize("case", CREDIT, ids=lambda case: case["name"])
def test_credit_goes_as_the_vectors_say(case: dict[str, Any]) -> None:
    peer = Hello(**case["peer"]) if "peer" in case else None
    end = taken_to(Side.DEVICE, "open", peer)
    streams = {}
    for stream_id in (1, 3, 5, 7):
        grant = bytes.fromhex(FRAMES["open"]["grant_id"])
        streams[stream_id] = feed(end, open_frame(stream_id, AUTH["device"], "web", grant))[0]
    sent(end)
    for step in case["steps"]:
        if "receive" in step:
            feed(end, bytes.fromhex(step["receive"]))
        elif "consumed" in step:
            streams[step["stream"]].consumed(step["consumed"], 0.0)
        else:
            streams[step["stream"]].send(bytes.fromhex(step["send"]), 0.0)
        if "close_code" in step:
            lost = end.heard[-1]
            assert isinstance(lost, ConnectionLost)
            assert lost.code == step["close_code"]
        else:
            assert "".join(sent(end)) == "".join(step["answers"])
