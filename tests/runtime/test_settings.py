from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from runtime.addresses import Address, is_address, parse_address
from runtime.settings import (
    SettingsError,
    between,
    describe,
    from_table,
    load,
    not_empty,
    readable_file,
    setting,
)


@dataclass(frozen=True)
class Limits:
    streams: int = setting("Streams at once.", default=16, check=between(1, 4096))
    rate: float = setting("Per second.", default=1.5)


@dataclass(frozen=True)
class Service:
    address: str = setting("Where it listens.", check=is_address)
    host: Literal["rewrite", "preserve"] = setting("Which Host it sees.", default="rewrite")


@dataclass(frozen=True)
class Settings:
    state: Path = setting("Where the state is.")
    names: tuple[str, ...] = setting("Names.", default=("a",), check=not_empty)
    proxy: str | None = setting("A proxy.", default=None)
    verbose: bool = setting("Talk.", default=False)
    limits: Limits = setting("Bounds.", default_factory=Limits)
    services: dict[str, Service] = setting("Services.", default_factory=dict)

    def __post_init__(self) -> None:
        if self.verbose and self.proxy is not None:
            raise ValueError("verbose: goes with no proxy")


def write(folder: Path, text: str) -> Path:
    path = folder / "x.toml"
    path.write_text(text)
    return path


def test_a_whole_file_becomes_one_dataclass(tmp_path: Path) -> None:
    text = """
        state = "state"
        names = ["b", "c"]
        [limits]
        rate = 2
        [services.web]
        address = "[::1]:80"
        host = "preserve"
    """
    assert load(Settings, write(tmp_path, text)) == Settings(
        state=tmp_path / "state",
        names=("b", "c"),
        limits=Limits(streams=16, rate=2.0),
        services={"web": Service("[::1]:80", "preserve")},
    )


def test_a_section_of_a_file(tmp_path: Path) -> None:
    assert load(Limits, write(tmp_path, "[limits]\nstreams = 3\n"), section="limits") == Limits(streams=3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "state: missing"),
        ("state = 1", "state: must be text, not 1"),
        ('state = "s"\ncolour = 1', "colour: unknown setting"),
        ('state = "s"\nverbose = 1', "verbose: must be true or false, not 1"),
        ('state = "s"\nnames = "a"', "names: must be a list, not 'a'"),
        ('state = "s"\nnames = []', "names: must not be empty, not []"),
        ('state = "s"\nnames = ["a", 2]', "names[1]: must be text, not 2"),
        ('state = "s"\nlimits = 3', "limits: must be a table, not 3"),
        ('state = "s"\n[limits]\nstreams = 0', "limits.streams: must be 1..4096, not 0"),
        ('state = "s"\n[limits]\nstreams = true', "limits.streams: must be a whole number, not True"),
        ('state = "s"\n[limits]\nwidth = 0', "limits.width: unknown setting"),
        ('state = "s"\n[services.web]\nhost = "keep"', "services.web.address: missing"),
        (
            'state = "s"\n[services.web]\naddress = "a:1"\nhost = "keep"',
            "services.web.host: must be one of rewrite, preserve, not 'keep'",
        ),
        ('state = "s"\n[services.web]\naddress = "a"', "services.web.address: must be host:port, not 'a'"),
        ('state = "s"\nproxy = "p"\nverbose = true', "settings: verbose: goes with no proxy"),
        ("state = ", "cannot read settings: "),
    ],
)
def test_every_mistake_names_the_field_and_the_file(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    # Both wrong at once: whichever is found first, `services.web` names what is missing there.
    with pytest.raises(SettingsError) as caught:
        load(Settings, path)
    if problem == "services.web.address: missing":
        assert "services.web." in str(caught.value)
    else:
        assert str(caught.value).startswith(problem)
    assert str(caught.value).endswith(f"(file {path})")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No such file or directory \(file .*none\.toml\)"):
        load(Settings, tmp_path / "none.toml")


def test_a_table_in_memory(tmp_path: Path) -> None:
    assert from_table(Limits, {"streams": 2}, source=tmp_path / "y").streams == 2


def test_the_documents_know_every_field_with_type_and_default() -> None:
    found = {field.name: field for field in describe(Settings)}
    assert list(found) == [
        "state",
        "names",
        "proxy",
        "verbose",
        "limits",
        "limits.streams",
        "limits.rate",
        "services",
        "services.NAME.address",
        "services.NAME.host",
    ]
    assert found["state"].default is None
    assert found["names"].type == "list of text"
    assert found["names"].default == '["a"]'
    assert found["verbose"].default == "false"
    assert found["services.NAME.host"].type == '"rewrite" or "preserve"'
    assert all(field.doc for field in found.values())


def test_a_type_that_settings_cannot_hold_is_the_programmers_mistake(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Wrong:
        when: complex = setting("What no file can hold.")

    with pytest.raises(TypeError, match="unsupported type"):
        from_table(Wrong, {"when": "now"}, source=tmp_path / "z")


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:0", "localhost:65535"])
def test_addresses_that_are_ones(text: str) -> None:
    assert str(parse_address(text)) == text
    assert is_address(text) is None


@pytest.mark.parametrize("text", ["", "80", ":80", "a:", "a:x", "a:65536", "::1:80", "a:-1", "a:²"])
def test_addresses_that_are_none(text: str) -> None:
    assert is_address(text) is not None
    with pytest.raises(ValueError, match=r"must be|stands in"):
        parse_address(text)


def test_an_ipv6_address_gets_its_brackets_back() -> None:
    assert parse_address("[::1]:80") == Address("::1", 80)


def test_a_file_that_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    assert readable_file(tmp_path / "here") is None
    assert readable_file(tmp_path / "none") == "must be a readable file"
    assert readable_file(tmp_path) == "must be a readable file"
