"""Settings from variables and config.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.errors import UsageError
from runproj.settings import load, parse_duration, parse_size


def test_home_holds_the_store_unless_something_else_is_said(isolated: Path) -> None:
    settings = load({"HOME": str(isolated)})
    assert settings.home == isolated / ".local/share/runproj"
    assert settings.tracking_uri == f"sqlite:///{settings.home}/runproj.db"
    assert load({"HOME": str(isolated), "XDG_DATA_HOME": str(isolated / "x")}).home == isolated / "x" / "runproj"


def test_our_own_variable_comes_before_mlflows_and_both_before_the_file(isolated: Path) -> None:
    home = isolated / "h"
    home.mkdir()
    (home / "config.toml").write_text('tracking_uri = "http://file:1"\ncapture_limit = "2 MB"\n')
    base = {"RUNPROJ_HOME": str(home)}
    assert load(base).tracking_uri == "http://file:1"
    assert load(base | {"MLFLOW_TRACKING_URI": "http://mlflow:1"}).tracking_uri == "http://mlflow:1"
    both = base | {"MLFLOW_TRACKING_URI": "http://mlflow:1", "RUNPROJ_TRACKING_URI": "http://ours:1"}
    assert load(both).tracking_uri == "http://ours:1"
    assert load(base).capture_limit == 2_000_000


@pytest.mark.parametrize("content", ["trackinguri = 1", "= ="])
def test_a_wrong_config_file_is_explained(isolated: Path, content: str) -> None:
    (isolated / "config.toml").write_text(content)
    with pytest.raises(UsageError, match=r"config\.toml"):
        load({"RUNPROJ_HOME": str(isolated)})


def test_a_tracking_uri_that_we_cannot_use_is_refused(isolated: Path) -> None:
    with pytest.raises(UsageError, match="databricks"):
        load({"RUNPROJ_HOME": str(isolated), "MLFLOW_TRACKING_URI": "databricks"})


@pytest.mark.parametrize(("text", "bytes_"), [("0", 0), ("512MB", 512_000_000), ("2GiB", 2**31), ("1.5 kB", 1500)])
def test_sizes(text: str, bytes_: int) -> None:
    assert parse_size(text) == bytes_


@pytest.mark.parametrize("text", ["", "MB", "1 parsec", "-x"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30m", 1800), ("2h30m", 9000), ("1.5h", 5400), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "5 weeks"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


def test_conda_channels_come_from_a_table_or_a_variable(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    table = 'conda_alias = "https://m.example/"\n[conda_channels]\nconda-forge = "/srv/forge"\n'
    (home / "config.toml").write_text(table)
    settings = load({"RUNPROJ_HOME": str(home)})
    assert (dict(settings.conda_channels), settings.conda_alias) == ({"conda-forge": "/srv/forge"}, "https://m.example")
    variables = {"RUNPROJ_CONDA_CHANNELS": "a=b\n c=https://m.example/c?x=1", "RUNPROJ_CONDA_ALIAS": "file:///srv"}
    settings = load({"RUNPROJ_HOME": str(home), **variables})
    assert (dict(settings.conda_channels), settings.conda_alias) == ({"a": "b", "c": "https://m.example/c?x=1"}, "file:///srv")
    (home / "config.toml").write_text('conda_channels = "no table"\n')
    with pytest.raises(UsageError, match="conda_channels"):
        load({"RUNPROJ_HOME": str(home)})
