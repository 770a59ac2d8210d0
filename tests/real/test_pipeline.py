"""Entry points that need others, run as their users run them: what runs, what is reused, what is killed and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import jsonschema
import pytest

from conftest import Repository
from support.program import SYSTEM, Cli
from support.waiting import until

EXAMPLE = Path(__file__).parents[2] / "example_projects" / "pipeline"
SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "run-pipeline.schema.json").read_text())
THREE = {
    "runproj.yaml": r"""
entry_points:
  prepare:
    parameters: {rows: {type: int, default: 5}, note: {type: string, default: x}}
    command: [sh, -c, 'mkdir -p out/more; seq $1 > "out/da ta.csv"; echo "$1" > out/more/n', sh, "{rows}"]
    outputs: [out]
  train:
    parameters: {lr: {type: float, default: 0.1}, key: {type: secret, required: false}}
    inputs:
      table: {from: prepare, path: out/da ta.csv}
      all: {from: prepare, path: out}
    command: [sh, -c, 'echo "$1 $(wc -l < "$RUNPROJ_INPUT_TABLE") $(cat out/more/n)" > model.txt', sh, "{lr}"]
    outputs: model.txt
  evaluate:
    inputs: {model: {from: train, path: model.txt}}
    command: [sh, -c, 'read lr rows n < model.txt; echo "score=$rows"; echo "rate=$lr"; ls']
    metrics: ['(?P<name>score|rate)=(?P<value>\S+)']
  alone: {command: 'true'}
""",
    "out/more/old": "the code has this name too\n",
}


@pytest.fixture
def three(repository: Repository) -> Repository:
    repository.commit(THREE)
    return repository


def piped(cli: Cli, project: Repository | str, *arguments: str, code: int = 0) -> dict:
    """The document of a pipeline that was run."""
    where = project if isinstance(project, str) else project.url
    result = cli("run", where, "-e", "evaluate", *SYSTEM, "--json", *arguments)
    assert result.returncode == code, result.stderr
    view = json.loads(result.stdout)
    jsonschema.validate(view, SCHEMA)
    assert view["exit_code"] == code
    return view


def states(view: dict) -> dict[str, str]:
    return {step["step"]: step["state"] for step in view["steps"]}


def reasons(view: dict) -> dict[str, str]:
    return {step["step"]: step["why"] for step in view["steps"]}


def run_of(view: dict, step: str) -> str:
    return next(item["run"] for item in view["steps"] if item["step"] == step)


def runs(cli: Cli) -> list[dict]:
    return cli.json("runs", "list", "-n", "1000")["runs"]


def tags(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def metrics(run: dict) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in run["metrics"]}


def test_what_has_not_changed_is_not_run_again(cli: Cli, three: Repository) -> None:
    first = piped(cli, three)
    assert set(states(first).values()) == {"finished"}
    assert set(reasons(first).values()) == {"never run"}
    known = {run["id"]: run for run in runs(cli)}
    assert len(known) == 4
    parent = known[first["run"]]
    assert (parent["status"], metrics(parent)) == ("FINISHED", {"score": 5, "rate": 0.1})
    assert tags(parent)["runproj.steps"] == "3"
    for step in first["steps"]:
        child = known[step["run"]]
        assert (tags(child)["mlflow.parentRunId"], tags(child)["runproj.pipeline"]) == (first["run"], first["run"])
        assert tags(child)["mlflow.project.entryPoint"] == step["step"]
    shown = cli("runs", "logs", run_of(first, "evaluate")).stdout
    assert "model.txt" in shown

    second = piped(cli, three)
    assert set(states(second).values()) == {"reused"}
    assert second["run"] is None
    assert [step["run"] for step in second["steps"]] == [step["run"] for step in first["steps"]]
    assert len(runs(cli)) == 4

    third = piped(cli, three, "-P", "lr=0.5", "-P", "key=hush-hush")
    assert states(third) == {"prepare": "reused", "train": "finished", "evaluate": "finished"}
    assert reasons(third)["train"] == "lr: 0.1 → 0.5, key (secret)"
    assert reasons(third)["evaluate"] == "input model (of train)"
    parent = cli.json("runs", "show", third["run"])
    assert {param["key"]: param["value"] for param in parent["run"]["params"]} == {"lr": "0.5"}
    assert "runproj/pipeline.json" in {item["path"] for item in parent["artifacts"]}
    document = cli.home / "documents"
    assert cli("runs", "artifacts", third["run"], "runproj/pipeline.json", "--download", str(document)).returncode == 0
    (stored,) = document.rglob("pipeline.json")
    assert json.loads(stored.read_text()) == third
    assert not subprocess.run(["grep", "-rl", "hush-hush", cli.env["RUNPROJ_HOME"]], capture_output=True, text=True).stdout

    fourth = piped(cli, three, "-P", "note=other")
    assert states(fourth) == {"prepare": "finished", "train": "reused", "evaluate": "reused"}
    assert metrics(cli.json("runs", "show", fourth["run"])["run"])["rate"] == 0.1


def test_a_dry_run_tells_what_would_run_and_why(cli: Cli, three: Repository) -> None:
    before = cli("plan", three.url, "-e", "evaluate", *SYSTEM)
    assert before.stdout.count("would run") == before.stdout.count("never run") == 3
    assert runs(cli) == []
    piped(cli, three)
    view = piped(cli, three, "-P", "rows=7", "--dry-run")
    assert (view["status"], view["run"]) == ("PLANNED", None)
    assert states(view) == {"prepare": "run", "train": "open", "evaluate": "open"}
    assert reasons(view)["train"] == "if prepare comes out changed"
    view = piped(cli, three, "-P", "rows=7", "-P", "lr=2", "--dry-run")
    assert states(view) == {"prepare": "run", "train": "run", "evaluate": "open"}
    assert reasons(view) | {"evaluate": ""} == {"prepare": "rows: 5 → 7", "train": "lr: 0.1 → 2", "evaluate": ""}
    assert states(piped(cli, three, "--force", "-n")) == dict.fromkeys(states(view), "run")
    view = piped(cli, three, "--from", "train", "-n")
    assert states(view) == {"prepare": "reused", "train": "run", "evaluate": "run"}
    assert reasons(view)["evaluate"] == "asked for (--from train)"
    other = json.loads(cli("plan", three.url, "-e", "evaluate", "--env-manager", "virtualenv", "--json", "--offline").stdout)
    assert reasons(other)["prepare"] == "environment"
    assert len(runs(cli)) == 4


def test_other_code_is_a_reason_and_uncommitted_changes_are_code(cli: Cli, three: Repository) -> None:
    first = piped(cli, str(three.path))
    three.write({"notes.md": "nothing to do with it\n"})
    dirty = piped(cli, str(three.path), "-n")
    assert reasons(dirty)["prepare"] == "code: notes.md"
    (three.path / "notes.md").unlink()
    assert set(states(piped(cli, str(three.path))).values()) == {"reused"}
    three.commit({"a.py": "1\n", "b.py": "2\n", "c.py": "3\n"})
    second = piped(cli, str(three.path), "-n")
    assert reasons(second)["prepare"] == "code: a.py, b.py and 1 more"
    three.git("reset", "-q", "--hard", "HEAD~1")
    assert [step["run"] for step in piped(cli, str(three.path))["steps"]] == [step["run"] for step in first["steps"]]


SCOPED = {
    "runproj.yaml": r"""
entry_points:
  prepare:
    parameters: {words: {type: path, default: words.txt}}
    code: [prepare.sh, lib]
    inputs: {table: {path: data/table.csv}}
    command: sh prepare.sh
    outputs: out.txt
  evaluate: {code: "*.sh", inputs: {all: {from: prepare, path: out.txt}}, command: sh evaluate.sh}
  typing: {code: [lib, prepre.sh], inputs: {all: {from: prepare, path: out.txt}}, command: 'true'}
""",
    "prepare.sh": ". lib/deep/more.sh\n",
    "lib/deep/more.sh": "echo 1 > out.txt\n",
    "evaluate.sh": "cat out.txt\n",
    "data/table.csv": "1\n",
    "words.txt": "a\n",
}


def test_a_step_may_say_which_files_are_its_code(cli: Cli, repository: Repository) -> None:
    repository.commit({f"sub dir/{name}": text for name, text in SCOPED.items()})
    where = f"{repository.path}#sub dir"
    before = piped(cli, where)
    (repository.path / "sub dir" / "notes.md").write_text("nothing to do with it")
    assert set(states(piped(cli, where)).values()) == {"reused"}
    (repository.path / "sub dir" / "evaluate.sh").write_text("cat out.txt out.txt\n")
    changed = piped(cli, where)
    assert (states(changed), run_of(changed, "prepare")) == (
        {"prepare": "reused", "evaluate": "finished"},
        run_of(before, "prepare"),
    )
    assert reasons(changed)["evaluate"] == "code: evaluate.sh"
    (repository.path / "sub dir" / "lib" / "deep" / "more.sh").write_text("echo 2 > out.txt\n")
    assert reasons(piped(cli, where, "-n"))["prepare"] == "code: lib/deep/more.sh"
    (repository.path / "sub dir" / "prepare.sh").chmod(0o755)
    assert "prepare.sh" in reasons(piped(cli, where, "-n"))["prepare"]
    (repository.path / "sub dir" / "data" / "table.csv").write_text("2\n")
    (repository.path / "sub dir" / "words.txt").write_text("b\n")
    assert reasons(piped(cli, where, "-n"))["prepare"].startswith("code: data/table.csv, ")
    repository.git("checkout", "-q", ".")
    assert set(states(piped(cli, where)).values()) == {"reused"}
    wrong = cli("run", where, "-e", "typing", *SYSTEM)
    assert wrong.returncode == 125
    assert "No file of the project is 'prepre.sh'" in wrong.stderr


def test_a_run_of_a_step_alone_is_as_good_as_one_of_a_pipeline(cli: Cli, three: Repository) -> None:
    assert cli("run", three.url, "-e", "prepare", *SYSTEM).returncode == 0
    alone = runs(cli)[0]["id"]
    view = piped(cli, three)
    assert (states(view)["prepare"], run_of(view, "prepare")) == ("reused", alone)
    cli("runs", "delete", alone)
    deleted = piped(cli, three, "-n")
    assert states(deleted) == {"prepare": "run", "train": "open", "evaluate": "open"}
    cli("runs", "delete", "--restore", alone)
    for path in (Path(cli.env["RUNPROJ_HOME"]) / "artifacts").rglob("da ta.csv"):
        path.unlink()
    lost = piped(cli, three, "-n")
    assert reasons(lost)["prepare"] == f"out/da ta.csv of run {alone[:8]} is gone"


def test_a_run_of_a_step_is_run_again_and_reproduced_as_any_other(cli: Cli, three: Repository, tmp_path: Path) -> None:
    view = piped(cli, three)
    train, prepare = run_of(view, "train"), run_of(view, "prepare")
    plan = cli.json("runs", "show", train)["plan"]
    table = next(spec for spec in plan["entry_point"]["inputs"] if spec["name"] == "table")
    assert (table["step"], table["run"], len(table["sha256"])) == ("prepare", prepare, 64)
    again = cli("rerun", train, "-P", "lr=3", "--json")
    assert again.returncode == 0, again.stderr
    assert cli("reproduce", train).returncode == 0
    capsule = tmp_path / "train.zip"
    assert cli("export", train, str(capsule)).returncode == 0
    bare = tmp_path / "bare.zip"
    assert cli("export", train, str(bare), "--no-inputs").returncode == 0
    elsewhere = Cli(cli.home)
    elsewhere.env["RUNPROJ_HOME"] = str(tmp_path / "elsewhere")
    assert elsewhere("import", str(capsule)).returncode == 0
    there = elsewhere("reproduce", train)
    assert there.returncode == 0, there.stderr
    assert states(piped(elsewhere, three, "-n")) == dict.fromkeys(states(view), "run")  # a stranger's word is not taken

    without = Cli(cli.home)
    without.env["RUNPROJ_HOME"] = str(tmp_path / "without")
    piped(without, three)  # has all that the capsule could name
    assert without("import", str(bare)).returncode == 0
    refused = without("rerun", train)
    assert refused.returncode == 125
    assert "did not come with the capsule" in refused.stderr
    refused = without("rerun", "@last")
    assert "did not come with the capsule" in refused.stderr

    for path in (Path(cli.env["RUNPROJ_HOME"]) / "artifacts").rglob("da ta.csv"):
        path.unlink()
    gone = cli("rerun", train)
    assert gone.returncode == 125
    assert f"'out/da ta.csv' of run {prepare[:8]} is gone" in gone.stderr


def test_one_that_goes_on_by_itself(cli: Cli, three: Repository) -> None:
    begun = cli("run", three.url, "-e", "evaluate", "--detach", *SYSTEM)
    assert begun.returncode == 0, begun.stderr
    run_id = begun.stdout.strip()
    assert f"runproj runs stop {run_id[:8]}" in begun.stderr
    assert cli("wait", run_id).returncode == 0
    view = cli.json("runs", "show", run_id)
    assert [(step["step"], step["state"]) for step in view["steps"]] == [
        *((name, "finished") for name in ("prepare", "train", "evaluate"))
    ]
    until(lambda: "FINISHED in" in cli("runs", "logs", run_id).stdout)  # which is said last of all
    told = cli("runs", "logs", run_id).stdout
    assert told.count("  finished  ") == 3 and "FINISHED in" in told
    again = cli("run", three.url, "-e", "evaluate", "--detach", "--json", *SYSTEM)
    assert (again.returncode, json.loads(again.stdout)["run"]) == (0, None), again.stderr
    assert not list((Path(cli.env["RUNPROJ_HOME"]) / "cache").glob("pipeline-*"))


def test_one_that_cannot_begin_by_itself_says_why_as_any_other_command_does(cli: Cli, three: Repository) -> None:
    asked = ("run", three.url, "-e", "evaluate", "-P", "lrr=1", "--json", *SYSTEM)
    here, away = cli(*asked), cli(*asked, "--detach")
    assert (away.returncode, json.loads(away.stdout)) == (here.returncode, json.loads(here.stdout)), away.stderr
    assert away.stderr.count("No step of 'evaluate'") == 1


def test_a_cache_on_another_disk_does_not_keep_it_from_going_on(cli: Cli, three: Repository) -> None:
    home = Path(cli.env["RUNPROJ_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        assert Path(disk).stat().st_dev != home.stat().st_dev
        (home / "cache").symlink_to(disk)
        begun = cli("run", three.url, "-e", "evaluate", "--detach", *SYSTEM)
        assert begun.returncode == 0, begun.stderr
        assert cli("wait", begun.stdout.strip()).returncode == 0
        until(lambda: "FINISHED in" in cli("runs", "logs", begun.stdout.strip()).stdout)
        told = cli("runs", "logs", begun.stdout.strip()).stdout
        assert told.count("  finished  ") == 3 and told.startswith("source ") and "FINISHED in" in told
        assert not list(Path(disk).glob("pipeline-*"))


def test_one_that_goes_on_by_itself_and_is_killed_is_closed_by_the_next_command(
    cli: Cli, repository: Repository, tmp_path: Path
) -> None:
    repository.commit(SLOW)
    asked = ("run", repository.url, "-e", "evaluate", *SYSTEM, "-P", f"there={tmp_path}")
    run_id = cli(*asked, "--detach").stdout.strip()
    deadline = time.monotonic() + 300
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    active = [json.loads(path.read_text()) for path in (Path(cli.env["RUNPROJ_HOME"]) / "active").glob("*.json")]
    (pid,) = (lease["process"]["pid"] for lease in active if run_id == lease["run_id"])
    os.kill(pid, signal.SIGKILL)
    shown = cli.json("runs", "show", run_id)["run"]
    assert (shown["status"], "vanished" in tags(shown)["runproj.reason"]) == ("FAILED", True), shown
    slow = next(run for run in runs(cli) if tags(run)["mlflow.project.entryPoint"] == "slow")
    assert slow["status"] == "RUNNING"  # it goes on, and is taken over
    (tmp_path / "go").touch()
    view = piped(cli, repository, "-P", f"there={tmp_path}")
    assert states(view) in ({"first": "reused", "slow": how, "evaluate": "finished"} for how in ("finished", "reused"))
    assert run_of(view, "slow") == slow["id"]
    nothing_left(cli)


def test_a_folder_with_names_of_modules_does_not_disturb_it(cli: Cli, repository: Repository) -> None:
    """The command is given again in the user's folder, which is not a place of modules."""
    steps = "  first: {command: 'true'}\n  evaluate: {needs: [first], command: 'true'}\n"
    broken = dict.fromkeys(("secrets.py", "typer.py"), "raise SystemExit(9)\n")
    repository.commit({"runproj.yaml": f"entry_points:\n{steps}", **broken})
    begun = cli("run", ".", "-e", "evaluate", "--detach", *SYSTEM, cwd=repository.path)
    assert begun.returncode == 0, begun.stderr
    assert cli("wait", begun.stdout.strip()).returncode == 0


def test_ctrl_c_before_it_is_told_leaves_nothing_that_goes_on(cli: Cli, three: Repository) -> None:
    begun = cli.start("run", three.url, "-e", "evaluate", "--detach", *SYSTEM)
    logs = Path(cli.env["RUNPROJ_HOME"]) / "cache"
    deadline = time.monotonic() + 300
    while not list(logs.glob("pipeline-*")) and begun.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    begun.send_signal(signal.SIGINT)
    told, _ = begun.communicate(timeout=300)
    if begun.returncode == 0:  # it had been told before that
        cli("wait", told.strip())
    assert {run["status"] for run in cli.json("runs", "list")["runs"]} <= {"KILLED", "FINISHED"}
    assert not list(logs.glob("pipeline-*"))


def test_one_that_goes_on_by_itself_is_stopped(cli: Cli, repository: Repository) -> None:
    steps = "  first: {command: 'true', outputs: []}\n  evaluate: {needs: [first], command: 'sleep 60'}\n"
    repository.commit({"runproj.yaml": f"entry_points:\n{steps}"})
    run_id = cli("run", repository.url, "-e", "evaluate", "--detach", *SYSTEM).stdout.strip()
    assert cli("runs", "stop", run_id).returncode == 0
    ends = {
        run["name"]: (run["status"], [t for t in run["tags"] if "reason" in t["key"]]) for run in cli.json("runs", "list")["runs"]
    }
    assert {status for status, _ in ends.values()} <= {"KILLED", "FINISHED"}, ends
    assert cli.json("runs", "show", run_id)["run"]["status"] == "KILLED"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-e", "evaluate", "-P", "lrr=1"], ["No step of 'evaluate'", "'lrr'", "Did you mean 'lr'?", "lr (train)"]),
        (["-e", "evaluate", "-P", "lr=x"], ["'lr'", "float"]),
        (["-e", "evaluate", "--from", "trian"], ["no step 'trian'", "Did you mean 'train'?"]),
        (["-e", "evaluate", "--detach", "-P", "lrr=1"], ["No step of 'evaluate'", "'lrr'"]),
        (["-e", "evaluate", "--repeat", "2"], ["--repeat", "single run"]),
        (["-e", "alone", "--from", "train"], ["'alone'", "needs no other"]),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_starts(
    cli: Cli, three: Repository, arguments: list[str], words: list[str]
) -> None:
    result = cli("run", three.url, *SYSTEM, *arguments)
    assert result.returncode == 2, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    checkouts = Path(cli.env["RUNPROJ_HOME"]) / "checkouts"
    assert not checkouts.exists() or not list(checkouts.iterdir())


def test_other_commands_say_that_it_is_a_pipeline(cli: Cli, three: Repository) -> None:
    swept = cli("sweep", three.url, "-e", "evaluate", "-P", "lr=1,2", *SYSTEM)
    assert swept.returncode == 2
    assert "needs 'train'" in swept.stderr
    assert "-e evaluate` runs them" in swept.stderr
    assert cli("ci", three.url, "-e", "evaluate", *SYSTEM).returncode == 2
    view = piped(cli, three, "-j", "1")
    again = cli("rerun", view["run"])
    assert again.returncode == 1
    assert "is a pipeline" in again.stderr


DATA = {
    "runproj.yaml": r"""
entry_points:
  prepare:
    parameters: {file: path}
    inputs: {more: {path: PLACE}}
    command: [sh, -c, 'cat "$1" "$RUNPROJ_INPUT_MORE" > all.txt', sh, "{file}"]
    outputs: all.txt
  log: {needs: prepare, command: 'true'}
  evaluate:
    needs: log
    inputs: {all: {from: prepare, path: all.txt}}
    command: cat all.txt
  remote:
    needs: prepare
    inputs: {far: "https://nobody.invalid/x"}
    command: 'true'
"""
}


def test_data_outside_of_the_code_decides_too(cli: Cli, repository: Repository, tmp_path: Path) -> None:
    file, more = tmp_path / "file", tmp_path / "more"
    file.write_text("1")
    more.write_text("2")
    repository.commit({"runproj.yaml": DATA["runproj.yaml"].replace("PLACE", str(more))})
    given = ("-P", f"file={file}")
    piped(cli, repository, *given)
    assert set(states(piped(cli, repository, *given)).values()) == {"reused"}
    more.write_text("3")
    changed = piped(cli, repository, *given)
    assert reasons(changed) == {
        "prepare": "input more",
        "log": "prepare ran again",
        "evaluate": "input all (of prepare), log ran again",
    }
    file.write_text("4")
    assert reasons(piped(cli, repository, *given, "-n"))["prepare"] == "parameter file"
    file.write_text("1")
    more.write_text("2")
    assert set(states(piped(cli, repository, *given)).values()) == {"reused"}
    far = cli("run", repository.url, "-e", "remote", *SYSTEM, *given, "-n")
    assert "input far comes from nobody.invalid and may have changed (give it a sha256)" in far.stdout


DIAMOND = {
    "runproj.yaml": r"""
entry_points:
  first: {command: 'echo 1 > first.txt', outputs: first.txt}
  left:
    parameters: {code: {type: int, default: 0}}
    inputs: {one: {from: first, path: first.txt}}
    command: [sh, -c, 'echo "what went wrong" >&2; echo 2 > left.txt; exit $1', sh, "{code}"]
    outputs: left.txt
  right: {inputs: {one: {from: first, path: first.txt}}, command: 'sleep 0.5; echo 3 > right.txt', outputs: right.txt}
  after: {needs: right, command: 'true'}
  evaluate:
    needs: after
    inputs: {l: {from: left, path: left.txt}, r: {from: right, path: right.txt}}
    command: cat left.txt right.txt
  careless: {command: 'true', outputs: nothing.txt}
  lost: {inputs: {x: {from: careless, path: nothing.txt}}, command: 'true'}
"""
}


def test_a_failed_step_stops_what_needs_it_and_nothing_else(cli: Cli, repository: Repository) -> None:
    repository.commit(DIAMOND)
    result = cli("run", repository.url, "-e", "evaluate", *SYSTEM, "-P", "code=7")
    assert result.returncode == 7
    lines = [line.split() for line in result.stderr.splitlines()]
    assert [line[:2] for line in lines if line[:1] and line[0] in ("first", "left", "right", "after", "evaluate")] == [
        ["first", "finished"],
        ["left", "failed"],
        ["evaluate", "skipped"],
        ["right", "finished"],
        ["after", "finished"],
    ]
    assert "what went wrong" in result.stderr
    assert "runproj runs logs -a" in result.stderr
    parent = next(run for run in runs(cli) if "runproj.steps" in tags(run))
    assert (parent["status"], tags(parent)["runproj.reason"]) == ("FAILED", "left: exit code 7")
    again = piped(cli, repository, "-P", "code=7", "-n")
    assert reasons(again)["left"] == "it failed last time"
    good = piped(cli, repository)
    assert states(good) == {"first": "reused", "left": "finished", "right": "reused", "after": "reused", "evaluate": "finished"}
    lost = cli("run", repository.url, "-e", "lost", *SYSTEM)
    assert lost.returncode == 125
    assert "'careless' left no nothing.txt" in lost.stderr


MEETING = {
    "runproj.yaml": r"""
entry_points:
  a: {parameters: {there: string}, command: [sh, meet.sh, "{there}", a, b], outputs: a.txt}
  b: {parameters: {there: string}, command: [sh, meet.sh, "{there}", b, a], outputs: b.txt}
  evaluate: {inputs: {a: {from: a, path: a.txt}, b: {from: b, path: b.txt}}, command: 'true'}
""",
    "meet.sh": 'touch "$1/$2"; for i in $(seq 200); do [ -e "$1/$3" ] && echo met > $2.txt && exit 0; sleep 0.1; done; exit 9\n',
}


def test_steps_that_need_not_wait_run_together(cli: Cli, repository: Repository, tmp_path: Path) -> None:
    repository.commit(MEETING)
    assert set(states(piped(cli, repository, "-j", "2", "-P", f"there={tmp_path}")).values()) == {"finished"}


SLOW = {
    "runproj.yaml": r"""
entry_points:
  first: {command: 'echo 1 > first.txt', outputs: first.txt}
  slow:
    parameters: {there: string}
    inputs: {one: {from: first, path: first.txt}}
    command: [sh, -c, 'touch "$1/begun"; while [ ! -e "$1/go" ]; do sleep 0.05; done; echo 2 > slow.txt', sh, "{there}"]
    outputs: slow.txt
  evaluate: {inputs: {x: {from: slow, path: slow.txt}}, command: cat slow.txt}
"""
}


def begun(cli: Cli, project: Repository, there: Path, *arguments: str) -> subprocess.Popen[str]:
    """A pipeline whose second step runs."""
    process = cli.start("run", project.url, "-e", "evaluate", *SYSTEM, "-P", f"there={there}", *arguments)
    deadline = time.monotonic() + 300
    while not (there / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def waits(process: subprocess.Popen[str]) -> None:
    """Read what a pipeline says until it waits for another one's run."""
    assert process.stderr
    assert any("it runs already" in line for line in process.stderr)


def nothing_left(cli: Cli) -> None:
    for name in ("active", "runs", "checkouts"):
        folder = Path(cli.env["RUNPROJ_HOME"]) / name
        assert not folder.exists() or not list(folder.iterdir()), name


def test_ctrl_c_stops_all_of_it_and_the_same_command_goes_on(cli: Cli, repository: Repository, tmp_path: Path) -> None:
    repository.commit(SLOW)
    process = begun(cli, repository, tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    found = {tags(run)["mlflow.project.entryPoint"]: run for run in runs(cli) if "runproj.pipeline" in tags(run)}
    parent = next(run for run in runs(cli) if "runproj.steps" in tags(run))
    assert [found["first"]["status"], found["slow"]["status"], parent["status"]] == ["FINISHED", "KILLED", "KILLED"]
    nothing_left(cli)
    (tmp_path / "go").touch()
    view = piped(cli, repository, "-P", f"there={tmp_path}")
    assert states(view) == {"first": "reused", "slow": "finished", "evaluate": "finished"}
    assert reasons(view)["slow"] == "it was stopped last time"


def test_a_pipeline_that_is_killed_is_closed_and_what_it_had_running_is_taken_over(
    cli: Cli, repository: Repository, tmp_path: Path
) -> None:
    repository.commit(SLOW)
    process = begun(cli, repository, tmp_path)
    process.kill()
    process.communicate()
    parent = next(run for run in runs(cli) if "runproj.steps" in tags(run))
    assert parent["status"] == "FAILED"
    slow = next(run for run in runs(cli) if tags(run)["mlflow.project.entryPoint"] == "slow")
    assert slow["status"] == "RUNNING"
    other = cli.start("run", repository.url, "-e", "evaluate", *SYSTEM, "-P", f"there={tmp_path}", "--json")
    waits(other)
    (tmp_path / "go").touch()
    out, said = other.communicate(timeout=60)
    assert other.returncode == 0, said
    view = json.loads(out)
    assert states(view) == {"first": "reused", "slow": "finished", "evaluate": "finished"}
    assert run_of(view, "slow") == slow["id"]
    nothing_left(cli)


def test_two_at_once_run_a_step_once_and_one_that_is_stopped_leaves_it_to_the_other(
    cli: Cli, repository: Repository, tmp_path: Path
) -> None:
    repository.commit(SLOW)
    first = begun(cli, repository, tmp_path)
    command = ("run", repository.url, "-e", "evaluate", *SYSTEM, "-P", f"there={tmp_path}")
    second, third = cli.start(*command), cli.start(*command)
    waits(second)
    waits(third)
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 130, said
    (tmp_path / "go").touch()
    for process in (first, third):
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    counted = [tags(run)["mlflow.project.entryPoint"] for run in runs(cli) if "runproj.pipeline" in tags(run)]
    assert sorted(counted) == ["evaluate", "first", "slow"]
    nothing_left(cli)


def test_a_step_that_dies_is_known_to_have(cli: Cli, repository: Repository, tmp_path: Path) -> None:
    repository.commit(SLOW)
    process = begun(cli, repository, tmp_path)
    slow = next(run for run in runs(cli) if tags(run)["mlflow.project.entryPoint"] == "slow")
    (lease,) = (
        json.loads(path.read_text())
        for path in (Path(cli.env["RUNPROJ_HOME"]) / "active").glob("*.json")
        if slow["id"] in path.read_text()
    )
    os.kill(lease["process"]["pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "lost: its executor vanished" in said
    nothing_left(cli)


def test_a_step_may_name_its_backend_or_a_profile(cli: Cli, repository: Repository, background: Path) -> None:
    """Its inputs come with the job: its executor has a store of its own."""
    files = dict(THREE)
    files["runproj.yaml"] = files["runproj.yaml"].replace("  train:\n", "  train:\n    backend: far\n")
    repository.commit(files)
    cli.env["PYTHONPATH"] = str(background)
    unknown = cli("run", repository.url, "-e", "evaluate", *SYSTEM)
    assert unknown.returncode == 2
    assert "There is no backend 'far'" in unknown.stderr
    (Path(cli.env["RUNPROJ_HOME"]) / "config.toml").write_text('[profiles.far]\nbackend = "background"\nnice = 3\n')
    view = piped(cli, repository)
    assert [step["backend"] for step in view["steps"]] == ["local", "background", "local"]
    assert metrics(cli.json("runs", "show", view["run"])["run"]) == {"score": 5, "rate": 0.1}
    here = piped(cli, repository, "--backend", "local", "--force")
    assert {step["backend"] for step in here["steps"]} == {"local"}
    nothing_left(cli)
    assert not list((Path(cli.env["RUNPROJ_HOME"]) / "parcels").iterdir())


def test_the_example_does_what_its_page_says(cli: Cli, repository: Repository) -> None:
    shutil.copytree(EXAMPLE, repository.path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    repository.commit({})
    first = piped(cli, f"{repository.url}#pipeline")
    values = metrics(cli.json("runs", "show", first["run"])["run"])
    assert values["rmse_curve"] < 0.25 < values["rmse_line"]
    second = piped(cli, f"{repository.url}#pipeline", "-P", "degree=5")
    assert states(second) == {"prepare": "reused", "fit_line": "reused", "fit_curve": "finished", "evaluate": "finished"}
