"""Images from Dockerfiles and registries, with a real engine and a real registry: pinned, and had again."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import ImageNotFound

from conftest import Repository
from support.docker import Docker, registry_at
from support.package_index import local_package
from support.program import Cli
from support.waiting import until

pytestmark = pytest.mark.slow

PROJECT = """
environment:
  docker: {dockerfile: docker/Dockerfile, context: ., build_args: {WORD: given}, target: last}
entry_points:
  main: {command: [cat, /built]}
"""
DOCKERFILE = """
ARG BASE=IMAGE
FROM ${BASE} AS first
LABEL runproj.test=MARK
ARG WORD=default
COPY . /context
RUN (echo $WORD; ls -A /context) > /built
FROM first AS last
FROM first AS other
RUN false
"""


@pytest.fixture
def built(repository: Repository, engine: Docker, cli: Cli) -> Iterator[Repository]:
    files = {"data.txt": "data", "secret.txt": "secret", "keep.txt": "keep", ".dockerignore": "# no\n*.txt\n!keep.txt\nmany\n"}
    dockerfile = DOCKERFILE.replace("IMAGE", engine.base).replace("MARK", str(os.getpid()))  # not an image of other tests
    repository.commit({**files, "many/x": "x", "runproj.yaml": PROJECT, "docker/Dockerfile": dockerfile})
    yield repository
    forget_built(cli, engine)


def forget_built(cli: Cli, engine: Docker) -> None:
    """Remove the images that runs of this home were built for; other tests have theirs."""
    for run in cli.json("runs", "list")["runs"]:
        inputs = lock_of(cli, run["id"])["image"]["inputs"] or "none"
        with suppress(ImageNotFound):
            engine.client.images.remove(f"runproj-built:{inputs[:32]}", force=True)


def lock_of(cli: Cli, reference: str = "@last") -> dict:
    return cli.json("runs", "show", reference)["plan"]["lock"]


def test_a_dockerfile_is_built_once_and_again_from_the_same_inputs(cli: Cli, built: Repository, engine: Docker) -> None:
    result = cli("run", built.url)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["given", ".dockerignore", "docker", "keep.txt", "runproj.yaml"]
    first = lock_of(cli)
    assert first["image"]["bases"] == [[engine.base, engine.client.images.get(engine.base).id]]
    assert first["image"]["reference"] == first["image"]["id"]
    built.commit({"data.txt": "other data, which .dockerignore leaves out"})
    assert cli("run", built.url).returncode == 0
    assert lock_of(cli)["digest"] == first["digest"]
    built.commit({"keep.txt": "something else"})
    assert cli("run", built.url).returncode == 0
    assert lock_of(cli)["image"]["inputs"] != first["image"]["inputs"]
    engine.client.images.remove(first["image"]["id"], force=True)
    again = cli("rerun", "@last~2")
    assert again.returncode == 0, again.stderr
    assert again.stdout == result.stdout
    assert "is gone: one built again from the same inputs is used" in again.stderr
    assert lock_of(cli)["digest"] == first["digest"]


def test_a_build_that_fails_says_what_it_said(cli: Cli, built: Repository, engine: Docker) -> None:
    built.commit({"docker/Dockerfile": f"FROM {engine.base} AS last\nRUN echo so far so good && exit 3\n"})
    result = cli("run", built.url)
    assert result.returncode == 125
    assert "The image cannot be built" in result.stderr
    assert "so far so good" in result.stderr
    assert "returned a non-zero code: 3" in result.stderr
    built.commit({"docker/Dockerfile": f"FROM {engine.base} AS last\nCOPY ../.. /x\nCOPY /nothing /y\n"})
    assert "The image cannot be built" in cli("run", built.url).stderr
    built.commit({"runproj.yaml": PROJECT.replace("context: .", "context: ../..")})
    assert "outside of the project" in cli("run", built.url).stderr
    assert cli.json("runs", "list")["runs"] == []


def test_a_build_ends_with_who_asked_for_it(cli: Cli, built: Repository, engine: Docker) -> None:
    word = f"4{os.getpid()}"  # seconds, and a name that no other build has
    built.commit({"docker/Dockerfile": f"FROM {engine.base} AS last\nRUN sleep {word}\n"})

    def building(*states: str) -> bool:
        found = engine.client.containers.list(all=True, ignore_removed=True)
        return any(f"sleep {word}" in (one.attrs["Config"]["Cmd"] or ()) and one.status in states for one in found)

    process = cli.start("run", built.url)
    for number in (signal.SIGTERM, signal.SIGKILL):
        until(lambda: building("running"))  # told to give up before that, the engine itself may forget the container
        process.send_signal(number)
        process.communicate(timeout=60)
        until(lambda: not building("created", "running", "exited"))
        if number is signal.SIGTERM:
            assert process.returncode == 128 + number
            process = cli.start("run", built.url)
    assert cli.json("runs", "list")["runs"] == []


def test_a_dockerfile_for_buildkit(cli: Cli, built: Repository, engine: Docker) -> None:
    lines = [f"FROM {engine.base} AS last", "RUN --mount=type=cache,target=/cache echo cached > /cache/x && cp /cache/x /built"]
    built.commit({"docker/Dockerfile": "\n".join([*lines, "COPY keep.txt /", ""])})
    result = cli("run", built.url)
    assert (result.returncode, result.stdout) == (0, "cached\n"), result.stderr
    assert lock_of(cli)["image"]["bases"][0][1] == engine.client.images.get(engine.base).id
    built.commit({"docker/Dockerfile": "\n".join([*lines, "RUN --mount=type=cache,target=/x echo as far as here && false", ""])})
    failed = cli("run", built.url)
    assert failed.returncode == 125
    assert "as far as here" in failed.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, engine: Docker) -> Iterator[str]:
    with registry_at(tmp_path_factory.mktemp("registry")) as address:
        yield address
    engine.forget(address)


def test_an_image_of_a_registry_is_had_by_its_digest(cli: Cli, repository: Repository, engine: Docker, registry: str) -> None:
    def publish(word: str) -> None:
        engine.client.images.get(engine.small(f"{word}\n")).tag(f"{registry}/some/image", "1")
        told = engine.client.images.push(f"{registry}/some/image", "1")
        assert "errorDetail" not in told, told  # it raises nothing
        engine.forget(f"{registry}/some/image")

    publish("first")
    repository.commit(
        {"MLproject": f"docker_env: {{image: '{registry}/some/image:1'}}\nentry_points: {{main: {{command: cat /which}}}}\n"}
    )
    assert "is not here" in cli("run", repository.url, "--offline").stderr
    result = cli("run", repository.url)
    assert (result.returncode, result.stdout) == (0, "first\n"), result.stderr
    first = lock_of(cli)
    assert first["image"]["reference"].startswith(f"{registry}/some/image@sha256:")
    assert cli("run", repository.url).returncode == 0
    assert lock_of(cli)["digest"] == first["digest"], "whether it was here already makes no difference"
    publish("second")
    result = cli("run", repository.url)
    assert result.stdout == "second\n", result.stderr
    engine.forget(f"{registry}/some/image")
    again = cli("rerun", "@last~2")
    assert (again.returncode, again.stdout) == (0, "first\n"), again.stderr
    engine.client.images.get(first["image"]["reference"]).tag(f"{registry}/some/image", "1")
    assert cli("run", repository.url).stdout == "first\n", "what is here is taken as it is"
    assert cli("run", repository.url, "--relock").stdout == "second\n"


def test_credentials_are_dockers_own(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    image = engine.small("with a password\n")
    with registry_at(tmp_path, "a secret") as address:
        name = f"{address}/private/image"
        engine.client.images.get(image).tag(name, "1")
        engine.client.images.push(name, "1", auth_config={"username": "somebody", "password": "a secret"})
        engine.forget(name)
        repository.commit({"MLproject": f"docker_env: {name}:1\nentry_points: {{main: {{command: cat /which}}}}\n"})
        refused = cli("run", repository.url)
        assert refused.returncode == 125
        assert "no basic auth credentials" in refused.stderr
        config = Path(cli.env["HOME"], ".docker/config.json")
        config.parent.mkdir()
        config.write_text(json.dumps({"auths": {address: {"auth": base64.b64encode(b"somebody:a secret").decode()}}}))
        result = cli("run", repository.url)
        assert (result.returncode, result.stdout) == (0, "with a password\n"), result.stderr
        engine.forget(name)


def test_an_image_that_is_gone_for_good(cli: Cli, repository: Repository, engine: Docker) -> None:
    image = engine.image("RUN echo > /only-here")
    repository.commit({"MLproject": f"docker_env: {image}\nentry_points: {{main: {{command: 'true'}}}}\n"})
    assert cli("run", repository.url).returncode == 0
    engine.client.images.remove(image, force=True)
    result = cli("rerun", "@last")
    assert result.returncode == 125
    assert f"The image {image} that was recorded is gone" in result.stderr


@pytest.mark.network
def test_a_lock_becomes_an_image(cli: Cli, repository: Repository, engine: Docker) -> None:
    cli.env["RUNPROJ_DOCKER_BASE"] = engine.base
    package = {f"own/{name}": text for name, text in local_package("own", {"own.py": "WORD = 1\n"}).items()}
    project = (
        'environment: {python: "3.11", dependencies: [six==1.16.0, ./own]}\nentry_points: {main: {command: [python3, main.py]}}\n'
    )
    main = "import os, own, six\nprint(six.__version__, own.WORD, os.path.exists('/.dockerenv'))\n"
    repository.commit({**package, "runproj.yaml": project, "main.py": main})
    try:
        result = cli("run", repository.url, "--env-manager", "docker")
        assert (result.returncode, result.stdout) == (0, "1.16.0 1 True\n"), result.stderr
        first = lock_of(cli)
        assert first["manager"] == "docker"
        assert first["image"]["bases"][0][0] == engine.base
        assert "six" in first["pylock"]
        repository.commit({"main.py": main + "print('again')\n"})
        assert cli("run", repository.url, "--env-manager", "docker", "--offline").stdout == "1.16.0 1 True\nagain\n"
        assert lock_of(cli)["digest"] == first["digest"]
        engine.client.images.remove(first["image"]["id"], force=True)
        again = cli("rerun", "@last~1")
        assert (again.returncode, again.stdout) == (0, result.stdout), again.stderr
    finally:
        forget_built(cli, engine)


def test_the_shape_of_a_dockerfile_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    from runproj.core.environment import ImageBuild
    from runproj.environments import dockerfiles

    (tmp_path / "Dockerfile").write_text(
        "# FROM commented\nARG A=one:1\nARG B\nfrom --platform=linux/amd64 ${A} as Build\nFROM scratch\nFROM $B\nFROM build\n"
        "FROM ${C:-three}\nRUN echo FROM x\n"
    )
    found = dockerfiles.read(ImageBuild(arguments=(("B", "two"), ("C", "not declared"))), tmp_path, lambda name: f"pinned-{name}")
    assert [name for name, _ in found.bases] == ["one:1", "two", "three"]
    with (tmp_path / "archive").open("w+b") as file:
        found.archive(file)
        file.seek(0)
        written = file.read()
    assert (
        b"from --platform=linux/amd64 pinned-one:1 as Build\nFROM scratch\nFROM pinned-two\nFROM build\nFROM pinned-three\n"
        in written
    )
    assert not found.modern


def test_a_committed_lock_holds_an_image_by_its_digest(cli: Cli, repository: Repository, engine: Docker, registry: str) -> None:
    def publish(word: str) -> None:
        engine.client.images.get(engine.small(f"{word}\n")).tag(f"{registry}/locked", "1")
        engine.client.images.push(f"{registry}/locked", "1")
        engine.forget(f"{registry}/locked")

    publish("first")
    repository.commit(
        {"MLproject": f"docker_env: {{image: '{registry}/locked:1'}}\nentry_points: {{main: {{command: cat /which}}}}\n"}
    )
    report = cli.json("lock", str(repository.path))
    assert (report["file"], report["manager"]) == ("runproj.lock", "docker")
    repository.commit({})
    publish("second")
    result = cli("run", repository.url, "--locked")
    assert (result.returncode, result.stdout) == (0, "first\n"), result.stderr
    assert lock_of(cli)["digest"] == report["digest"]
    before = (repository.path / "runproj.lock").read_text()
    assert cli.json("lock", str(repository.path), "--upgrade")["state"] == "written"
    assert (repository.path / "runproj.lock").read_text() != before
    assert cli("run", repository.url).stdout == "first\n", "what is committed counts"
    repository.commit({})
    assert cli("run", repository.url, "--locked").stdout == "second\n"


def test_what_only_this_machine_has_cannot_be_locked(cli: Cli, built: Repository, repository: Repository, engine: Docker) -> None:
    result = cli("lock", str(built.path))
    assert result.returncode == 125
    assert "FROM NAME@sha256" in result.stderr
    (repository.path / "runproj.yaml").write_text(
        f"environment: {{docker: {engine.base}}}\nentry_points: {{main: {{command: [id]}}}}\n"
    )
    result = cli("lock", str(repository.path))
    assert result.returncode == 125
    assert "docker push" in result.stderr


def test_images_are_shown_with_the_environments(cli: Cli, built: Repository, engine: Docker) -> None:
    assert "built from docker/Dockerfile (id " in cli("plan", built.url).stdout
    assert cli("run", built.url).returncode == 0
    built.commit({"MLproject": f"docker_env: {engine.base}\nentry_points: {{main: {{command: 'true'}}}}\n", "runproj.yaml": ""})
    built.git("rm", "-qf", "runproj.yaml")
    built.git("commit", "-qm", "without it")
    assert cli("run", built.url).returncode == 0
    assert f"docker from MLproject (docker_env): {engine.base} (id " in cli("runs", "show", "@last").stdout
    first, second = cli.json("env", "list")["environments"]
    assert first["path"] == engine.client.images.get(engine.base).id
    assert (second["manager"], second["problem"]) == ("docker", None)
    assert "built from docker/Dockerfile (id " in cli("env", "show", second["digest"][:12]).stdout
    assert cli("env", "prune", "--days", "0").returncode == 0
    assert cli.json("env", "list")["environments"] == []
    assert engine.client.images.get(engine.base)
    with pytest.raises(ImageNotFound):
        engine.client.images.get(second["path"])


def test_who_lacks_the_sdk_is_told_what_to_install(cli: Cli, built: Repository, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/docker.py").write_text("raise ModuleNotFoundError('No module named docker')\n")
    cli.env["PYTHONPATH"] = str(tmp_path / "without")
    result = cli("run", built.url)
    assert (result.returncode, result.stderr.count("Traceback")) == (125, 0), result.stderr
    assert "the docker SDK, which is not installed" in result.stderr
    assert "fix: pip install 'runproj[docker]'" in result.stderr
    repository.commit(
        {"runproj.yaml": "environment: {docker: '127.0.0.1:9/no/such:image'}\nentry_points: {main: {command: x}}\n"}
    )
    assert "pip install 'runproj[docker]'" in cli("run", repository.url).stderr


@pytest.mark.network
def test_a_base_image_that_does_not_fit_is_told_with_the_way_to_another(cli: Cli, repository: Repository, engine: Docker) -> None:
    cli.env["RUNPROJ_DOCKER_BASE"] = "127.0.0.1:9/no/python:{python}"
    repository.commit({"runproj.yaml": "environment: {python: '3.12'}\nentry_points: {main: {command: [python3, -V]}}\n"})
    absent = cli("run", repository.url, "--env-manager", "docker").stderr
    assert "The image 127.0.0.1:9/no/python:3.12 is not here" in absent
    cli.env["RUNPROJ_DOCKER_BASE"] = engine.base
    other = cli("run", repository.url, "--env-manager", "docker").stderr
    assert "The base image has Python 3.11, and 3.12 is wanted" in other
    for said in (absent, other):
        assert "fix: Set RUNPROJ_DOCKER_BASE to an image that is here" in said
        assert "[91m" not in said
