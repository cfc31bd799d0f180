"""What devices say over HTTPS: by the gateway, to a bridge's intake, as if a broker had brought it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_protocol.topics import Kind, parse_topic
from gateway.api.device_connection import TOKEN_TTL_S
from gateway.api.limits import TELEMETRY_PER_DEVICE
from gateway.keys.keyring import Keyring, load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate
from ingest import http_intake
from ingest.http_intake import HttpIntake
from ingest.policy.rates import Rates
from ingest.settings import HttpSettings
from runtime.clock import FakeClock
from runtime.event_log.interface import DEAD, PARTS, UP, LogRefusedError, part_of
from tests.gateway.test_device_connection import BROKER, asked, challenge
from tests.gateway.world import Device, World, settings_for
from tests.ingest import world as ingest_world
from tests.ingest.test_bad_input import IN_LINE, NUMBERS, UNREADABLE
from tests.ingest.world import Talker, changed

PATH = "/v1/telemetry"
# What no JSON text can hold cannot be said this way: it is told of the whole request.
SAYABLE = [case for case in UNREADABLE if case[0] not in {"no UTF-8", "UTF-16", "huge"}]


@dataclass
class Place:
    """A gateway, a bridge behind it, and a device that was told how to reach them."""

    world: World
    bridge: ingest_world.World
    http: HttpIntake
    owner: httpx.AsyncClient
    device: Device
    told: dict[str, Any]
    talker: Talker

    @property
    def token(self) -> str:
        token: str = self.told["telemetry"]["token"]
        return token

    async def post(
        self, *messages: bytes, kind: str = "telemetry", token: str | None = None
    ) -> httpx.Response:
        said = [{"kind": kind, "message": raw.decode()} for raw in messages]
        headers = {"authorization": f"Bearer {token or self.token}"}
        return await self.world.program().post(PATH, json={"messages": said}, headers=headers)

    async def says(self, *messages: bytes) -> dict[str, Any]:
        answer = await self.post(*messages)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stored(self) -> list[bytes]:
        return self.bridge.stored(self.device.id)


def listener(keyring: Keyring, folder: Path, now: float) -> HttpSettings:
    issue_ingest_certificate(keyring, "one", folder, now, ("127.0.0.1",))
    return HttpSettings(
        "127.0.0.1:0", folder / "internal_ca.crt", folder / "listener.crt", folder / "listener.key"
    )


@asynccontextmanager
async def placed(
    folder: Path, database_url: str, keys_dir: Path, clock: FakeClock, **options: Any
) -> AsyncIterator[Place]:
    keyring = load_keyring(keys_dir, clock.wall())
    async with ingest_world.world(**options) as bridge:
        http = HttpIntake(listener(keyring, folder / "ingest", clock.wall()), bridge.intake)
        await http.start()
        settings = settings_for(
            folder, database_url, keys_dir, device_mqtt_url=BROKER, ingest_urls=(f"https://{http.address}",)
        )
        world = World(settings, clock, folder)
        try:
            await (await world.start()).prepared()
            owner = await world.person("ada")
            device = await world.enrol(owner)
            told = (await asked(world, device, await challenge(world, device))).json()
            yield Place(world, bridge, http, owner, device, told, Talker(device.id))
        finally:
            await world.close()
            await http.close()


@pytest.fixture
async def place(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[Place]:
    async with placed(tmp_path, database_url, keys_dir, clock) as made:
        yield made


async def test_what_is_said_this_way_is_in_the_log_as_if_a_broker_had_brought_it(place: Place) -> None:
    telemetry = place.told["telemetry"]
    assert telemetry["url"] == f"{place.world.settings.public_url}{PATH}"
    assert telemetry["expires_in"] == TOKEN_TTL_S
    assert telemetry["known"] == {"boot": 0, "seq": 0}
    said = [place.talker.next() for _ in range(64)]
    assert await place.says(*said) == {"accepted": {"boot": 1, "seq": 64}, "refused": []}
    assert place.stored() == said
    topics = {dict(entry.headers)["topic"].decode() for entry in place.bridge.log.of(UP)}
    assert topics == {f"{place.told['prefix']}/telemetry"}
    assert place.bridge.metric('towline_ingest_messages_total{kind="telemetry",via="http"}') == 64


async def test_one_line_whichever_way_it_comes(place: Place) -> None:
    talker = place.talker
    topic = f"{place.told['prefix']}/telemetry"
    said = [talker.next() for _ in range(6)]
    place.bridge.offer(topic, said[0])
    place.bridge.offer(topic, said[1])
    assert (await place.says(said[1], said[2]))["accepted"] == {"boot": 1, "seq": 3}
    place.bridge.offer(topic, said[3])
    # The fifth is missing before the sixth: it is not taken, and that is told.
    assert (await place.says(said[3], said[5]))["accepted"] == {"boot": 1, "seq": 4}
    assert (await place.says(said[4], said[5]))["accepted"] == {"boot": 1, "seq": 6}
    assert (await place.says(*said))["accepted"] == {"boot": 1, "seq": 6}
    assert place.stored() == said


async def test_what_cannot_be_read_is_the_same_dead_letter(place: Place) -> None:
    """And costs its neighbours nothing."""
    good: list[bytes] = []
    topic = f"{place.told['prefix']}/telemetry"
    for name, raw, reason in SAYABLE:
        good.append(place.talker.next())
        answer = await place.says(raw, good[-1])
        assert [one["reason"] for one in answer["refused"]] == [reason], name
        assert answer["accepted"] == {"boot": 1, "seq": len(good)}, name
        await place.bridge.settled(place.bridge.offer(topic, raw))
        one, other = place.bridge.log.of(DEAD)[-2:]
        assert (one.key, one.value, one.headers) == (other.key, other.value, other.headers), name
    assert place.stored() == good
    assert len(place.bridge.log.of(DEAD)) == 2 * len(SAYABLE) > 20


async def test_half_a_surrogate_pair_is_a_dead_letter_of_its_own(place: Place) -> None:
    said = [place.talker.next(), place.talker.next()]
    texts = [said[0].decode(), '{"id":"\ud800"}', said[1].decode()]
    body = {"messages": [{"kind": "telemetry", "message": text} for text in texts]}
    program = place.world.program(place.token)
    answer = await program.post(PATH, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.json() == {
        "accepted": {"boot": 1, "seq": 2},
        "refused": [{"id": None, "reason": "bad_utf8"}],
    }
    assert place.stored() == said


async def test_odd_text_elsewhere_is_no_request(place: Place) -> None:
    program = place.world.program(place.token)
    for odd in (
        {"messages": [{"kind": "event\0", "message": "{}"}]},
        {"messages": [{"kind": "event", "message": {"a": "\0"}}]},
        {"messages": [{"kind": "event", "message": "{}", "\0": 1}]},
        {"messages": [{"kind": "event", "message": 1}]},
        {"messages": ["\0"]},
    ):
        answer = await program.post(PATH, json=odd)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), odd
    assert place.bridge.log.kept == {}


async def test_what_was_left_is_not_refused(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    """What is told as refused is a dead letter: its device lets go of it."""
    one_only = Rates(messages_s=0.01, bytes_s=1e9, burst_s=100.0, most=10)
    async with placed(tmp_path, database_url, keys_dir, clock, rates=one_only) as place:
        told = [await place.says(*[b"{"] * 4) for _ in range(3)]
        assert [[one["reason"] for one in answer["refused"]] for answer in told] == [["bad_json"], [], []]
        assert len(place.bridge.log.of(DEAD)) == 1
        assert place.bridge.metric('towline_ingest_left_total{why="rate"}') == 11


async def test_what_the_log_did_not_take_is_not_refused(place: Place) -> None:
    part = part_of(place.device.id.encode(), PARTS[DEAD])
    place.bridge.log.sick[DEAD, part] = LogRefusedError("no right to this topic")
    said = place.talker.next()
    assert await place.says(b"{", said) == {"accepted": {"boot": 1, "seq": 1}, "refused": []}
    assert place.bridge.log.of(DEAD) == []
    assert place.stored() == [said]


async def test_what_is_bad_in_line_goes_on_as_by_a_broker(place: Place) -> None:
    said, talker = [], place.talker
    for _, changes, _ in IN_LINE:
        said.append(changed(talker.next(), changes))
    for _, changes in NUMBERS:
        answer = await place.says(changed(talker.again(1), changes))
        assert [one["reason"] for one in answer["refused"]] == ["bad_schema"], changes
    assert (await place.says(*said))["accepted"] == {"boot": 1, "seq": len(said)}
    assert place.stored() == said
    reasons = [dict(entry.headers)["dead"].decode() for entry in place.bridge.log.of(UP)]
    assert reasons == [reason for *_, reason in IN_LINE]


async def test_only_a_devices_token_of_now_counts(place: Place, clock: FakeClock) -> None:
    raw = place.talker.next()
    tokens = place.world.gateway.parts.tokens
    body = {"username": "ada", "password": "correct horse battery staple", "refresh": True}
    access = (await place.world.program().post("/v1/login", json=body)).json()["access_token"]
    now = clock.wall()
    for wrong in ("x", access, tokens.device("d_zzzzzzzzzzzzzzzz", now, 60), place.token[:-4] + "AAAA"):
        answer = await place.post(raw, token=wrong)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_device_token"), wrong
    nobody = await place.world.program().post(PATH, json={"messages": [{"kind": "event", "message": "{}"}]})
    assert nobody.status_code == 401
    # It opens nothing else.
    program = place.world.program(place.token)
    for path in ("/v1/me", f"/v1/devices/{place.device.id}/state"):
        assert (await program.get(path)).status_code == 401
    assert (await place.post(raw)).status_code == 200
    clock.advance(TOKEN_TTL_S + 60)  # and the leeway
    assert (await place.post(raw)).status_code == 401
    assert place.stored() == [raw]


async def test_a_revoked_device_is_heard_no_more(place: Place) -> None:
    assert (await place.post(place.talker.next())).status_code == 200
    assert (await place.owner.post(f"/v1/devices/{place.device.id}/revoke")).status_code == 200
    answer = await place.post(place.talker.next())
    assert (answer.status_code, answer.json()["code"]) == (403, "device_revoked")
    assert len(place.stored()) == 1


async def test_a_moved_device_speaks_from_where_it_is(place: Place) -> None:
    org = (await place.owner.get("/v1/orgs")).json()["items"][0]["id"]
    site = (await place.owner.post(f"/v1/orgs/{org}/sites", json={"name": "Hall"})).json()["id"]
    path = f"/v1/devices/{place.device.id}"
    moved = await place.owner.patch(path, json={"site_id": site})
    assert moved.status_code == 200, moved.text
    await place.says(place.talker.next())
    [entry] = place.bridge.log.of(UP)
    topic = parse_topic(dict(entry.headers)["topic"].decode())
    assert (topic.site, topic.device, topic.kind) == (site, place.device.id, Kind.TELEMETRY)


async def test_what_is_no_request_is_refused_as_a_whole(place: Place) -> None:
    raw = place.talker.next()
    for messages, status in (
        ([], 422),
        ([raw] * 65, 422),
        ([b" " * 33_000], 422),
        ([b" " * 30_000] * 3, 413),
    ):
        assert (await place.post(*messages)).status_code == status
    for kind in ("hello", "ack", "cmd", "accepted", "../cmd"):
        assert (await place.post(raw, kind=kind)).status_code == 422
    assert place.bridge.log.kept == {}
    largest = place.talker.again(1, payload={"text": "\\" * 11_000})  # two bytes each, four on the way
    assert (await place.says(largest))["accepted"] == {"boot": 1, "seq": 1}


async def test_one_device_cannot_ask_for_all(place: Place) -> None:
    raw = place.talker.next()
    statuses = [(await place.post(raw)).status_code for _ in range(TELEMETRY_PER_DEVICE.burst + 1)]
    assert statuses == [200] * TELEMETRY_PER_DEVICE.burst + [429]
    other = await place.world.enrol(place.owner)
    told = (await asked(place.world, other, await challenge(place.world, other))).json()
    assert (await place.post(raw, token=told["telemetry"]["token"])).status_code == 200


async def test_nothing_is_accepted_that_the_log_has_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.bridge.log.open.clear()
    said = [place.talker.next() for _ in range(3)]
    with monkeypatch.context() as hasty:
        hasty.setattr(http_intake, "WAIT_S", 0.2)
        answer = await place.post(*said)
    assert (answer.status_code, answer.json()["code"]) == (503, "ingest_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert place.bridge.log.kept == {}
    place.bridge.log.open.set()
    assert (await place.says(*said))["accepted"] == {"boot": 1, "seq": 3}
    assert place.stored() == said


async def test_a_log_that_refuses_is_no_acceptance(place: Place) -> None:
    place.bridge.log.fault = LogRefusedError("a setting is wrong")
    answer = await place.post(place.talker.next())
    accepted = answer.json().get("accepted") if answer.status_code == 200 else None
    assert answer.status_code in (200, 503)
    assert accepted is None


async def test_a_bridge_that_is_full_or_gone_takes_nothing(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    async with placed(tmp_path, database_url, keys_dir, clock, bytes_max=4096) as place:
        place.bridge.log.open.clear()
        topic = f"{place.told['prefix']}/telemetry"
        slips = [place.bridge.offer(topic, place.talker.next()) for _ in range(5)]
        assert place.bridge.intake.budget.paused
        assert (await place.post(place.talker.next())).status_code == 503
        place.bridge.log.open.set()
        await place.bridge.settled(*slips)
        assert (await place.says(place.talker.again(6)))["accepted"] == {"boot": 1, "seq": 6}
        place.http.refuse()
        assert (await place.post(place.talker.next())).status_code == 503
        await place.http.close()
        assert (await place.post(place.talker.again(7))).status_code == 503


async def test_without_a_bridge_no_device_is_offered_this(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, device_mqtt_url=BROKER)
    world = World(settings, clock, tmp_path)
    await (await world.start()).prepared()
    try:
        device = await world.enrol(await world.person("ada"))
        told = (await asked(world, device, await challenge(world, device))).json()
        assert told["telemetry"] is None
        token = world.gateway.parts.tokens.device(device.id, clock.wall(), 60)
        body = {"messages": [{"kind": "event", "message": "{}"}]}
        answer = await world.program(token).post(PATH, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "ingest_unavailable")
    finally:
        await world.close()


def client_of(place: Place, unit: str | None, folder: Path) -> httpx.AsyncClient:
    """Somebody with a certificate of the internal CA for this unit."""
    now = place.world.clock.wall()
    keyring = load_keyring(place.world.settings.keys_dir, now)
    issued = keyring.internal_ca.issue_client("somebody", now, unit=unit)
    (folder / "client.crt").write_bytes(issued.certificate_pem())
    (folder / "client.key").write_bytes(issued.key_pem())
    context = ssl.create_default_context(cadata=keyring.internal_ca.pem())
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return httpx.AsyncClient(base_url=f"https://{place.http.address}", verify=context, trust_env=False)


async def test_the_bridge_listens_to_gateways_alone(place: Place, tmp_path: Path) -> None:
    path = http_intake.PATH
    body = {
        "device": place.device.id,
        "prefix": place.told["prefix"],
        "messages": [["telemetry", place.talker.next().decode()]],
    }
    for unit in (None, "ingest", "broker"):
        async with client_of(place, unit, tmp_path) as client:
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "wrong_peer")
    keyring = load_keyring(place.world.settings.keys_dir, place.world.clock.wall())
    context = ssl.create_default_context(cadata=keyring.internal_ca.pem())
    async with httpx.AsyncClient(verify=context, trust_env=False) as stranger:
        with pytest.raises(httpx.TransportError):
            await stranger.post(f"https://{place.http.address}{path}", json=body)
    assert place.bridge.log.kept == {}
    async with client_of(place, "gateway", tmp_path) as client:
        assert (await client.post(path, json=body)).json() == {"accepted": [1, 1], "refused": []}


async def test_a_request_that_is_none_ends_nothing(place: Place, tmp_path: Path) -> None:
    path, device, prefix = http_intake.PATH, place.device.id, place.told["prefix"]
    good = {"device": device, "prefix": prefix, "messages": [["event", "{}"]]}
    async with client_of(place, "gateway", tmp_path) as client:
        wrongs: list[Any] = [
            {},
            [],
            {**good, "device": "d_other"},
            {**good, "prefix": "o/s"},
            {**good, "messages": []},
            {**good, "messages": [["event", "{}"]] * 65},
            {**good, "messages": [["event"]]},
            {**good, "messages": [["event", 1]]},
            {**good, "messages": [["event\ud800", "{}"]]},
        ]
        for wrong in wrongs:
            answer = await client.post(path, content=json.dumps(wrong))
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), wrong
        assert (await client.post("/internal/v1/other", json=good)).status_code == 404
        assert (await client.get(path)).status_code == 404
        assert (await client.post(path, content=b"x" * 100)).status_code == 422
    for head, status in (
        (f"POST {path} HTTP/1.1\r\nContent-Length: {http_intake.BODY_MAX + 1}", b"413"),
        (f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked", b"411"),
        (f"POST {path} HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3", b"411"),
        (f"POST {path} HTTP/1.1\r\nX: {'x' * http_intake.HEAD_MAX * 4}", b""),
    ):
        assert (await answer_to(place, tmp_path, head)).split(b" ")[1:2] == ([status] if status else []), head
    assert (await place.says(place.talker.next()))["accepted"] == {"boot": 1, "seq": 1}


async def answer_to(place: Place, folder: Path, head: str) -> bytes:
    """What the bridge says, until it closes."""
    keyring = load_keyring(place.world.settings.keys_dir, place.world.clock.wall())
    context = ssl.create_default_context(cadata=keyring.internal_ca.pem())
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    address = place.http.address
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        writer.write(f"{head}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_many_at_once_each_get_their_own_answer(place: Place) -> None:
    devices = [await place.world.enrol(place.owner) for _ in range(8)]
    tokens = [
        (await asked(place.world, one, await challenge(place.world, one))).json()["telemetry"]["token"]
        for one in devices
    ]
    talkers = [Talker(one.id) for one in devices]

    async def tell(talker: Talker, token: str) -> list[int]:
        found = []
        for _ in range(10):
            answer = await place.post(talker.next(), token=token)
            found.append(answer.json()["accepted"]["seq"])
        return found

    told = await asyncio.gather(*(tell(*pair) for pair in zip(talkers, tokens, strict=True)))
    assert told == [list(range(1, 11))] * len(devices)
