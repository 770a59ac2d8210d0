"""conda's words: where channels are, what needs the user's word, how dependencies are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runproj.core.environment import CondaPackage
from runproj.environments.channels import Channels, Unmapped
from runproj.environments.conda_child import Rattler
from runproj.environments.conda_worker import Failed, match_spec
from runproj.errors import EnvironmentFailure, RunprojError, UsageError
from runproj.settings import load


@pytest.mark.parametrize(
    ("places", "listed", "names", "urls"),
    [
        ("", (), ("conda-forge",), ("https://conda.anaconda.org/conda-forge",)),
        ("", ("nodefaults",), ("conda-forge",), ("https://conda.anaconda.org/conda-forge",)),
        (
            "",
            ("bioconda", "conda-forge/label/dev/", "bioconda"),
            ("bioconda", "conda-forge/label/dev"),
            ("https://conda.anaconda.org/bioconda", "https://conda.anaconda.org/conda-forge/label/dev"),
        ),
        ("conda-forge=/srv/a%20b", ("conda-forge",), ("conda-forge",), ("file:///srv/a%2520b",)),
        ("conda-forge=file:///srv/a%20b/", ("conda-forge",), ("conda-forge",), ("file:///srv/a%20b",)),
        (
            "defaults=conda-forge",
            ("defaults", "conda-forge", "main"),
            ("conda-forge",),
            ("https://conda.anaconda.org/conda-forge",),
        ),
        ("defaults=https://m.example/d", ("pkgs/r",), ("defaults",), ("https://m.example/d",)),
        ("defaults=none", ("defaults", "bioconda"), ("bioconda",), ("https://conda.anaconda.org/bioconda",)),
        ("a=b b=https://m.example/b", ("a",), ("b",), ("https://m.example/b",)),
        ("", ("https://conda.anaconda.org/x",), ("x",), ("https://conda.anaconda.org/x",)),
        ("", ("https://m.example/x/",), ("https://m.example/x",), ("https://m.example/x",)),
    ],
)
def test_where_channels_are(places: str, listed: tuple[str, ...], names: tuple[str, ...], urls: tuple[str, ...]) -> None:
    channels = Channels(load({"RUNPROJ_CONDA_CHANNELS": places, "HOME": "/nonexistent"}).conda_channels)
    assert channels.names(listed) == names
    assert tuple(channels.url(name) for name in names) == urls


@pytest.mark.parametrize("name", ["defaults", "main", "pkgs/main", "anaconda", "https://repo.anaconda.com/pkgs/main"])
def test_anacondas_own_channels_need_the_users_word(name: str) -> None:
    with pytest.raises(Unmapped) as refused:
        Channels().names((name, "conda-forge"))
    assert "RUNPROJ_CONDA_CHANNELS" in refused.value.fix


def test_passwords_are_no_part_of_a_name() -> None:
    assert Channels().name("https://me:secret@m.example/x") == "https://m.example/x"
    assert Channels().name("https://m.example/t/secret-token/x") == "https://m.example/x"


def test_wrong_places_are_told() -> None:
    with pytest.raises(UsageError, match="circle"):
        Channels({"a": "b", "b": "a"}).name("a")
    with pytest.raises(EnvironmentFailure, match="not a conda channel"):
        Channels().url("./here")
    with pytest.raises(UsageError, match="does not say where"):
        load({"RUNPROJ_CONDA_CHANNELS": "conda-forge", "HOME": "/nonexistent"})


@pytest.mark.parametrize(
    ("written", "name", "version"),
    [
        ("numpy", "numpy", None),
        ("Numpy", "numpy", None),
        ("numpy=1.19", "numpy", "1.19.*"),
        ("numpy=1.19*", "numpy", "1.19.*"),
        ("numpy=1.19.2=py38_0", "numpy", "==1.19.2"),
        ("numpy 1.19.2 py38_0", "numpy", "==1.19.2"),
        ("numpy >=1.19, <2", "numpy", ">=1.19,<2"),
        ("numpy[version='>=1.19']", "numpy", ">=1.19"),
        ("numpy~=1.19", "numpy", "~=1.19"),
        ("numpy<2.0a0", "numpy", "<2.0a0"),
        ("blas=*=openblas", "blas", "*"),
        ("_libgcc_mutex=0.1=main", "_libgcc_mutex", "==0.1"),
        ("file:///srv/a%20b::numpy=1.19", "numpy", "1.19.*"),
    ],
)
def test_what_people_write_as_dependencies_is_understood(written: str, name: str, version: str | None) -> None:
    spec = match_spec(written)
    assert (spec.name.normalized, spec.version) == (name, version)


def test_what_cannot_be_understood_is_named() -> None:
    with pytest.raises(Failed, match="numpy ==>1"):
        match_spec("numpy ==>1")


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../evil-1-0.conda"},
        {"file": "/evil-1-0.conda"},
        {"file": "evil"},
        {"subdir": "../.."},
        {"sha256": "../../../evil"},
    ],
)
def test_a_lock_that_leads_elsewhere_is_refused_before_anything_is_fetched(tmp_path: Path, change: dict[str, str]) -> None:
    sound = CondaPackage("evil", "1", "0", "noarch", "here", "evil-1-0.conda", "0" * 64)
    conda, places = Rattler(tmp_path / "home", {}), {"here": (tmp_path / "channel").as_uri()}
    into = tmp_path / "into"
    with pytest.raises(RunprojError, match=r"not a name that|no sha256"):
        conda.fetch([replace(sound, **change)], places, into, offline=False, progress=lambda _: None)
    assert list(tmp_path.rglob("*evil*")) == []
