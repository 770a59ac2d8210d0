"""Records of MLflow, made by hand in the layouts of several of its ages, come over as they are."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
import sqlite3
import struct
import threading
from collections.abc import Iterable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runproj.core.run import Experiment, Lifecycle, Run, RunChanges, RunStatus, Tag
from runproj.core.tracking import ArtifactInfo
from runproj.core.transfer import Block, MovedRun
from runproj.errors import DamagedError
from runproj.remote import Remote
from runproj.tracking import open_full_store
from runproj.tracking.full import FullStore
from runproj.tracking.restore import Whole
from runproj.transfer import points
from runproj.transfer.files import move_files
from runproj.transfer.intomlruns import IntoMlruns
from runproj.transfer.server import ProxiedTree
from runproj.transfer.trees import FolderTree
from support.program import Cli
from support.team import Team

RUN = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
MODEL = "m-0123456789abcdef0123456789abcdef"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def mlruns(root: Path) -> Path:
    """A small `mlruns` folder as MLflow writes it: two experiments, one of them deleted, a model and a registry."""
    one, gone = root / "7", root / ".trash" / "8"
    write(
        one / "meta.yaml",
        f"artifact_location: {one}\nexperiment_id: '7'\nlifecycle_stage: active\nname: Größe\ncreation_time: 5\n",
    )
    write(one / "tags" / "team", "a\nb")
    write(gone / "meta.yaml", f"artifact_location: {gone}\nexperiment_id: '8'\nlifecycle_stage: deleted\nname: gone\n")
    for folder, run, state in ((one, RUN, "active"), (gone, OTHER, "deleted")):
        meta = f"run_id: {run}\nrun_uuid: {run}\nexperiment_id: '{folder.name}'\nrun_name: first run\nstatus: 4\nstart_time: 10\n"
        meta += f"end_time: 20\nlifecycle_stage: {state}\nuser_id: me\nartifact_uri: file:///somewhere/else/{run}/artifacts\n"
        write(folder / run / "meta.yaml", meta)
        write(folder / run / "params" / "lr", "0.1")
        write(folder / run / "tags" / "mlflow.runName", "first run")
        write(folder / run / "metrics" / "val" / "loss", "1 0.5 0\n2 nan 1\n3 -inf 2\n3 -inf 2\n4 -0.0 3 data name 99\n")
        write(folder / run / "artifacts" / "a folder" / "file.txt", "content")
    write(
        one / "datasets" / "d1" / "meta.yaml",
        "name: train\ndigest: '99'\nsource: s\nsource_type: code\nschema: null\nprofile: p\n",
    )
    write(
        one / RUN / "inputs" / "i1" / "meta.yaml", "source_type: DATASET\nsource_id: d1\ntags:\n  mlflow.data.context: training\n"
    )
    write(one / RUN / "outputs" / MODEL / "meta.yaml", f"source_type: RUN_OUTPUT\nsource_id: {MODEL}\nstep: 3\n")
    model = one / "models" / MODEL
    meta = f"artifact_location: {model}/artifacts\nmodel_id: {MODEL}\nexperiment_id: '7'\nname: net\nstatus: 2\n"
    write(model / "meta.yaml", meta + f"source_run_id: {RUN}\ncreation_timestamp: 30\nlast_updated_timestamp: 40\n")
    write(model / "metrics" / "acc", f"7 0.25 1 {RUN} train set 99\n")
    write(model / "artifacts" / "MLmodel", "flavors: {}")
    registered = root / "models" / "net"
    write(registered / "meta.yaml", "name: net\ndescription: best\ncreation_timestamp: 50\nlast_updated_timestamp: 60\n")
    write(registered / "aliases" / "champion", "1")
    version = f"name: net\nversion: 1\nsource: models:/{MODEL}\nstorage_location: {model}/artifacts\nrun_id: {RUN}\n"
    write(registered / "version-1" / "meta.yaml", version + "current_stage: Production\ncreation_timestamp: 51\n")
    write(registered / "version-2" / "meta.yaml", "name: net\nversion: 2\nsource: x\ncurrent_stage: Deleted_Internal\n")
    return root


def store(cli: Cli) -> FullStore:
    home = Path(cli.env["RUNPROJ_HOME"])
    return open_full_store(f"sqlite:///{home / 'runproj.db'}", home=home)


def test_a_folder_comes_over_with_everything(cli: Cli, tmp_path: Path) -> None:
    source = mlruns(tmp_path / "mlruns")
    report = cli.json("import", str(source))
    assert report["verified"], report
    assert (report["experiments"], report["runs"], report["models"], report["versions"], report["files"]) == (2, 2, 1, 1, 3)
    assert report["losses"] == []
    target = store(cli)
    experiment = target.experiments.named("Größe")
    assert experiment
    assert (experiment.created, [tag.value for tag in experiment.tags]) == (5, ["a\nb"])
    run = target.get_run(RUN)
    assert (run.status, run.start, run.end, run.user, run.lifecycle) == (RunStatus.FAILED, 10, 20, "me", Lifecycle.ACTIVE)
    history = target.history(RUN, "val/loss")
    assert [(point.timestamp, point.step) for point in history] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert [struct.pack("<d", point.value) for point in history[2:]] == [struct.pack("<d", value) for value in (-math.inf, -0.0)]
    assert math.isnan(history[1].value)
    lineage = target.lineages.of([RUN])[RUN]
    assert (lineage.datasets[0].dataset.name, lineage.models_out[0].model_id, lineage.models_out[0].step) == ("train", MODEL, 3)
    model = target.models.get(MODEL)
    assert (model.metrics[0].dataset_name, model.metrics[0].dataset_digest, model.created) == ("train set", "99", 30)
    version = target.registry.aliased("net", "champion")
    assert (version.storage, version.stage.value, version.created) == (model.artifact_uri, "Production", 51)
    gone = target.experiments.named("gone")
    assert gone and gone.lifecycle is target.get_run(OTHER).lifecycle is Lifecycle.DELETED


def test_numbers_of_deleted_versions_are_not_given_again(cli: Cli, tmp_path: Path) -> None:
    from runproj.core.models import ModelVersion

    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    assert store(cli).versions.create(ModelVersion("net", 0, "s", "s", 0, 0)).version == 3


def test_what_is_there_is_kept_and_what_is_new_is_taken(cli: Cli, tmp_path: Path) -> None:
    source = mlruns(tmp_path / "mlruns")
    cli.json("import", str(source))
    write(source / "7" / RUN / "metrics" / "late", "9 1.5 0\n")
    write(source / "7" / RUN / "tags" / "new", "tag")
    report = cli.json("import", str(source))
    assert sorted(item["state"] for item in report["items"]) == ["copied", "kept", "kept"]
    target = store(cli)
    assert [point.value for point in target.history(RUN, "late")] == [1.5]
    assert len(target.history(RUN, "val/loss")) == 4
    assert sorted(found.name for found in Whole(target.database).experiments()) == ["Default", "Größe", "gone"]


def test_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    report = cli.json("import", str(mlruns(tmp_path / "mlruns")), "--dry-run")
    assert (report["runs"], report["points"], report["dry_run"]) == (2, 8, True)
    assert store(cli).experiments.named("Größe") is None


def test_one_experiment_under_another_name(cli: Cli, tmp_path: Path) -> None:
    source = mlruns(tmp_path / "mlruns")
    store(cli).experiments.create("Größe")
    report = cli.json("import", str(source), "--experiment", "Größe", "--suffix", " (old)")
    assert (report["experiments"], report["registered_models"]) == (1, 1)
    target = store(cli)
    made = target.experiments.named("Größe (old)")
    assert made and target.get_run(RUN).experiment_id == made.id
    assert target.experiments.named("gone") is None
    again = cli.json("import", str(source), "--experiment", "Größe", "--suffix", " (old)")
    assert {item["state"] for item in again["items"]} == {"kept"}


def test_folders_outside_of_the_source_are_not_read(cli: Cli, tmp_path: Path) -> None:
    """A record from elsewhere cannot make us copy what it has no business with."""
    source, secret = mlruns(tmp_path / "mlruns"), tmp_path / "secret"
    write(secret / "key", "secret")
    meta = source / "7" / RUN / "meta.yaml"
    meta.write_text(meta.read_text().replace(f"file:///somewhere/else/{RUN}/artifacts", str(secret)))
    artifacts = source / "7" / RUN / "artifacts"
    (artifacts / "a folder" / "file.txt").unlink()
    (artifacts / "a folder").rmdir()
    artifacts.rmdir()
    (source / "7" / "models" / MODEL / "artifacts" / "link").symlink_to(secret / "key")
    report = cli.json("import", str(source))
    assert not [file for item in report["items"] for file in item["files"] if file["path"] in ("key", "link")]
    assert [loss for loss in report["losses"] if str(secret) in loss["why"]]
    assert [loss for loss in report["losses"] if "link" in loss["what"]]
    allowed = cli.json("import", str(source), "--artifacts", str(secret))
    files = {file["path"]: file["sha256"] for item in allowed["items"] for file in item["files"]}
    assert files["key"] == hashlib.sha256(b"secret").hexdigest()


def test_a_damaged_history_is_told_and_the_rest_comes_over(cli: Cli, tmp_path: Path) -> None:
    source = mlruns(tmp_path / "mlruns")
    write(source / "7" / RUN / "metrics" / "broken", "1 one 0\n")
    result = cli("import", str(source), "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert {item["id"]: item["state"] for item in report["items"]} == {RUN: "wrong", OTHER: "copied", MODEL: "copied"}


OLD = """
CREATE TABLE alembic_version (version_num VARCHAR(32));
INSERT INTO alembic_version VALUES ('acf3f17fdcc7');
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, artifact_location TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, user_id TEXT, status TEXT, start_time BIGINT, end_time BIGINT,
    lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);
INSERT INTO experiments VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active'), (3, 'old', 'mlflow-artifacts:/3', 'active');
INSERT INTO runs VALUES ('{run}', '', NULL, 'FINISHED', 10, 20, 'active', 'mlflow-artifacts:/3/{run}/artifacts', 3);
INSERT INTO tags VALUES ('mlflow.runName', 'from a tag', '{run}');
INSERT INTO params VALUES ('lr', '0.1', '{run}');
INSERT INTO metrics VALUES ('loss', 0, 1, '{run}', 0, 1), ('loss', 2, 2, '{run}', 1, 0), ('a', 1e300, 2, '{run}', -5, 0);
"""


def test_an_old_database_comes_over(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript(OLD.replace("{run}", RUN))
    connection.close()
    before = path.read_bytes()
    write(tmp_path / "kept by the server" / "3" / RUN / "artifacts" / "model.bin", "bytes")
    without = cli.json("import", str(path))
    assert [loss["what"] for loss in without["losses"]] == [f"files of run {RUN}"]
    report = cli.json("import", f"sqlite:///{path}", "--artifacts", str(tmp_path / "kept by the server"))
    assert report["verified"] and not report["losses"] and report["files"] == 1
    target = store(cli)
    assert target.get_run(RUN).name == "from a tag"
    assert math.isnan(target.history(RUN, "loss")[0].value)
    assert [point.step for point in target.history(RUN, "a")] == [-5]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "words"),
    [("nothing", "There is no"), ("file.txt", "cannot be read as a database"), ("other.db", "is not a database of MLflow")],
)
def test_what_is_no_record_is_refused(cli: Cli, tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "file.txt").write_text("not a database" * 100)
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    result = cli("import", str(tmp_path / source))
    assert result.returncode == 2
    assert words in result.stderr


def test_fingerprints_do_not_depend_on_how_a_history_is_cut() -> None:
    run = Run(RUN, "0", "name", RunStatus.FINISHED, 1)
    rows = [(1, 1, 0.5, 0), (2, 2, 0.0, 1), (3, 3, math.inf, 0)]
    whole = points.fingerprint(run, [Block("a", rows), Block("b", rows)], exact=True)
    cut = points.fingerprint(run, [Block("a", rows[:1]), Block("a", rows[1:]), Block("b", rows)], exact=True)
    other = points.fingerprint(run, [Block("a", rows), Block("b", rows[:2])], exact=True)
    assert whole == cut != other


def test_a_folder_goes_out_and_comes_back_bit_by_bit(cli: Cli, tmp_path: Path) -> None:
    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    first = store(cli)
    odd = 'quotes " and \\ and \u2028 and \U0001f600 and #: - {}\n\ttab'
    first.experiments.create(odd)
    report = cli.json("export", str(tmp_path / "out"))
    assert report["verified"] and report["files"] == 3
    back = f"sqlite:///{tmp_path / 'back.db'}"
    assert cli.json("import", str(tmp_path / "out"), "--into", back)["verified"]
    second = open_full_store(back, home=tmp_path)
    assert second.experiments.named(odd)
    for run in (RUN, OTHER):
        one, other = (list(Whole(found.database).points(run)) for found in (first, second))
        assert one == other and len(one[0].points) == 4
    one, other = first.models.get(MODEL), second.models.get(MODEL)
    assert replace(one, metrics=()) == replace(other, metrics=())
    assert one.metrics[0].metric == other.metrics[0].metric  # its dataset has a name that MLflow's files cannot hold
    assert first.registry.get("net") == second.registry.get("net")
    assert first.lineages.of([RUN]) == second.lineages.of([RUN])


def test_a_database_of_another_schema_is_not_written(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript(OLD.replace("{run}", RUN))
    connection.close()
    before = path.read_bytes()
    store(cli).experiments.get("0")
    result = cli("export", str(path))
    assert result.returncode == 2
    assert "mlflow db upgrade" in result.stderr and "acf3f17fdcc7" in result.stderr
    assert path.read_bytes() == before
    missing = cli("export", str(tmp_path / "new.db"))
    assert missing.returncode == 2 and "mlflow db upgrade" in missing.stderr
    assert not (tmp_path / "new.db").exists()


def test_a_dry_export_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    assert cli.json("export", str(tmp_path / "out"), "--dry-run")["runs"] == 2
    assert not (tmp_path / "out").exists()


def test_what_the_target_has_of_its_own_is_not_written(cli: Cli, tmp_path: Path) -> None:
    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    target = store(cli)
    copy = str(shutil.copytree(tmp_path / "mlruns", tmp_path / "copy" / "mlruns"))
    same = cli.json("import", copy, "--suffix", "-2")
    assert same["verified"], same
    told = {(item["kind"], item["id"]): (item["state"], item["experiment"]) for item in same["items"]}
    assert told == {("run", RUN): ("there", "Größe"), ("run", OTHER): ("there", "gone"), ("model", MODEL): ("there", "Größe")}
    target.update(RUN, RunChanges(tags=(Tag("team", "edited"),)))
    for more in ([], ["--dry-run"], ["--suffix", "-2"]):
        result = cli("import", copy, *more)
        assert result.returncode == 1, result.stdout
        assert f"run {RUN}, there already in experiment Größe and left so: 2 tags instead of 1" in result.stdout
    assert target.get_run(RUN).tag("team") == "edited"
    assert [found.name for found in Whole(target.database).experiments()] == ["Default", "Größe", "gone"]
    write(tmp_path / "copy" / "mlruns" / "7" / "new" / "meta.yaml", "run_id: new\nexperiment_id: '7'\nstatus: 3\nstart_time: 9\n")
    items = cli.json("import", copy, "--suffix", "-2")["items"]
    assert {item["id"]: item["state"] for item in items} == {RUN: "differs", OTHER: "there", MODEL: "there", "new": "copied"}
    made = target.experiments.named("Größe-2")
    assert made and target.get_run("new").experiment_id == made.id


def test_changed_files_and_models_of_the_target_are_told(cli: Cli, tmp_path: Path) -> None:
    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    copy = shutil.copytree(tmp_path / "mlruns", tmp_path / "copy" / "mlruns")
    write(copy / "7" / RUN / "artifacts" / "a folder" / "file.txt", "another")
    write(copy / "7" / "models" / MODEL / "tags" / "new", "tag")
    report = cli.json("import", str(copy))
    problems = {item["id"]: item["problems"] for item in report["items"]}
    assert not report["verified"] and problems[OTHER] == []
    assert problems[RUN][0].startswith("a folder/file.txt: sha256") and problems[MODEL] == ["0 tags instead of 1"]
    assert store(cli).models.get(MODEL).tags == ()


def test_a_server_gets_its_own_names_of_runs_that_are_named(cli: Cli, tmp_path: Path, team: Team) -> None:
    source = mlruns(tmp_path / "mlruns")
    late = "abcdef0123456789abcdef0123456789"
    meta = (source / "7" / RUN / "meta.yaml").read_text().replace(RUN, late)
    write(source / "7" / late / "meta.yaml", meta.replace("start_time: 10", "start_time: 15"))
    write(source / "7" / RUN / "tags" / "mlflow.parentRunId", late)
    write(source / "7" / late / "tags" / "mlflow.parentRunId", OTHER)  # in the experiment after this one
    write(source / ".trash" / "8" / OTHER / "tags" / "runproj.rerun_of", "lost")
    cli.json("import", str(source))
    report = cli.json("export", team.url)
    assert report["verified"], report
    assert [(loss["what"], "run lost" in loss["why"]) for loss in report["losses"]] == [
        (f"tag runproj.rerun_of of run {OTHER}", True)
    ]
    names = {item["id"]: item["target"] for item in report["items"]}
    for run, parent in ((RUN, late), (late, OTHER)):
        found = team.ok("GET", "runs/get", run_id=names[run])["run"]["data"]["tags"]
        assert {"key": "mlflow.parentRunId", "value": names[parent]} in found
    model = team.ok("GET", f"logged-models/{names[MODEL]}")["model"]["info"]
    version = team.ok("GET", "model-versions/get", name="net", version="1")["model_version"]
    assert model["source_run_id"] == version["run_id"] == names[RUN]
    assert {item["state"] for item in cli.json("export", team.url)["items"]} == {"kept"}


class Sloppy(BaseHTTPRequestHandler):
    """A server whose answers are not what they say."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.endswith("cut"):
            self.send_header("Content-Length", "1000000")
        if self.path.endswith("digest"):
            self.send_header("Repr-Digest", f"sha-256=:{base64.b64encode(hashlib.sha256(b'other').digest()).decode()}:")
        self.end_headers()
        self.wfile.write(b"x" * 500_000)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("path", "words"), [("cut", "after 500000 of 1000000 bytes"), ("digest", "sent bytes with sha256")])
def test_a_download_that_is_not_what_the_server_says_is_no_file(tmp_path: Path, path: str, words: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sloppy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        remote = Remote(f"http://127.0.0.1:{server.server_port}", {})
        tree = ProxiedTree(remote, "1/run/artifacts")
        with pytest.raises(DamagedError, match=words):
            tree.fetch(path, tmp_path / "file")
        assert tree.fetch("well", tmp_path / "file").stat().st_size == 500_000
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_that_is_shorter_than_listed_is_told(tmp_path: Path) -> None:
    class Listed(FolderTree):
        def files(self) -> Iterable[ArtifactInfo]:
            return [replace(info, size=10) for info in super().files()]

    write(tmp_path / "from" / "file", "short")
    target = IntoMlruns(tmp_path / "mlruns")
    made = target.run(MovedRun(Run(RUN, "1", "name", RunStatus.FINISHED, 1)), target.make(Experiment("1", "e", ""), "e"), ())
    files, problems = move_files(Listed(tmp_path / "from"), target, made, tmp_path)
    assert (files, problems) == ((), ("file: 5 bytes instead of 10, which its listing tells",))


def test_another_version_of_a_number_is_told_and_left(cli: Cli, tmp_path: Path) -> None:
    cli.json("import", str(mlruns(tmp_path / "mlruns")))
    copy = shutil.copytree(tmp_path / "mlruns", tmp_path / "copy" / "mlruns")
    assert cli.json("import", str(copy))["losses"] == []
    other = "abcdef0123456789abcdef0123456789"
    shutil.move(copy / "7" / RUN, copy / "7" / other)
    for path in (copy / "7" / other / "meta.yaml", copy / "models" / "net" / "version-1" / "meta.yaml"):
        path.write_text(path.read_text().replace(RUN, other))
    for more in (["--dry-run"], [], ["--into", f"sqlite:///{tmp_path / 'fresh.db'}"], []):
        result = cli("import", str(copy), "--json", *more)
        report, fresh = json.loads(result.stdout), "--into" in more
        assert (result.returncode, report["verified"], report["versions"]) == ((0, True, 1) if fresh else (1, False, 0)), report
        told = [loss for loss in report["losses"] if loss["differs"]]
        why = f"the target has another version 1, of run {RUN}"
        assert told == ([] if fresh else [{"what": "version 1 of 'net'", "why": why, "count": 1, "differs": True}])
    assert store(cli).registry.aliased("net", "champion").run_id == RUN
    out = str(tmp_path / "mlruns")  # the store's first source, where it is the other way round
    assert cli("export", out).returncode == 0
    assert cli("export", str(copy)).returncode == 1
    assert other in (copy / "models" / "net" / "version-1" / "meta.yaml").read_text()


def test_an_alias_that_means_something_else_is_told_and_left(cli: Cli, tmp_path: Path, team: Team) -> None:
    source = mlruns(tmp_path / "mlruns")
    registered = source / "models" / "net"
    text = (registered / "version-1" / "meta.yaml").read_text()
    write(registered / "version-2" / "meta.yaml", text.replace("version: 1", "version: 2").replace("51", "52"))
    into_server = ("import", str(source), "--into", team.url)
    assert cli("import", str(source)).returncode == 0
    cli(*into_server)  # the server is that of other tests too: runs may differ
    (registered / "aliases" / "champion").write_text("2")
    for command in (("import", str(source)), into_server):
        result = cli(*command)
        why = "alias 'champion' of 'net': the target means version 1 by it and not 2, and it stays so"
        assert (result.returncode, why in result.stdout) == (1, True), result.stdout
    assert store(cli).registry.aliased("net", "champion").version == 1
    assert cli("export", str(source)).returncode == 1
    assert (registered / "aliases" / "champion").read_text() == "2"


def test_another_version_on_a_server_is_told(cli: Cli, tmp_path: Path, team: Team) -> None:
    source = mlruns(tmp_path / "mlruns")
    for _ in range(2):  # the server is that of other tests too: runs may differ
        losses = json.loads(cli("import", str(source), "--into", team.url, "--json").stdout)["losses"]
        assert not [loss for loss in losses if loss["differs"]]
    team.ok("POST", "registered-models/rename", name="net", new_name="first")
    team.ok("POST", "registered-models/create", name="net")
    team.ok("POST", "model-versions/create", name="net", source="s3://bucket/elsewhere")
    result = cli("import", str(source), "--into", team.url)
    assert result.returncode == 1 and "agrees" not in result.stdout
    assert "version 1 of 'net': the target has another version 1, of s3://bucket/elsewhere" in result.stdout


def test_new_ids_and_shared_experiments_are_told(cli: Cli, tmp_path: Path, team: Team) -> None:
    source = mlruns(tmp_path / "mlruns")
    assert cli.json("import", str(source), "--into", f"sqlite:///{tmp_path / 'one.db'}")["notes"] == []
    told = cli("import", str(source), "--into", team.url).stdout
    assert "The server chose new ids" in told and "runproj.imported_from" in told
    store(cli).experiments.create("Größe")
    for more, word in ((["--dry-run"], "would go"), ([], "went")):
        (note,) = cli.json("import", str(source), *more)["notes"]
        assert f"'Größe' {word} into experiment 'Größe', which the target had already" in note
    assert cli.json("import", str(source))["notes"] == []


@pytest.mark.parametrize("command", ["import", "export"])
@pytest.mark.parametrize("place", ["", " ", "itself", "a link"])
def test_nothing_and_the_store_itself_are_no_other_place(cli: Cli, tmp_path: Path, command: str, place: str) -> None:
    store(cli).experiments.get("0")
    path = Path(cli.env["RUNPROJ_HOME"]) / "runproj.db"
    (tmp_path / "link.db").symlink_to(path)
    result = cli(command, {"itself": str(path), "a link": f"sqlite:///{tmp_path / 'link.db'}"}.get(place, place))
    assert result.returncode == 2
    assert ("is empty" if not place.strip() else "Source and target are the same") in result.stderr
    assert not (path.parent / "transfers").exists()


def test_a_dry_run_counts_files(cli: Cli, tmp_path: Path) -> None:
    source = str(mlruns(tmp_path / "mlruns"))
    counted = [cli.json("import", source, *more) for more in (["--dry-run"], [], ["--dry-run"])]
    assert [(report["files"], report["bytes"]) for report in counted] == [(3, 25)] * 3


def test_a_server_named_in_the_command_is_not_looked_for_in_variables(cli: Cli) -> None:
    result = cli("import", "http://127.0.0.1:9")
    assert result.returncode and "cannot be reached" in result.stderr and "TRACKING_URI" not in result.stderr
