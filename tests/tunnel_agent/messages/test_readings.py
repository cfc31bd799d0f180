"""What sources say, summed up; and how a device is."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_protocol.bodies import SENSORS_MAX, OutboxReport, check_body
from device_protocol.envelope import Envelope
from device_protocol.schemas import READINGS_MAX
from device_protocol.topics import Kind
from runtime.clock import SYSTEM_CLOCK, FakeClock
from runtime.settings import SettingsError, from_table
from runtime.tasks import TaskOwner
from tests.tunnel_agent.node import Changing
from tunnel_agent.messages import health
from tunnel_agent.messages.policy.aggregate import Aggregate, readings
from tunnel_agent.messages.settings import MessagesSettings, SourceSettings
from tunnel_agent.messages.sources import Source
from tunnel_agent.messages.writing import Writer, unix_ms

NOBODY = OutboxReport(0, 0, 0, 0)
NUMBERS = st.floats(-1e300, 1e300) | st.integers(-(2**53), 2**53)


def test_numbers_are_summed_up_and_the_rest_is_as_it_was_last() -> None:
    summary = Aggregate()
    for at, celsius in enumerate((20.5, 22.5, 21.5)):
        summary.add({"temperature": celsius, "door": at == 0, "mode": f"m{at}"}, 1000 + at)
    body = summary.report(2000)
    assert body == {
        "from": 1000,
        "to": 2000,
        "values": {
            "temperature": {"n": 3, "min": 20.5, "max": 22.5, "mean": 21.5, "last": 21.5},
            "door": False,
            "mode": "m2",
        },
    }
    assert summary.report(3000) is None  # each report begins anew


def test_a_name_that_becomes_something_else_begins_anew() -> None:
    summary = Aggregate()
    for value in (1, "off", 3, 4):
        summary.add({"x": value}, None)
    body = summary.report(None)
    assert body is not None
    assert body["values"]["x"]["n"] == 2
    assert "from" not in body


@given(
    st.lists(st.dictionaries(st.text(max_size=8), NUMBERS | st.booleans() | st.text(max_size=8)), max_size=20)
)
def test_whatever_a_source_says_makes_a_report_that_is_taken(said: list[dict[str, object]]) -> None:
    summary = Aggregate()
    for one in said:
        summary.add(readings(one, ()), 5)
    body = summary.report(6)
    if body is not None:
        check_body(Kind.TELEMETRY, "telemetry", body)


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_mean_lies_between_the_least_and_the_greatest(values: list[float]) -> None:
    summary = Aggregate()
    for value in values:
        summary.add({"x": value}, None)
    body = summary.report(None)
    assert body is not None
    x = body["values"]["x"]
    assert (x["n"], x["min"], x["max"], x["last"]) == (len(values), min(values), max(values), values[-1])
    assert x["min"] - 1e-9 * abs(x["min"]) <= x["mean"] <= x["max"] + 1e-9 * abs(x["max"])


def test_more_names_than_a_report_takes_are_left_out() -> None:
    summary = Aggregate()
    summary.add({f"n{at}": at for at in range(2 * READINGS_MAX)}, 1)
    body = summary.report(1)
    assert body is not None
    check_body(Kind.TELEMETRY, "telemetry", body)
    assert len(body["values"]) == READINGS_MAX


class Answers:
    """A device's own page, that answers what the test wants."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"{}", 0
        answers = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers.asked += 1
                self.send_response(answers.status)
                self.send_header("Content-Length", str(len(answers.body)))
                self.end_headers()
                self.wfile.write(answers.body)

            def log_message(self, format: str, *args: object) -> None:
                """The test's output is no access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/readings"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def page() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.close()


def source(**settings: object) -> Source:
    return Source("greenhouse", from_table(SourceSettings, settings, source=Path("agent.toml")))


async def test_a_page_is_read(page: Answers) -> None:
    page.body = b'{"temperature":21.5,"on":true,"list":[1],"deep":{},"bad name":1,"humidity":60}'
    assert await source(url=page.url).read() == {"temperature": 21.5, "on": True, "humidity": 60}
    assert await source(url=page.url, keys=["humidity"]).read() == {"humidity": 60}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (302, b"{}"),
        (200, b""),
        (200, b"[1]"),
        (200, b'{"a":NaN}'),
        (200, b'{"a":1,"a":2}'),
        (200, b'{"a":"' + b"x" * 20_000 + b'"}'),
    ],
)
async def test_an_answer_that_is_none_is_told_once(
    page: Answers, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = source(url=page.url)
    page.status, page.body = status, body
    assert [await one.read() for _ in range(3)] == [{}, {}, {}]
    page.status, page.body = 200, b'{"a":1}'
    assert await one.read() == {"a": 1}
    said = [record.message for record in caplog.records if record.name.startswith("tunnel_agent")]
    assert said == ["source gives no readings", "source gives readings again"]


async def test_a_program_is_read() -> None:
    def program(text: str) -> Source:
        return source(exec=[sys.executable, "-c", text], timeout_s=5)

    assert await program("print('{\"a\":1}')").read() == {"a": 1}
    assert await program("print('{\"a\":1}'); raise SystemExit(1)").read() == {}
    assert await source(exec=["/no/such/program"]).read() == {}
    assert (
        await source(exec=[sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.3).read() == {}
    )


class Kept(Changing):
    """Takes what sources offer, or has no room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = True
        self.messages: list[Envelope] = []

    def offer(self, message: Envelope) -> bool:
        if self.room:
            self.messages.append(message)
        self.changed()
        return self.room


async def test_raw_samples_stay_here_and_few_reports_leave(page: Answers) -> None:
    """D18: fewer and larger messages, of which none holds a sample."""
    page.body = b'{"temperature":21.5}'
    kept, tasks = Kept(), TaskOwner("test")
    one = source(url=page.url, sample_s=0.5, report_s=1.2)
    tasks.start(one.run(Writer(SYSTEM_CLOCK), kept.offer), "source")
    await kept.until(lambda: len(kept.messages) >= 2)
    await tasks.close(5)
    assert page.asked > len(kept.messages)
    for message in kept.messages:
        assert (message.kind, message.type) == (Kind.TELEMETRY, "greenhouse")
        assert message.payload["values"]["temperature"].keys() == {"n", "min", "max", "mean", "last"}
        assert message.payload["values"]["temperature"]["n"] > 1
        check_body(message.kind, message.type, message.payload)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sources": {"a": {}}}, "sources.a"),
        ({"sources": {"a": {"url": "http://127.0.0.1:1/", "exec": ["/bin/true"]}}}, "sources.a"),
        ({"sources": {"a": {"url": "http://example.test/"}}}, "sources.a.url"),
        ({"sources": {"a": {"url": "file:///etc/passwd"}}}, "sources.a.url"),
        ({"sources": {"a": {"exec": ["true"]}}}, "sources.a.exec"),
        ({"sources": {"a": {"exec": ["/bin/true"], "sample_s": 20, "report_s": 10}}}, "sources.a"),
        ({"sources": {"A": {"exec": ["/bin/true"]}}}, "sources"),
        ({"sources": {f"a{at}": {"exec": ["/bin/true"]} for at in range(17)}}, "sources"),
        ({"commands": {"a": {"exec": []}}}, "commands.a.exec"),
        ({"commands": {"a": {"exec": ["sh"]}}}, "commands.a.exec"),
        ({"commands": {"a": {"exec": ["/bin/true"], "params": ["PATH"]}}}, "commands.a.params"),
        ({"commands": {"a b": {"exec": ["/bin/true"]}}}, "commands"),
        ({"reboot": ["reboot"]}, "reboot"),
        ({"outbox_bytes": 1000}, "outbox_bytes"),
        ({"health_every_s": 0}, "health_every_s"),
    ],
)
def test_a_mistake_names_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{field}\b"):
        from_table(MessagesSettings, change, source=Path("agent.toml"))


# Health


def test_a_health_report_of_this_machine_is_taken() -> None:
    body = health.report(NOBODY, {"battery": 80})
    check_body(Kind.HEARTBEAT, "heartbeat", body)
    assert body["uptime_s"] > 0
    assert body["memory"]["rss"] > 1 << 20
    assert body["memory"]["available"] <= body["memory"]["total"]
    assert body["sensors"] == {"battery": 80}
    assert health.machine_boot()


def test_a_machine_that_tells_nothing_still_reports(tmp_path: Path) -> None:
    body = health.report(NOBODY, {}, tmp_path)
    check_body(Kind.HEARTBEAT, "heartbeat", body)
    assert not {"memory", "rssi", "sensors"} & body.keys()
    assert health.machine_boot(tmp_path) == ""


@pytest.mark.parametrize(
    ("line", "rssi"),
    [
        (" wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0", -56),
        (" wlan0: 0000   54.  200.  -256        0      0      0      0      0        0", None),
        ("", None),
    ],
)
def test_the_signal_is_told_where_there_is_one(tmp_path: Path, line: str, rssi: int | None) -> None:
    (tmp_path / "net").mkdir()
    head = "Inter-| sta-|   Quality        |\n face | tus | link level noise |\n"
    (tmp_path / "net/wireless").write_text(f"{head}{line}\n")
    assert health.report(NOBODY, {}, tmp_path).get("rssi") == rssi


def test_sensors_are_bounded_in_their_order() -> None:
    fitted = health.fit({f"sensor{at}": "x" * 50 for at in range(30)})
    assert len(json.dumps(fitted, separators=(",", ":"))) <= SENSORS_MAX
    assert list(fitted) == [f"sensor{at}" for at in range(len(fitted))]
    assert health.fit({"long": "x" * 600, "short": 1}) == {"short": 1}


def test_a_clock_that_was_never_set_tells_no_time() -> None:
    clock = FakeClock(wall=1000.0)
    assert unix_ms(clock) is None
    assert Writer(clock).write(Kind.EVENT, {}).ts is None
    clock.set_wall(1_800_000_000.0)
    assert Writer(clock).write(Kind.EVENT, {}).ts == 1_800_000_000_000
