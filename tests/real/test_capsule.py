"""Capsules, carried to an empty home without a network and repeated there."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import Repository
from support.mlflow import MakeEnvironment
from support.offline import without_network
from support.program import SYSTEM, Cli

VALIDATORS = ("roc-validator==0.13.0", "rocrate==0.16.0", "in-toto-attestation==0.9.3")
EXAMPLES = Path(__file__).resolve().parents[2] / "example_projects"


class Elsewhere(Cli):
    """The program on another machine: an empty home, and no network but loopback."""

    def __init__(self, cli: Cli, home: Path) -> None:
        home.mkdir()
        super().__init__(home)
        self.env = {**cli.env, "HOME": str(home), "RUNPROJ_HOME": str(home / "runproj")}
        self.env.pop("UV_CACHE_DIR", None)

    def command(self, *arguments: str) -> list[str]:
        return without_network(super().command(*arguments))


@pytest.fixture
def elsewhere(cli: Cli, tmp_path: Path) -> Elsewhere:
    return Elsewhere(cli, tmp_path / "else where")


def metrics(view: dict) -> dict[str, float]:
    return {item["key"]: item["value"] for item in view["run"]["metrics"]}


def files(view: dict) -> dict[str, str]:
    return {item["path"]: item["sha256"] for item in view["record"]["outputs"]}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(3000)
def test_the_elastic_net_example_comes_back_without_a_network(
    common_wheels: Path, cli: Cli, elsewhere: Elsewhere, repository: Repository, tmp_path: Path
) -> None:
    shutil.copytree(EXAMPLES, repository.path / "example_projects", ignore=shutil.ignore_patterns("__pycache__"))
    repository.commit({"README.md": "examples\n"})
    first = cli.json("run", f"{repository.url}#example_projects/sklearn_elasticnet", "-P", "alpha=0.4")
    capsule = tmp_path / "capsule.zip"
    exported = cli.json("export", "@last", str(capsule))
    assert exported["complete"] and exported["wheels"] > 20

    shutil.rmtree(repository.path)
    shutil.move(cli.env["RUNPROJ_HOME"], tmp_path / "gone")
    taken = elsewhere("import", str(capsule), "--json")
    assert taken.returncode == 0, taken.stderr
    found = json.loads(taken.stdout)
    assert found["verified"] and found["run"] == first["run"]["id"] and found["wheels"] == exported["wheels"]
    shown = elsewhere.json("runs", "show", "@last")
    for part in ("params", "metrics", "tags", "name", "start", "end", "status"):
        assert shown["run"][part] == first["run"][part], part
    assert shown["plan"] == first["plan"] and shown["record"] == first["record"]

    again = elsewhere("reproduce", found["run"], "--at-least", "R2", "--json")
    assert again.returncode == 0, again.stderr
    verdict = json.loads(again.stdout)
    assert verdict["level"] in ("R4", "R3", "R2")
    assert metrics(elsewhere.json("runs", "show", verdict["replays"][0]["run"])) == metrics(first)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PROJECT = """\
name: rich
entry_points:
  main:
    command: [python, main.py, "{table}"]
    parameters:
      table: {type: path}
    inputs:
      declared: {uri: "URL/declared.txt"}
    outputs: [out]
    metrics: [{file: metrics.json}]
"""
MAIN = """\
import json, os, pathlib, subprocess, sys
import runproj
table = pathlib.Path(sys.argv[1])
parts = {
    "code": open("code.txt").read(),
    "large": open("large.bin").read(100),
    "module": open("libs/inner/inner.txt").read(),
    "input": open(os.environ["RUNPROJ_INPUT_DECLARED"]).read(),
    "table": {str(path.relative_to(table)): path.read_text() for path in sorted(table.rglob("*")) if path.is_file()},
    "tag": subprocess.run(["git", "describe", "--tags"], capture_output=True, text=True).stdout,
}
os.mkdir("out")
json.dump(parts, open("out/it's a \\u00e4 file%20.json", "w"), sort_keys=True)
json.dump({"loss": float("nan"), "acc": 0.1 + 0.2}, open("metrics.json", "w"))
with runproj.start_run(name="inside", nested=True):
    runproj.log_metric("inner", 7)
"""


def rich_project(make_repository, url: str, folder: Path) -> Repository:
    """Submodule, Git LFS, a tag, uncommitted changes, data from an address and from a folder outside."""
    inner = make_repository("inner")
    inner.commit({"inner.txt": "inner"})
    outer = Repository(folder / "outer")  # git-lfs cannot work below a path with a newline
    outer.git("lfs", "install", "--local")
    outer.git("lfs", "track", "*.bin")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner.path), "libs/inner")
    outer.commit(
        {"runproj.yaml": PROJECT.replace("URL", url), "main.py": MAIN, "code.txt": "committed", "large.bin": "large" * 999}
    )
    outer.git("tag", "v1.0")
    outer.commit({"more.txt": "one more"})
    outer.write({"code.txt": "changed", "new.txt": "untracked"})
    return outer


def validated(folder: Path, make: MakeEnvironment) -> dict:
    """What public validators of RO-Crate, in-toto and SLSA say of an unpacked capsule."""
    python = make(VALIDATORS)
    script = Path(__file__).parents[1] / "support/validate_crate.py"
    done = subprocess.run(without_network([str(python), "-I", str(script), str(folder)]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.network
def test_code_data_and_record_of_every_kind_are_carried(
    cli: Cli, make_repository, web: tuple[Path, str], tmp_path: Path, cached_environment: MakeEnvironment
) -> None:
    plain = tmp_path / "plain home"
    plain.mkdir()
    cli.env |= {"HOME": str(plain), "RUNPROJ_HOME": str(plain / "runproj"), "GIT_ALLOW_PROTOCOL": "file:http"}
    elsewhere = Elsewhere(cli, tmp_path / "else where")
    served, url = web
    (served / "declared.txt").write_text("declared")
    table = tmp_path / "tables"
    (table / "deep er").mkdir(parents=True)
    (table / "a.csv").write_text("1,2")
    (table / "deep er" / "b%41.csv").write_text("3,4")
    project = rich_project(make_repository, url, plain)
    ran = cli("run", str(project.path), "-P", f"table={table}", *SYSTEM, "--json")
    assert ran.returncode == 0, ran.stderr
    first = json.loads(ran.stdout)
    capsule, alone = tmp_path / "capsule.zip", tmp_path / "alone.zip"
    exported = cli("export", first["run"]["id"], str(capsule), "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["inputs"] == 2
    assert not any("was not hashed" in note for note in json.loads(exported.stdout)["notes"]), "the record says what it was"
    (served / "declared.txt").write_text("altered since")
    refused = cli("export", first["run"]["id"], str(alone))
    assert refused.returncode == 1 and "is not what the run was given" in refused.stderr and not alone.exists()
    assert cli("export", first["run"]["id"], str(alone), "--no-inputs", "--no-history").returncode == 0

    for path in (project.path, project.path.parent / "runproj", make_repository("inner").path, table):
        shutil.move(path, tmp_path / f"gone {path.name}")
    taken = elsewhere("import", str(capsule), "--json")
    assert taken.returncode == 0, taken.stderr
    found = json.loads(taken.stdout)
    assert found["verified"] and found["transfer"]["runs"] == 2 and found["transfer"]["points"] == 3
    again = elsewhere("rerun", found["run"], "--json")
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert files(second) == files(first)
    assert metrics(second) == {"loss": "NaN", "acc": 0.1 + 0.2}
    third = elsewhere("reproduce", second["run"]["id"], "--json")  # its data has come along
    assert third.returncode == 0 and json.loads(third.stdout)["level"] == "R4", third.stderr
    names = {item["name"] for item in elsewhere.json("runs", "list")["runs"]}
    assert {"inside", first["run"]["name"]} <= names

    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(capsule) as archive:
        archive.extractall(unpacked)
    clone = ["git", "clone", "-q", str(unpacked / "code/0.bundle"), str(tmp_path / "clone")]
    subprocess.run(clone, check=True, env={**cli.env, "GIT_LFS_SKIP_SMUDGE": "1"})
    assert (tmp_path / "clone/code.txt").read_text() == "committed"
    told = validated(unpacked, cached_environment)
    # nobody is named that publishes, no organisation is known, and the code is from a folder
    allowed = ("`publisher` property", "affiliation", "id SHOULD be an absolute URI")
    assert [issue for issue in told["issues"] if not any(words in issue for words in allowed)] == []
    assert told["crate"]["parameters"] == {"table": str(table)}
    assert any(name.endswith("/artifacts/out/it=27s=20a=20=C3=A4=20file=2520.json") for name in told["crate"]["results"])
    assert told["statement"] | {"seconds": 0} == {
        "type": "https://slsa.dev/provenance/v1",
        "build": "urn:runproj:run:v1",
        "dependencies": 5,  # commit, submodule, changes, declared input, folder
        "seconds": 0,
    }

    listed = elsewhere("import", str(alone), "--json", "--dry-run")
    assert listed.returncode == 0, listed.stderr
    with zipfile.ZipFile(capsule) as whole, zipfile.ZipFile(alone) as less:
        assert less.getinfo("code/0.bundle").file_size < whole.getinfo("code/0.bundle").file_size
        assert {name.split("/")[0] for name in whole.namelist()} - {name.split("/")[0] for name in less.namelist()} == {"inputs"}
