"""Images in capsules, with a real engine: out of it, removed, and in again."""

from __future__ import annotations

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path

import docker
import pytest

from conftest import Repository
from support.docker import Docker, registry_at
from support.program import Cli

pytestmark = pytest.mark.slow

PROJECT = "environment: {docker: {image: NAME}}\nentry_points: {main: {command: [cat, /which], outputs: ['*.none']}}\n"


@pytest.fixture
def there(cli: Cli, tmp_path: Path) -> Cli:
    """The program with another home, on the same engine."""
    other = Cli(cli.home)
    other.env = {**cli.env, "RUNPROJ_HOME": str(tmp_path / "other home")}
    return other


def test_an_image_is_carried_and_loaded_under_its_id(
    cli: Cli, there: Cli, repository: Repository, engine: Docker, tmp_path: Path
) -> None:
    name = engine.small("carried")
    repository.commit({"runproj.yaml": PROJECT.replace("NAME", name)})
    ran = cli.json("run", repository.url, "-A", "memory=64m")
    image = ran["plan"]["lock"]["image"]["id"]
    capsule = tmp_path / "capsule.zip"
    exported = cli.json("export", "@last", str(capsule))
    assert exported["complete"] and capsule.stat().st_size > 1_000_000
    engine.client.images.remove(name, force=True)
    with pytest.raises(docker.errors.ImageNotFound):
        engine.client.images.get(image)

    assert there.json("import", str(capsule))["verified"]
    with pytest.raises(docker.errors.ImageNotFound):  # nothing of it reaches the engine before it is run
        engine.client.images.get(image)
    refused = there("rerun", ran["run"]["id"], "--offline")  # what a stranger gave to a container is not what the user gave
    assert refused.returncode == 125 and "-A memory=64m" in refused.stderr
    again = there("rerun", ran["run"]["id"], "--offline", "--trust")
    assert again.returncode == 0 and again.stdout == "carried", again.stderr
    assert there("rerun", "@last", "--offline").returncode == 0  # this one is the user's own
    assert engine.client.images.get(image).tags == []
    onward = there.json("export", "@last", str(tmp_path / "onward.zip"))
    assert onward["complete"]
    engine.client.images.remove(image, force=True)


def test_an_image_of_a_registry_is_believed_with_trust(
    cli: Cli, there: Cli, repository: Repository, engine: Docker, tmp_path: Path
) -> None:
    with registry_at(tmp_path) as address:
        name = f"{address}/it"
        image = engine.client.images.get(engine.small("from a registry"))
        image.tag(name, "1")
        engine.client.images.push(name, "1")
        engine.client.images.remove(image.id, force=True)
        repository.commit({"runproj.yaml": PROJECT.replace("NAME", f"{name}:1")})
        ran = cli.json("run", repository.url)
        assert ran["plan"]["lock"]["image"]["id"] == ""
        cli.json("export", "@last", str(tmp_path / "capsule.zip"))
        engine.forget(name)
    run = ran["run"]["id"]
    found = there.json("import", str(tmp_path / "capsule.zip"))
    assert any("--trust" in note for note in found["notes"])
    refused = there("rerun", run, "--offline")
    assert refused.returncode == 125 and "is not here" in refused.stderr
    there.json("import", str(tmp_path / "capsule.zip"), "--trust")
    again = there("rerun", run, "--offline")
    assert again.returncode == 0 and again.stdout == "from a registry", again.stderr
    engine.client.images.remove(image.id, force=True)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("manifest.json", [{"Config": "x", "RepoTags": ["python:3.11"]}]),
        ("./manifest.json", [{"Config": "x", "RepoTags": ["python:3.11"]}]),
        ("././manifest.json", [{"Config": "x", "RepoTags": ["python:3.11"]}]),
        ("link/manifest.json", [{"Config": "x", "RepoTags": ["python:3.11"]}]),
        ("manifest.json", [{"Config": "x", "repoTags": ["python:3.11"]}]),
        ("manifest.json", [{"Config": "x", "RepoTag\u017f": ["python:3.11"]}]),
        ("index.json", {"Manifests": [{"Annotations": {"io.containerd.image.name": "python:3.11"}}]}),
        ("repositories", {"python": {"3.11": "x"}}),
    ],
)
def test_no_way_of_naming_an_image_is_overlooked(tmp_path: Path, member: str, content: object) -> None:
    from runproj.engine import Engine, Where
    from runproj.environments import image_archive
    from runproj.errors import EnvironmentFailure

    text = json.dumps(content).encode()
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(text)
        archive.addfile(info, BytesIO(text))
    with pytest.raises(EnvironmentFailure, match="is refused"):
        image_archive.load(Engine(Where("unix:///nowhere")), tmp_path / "image.tar")


def test_an_archive_that_names_images_is_refused(engine: Docker, tmp_path: Path) -> None:
    from runproj import engine as engines
    from runproj.environments import image_archive
    from runproj.errors import EnvironmentFailure

    client = engines.Engine(engines.find(os.environ))
    name = engine.small("named")
    with (tmp_path / "named.tar").open("wb") as file:
        for data in engine.client.images.get(name).save(named=name):
            file.write(data)
    with pytest.raises(EnvironmentFailure, match="is refused"):
        image_archive.load(client, tmp_path / "named.tar")
    for content in (b"", b"nonsense" * 200):
        (tmp_path / "broken.tar").write_bytes(content)
        with pytest.raises(EnvironmentFailure, match="image of the capsule"):
            image_archive.load(client, tmp_path / "broken.tar")
    with pytest.raises(EnvironmentFailure, match="cannot be saved"):
        image_archive.save(client, "sha256:" + "0" * 64, tmp_path / "none.tar")
