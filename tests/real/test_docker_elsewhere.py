"""Containers of a real engine that sees none of this machine's folders: everything goes there, and comes back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import Repository
from runproj import ferry
from support.cluster import reason_of
from support.docker import Docker, FarEngine
from support.placing import nothing_left
from support.program import Cli

pytestmark = pytest.mark.slow

PROJECT = """
name: far
environment:
  docker: {image: IMAGE}
entry_points:
  main:
    parameters: {data: {type: path, default: data/a b}}
    command: python3 train.py {data}
    inputs: {table: data/a b}
    outputs: ["made/**"]
  log: {command: [python3, log.py]}
  exit: {command: [python3, -c, "open('made/left', 'w').write('left'); import sys; sys.exit(7)"], outputs: ["made/*"]}
  endless: {command: [python3, endless.py]}
  memory: {command: [python3, -c, "x = bytearray(300_000_000)"], resources: {memory: 64MB}}
"""
FILES = {
    "data/a b": "from the project\n",
    "made/before": "gone at the end\n",
    "train.py": (
        "import os, pathlib, sys\n"
        "import runproj\n"
        "print(os.getcwd(), os.getuid(), os.environ['RUNPROJ_INPUT_TABLE'])\n"
        "print(open(sys.argv[1]).read(), end='')\n"
        "runproj.log_metric('loss', 0.25)\n"
        "made = pathlib.Path('made')\n"
        "(made / 'before').unlink(); (made / 'deep').mkdir()\n"
        "(made / 'deep' / 'model.bin').write_bytes(b'weights' * 1000)\n"
        "os.link(made / 'deep' / 'model.bin', made / 'same.bin'); os.symlink('/etc/passwd', made / 'link')\n"
        "runproj.log_artifact('made/deep/model.bin', 'logged')\n"
    ),
    "log.py": (
        "import json, os, urllib.request\n"
        "body = {'run_id': os.environ['MLFLOW_RUN_ID'], 'key': 'by_mlflow', 'value': 2.5, 'timestamp': 1, 'step': 0}\n"
        "url = os.environ['MLFLOW_TRACKING_URI'] + '/api/2.0/mlflow/runs/log-metric'\n"
        "head = {'Authorization': 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'], 'Content-Type': 'application/json'}\n"
        "urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head), timeout=10).read()\n"
    ),
    "endless.py": "import time\nprint('begun', flush=True)\ntime.sleep(300)\n",
}


@pytest.fixture
def project(repository: Repository, base_image: str) -> Repository:
    repository.commit({**FILES, "runproj.yaml": PROJECT.replace("IMAGE", base_image)})
    return repository


@pytest.fixture
def away(cli: Cli, far_engine: FarEngine) -> Cli:
    """The program, with the engine by TLS."""
    cli.env |= {"DOCKER_HOST": far_engine.url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(far_engine.certificates)}
    return cli


def gone(far_engine: FarEngine) -> None:
    """Nothing is left there."""
    deadline = time.monotonic() + 300
    while left := [*far_engine.client.containers.list(all=True, ignore_removed=True), *far_engine.client.volumes.list()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def files_of(cli: Cli, run_id: str) -> dict[str, int]:
    found = cli.json("runs", "artifacts", run_id)["artifacts"]
    return {item["path"]: item["size"] for item in found if not item["path"].startswith(("logs", "runproj"))}


def test_it_is_the_same_run_as_with_an_engine_of_this_machine(
    away: Cli, project: Repository, far_engine: FarEngine, tmp_path: Path
) -> None:
    data = tmp_path / 'given "data" $(x)'
    data.write_text("given\n")
    outputs = []
    for environ in (dict(away.env), {**os.environ, "RUNPROJ_HOME": away.env["RUNPROJ_HOME"]}):
        away.env = environ
        done = away("run", project.url, "-P", f"data={data}")
        assert done.returncode == 0, done.stderr
        run = away.json("runs", "list")["runs"][0]
        assert [(metric["key"], metric["value"]) for metric in run["metrics"]] == [("loss", 0.25)]
        outputs.append((done.stdout, files_of(away, run["id"])))
    assert outputs[0] == outputs[1]
    said, files = outputs[0]
    assert said == f"/runproj/code {os.getuid()} /runproj/code/data/a b\ngiven\n"
    assert files == {"logged/model.bin": 7000, "made/deep/model.bin": 7000, "made/same.bin": 7000}
    gone(far_engine)
    nothing_left(away)


def test_how_it_ended_and_what_it_left(away: Cli, project: Repository, far_engine: FarEngine) -> None:
    done = away("run", project.url, "-e", "exit")
    assert done.returncode == 7, done.stderr
    assert files_of(away, away.json("runs", "list")["runs"][0]["id"]) == {"made/before": 16, "made/left": 4}
    done = away("run", project.url, "-e", "memory")
    assert (done.returncode, "more memory than its container may" in done.stderr) == (137, True)
    done = away("run", project.url, "-e", "endless", "--timeout", "1s")
    assert done.returncode == 124, done.stderr
    gone(far_engine)


def test_a_project_that_speaks_to_the_tracking_server(away: Cli, project: Repository, far_engine: FarEngine) -> None:
    """By an address that containers there reach this machine at."""
    done = away("run", project.url, "-e", "log", "-A", f"reach={far_engine.address}")
    assert done.returncode == 0, done.stderr
    assert [metric["key"] for metric in away.json("runs", "show", "@last")["run"]["metrics"]] == ["by_mlflow"]
    assert "-A reach" not in done.stderr
    assert "-A reach=ADDRESS" in away("run", project.url, "-e", "exit").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_whoever_started_it(away: Cli, project: Repository, far_engine: FarEngine, number: int) -> None:
    process = away.start("run", project.url, "-e", "endless")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    (run,) = away.json("runs", "list")["runs"]
    away("wait", run["id"])
    assert away.json("runs", "show", run["id"])["run"]["status"] in ("KILLED", "FAILED")
    gone(far_engine)
    nothing_left(away)


def test_what_can_not_be_is_said(away: Cli, project: Repository, far_engine: FarEngine, tmp_path: Path) -> None:
    refused = away("run", project.url, "-A", f"volume={tmp_path}:/data")
    assert refused.returncode == 125 and "does not see the folders of this machine" in refused.stderr
    assert reason_of(away.json("runs", "list")["runs"][0])
    away.env["DOCKER_HOST"] = "ssh://me@box:2222"
    refused = away("run", project.url)
    assert refused.returncode == 125 and "ssh -fNT" in refused.stderr and "-p 2222 me@box" in refused.stderr
    gone(far_engine)


def test_a_context_and_a_socket_that_is_brought_here(cli: Cli, project: Repository, far_engine: FarEngine) -> None:
    """Of a socket it is noted what its engine sees; files that belong to whoever runs it are no sign that it does."""
    config, name = Path(cli.env["HOME"]) / ".docker", "box"
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": f"unix://{far_engine.socket}"}}}))
    cli.env.pop("DOCKER_HOST", None)
    cli.env["DOCKER_CONTEXT"] = name
    for _ in range(2):
        done = cli("run", project.url)
        assert done.returncode == 0, done.stderr
        assert "does not see this machine's folders" in done.stderr
    assert [path.read_text() for path in (Path(cli.env["RUNPROJ_HOME"]) / "cache" / "engines").iterdir()] == ["no"]


def test_an_engine_of_this_machine_is_asked_once(cli: Cli, project: Repository, engine: Docker) -> None:
    del engine
    for _ in range(2):
        assert cli("run", project.url, "-e", "exit").returncode == 7
    assert [path.read_text() for path in (Path(cli.env["RUNPROJ_HOME"]) / "cache" / "engines").iterdir()] == ["yes"]


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Members as (name, kind, link or content)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(text)
            else:
                member.linkname = text
            made.addfile(member, io.BytesIO(text.encode()) if kind == tarfile.REGTYPE else None)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    "members",
    [
        [("code/../../evil", tarfile.REGTYPE, "x")],
        [("/evil", tarfile.REGTYPE, "x")],
        [("code/a", tarfile.SYMTYPE, "OUTSIDE"), ("code/a/evil", tarfile.REGTYPE, "x")],
        [("code/a", tarfile.SYMTYPE, "OUTSIDE"), ("code/a/evil", tarfile.SYMTYPE, "x")],
        [("code/a", tarfile.LNKTYPE, "code/../../outside/there")],
        [("code/a", tarfile.REGTYPE, "x"), ("code/a", tarfile.REGTYPE, "y")],
    ],
    ids=["above", "absolute", "through a link", "link through a link", "hard link", "twice"],
)
def test_what_comes_back_stays_in_its_folder(tmp_path: Path, members: Sequence[tuple[str, bytes, str]]) -> None:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "there").write_text("as it was")
    told = [(name, kind, text.replace("OUTSIDE", str(outside))) for name, kind, text in members]
    with pytest.raises((ferry.Refused, OSError)):
        ferry.unpack(archive(*told), str(inside))
    assert [path.name for path in outside.iterdir()] == ["there"]
    assert (outside / "there").stat().st_nlink == 1
    assert not (tmp_path / "evil").exists()


def test_links_and_pipes_that_have_several_names(tmp_path: Path) -> None:
    """As `cp -al` makes them."""
    told = [
        ("code/link", tarfile.SYMTYPE, "nowhere"),
        ("code/again", tarfile.LNKTYPE, "code/link"),
        ("code/pipe", tarfile.FIFOTYPE, ""),
        ("code/pipe too", tarfile.LNKTYPE, "code/pipe"),
    ]
    inside = tmp_path / "in"
    inside.mkdir()
    ferry.unpack(archive(*told), str(inside))
    assert {path.name: str(path.readlink()) for path in inside.iterdir()} == {"link": "nowhere", "again": "nowhere"}


def test_an_archive_that_was_cut_between_two_files_is_not_taken(tmp_path: Path) -> None:
    whole = archive(("code/a", tarfile.REGTYPE, "x"), ("code/b", tarfile.REGTYPE, "y")).getvalue()
    with pytest.raises(ferry.Refused):
        ferry.unpack(io.BytesIO(whole[: 2 * tarfile.BLOCKSIZE]), str(tmp_path))
