"""What the proof of no loss needs beside the site: commands that are given, readings, what is compared."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Final

import asyncpg
import httpx

from device_protocol.numbers import Number
from testbed.loss_checker import Journal, Row, command_faults, faults, journal_faults
from testbed.message_devices import NOTE, Plan
from testbed.message_site import AGENT, CONSUMER, MessageSite
from testbed.people import Person
from testbed.waiting import eventually

COMMAND_EVERY_S: Final = 0.4
DRAIN_S: Final = 120.0


class Readings:
    """What the agent's sources ask: a number that is given once, ever."""

    def __init__(self) -> None:
        self.given = 0
        self._lock = threading.Lock()
        readings = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"n": readings.next()}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def next(self) -> int:
        with self._lock:
            self.given += 1
            return self.given

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Orders:
    """Somebody who gives one command after the other, whatever the answer, in a thread."""

    def __init__(self, person: Person, devices: list[str], chance: random.Random) -> None:
        self._person = person
        self._devices = devices
        self._chance = chance
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._give)
        self._thread.start()

    def _give(self) -> None:
        while not self._over.wait(COMMAND_EVERY_S):
            path = f"/v1/devices/{self._chance.choice(self._devices)}/commands"
            body = {"name": "run", "params": {"name": NOTE}}
            try:
                self._person.http.post(path, json=body, timeout=3.0)
            except httpx.HTTPError:
                continue  # whether it was taken is in the database

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def orders(site: MessageSite, chance: random.Random) -> Iterator[None]:
    giving = Orders(site.gateways.owner(), list(site.ids.values()), chance)
    try:
        yield
    finally:
        giving.close()


def settle(site: MessageSite) -> None:
    """Nobody says anything more, and all that was said has arrived."""
    site.talk(Plan(every_s=None))
    site.agent_talks(False)

    def empty() -> bool:
        site.look()
        found = site.standing()
        return len(found) == len(site.names) and all(one["entries"] == 0 for one in found.values())

    eventually("the outboxes are empty", empty, DRAIN_S)
    eventually("all commands have ended", lambda: not open_commands(site), DRAIN_S)
    eventually("the agent's outbox is empty", lambda: agent_is_done(site), DRAIN_S)
    eventually("nothing is left in the log", lambda: site.lag() == 0, DRAIN_S)


def open_commands(site: MessageSite) -> list[asyncpg.Record]:
    return site.rows("SELECT id, state, device_id FROM commands WHERE finished_at IS NULL")


def agent_is_done(site: MessageSite) -> bool:
    """The report of its start is taken, and all before it."""
    taken = site.metric(AGENT, "towline_agent_messages_accepted_total")
    return taken > 0 and site.metric(AGENT, "towline_agent_outbox_entries") == 0


def stored(site: MessageSite, device: str) -> list[Row]:
    found = site.rows(
        "SELECT boot, seq, id, received_at, xmin::text::bigint AS stored_in, body FROM device_history"
        " WHERE device_id = $1 ORDER BY boot, seq",
        device,
    )
    return [
        Row(
            Number(row["boot"], row["seq"]),
            str(row["id"]),
            row["received_at"].astimezone(UTC).isoformat(timespec="microseconds"),
            row["stored_in"],
            json.loads(row["body"]).get("values", {}).get("token"),
        )
        for row in found
    ]


def check(site: MessageSite, readings: Readings) -> tuple[int, Counter[str]]:
    """How many messages are kept, and the commands by state. AssertionError that names what is wrong."""
    found: list[str] = []
    kept = 0
    for name in site.names:
        rows = stored(site, site.ids[name])
        journal = Journal.read(site.devices_folder / name / "journal")
        found += [f"{name}: {fault}" for fault in journal_faults(rows, journal)]
        kept += len(rows)
    for name, one in site.standing().items():
        found += [f"{name}: {one[what]} {what}" for what in ("dropped", "refused") if one[what]]
    rows = stored(site, site.ids[AGENT])
    found += [f"agent: {fault}" for fault in faults(rows, agent_told(site))]
    found += [f"agent: {fault}" for fault in reading_faults(site, readings.given)]
    commands = {str(row["id"]): row["state"] for row in site.rows("SELECT id, state FROM commands")}
    found += command_faults(commands, executions(site))
    letters = site.rows(
        "SELECT reason, detail, topic FROM dead_letters WHERE device_id IS NULL OR device_id = ANY($1)",
        list(site.ids.values()),
    )
    found += [f"dead letter {letter}" for letter in letters]
    found += [f"{name} reported {said}" for name, said in missing(site)]
    found += [f"{one} ended by itself" for one in site.ended_by_itself]
    assert found == [], found[:20]
    return kept + len(rows), Counter(commands.values())


def agent_told(site: MessageSite) -> list[Number]:
    path = site.state(AGENT) / "messages" / "outbox" / "progress"
    progress: dict[str, Any] = json.loads(path.read_text("ascii"))
    assert (progress["dropped"], progress["refused"]) == (0, 0)
    return [Number(*progress["floor"])]


def reading_faults(site: MessageSite, given: int) -> list[str]:
    """Of each source every reading is in one summary, behind the one before it."""
    rows = site.rows(
        "SELECT type, boot, seq, body FROM device_history WHERE device_id = $1 AND kind = 'telemetry'"
        " ORDER BY type, boot, seq",
        site.ids[AGENT],
    )
    spans = [(row["type"], json.loads(row["body"])["values"]["n"]) for row in rows]
    found = [f"{type} {span}: nobody gave that" for type, span in spans if span["max"] > given]
    found += [
        f"{type} {before} {span}: not one behind the other"
        for (one, before), (type, span) in pairwise(spans)
        if one == type and span["min"] <= before["max"]
    ]
    return found if spans else ["no readings at all"]


def executions(site: MessageSite) -> list[str]:
    path = site.devices_folder / "executions"
    return path.read_text("ascii").split() if path.exists() else []


def missing(site: MessageSite) -> list[tuple[str, str]]:
    """What consumers said of messages that are missing."""
    told = [(CONSUMER, str(event["event"])) for event in site.processes.events(CONSUMER)]
    return [(name, said) for name, said in told if "missing" in said or "the log has not" in said]
