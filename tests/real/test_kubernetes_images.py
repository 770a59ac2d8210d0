"""Projects whose environment is an image, on a real Kubernetes: the command runs in that image, whatever it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Repository
from support.cluster import reason_of
from support.docker import Docker, registry_at
from support.kubernetes import IMAGE, PYTHON, Kubernetes, pod_with
from support.placing import home, nothing_left, tags_of
from support.program import Cli
from support.team import team_server

pytestmark = pytest.mark.slow

SMALL = """
name: small
environment:
  docker: {image: IMAGE, environment: [[GREETING, hello], [OTHER, '$(x)']]}
entry_points:
  main: {parameters: {word: string}, command: 'cat /which; printf "%s %s\\n" "$GREETING" {word}; cat file.txt'}
  exit: {command: 'cat /which >made; exit 7', outputs: [made]}
  time: {command: 'while true; do cat /which; done >/dev/null', resources: {time: 3s}}
  words: {command: 'shopt -s nullglob; echo x'}
"""


@pytest.fixture(scope="module")
def docker(kubernetes: Kubernetes, base_image: str) -> Iterator[Docker]:
    """The engine that the node has, too."""
    found = Docker(base_image)
    yield found
    found.close()


@pytest.fixture
def registry(tmp_path: Path, docker: Docker) -> Iterator[str]:
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry_at(folder) as address:
        yield address
        docker.forget(address)


@pytest.fixture
def away(cli: Cli, kubernetes: Kubernetes) -> Cli:
    cli.env |= kubernetes.environ
    home(cli).mkdir(exist_ok=True)
    return cli


def on(cli: Cli, **options: object) -> list[str]:
    return ["--backend", "kubernetes", "--backend-config", json.dumps(pod_with(home(cli)) | options)]


def test_an_image_that_has_nothing_but_a_shell(away: Cli, repository: Repository, docker: Docker, registry: str) -> None:
    """No Python, no git, no bash, another C library for all we know.  It is pushed where the cluster gets it, once."""
    image = docker.small("this one\n")
    repository.commit({"runproj.yaml": SMALL.replace("IMAGE", image), "file.txt": "from the commit\n"})
    hostile = 'it\'s "$(x)" `y` $HOME'
    where = on(away, registry=f"{registry}/team")
    done = away("run", repository.url, "-P", f"word={hostile}", *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"this one\nhello {hostile}\nfrom the commit\n"
    run = away.json("runs", "list")["runs"][0]
    ran_in = tags_of(away, run["id"])["runproj.job_image"]
    assert ran_in.startswith(f"{registry}/team/runproj-env@sha256:")
    assert ran_in in away("runs", "show", run["id"]).stdout
    done = away("run", repository.url, "-e", "exit", *where)
    assert done.returncode == 7, done.stderr
    assert "made" in [item["path"] for item in away.json("runs", "artifacts", "@last")["artifacts"]]
    done = away("run", repository.url, "-e", "time", "--grace", "1", *where)
    assert (done.returncode, "timed out" in done.stderr) == (124, True), done.stderr
    done = away("run", repository.url, "-e", "words", *where)
    assert "written for bash, which is not in the image" in done.stderr
    nothing_left(away)


def test_a_pod_that_does_not_see_this_home(
    away: Cli, repository: Repository, docker: Docker, registry: str, tmp_path: Path
) -> None:
    """Its image is named by digest, has a user and modules of its own; what it logs goes to the server."""
    name = f"{registry}/mine:1"
    broken = "RUN mkdir /old && echo 'raise SystemExit(9)' | tee secrets.py typer.py /old/typer.py"
    image = docker.image("WORKDIR /app", broken, "ENV PYTHONPATH=/old", "USER 1234")
    docker.client.images.get(image).tag(name)
    docker.client.images.push(name)
    program = "import os, runproj; runproj.log_metric('loss', 0.5); open('made', 'w'); print(os.getuid(), os.getcwd()[:13])\n"
    project = f"environment: {{docker: {{image: '{name}', shm_size: 64MB}}}}\n"
    project += "entry_points: {main: {command: 'python3 log.py && df /dev/shm | tail -n 1 | cut -d\" \" -f1', outputs: [made]}}\n"
    repository.commit({"runproj.yaml": project, "log.py": program})
    with team_server(home=tmp_path / "server home") as team:
        away.env["RUNPROJ_TRACKING_URI"] = team.url
        template = {**pod_with(home(away)).get("template", {}), "hostNetwork": True}
        config = json.dumps({"image": IMAGE, "python": PYTHON, "template": template})
        done = away("run", repository.url, "--backend", "kubernetes", "--backend-config", config)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("\n1234 /runproj/room\ntmpfs\n")  # of the pod, whose executor speaks too
        run = away.json("runs", "list")["runs"][0]
        assert [(metric["key"], metric["value"]) for metric in run["metrics"]] == [("loss", 0.5)]
        assert "made" in [item["path"] for item in away.json("runs", "artifacts", run["id"])["artifacts"]]


def test_an_image_that_is_in_no_registry_any_more(away: Cli, repository: Repository, registry: str) -> None:
    """The kubelet would try for ever."""
    gone = f"{registry}/gone@sha256:{'0' * 64}"
    text = f"environment: {{docker: {{image: '{gone}'}}}}\nentry_points: {{main: {{command: cat /which}}}}\n"
    repository.commit({"runproj.yaml": text})
    done = away("run", repository.url, *on(away))
    assert done.returncode == 1, done.stderr
    assert "ErrImagePull" in done.stderr or "ImagePullBackOff" in done.stderr
    nothing_left(away)


def test_what_can_not_be_is_said(away: Cli, repository: Repository, docker: Docker, registry: str) -> None:
    image = docker.small("x\n")

    def refused(image: str, more: str = "", **options: object) -> str:
        text = f"environment: {{docker: {{image: '{image}'{more}}}}}\nentry_points: {{main: {{command: cat /which}}}}\n"
        repository.commit({"runproj.yaml": text})
        done = away("run", repository.url, "--trust", *on(away, **options))
        assert done.returncode not in (0, 2), done.stderr
        return done.stderr

    assert "in no registry" in refused(image)
    assert "cannot be pushed to 127.0.0.1:1/x" in refused(image, registry="127.0.0.1:1/x")
    assert "volumes of this machine" in refused(image, ", volumes: ['/etc:/data']", registry=registry)
    assert "shell (HOME)" in refused(image, ", environment: [HOME]", registry=registry)
    argued = away("run", repository.url, "-A", "memory=1g", *on(away, registry=registry))
    assert "-A memory=1g is for containers of this machine" in argued.stderr
    assert [reason_of(run) for run in away.json("runs", "list")["runs"] if run["status"] != "FAILED"] == []
