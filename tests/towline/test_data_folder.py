from __future__ import annotations

import stat
from pathlib import Path

import pytest

from towline.data_folder import DataFolder, default_data


def test_everything_is_the_owners_alone(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "new" / "data")
    data.make()
    data.make()
    assert stat.S_IMODE(data.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(data.secrets.stat().st_mode) == 0o700


def test_the_default_is_the_checkouts_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TOWLINE_DATA", raising=False)
    assert default_data() == Path(__file__).resolve().parents[2] / "data"
    monkeypatch.setenv("TOWLINE_DATA", str(tmp_path))
    assert default_data() == tmp_path


def test_installed_the_default_is_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TOWLINE_DATA", raising=False)
    monkeypatch.setattr("towline.data_folder.__file__", str(tmp_path / "site-packages" / "towline" / "x.py"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert default_data() == tmp_path / "xdg" / "towline"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data() == tmp_path / ".local" / "share" / "towline"
