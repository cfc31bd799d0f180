"""`agent enrol` from the token file to the identity on disk, against a gateway over HTTP."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tunnel_agent.authority import DEVICE, KEY, Authority
from tests.tunnel_agent.gateway_double import GatewayDouble, foreign_certificate
from tunnel_agent import cli
from tunnel_agent.enrolment import Enrolment, EnrolmentRequest, default_hardware_id
from tunnel_agent.errors import EnrolmentError, EnrolmentPending
from tunnel_agent.identity import IdentityStore

TOKEN = "registration-token-1"


@pytest.fixture
def gateway() -> Iterator[GatewayDouble]:
    double = GatewayDouble(Authority())
    yield double
    double.close()


class Time:
    """Sleeping only moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def enrol(
    gateway: GatewayDouble, directory: Path, said: list[str], token: str | None = TOKEN
) -> IdentityStore:
    store, time = IdentityStore(directory), Time()
    request = EnrolmentRequest(gateway.url, token, "kitchen", "hw-1", "test", None, wait_s=600)
    Enrolment(store, request, say=said.append, sleep=time.sleep, monotonic=time.monotonic).run()
    return store


def test_from_a_token_to_an_identity(gateway: GatewayDouble, tmp_path: Path) -> None:
    gateway.statuses = ["pending"] * 40 + ["approved"]
    said: list[str] = []
    store = enrol(gateway, tmp_path / "state", said)
    identity = store.load()
    assert identity.device_id == DEVICE
    assert identity.gateway_url == gateway.url
    assert identity.tunnel_urls == ("wss://tunnel.test/tunnel",)
    assert identity.server_ca is None
    assert list(identity.key_list.keys) == [KEY.kid]
    _, path, body = gateway.requests[0]
    assert path == "/v1/enrolments"
    assert (body["token"], body["name"], body["hardware_id"]) == (TOKEN, "kitchen", "hw-1")
    assert any("waiting for the owner" in line for line in said)
    assert not any(TOKEN in line for line in said)


def test_the_directory_and_its_files_are_the_owners_alone(gateway: GatewayDouble, tmp_path: Path) -> None:
    directory = enrol(gateway, tmp_path / "state", []).directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert TOKEN not in "".join(path.read_text() for path in directory.iterdir())


@pytest.mark.parametrize(
    ("status", "message"),
    [("rejected", "rejected"), ("expired", "ended: expired; make a new registration token")],
)
def test_a_decision_against_it_is_told(
    gateway: GatewayDouble, tmp_path: Path, status: str, message: str
) -> None:
    gateway.statuses = ["pending", status]
    with pytest.raises(EnrolmentError, match=message):
        enrol(gateway, tmp_path, [])
    assert not IdentityStore(tmp_path).is_enrolled()
    assert IdentityStore(tmp_path).pending() == {}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (409, "hardware_id_conflict", "revoke the old device first"),
        (410, "registration_token_expired", "they live 15 minutes"),
        (410, "registration_token_used", "each works once"),
        (403, "registration_token_unknown", "unknown"),
    ],
)
def test_a_refused_token_says_what_to_do(
    gateway: GatewayDouble, tmp_path: Path, status: int, code: str, message: str
) -> None:
    gateway.answers["/v1/enrolments"] = status, {"code": code, "detail": f"The gateway says {code}."}
    with pytest.raises(EnrolmentError, match=message):
        enrol(gateway, tmp_path, [])


def test_an_interrupted_wait_goes_on_without_a_token(gateway: GatewayDouble, tmp_path: Path) -> None:
    gateway.statuses = ["pending"]
    with pytest.raises(EnrolmentPending):
        enrol(gateway, tmp_path, [])
    gateway.statuses = ["approved"]
    store = enrol(gateway, tmp_path, [], token=None)
    assert store.load().device_id == DEVICE
    assert [path for _, path, _ in gateway.requests].count("/v1/enrolments") == 1


def test_the_key_outlives_a_failed_try(gateway: GatewayDouble, tmp_path: Path) -> None:
    gateway.statuses = ["rejected"]
    with pytest.raises(EnrolmentError):
        enrol(gateway, tmp_path, [])
    before = (tmp_path / "device.key").read_bytes()
    gateway.statuses = ["approved"]
    assert enrol(gateway, tmp_path, []).load().key.to_pem() == before


def test_a_gateway_in_trouble_is_asked_again(gateway: GatewayDouble, tmp_path: Path) -> None:
    usual, failures = gateway.respond, 3

    def sometimes(path: str, body: dict[str, object], authorization: str) -> object:
        nonlocal failures
        if path.endswith("e1") and failures:
            failures -= 1
            return (503, {"detail": "The database is away."}) if failures else (429, {"code": "slow_down"})
        return usual(path, body, authorization)

    gateway.respond = sometimes  # type: ignore[method-assign, assignment]
    said: list[str] = []
    assert enrol(gateway, tmp_path, said).is_enrolled()
    assert any("The database is away" in line for line in said)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("certificate", "not a certificate"),
        pytest.param("certificate", foreign_certificate(Authority()), id="a foreign certificate"),
        ("device_root", "not a key"),
        pytest.param("device_root", Authority().root_pem(), id="a foreign root"),
        ("key_list", "a.b.c"),
        pytest.param("key_list", Authority().key_list_text(5).decode(), id="a foreign key list"),
        ("tunnel_urls", []),
        ("tunnel_urls", ["ws://tunnel.example/tunnel"]),
        ("tunnel_urls", ["https://tunnel.example/tunnel"]),
        ("tunnel_urls", "wss://tunnel.example/tunnel"),
        ("device_id", None),
    ],
)
def test_an_answer_that_does_not_hold_together_leaves_no_identity(
    gateway: GatewayDouble, tmp_path: Path, field: str, value: object
) -> None:
    gateway.changes = {field: value}
    with pytest.raises(EnrolmentError, match="answer"):
        enrol(gateway, tmp_path, [])
    assert not IdentityStore(tmp_path).is_enrolled()


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"[" * 100_000, b"x" * 300_000])
def test_something_that_is_no_gateway_is_named(gateway: GatewayDouble, tmp_path: Path, answer: bytes) -> None:
    gateway.answers["/v1/enrolments"] = 200, answer
    with pytest.raises(EnrolmentError, match="does not answer as a gateway"):
        enrol(gateway, tmp_path, [])


def test_a_redirect_is_not_followed(gateway: GatewayDouble, tmp_path: Path) -> None:
    gateway.answers["/v1/enrolments"] = 307, b""
    with pytest.raises(EnrolmentError, match="307"):
        enrol(gateway, tmp_path, [])


def test_the_hardware_id_does_not_give_the_machine_id_away(tmp_path: Path) -> None:
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    first = default_hardware_id(machine_id)
    assert first == default_hardware_id(machine_id)
    assert "0123456789abcdef" not in first
    assert default_hardware_id(tmp_path / "none") != default_hardware_id(tmp_path / "none")


# The command


def run(*argv: str) -> int:
    return cli.main(["enrol", *argv])


def test_the_command_enrols_and_a_second_time_only_says_so(
    gateway: GatewayDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    arguments = (gateway.url, "--token-file", str(token), "--state-dir", str(tmp_path / "state"))
    assert run(*arguments, "--name", "kitchen") == 0
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert f"enrolled as {DEVICE}" in out
    assert "already enrolled" in out
    assert TOKEN not in out + err


def test_the_command_takes_the_directory_from_the_settings(gateway: GatewayDouble, tmp_path: Path) -> None:
    config, token = tmp_path / "agent.toml", tmp_path / "token"
    config.write_text('state_dir = "here"\n[services.web]\naddress = "127.0.0.1:80"\n')
    token.write_text(TOKEN)
    assert run(gateway.url, "--token-file", str(token), "--config", str(config)) == 0
    assert (tmp_path / "here" / "identity.toml").is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://gateway.example", "https"),
        ("ftp://127.0.0.1", "https"),
        ("https://user:secret@gateway.example", "https"),
        ("gateway.example", "https"),
        ("http://127.0.0.1.nip.example", "loopback"),
        ("http://[::1", "not an address"),
    ],
)
def test_plain_text_is_for_loopback_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, message: str
) -> None:
    assert run(url, "--state-dir", str(tmp_path)) == cli.EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_pending_enrolment_has_its_own_exit_code(gateway: GatewayDouble, tmp_path: Path) -> None:
    gateway.statuses = ["pending"]
    token = tmp_path / "token"
    token.write_text(TOKEN)
    arguments = (gateway.url, "--token-file", str(token), "--state-dir", str(tmp_path / "state"))
    assert run(*arguments, "--wait", "0") == cli.EXIT_PENDING


@pytest.mark.parametrize("content", ["", "two words", "\u00fc"])
def test_a_file_without_a_token_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    assert run("http://127.0.0.1:1", "--token-file", str(token), "--state-dir", str(tmp_path)) == 2
    assert "--token-file" in capsys.readouterr().err


def test_a_missing_file_and_an_unreachable_gateway_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("http://127.0.0.1:1", "--token-file", str(tmp_path / "no"), "--state-dir", str(tmp_path)) == 1
    assert str(tmp_path / "no") in capsys.readouterr().err
    token = tmp_path / "token"
    token.write_text(TOKEN)
    assert run("http://127.0.0.1:1", "--token-file", str(token), "--state-dir", str(tmp_path)) == 1
    assert "no answer from http://127.0.0.1:1" in capsys.readouterr().err
