from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from towline.cli import main
from towline.commands import table
from towline.data_folder import DataFolder
from towline.errors import TowlineError
from towline.gateway_client import Credentials, GatewayClient
from towline.launcher.ports import PARTS
from towline.launcher.progress import welcome_text

DEVICES = [
    {"id": "d_aaaa", "name": "shed", "status": "approved", "online": True, "services": [{"name": "web"}]},
    {
        "id": "d_bbbb",
        "name": "barn",
        "status": "pending",
        "online": False,
        "services": [],
        "software": "x" * 60,
    },
    {"id": "d_cccc", "name": "barn", "status": "revoked", "online": False, "services": []},
]


SAID = {
    "connection": {"online": True, "since": "2026-07-01T08:00:00.000Z"},
    "telemetry": {
        "at": "2026-07-01T08:00:10.000Z",
        "body": {
            "values": {
                "temperature": {"n": 5, "min": 20.0, "max": 21.5, "mean": 21.0, "last": 21.25},
                "door": "open\x1b[2J",
            }
        },
    },
    "heartbeat": {
        "at": "2026-07-01T08:00:00.000Z",
        "body": {"uptime_s": 90.5, "memory": {"rss": 40_000_000}, "sensors": {"fan": True}},
    },
}
NEVER = {"connection": None, "telemetry": None, "heartbeat": None}


LATER = "2999-07-01T08:00:00.000Z"
CONFIGURATIONS: dict[str, Any] = {
    "d_aaaa": {
        "desired": {"version": 3},
        "reported": {"version": 2, "error": "no such level\x1b[1m"},
        "drift": True,
    },
    "d_bbbb": {"desired": None, "reported": None, "drift": False},
}


CONFIG_LINE = "config version 3; the device runs with another: version 2 (no such level\\x1b[1m)"


def command(state: str, **more: Any) -> dict[str, Any]:
    begun: dict[str, Any] = {
        "id": "c1",
        "name": "ping",
        "state": state,
        "author": "ann",
        "error": None,
        "result": None,
    }
    at: dict[str, Any] = {name: None for name in ("sent_at", "delivered_at", "finished_at")}
    begun |= at | {"created_at": "2026-07-01T08:00:00.000Z", "expires_at": LATER, "timeout_s": 10}
    return begun | more


SENT = "2026-07-01T08:00:00.004Z"
# What the gateway says of a command, one look after the other; None: it is killed before it answers.
LOOKS: list[dict[str, Any] | None] = []
LISTS: dict[str, Any] = {
    "/v1/devices": {"items": DEVICES[:2], "next_cursor": "n"},
    "/v1/devices?cursor=n": {"items": DEVICES[2:], "next_cursor": None},
    "/v1/sessions": {"items": [], "next_cursor": None},
}
API_TOKENS: dict[str, tuple[int, Any]] = {
    "Bearer twl_good": (200, {"items": [], "next_cursor": None}),
    "Bearer twl_elsewhere": (302, None),
}


class Gateway(BaseHTTPRequestHandler):
    """Answers as docs/api.md says, with two pages of devices and access tokens that end after a few calls."""

    calls: ClassVar[list[tuple[str, str, Any]]] = []
    logins: ClassVar[int] = 0
    uses_left: ClassVar[int] = 0
    keys: ClassVar[list[str | None]] = []

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.calls.append((self.command, self.path, body))
        if body is not None and self.path.endswith("/commands"):
            self.keys.append(self.headers["Idempotency-Key"])
        status, answer = self.answer(body)
        if status == 0:
            self.close_connection = True
            return
        raw = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/v1/sessions?elsewhere")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_DELETE = handle_any

    def answer(self, body: Any) -> tuple[int, Any]:
        if str(self.headers["Authorization"]).startswith("Bearer twl_"):
            return API_TOKENS.get(self.headers["Authorization"], (401, {"code": "login_needed"}))
        if self.path == "/v1/login":
            if body["password"] != "right":
                return 401, {"code": "bad_login", "detail": "wrong user name or password", "status": 401}
            type(self).logins += 1
            type(self).uses_left = 2
            return 200, {"access_token": f"t{self.logins}", "expires_in": 900}
        if self.headers["Authorization"] != f"Bearer t{self.logins}" or self.uses_left == 0:
            return 401, {"code": "token_expired", "detail": "log in again"}
        type(self).uses_left -= 1
        if self.path in LISTS:
            return 200, LISTS[self.path]
        if self.path.endswith("/sessions"):
            return 201, {"id": "s1", "url": "http://label.localhost:1/.towline/open#x"}
        if self.path == "/v1/registration-tokens":
            return 201, {"token": "rt_x", "expires_at": "later"}
        if self.command == "DELETE":
            return 204, None
        if (self.path.endswith("/commands") or self.path.startswith("/v1/commands/")) and LOOKS[0] is None:
            return 0, LOOKS.pop(0)
        messages = self.messages()
        if messages is not None:
            return 200, messages
        if self.path.endswith(("/approve", "/revoke")):
            return 200, {}
        return 404, {"code": "not_found", "detail": "there is no such thing"}

    def messages(self) -> Any:
        """What shed says, and was asked; None: something else is wanted."""
        if self.path.endswith("/state"):
            return SAID if "d_aaaa" in self.path else NEVER
        if self.path.endswith("/configuration"):
            return CONFIGURATIONS[self.path.split("/")[3]]
        if "/commands?limit=" in self.path:
            rows = [command("failed", error="busy\x1b[1m")] if "d_aaaa" in self.path else []
            return {"items": rows, "next_cursor": None}
        if self.path.endswith("/commands") or self.path.startswith("/v1/commands/"):
            return LOOKS.pop(0)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    Gateway.calls.clear()
    Gateway.keys.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Credentials(f"http://127.0.0.1:{server.server_port}", "admin", "right").save(DataFolder(tmp_path))
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def test_credentials_are_the_owners_alone(data: Path) -> None:
    assert stat.S_IMODE((data / "credentials.json").stat().st_mode) == 0o600


def test_commands_in_a_row_log_in_once(data: Path) -> None:
    Gateway.logins = 0
    assert main(["sessions", "--data", str(data)]) == 0
    assert stat.S_IMODE((data / "access-token").stat().st_mode) == 0o600
    assert main(["sessions", "--data", str(data)]) == 0
    assert Gateway.logins == 1
    assert main(["sessions", "--data", str(data)]) == 0  # the kept one has ended: a new login, not an error
    assert Gateway.logins == 2


class TestApiTokenFile:
    """TOWLINE_TOKEN_FILE: for machines where no `towline up` runs."""

    @pytest.fixture
    def with_token(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
        def put(token: str) -> Path:
            path = data / "api-token"
            path.write_text(token + "\n")
            path.chmod(0o600)
            monkeypatch.setenv("TOWLINE_TOKEN_FILE", str(path))
            return path

        return put

    def test_commands_act_with_it_and_log_in_nowhere(
        self, data: Path, with_token: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with_token("twl_good")
        assert main(["sessions", "--data", str(data)]) == 0
        origin = json.loads((data / "credentials.json").read_text())["gateway"]
        monkeypatch.setenv("TOWLINE_GATEWAY", origin + "/")
        assert main(["devices", "--data", str(data / "none")]) == 0
        assert not [path for _, path, _ in Gateway.calls if path == "/v1/login"]
        assert not (data / "access-token").exists()

    @pytest.mark.parametrize(
        ("token", "gateway", "said"),
        [
            ("twl_ended", None, "is not good, or not any more"),
            ("twl_elsewhere", None, "HTTP 302"),
            ("", None, "one API token and nothing else"),
            ("two words", None, "one API token and nothing else"),
            ("twl_good", "http://gateway.example", "must be https://"),
            ("twl_good", "gateway.example", "must be https://"),
            ("twl_good", "https://127.0.0.1:1", "no gateway answers"),
        ],
    )
    def test_what_cannot_serve_is_told(
        self,
        data: Path,
        with_token: Callable[[str], Path],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        token: str,
        gateway: str | None,
        said: str,
    ) -> None:
        with_token(token)
        if gateway is not None:
            monkeypatch.setenv("TOWLINE_GATEWAY", gateway)
        assert main(["sessions", "--data", str(data)]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert not token or token not in error
        assert len(Gateway.calls) <= 1  # nothing was sent on to where a redirection pointed

    def test_others_must_not_read_it(
        self, data: Path, with_token: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with_token("twl_good").chmod(0o640)
        assert main(["sessions", "--data", str(data)]) == 1
        assert "chmod 600" in capsys.readouterr().err
        assert Gateway.calls == []


def test_link_prints_nothing_but_the_address(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["link", "shed", "--service", "ssh", "--duration", "60", "--data", str(data)]) == 0
    assert capsys.readouterr().out == "http://label.localhost:1/.towline/open#x\n"
    body = {"service": "ssh", "binding": "click", "duration_s": 60}
    assert Gateway.calls[-1] == ("POST", "/v1/devices/d_aaaa/sessions", body)


def test_devices_and_sessions_are_tables(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--data", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATUS", "TUNNEL", "SERVICES", "SOFTWARE"]
    assert lines[1].split() == ["d_aaaa", "shed", "approved", "online", "web"]
    assert len(lines) == 4
    assert main(["sessions", "--data", str(data)]) == 0
    assert capsys.readouterr().out == "none\n"


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (["approve", "d_bbbb"], ("POST", "/v1/devices/d_bbbb/approve", {})),
        (["revoke", "device", "shed"], ("POST", "/v1/devices/d_aaaa/revoke", {})),
        (["revoke", "session", "s1"], ("DELETE", "/v1/sessions/s1", None)),
        (
            ["token", "--approve", "--name", "n"],
            ("POST", "/v1/registration-tokens", {"approve": True, "name": "n"}),
        ),
        (["token"], ("POST", "/v1/registration-tokens", {"approve": False})),
    ],
)
def test_each_command_is_one_call(data: Path, command: list[str], call: tuple[str, str, Any]) -> None:
    assert main([*command, "--data", str(data)]) == 0
    assert Gateway.calls[-1] == call


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (
            ["link", "nobody"],
            "there is no device 'nobody'; yours: barn (d_bbbb), barn (d_cccc), shed (d_aaaa)",
        ),
        (["link", "barn"], "2 devices are named 'barn': use an id"),
    ],
)
def test_a_device_that_is_not_one_is_said(
    data: Path, capsys: pytest.CaptureFixture[str], command: list[str], problem: str
) -> None:
    assert main([*command, "--data", str(data)]) == 1
    assert capsys.readouterr().err == f"towline: {problem}\n"


def test_an_access_token_that_ended_is_renewed(data: Path) -> None:
    gateway = GatewayClient(Credentials.load(data / "credentials.json"))
    before = Gateway.logins
    for _ in range(3):
        assert len(gateway.items("/v1/devices")) == 3
    assert Gateway.logins - before == 3


def test_a_device_is_shown_with_what_it_says(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "shed", "--data", str(data)]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()] == [
        ["shed", "(d_aaaa)"],
        ["tunnel", "online"],
        ["messages", "connected", "since", "2026-07-01T08:00:00.000Z"],
        CONFIG_LINE.split(),
        [],
        ["readings", "2026-07-01T08:00:10.000Z"],
        ["NAME", "LAST", "BETWEEN"],
        ["door", "open\\x1b[2J"],
        ["temperature", "21.25", "20", "to", "21.5,", "5", "samples"],
        [],
        ["health", "2026-07-01T08:00:00.000Z"],
        ["NAME", "VALUE"],
        ["uptime_s", "90.5"],
        ["memory_rss", "40", "MB"],
        ["fan", "true"],
        [],
        ["commands"],
        ["ASKED", "NAME", "STATE", "WHY", "BY"],
        ["2026-07-01T08:00:00.000Z", "ping", "failed", "busy\\x1b[1m", "ann"],
    ]
    assert main(["device", "d_bbbb", "--data", str(data)]) == 0
    silent = capsys.readouterr().out
    assert "messages  never connected" in silent
    assert "config    none set" in silent
    assert "readings  none yet" in silent


def test_each_state_of_a_command_is_printed_once(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = "2026-07-01T08:00:00.020Z"
    LOOKS[:] = [
        command("queued"),
        command("sent", sent_at=SENT),
        command("succeeded", sent_at=SENT, delivered_at=SENT, finished_at=late, result={"pong": 1}),
    ]
    typed = ["command", "shed", "run", "--param", "name=backup", "--param", "times=3", "--now"]
    assert main([*typed, "--data", str(data)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run to shed (d_aaaa), command c1",
        "  queued     2026-07-01T08:00:00.000Z",
        "  sent       +4 ms",
        "  delivered  +4 ms",
        "  succeeded  +20 ms",
        "{",
        '  "pong": 1',
        "}",
    ]
    body = {"name": "run", "params": {"name": "backup", "times": 3}, "ttl_s": 60, "queue": False}
    assert ("POST", "/v1/devices/d_aaaa/commands", body) in Gateway.calls


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (command("failed", finished_at=SENT, error="busy\x1b[1m"), "it failed: busy\\x1b[1m"),
        (command("timed_out", finished_at=SENT), "no end came in 10 s"),
        (command("expired", finished_at=SENT), "no device said within 60 s"),
        (command("sent", sent_at=SENT), f"after 0 s it is sent, and goes on until {LATER}"),
        (
            command("sent", sent_at=SENT, expires_at=SENT),
            f"after 0 s it is sent: its time was over at {SENT}",
        ),
        (
            command("delivered", sent_at=SENT, delivered_at=SENT, expires_at=SENT),
            f"after 0 s it is delivered: the device has 10 s for it from {SENT} on",
        ),
    ],
)
def test_a_command_that_is_not_done_is_code_1(
    data: Path, end: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LOOKS[:] = [end]
    assert main(["command", "shed", "ping", "--wait", "0", "--data", str(data)]) == 1
    assert said in capsys.readouterr().err


def test_a_command_outlives_a_gateway_that_restarts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lost answers are asked for again, the first with its key: the device does it once."""
    LOOKS[:] = [None, command("queued"), None, None, command("succeeded", finished_at=SENT)]
    assert main(["command", "shed", "ping", "--data", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  succeeded  +4 ms"
    assert len(Gateway.keys) > 1
    assert len(set(Gateway.keys)) == 1
    assert None not in Gateway.keys


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([None], "`towline device d_aaaa` shows whether it was taken"),
        (
            [command("queued"), *[None] * 9],
            "the command is made, and `towline device d_aaaa` shows what became of it",
        ),
    ],
    ids=["asked", "made"],
)
def test_who_gives_up_on_a_gateway_is_told_where_to_look(
    data: Path, looks: list[dict[str, Any] | None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LOOKS[:] = looks
    wait = str(len(looks) // 10 * 2)
    assert main(["command", "shed", "ping", "--wait", wait, "--data", str(data)]) == 1
    error = capsys.readouterr().err
    assert "no gateway answers" in error
    assert said in error


def test_a_parameter_as_deep_as_it_likes_is_text(data: Path) -> None:
    LOOKS[:] = [command("succeeded", finished_at=SENT)]
    deep = "[" * 60_000
    assert main(["command", "shed", "ping", "--param", f"level={deep}", "--data", str(data)]) == 0
    assert Gateway.calls[-1][2]["params"] == {"level": deep}


def test_a_parameter_that_is_none_is_told_before_anything_is_sent(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["loud"], ["=x"], ["a=1", "a=2"]):
        given = [part for pair in wrong for part in ("--param", pair)]
        assert main(["command", "shed", "ping", *given, "--data", str(data)]) == 1
        assert "is no parameter" in capsys.readouterr().err
    assert Gateway.calls == []


def test_refusals_are_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = GatewayClient(Credentials.load(data / "credentials.json"))
    with pytest.raises(TowlineError, match=r"^there is no such thing \(not_found\)$"):
        gateway.get("/v1/nothing")
    wrong = Credentials(gateway.address, "admin", "wrong")
    with pytest.raises(TowlineError, match="wrong user name or password"):
        GatewayClient(wrong).get("/v1/devices")


def test_without_up_the_commands_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--data", str(tmp_path)]) == 1
    assert "start `towline up` first" in capsys.readouterr().err
    Credentials("http://127.0.0.1:1", "admin", "x").save(DataFolder(tmp_path))
    assert main(["devices", "--data", str(tmp_path)]) == 1
    assert "no gateway answers at http://127.0.0.1:1" in capsys.readouterr().err
    (tmp_path / "credentials.json").write_text("{}")
    assert main(["devices", "--data", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["--help"], ["up", "--help"], ["link", "--help"], ["revoke", "--help"], ["command", "--help"]]
)
def test_help_is_there(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: towline")


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("gateway", ["consume", "migrate", "issue-node-certificate", "rotate-keys", "reset-line", "audit"]),
        ("ingest", ["replay"]),
        ("agent", ["enrol", "claim"]),
    ],
)
def test_what_a_service_does_beside_serving_is_in_its_help(
    service: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([service, "--help"])
    said = capsys.readouterr().out
    listed = said.partition("in place of serving")[2].splitlines()[1:]
    assert [line.split()[0] for line in listed] == words
    for word in words:
        with pytest.raises(SystemExit) as caught:
            main([service, word, "--help"])
        assert caught.value.code == 0
        assert word in capsys.readouterr().out.splitlines()[0]


def test_every_part_that_can_be_moved_is_in_the_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--help"])
    said = "".join(capsys.readouterr().out.split())
    assert ",".join(PARTS) in said
    assert {"mqtt", "ingest", "ingest-ops", "gateway"} < set(PARTS)
    assert main(["up", "--data", str(tmp_path), "--listen", "x=1"]) == 1
    assert ", ".join(PARTS) in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["tow"], ["link"], ["up", "--port", "many"]])
def test_a_wrong_command_line_is_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: towline" in capsys.readouterr().err


@pytest.mark.parametrize("service", ["agent", "gateway", "server"])
def test_the_services_own_command_lines_are_reached(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([service, "--help"])
    assert caught.value.code == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "garbage"])
def test_a_certificate_that_is_none_starts_nothing(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = tmp_path / "x.pem"
    if content is not None:
        pem.write_text(content)
    files = ["--tunnel-certificate", str(pem), "--tunnel-key", str(pem)]
    data = tmp_path / "data"
    assert main(["up", "--data", str(data), "--tunnel-domain", "tunnel.example", *files]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"towline: --tunnel-certificate {pem}")
    assert not data.exists()


def test_tables_are_cut_to_the_terminal() -> None:
    text = table(("A", "B"), [("x" * 100, "y")])
    assert text.splitlines()[1] == "x" * 39 + "…  y"


def test_the_closing_lines_name_the_address_and_what_is_in_its_way() -> None:
    address = "http://localhost:8080/welcome#s"
    text = welcome_text(address, 3.14, visitors_port=8081, ssh_target=None)
    assert "ready after 3.1 s" in text
    assert f"    {address}\n" in text
    assert "Safari before version 26" in text
    assert "ssh" not in text.lower().replace("s" + "sh -l", "")
    text = welcome_text(address, 3.14, visitors_port=8081, ssh_target="me@10.0.0.1")
    assert "ssh -L 8080:localhost:8080 -L 8081:localhost:8081 me@10.0.0.1" in text
