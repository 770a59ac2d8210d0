"""Capsules at the command line: taken in once, whole, and never more than their run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from runproj.core.capsule import MANIFEST
from support.program import SYSTEM, Cli
from support.team import team_server

FILES = {
    "runproj.yaml": "name: small\nentry_points: {main: {command: [python, main.py], outputs: [out.txt]}}\n",
    "main.py": "import runproj\nrunproj.log_metrics({'a': 1.5})\nopen('out.txt', 'w').write('out')\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A capsule, and the id of its run."""
    home = tmp_path_factory.mktemp(HOSTILE.replace("\n", ""))
    cli = Cli(home)
    cli.env |= {"HOME": str(home), "RUNPROJ_HOME": str(home / "runproj"), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig")}
    (home / ".gitconfig").write_text("[user]\n name = Test\n email = test@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "GIT_CONFIG_GLOBAL"):
            patch.setenv(name, cli.env[name])
        repository = Repository(home / "project")
        repository.commit(dict(FILES))
    run = cli.json("run", repository.url, *SYSTEM)["run"]["id"]
    exported = cli("export", run[:8], str(home / "capsule.zip"))
    assert exported.returncode == 0, exported.stderr
    assert "does not hold it" in exported.stderr and "0 packages" in exported.stdout
    return home / "capsule.zip", run


def changed(capsule: Path, target: Path, change: Callable[[dict], None], files: dict[str, bytes] | None = None) -> Path:
    """A capsule that says something else, and agrees with itself."""
    with zipfile.ZipFile(capsule) as source, zipfile.ZipFile(target, "w") as archive:
        manifest = json.loads(source.read(MANIFEST))
        content = {name: source.read(name) for name in source.namelist()} | (files or {})
        told = json.loads(content.pop("provenance.json"))
        del content[MANIFEST]
        manifest["files"] = [
            {"path": name, "size": len(data), "sha256": sha256(data).hexdigest()} for name, data in content.items()
        ]
        change(manifest)
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr(MANIFEST, json.dumps(manifest))
        told["subject"][0]["digest"]["sha256"] = sha256(json.dumps(manifest).encode()).hexdigest()
        archive.writestr("provenance.json", json.dumps(told))
    return target


def test_taken_in_twice_it_is_there_once(cli: Cli, made: tuple[Path, str]) -> None:
    capsule, run = made
    looked = cli.json("import", str(capsule), "--dry-run")
    assert looked["verified"] and cli.json("runs", "list")["runs"] == []
    for state in ("copied", "kept"):
        found = cli.json("import", str(capsule))
        assert found["run"] == run and found["verified"]
        assert [item["state"] for item in found["transfer"]["items"]] == [state]
    assert [item["id"] for item in cli.json("runs", "list")["runs"]] == [run]
    again = cli.json("rerun", run, "--offline")
    assert again["run"]["status"] == "FINISHED" and again["plan"]["rerun_of"] == run


def test_a_run_is_carried_from_a_server_to_a_server(cli: Cli, project: Repository, tmp_path: Path) -> None:
    project.commit({"runproj.yaml": FILES["runproj.yaml"], "main.py": FILES["main.py"]})
    capsule = tmp_path / "capsule.zip"
    with team_server(home=tmp_path / "served") as team:
        served = {"RUNPROJ_TRACKING_URI": team.url}
        cli.env |= served
        run = cli.json("run", project.url, *SYSTEM)
        assert cli("export", run["run"]["id"], str(capsule)).returncode == 0
        del cli.env["RUNPROJ_TRACKING_URI"]
        found = cli.json("import", str(capsule))
        assert found["verified"] and found["run"] == run["run"]["id"]
        assert cli.json("runs", "show", found["run"])["run"]["metrics"] == run["run"]["metrics"]
        again = cli.json("import", str(capsule), "--into", team.url)
        assert again["verified"] and again["run"] != found["run"]
        cli.env |= served
        assert cli.json("reproduce", again["run"])["level"] == "R4"


def test_a_run_that_was_changed_here_stays_as_it_is(cli: Cli, made: tuple[Path, str], tmp_path: Path) -> None:
    capsule, run = made
    cli.json("import", str(capsule))
    with zipfile.ZipFile(capsule) as archive:
        record = archive.read(f"runs/{run}/run.json").replace(b'"1.5"', b'"1.6"').replace(b'"FINISHED"', b'"FAILED"')
    other = changed(capsule, tmp_path / "other.zip", lambda manifest: None, {f"runs/{run}/run.json": record})
    result = cli("import", str(other), "--json")
    assert result.returncode == 1
    assert [item["state"] for item in json.loads(result.stdout)["transfer"]["items"]] == ["differs"]
    assert cli.json("runs", "show", run)["run"]["status"] == "FINISHED"


def bundle_elsewhere(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["bundle"] = "../../../../evil"


def other_commit(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["commit"] = "0" * 40


def option_as_commit(manifest: dict) -> None:
    manifest["code"]["repositories"][0]["commit"] = "--upload-pack=touch evil"


def lfs_elsewhere(manifest: dict) -> None:
    manifest["code"]["lfs"] = ["../../evil"]


def wheel_elsewhere(manifest: dict) -> None:
    wheel = {"path": "wheels/../../evil.whl", "sha256": "0" * 64}
    manifest["environment"]["wheels"] = [wheel]


def wheel_of_elsewhere(manifest: dict) -> None:
    wheel = {"path": manifest["files"][0]["path"], "sha256": manifest["files"][0]["sha256"], "of": "../evil"}
    manifest["environment"]["wheels"] = [wheel]


def missing_input(manifest: dict) -> None:
    file = {"path": "../evil", "size": 1, "sha256": "0" * 64}
    manifest["inputs"] = [{"kind": "input", "name": "x", "uri": "x", "sha256": "", "files": [file], "folder": True}]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("run.json", b'"created": ', b'"created": 9999999999999999999999'),
        ("run.json", b'"start": ', b'"start": -9999999999999999999999'),
        ("metrics.jsonl", b'["a",', b'["a",9999999999999999999999'),
        ("metrics.jsonl", b",1.5,0]", b',"NaN",0]'),
        ("metrics.jsonl", b",1.5,0]", b",1.5,7]"),
        ("metrics.jsonl", b'["a",', b"{"),
    ],
)
def test_a_record_that_no_store_can_hold_is_refused(
    cli: Cli, made: tuple[Path, str], tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    capsule, run = made
    place = f"runs/{run}/{name}"
    with zipfile.ZipFile(capsule) as archive:
        content = archive.read(place)
    assert old in content
    other = changed(capsule, tmp_path / "other.zip", lambda manifest: None, {place: content.replace(old, new, 1)})
    result = cli("import", str(other))
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr


def run_elsewhere(manifest: dict) -> None:
    manifest["run"], manifest["runs"] = "../../evil", ["../../evil"]


def mark_elsewhere(manifest: dict) -> None:
    manifest["run"] = "../../evil"


def unnamed_run(manifest: dict) -> None:
    manifest["runs"] = []


def content_elsewhere(manifest: dict) -> None:
    wheel = {"path": "wheels/a-1-py3-none-any.whl", "sha256": "../../evil"}
    manifest["environment"]["wheels"] = [wheel]


@pytest.mark.parametrize(
    "change",
    [
        mark_elsewhere,
        unnamed_run,
        bundle_elsewhere,
        other_commit,
        option_as_commit,
        lfs_elsewhere,
        wheel_elsewhere,
        wheel_of_elsewhere,
        missing_input,
        run_elsewhere,
    ],
)
def test_a_manifest_that_means_harm_gets_nothing(
    cli: Cli, made: tuple[Path, str], tmp_path: Path, change: Callable[[dict], None]
) -> None:
    hostile = changed(made[0], tmp_path / "hostile.zip", change)
    result = cli("import", str(hostile), "--trust")
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert cli.json("runs", "list")["runs"] == []
    assert not [path for path in tmp_path.rglob("*evil*") if path.name != "hostile.zip"]
    assert cli.json("import", str(made[0]))["verified"]  # and nothing of it is in the way of the real one


def test_no_content_of_this_machine_is_taken_for_that_of_a_capsule(cli: Cli, made: tuple[Path, str], tmp_path: Path) -> None:
    """What was brought goes with its run: a name that leads elsewhere would take that with it."""
    hostile = changed(made[0], tmp_path / "h.zip", content_elsewhere, {"wheels/a-1-py3-none-any.whl": b"evil"})
    with zipfile.ZipFile(hostile) as archive:
        assert "wheels/a-1-py3-none-any.whl" in archive.namelist()
    refused = cli("import", str(hostile))
    assert refused.returncode == 1 and "a-1-py3-none-any.whl" in refused.stderr
    assert not Path(cli.env["RUNPROJ_HOME"], "capsules", "runs").exists()


def test_every_run_of_a_capsule_is_known_as_a_strangers(
    cli: Cli, repository: Repository, made: tuple[Path, str], tmp_path: Path
) -> None:
    begun = "import runproj\nwith runproj.start_run(nested=True):\n    runproj.log_metrics({'b': 1})\n"
    repository.commit({**FILES, "main.py": begun + FILES["main.py"]})
    run = cli.json("run", repository.url, *SYSTEM)["run"]["id"]
    cli.json("export", run, str(tmp_path / "two.zip"))
    with zipfile.ZipFile(tmp_path / "two.zip") as archive:
        runs = json.loads(archive.read(MANIFEST))["runs"]
    assert len(runs) == 2
    there = Cli(cli.home)
    there.env = {**cli.env, "RUNPROJ_HOME": str(tmp_path / "elsewhere")}
    there.json("import", str(tmp_path / "two.zip"))
    marks = tmp_path / "elsewhere" / "capsules" / "runs"
    assert {path.stem for path in marks.iterdir()} == set(runs)


def test_an_import_that_was_killed_is_completed_by_the_next(cli: Cli, made: tuple[Path, str]) -> None:
    capsule, run = made
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", *cli.command("import", str(capsule))]
    for number in (1, 2, 4, 20):  # the first ones make the database
        inject = ["-e", f"inject=pwrite64:signal=SIGKILL:when={number}"]
        killed = subprocess.run([*command[:5], *inject, *command[5:]], cwd=cli.home, env=cli.env, capture_output=True)
        assert killed.returncode != 0
    result = cli("import", str(capsule), "--json")
    assert result.returncode == 0, result.stderr
    assert cli.json("rerun", run, "--offline")["run"]["status"] == "FINISHED"
    scratch = Path(cli.env["RUNPROJ_HOME"], "cache", "scratch")
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "@last", "capsule"), "no name of a capsule"),
        (("export", "capsule.zip"), "which?"),
        (("export", "@last", "capsule.zip", "--experiment", "x"), "mean nothing"),
        (("export", "folder", "--no-wheels"), "are for capsules"),
        (("import", "capsule.zip"), "There is no"),
        (("import", "capsule.zip", "--experiment", "x"), "holds one run"),
        (("import", "folder", "--trust"), "is no capsule"),
    ],
)
def test_what_has_no_meaning_is_said(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = cli(*arguments)
    assert result.returncode == 2 and said in result.stderr


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two keys of ssh, one of openssl's kind, and one of another algorithm."""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("mine", "ed25519"), ("other", "ed25519"), ("ecdsa", "ecdsa")):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "me", "-f", str(folder / name)], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "geheim", "-f", str(folder / "secret")], check=True)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(folder / "pem")], check=True)
    subprocess.run(["openssl", "pkey", "-in", str(folder / "pem"), "-pubout", "-out", str(folder / "pem.pub")], check=True)
    return folder


def verified_by_openssl(capsule: Path, public: Path, scratch: Path) -> bool:
    """Whether another program finds the signature good, of what DSSE says is signed."""
    with zipfile.ZipFile(capsule) as archive:
        envelope = json.loads(archive.read("provenance.dsse.json"))
        statement = archive.read("provenance.json")
    assert base64.b64decode(envelope["payload"]) == statement
    kind = envelope["payloadType"].encode()
    (scratch / "data").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement))
    (scratch / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    return subprocess.run([*verify, "-in", str(scratch / "data"), "-sigfile", str(scratch / "sig")]).returncode == 0


def test_a_signature_tells_whose_a_capsule_is(cli: Cli, made: tuple[Path, str], keys: Path, tmp_path: Path) -> None:
    capsule, run = made
    cli.json("import", str(capsule))
    signed, pem = tmp_path / "signed.zip", tmp_path / "pem.zip"
    exported = cli.json("export", run, str(signed), "--sign", str(keys / "mine"))
    printed = subprocess.run(["ssh-keygen", "-l", "-f", str(keys / "mine.pub")], check=True, capture_output=True, text=True)
    assert exported["signature"]["key"] == printed.stdout.split()[1]
    cli.json("export", run, str(pem), "--sign", str(keys / "pem"))
    assert verified_by_openssl(pem, keys / "pem.pub", tmp_path)

    named = cli.json("import", str(signed), "--signer", str(keys / "mine.pub"))
    assert named["signature"] == {"key": exported["signature"]["key"], "trusted": True}
    anybody = cli.json("import", str(signed))
    assert anybody["signature"]["trusted"] is False and any("not named" in note for note in anybody["notes"])
    assert cli.json("import", str(pem), "--signer", str(keys / "pem.pub"))["signature"]["trusted"]
    for path, key in ((signed, "other.pub"), (capsule, "mine.pub")):
        refused = cli("import", str(path), "--signer", str(keys / key))
        assert refused.returncode == 1 and "signed" in refused.stderr
    secret = cli.command("export", run, str(tmp_path / "secret.zip"), "--sign", str(keys / "secret"), "--json")
    for passphrase, code in (("geheim", 0), ("falsch", 2)):
        asked = subprocess.run(secret, env=cli.env, input=f"{passphrase}\n", capture_output=True, text=True)
        assert asked.returncode == code, asked.stderr
        (tmp_path / "secret.zip").unlink(missing_ok=True)
    for key in ("ecdsa", "mine.pub", "nothing"):
        assert cli("export", run, str(tmp_path / "x.zip"), "--sign", str(keys / key)).returncode == 2
    assert cli("import", str(signed), "--signer", str(keys / "ecdsa.pub")).returncode == 2


@pytest.mark.parametrize("part", ["manifest.json", "provenance.json", "provenance.dsse.json", "signer.pub"])
def test_a_signed_capsule_cannot_be_changed(cli: Cli, made: tuple[Path, str], keys: Path, tmp_path: Path, part: str) -> None:
    capsule, run = made
    cli.json("import", str(capsule))
    signed, altered = tmp_path / "signed.zip", tmp_path / "altered.zip"
    cli.json("export", run, str(signed), "--sign", str(keys / "mine"))
    with zipfile.ZipFile(signed) as source, zipfile.ZipFile(altered, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, content.replace(b"a", b"b", 1) if name == part else content)
    for signer in ([], ["--signer", str(keys / "mine.pub")]):
        refused = cli("import", str(altered), *signer)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr


def test_what_came_goes_with_the_last_run_that_needs_it(cli: Cli, made: tuple[Path, str], tmp_path: Path) -> None:
    def with_data(manifest: dict) -> None:
        file = {"path": "", "size": 4, "sha256": sha256(b"data").hexdigest()}
        manifest["inputs"] = [{"kind": "input", "name": "x", "uri": "x", "sha256": file["sha256"], "files": [file]}]

    capsule, run = made
    capsule = changed(capsule, tmp_path / "data.zip", with_data, {"inputs/0/data": b"data"})
    home = Path(cli.env["RUNPROJ_HOME"])
    digest = sha256(b"data").hexdigest()
    cli.json("import", str(capsule))
    again = cli.json("rerun", run, "--offline")["run"]["id"]
    for path in (home / "capsules/runs").iterdir():
        os.utime(path, (1, 1))

    def collected(*deleted: str) -> list[str]:
        for one in deleted:
            assert cli("runs", "delete", one).returncode == 0
        removed = cli.json("gc", "--days", "0", "--deleted")["removed"]
        return [what for what in removed if "capsule" in what]

    assert collected() == [] and collected(run) == []  # the rerun has its commit and its lock
    assert (home / "objects" / digest[:2] / digest[2:]).exists()
    assert cli.json("gc", "--days", "0", "-n")["removed"] == []
    assert collected(again) == [f"what came with run {run[:8]} in a capsule"]
    assert not (home / "objects" / digest[:2] / digest[2:]).exists()
    assert not [
        path for path in (home / "capsules").rglob("*") if path.is_file() and ".lock" not in path.name and again not in path.name
    ]
    assert cli.json("import", str(capsule))["verified"]  # and can come again
    assert cli.json("rerun", run, "--offline")["exit_code"] == 0


def test_what_a_capsule_cannot_bring_is_said(cli: Cli, made: tuple[Path, str], tmp_path: Path) -> None:
    needs = {"manager": "virtualenv", "python": "CPython 3.99.1", "platform": "linux-s390x-glibc-2.40"}
    for missing, said in ((needs, "uv python install 3.99.1"), (needs | {"python": ""}, "linux-s390x")):
        capsule = changed(
            made[0], tmp_path / "elsewhere.zip", lambda manifest, more=missing: manifest["environment"].update(more)
        )
        found = cli.json("import", str(capsule), "--dry-run")
        assert any(said in note for note in found["notes"])


def test_packages_that_somebody_built_are_taken_with_trust_or_a_signature(
    cli: Cli, made: tuple[Path, str], keys: Path, tmp_path: Path
) -> None:
    name, of = "wheels/built/abc/thing-1.0-py3-none-any.whl", "1" * 64

    def built(manifest: dict) -> None:
        manifest["environment"]["wheels"] = [{"path": name, "sha256": sha256(b"wheel").hexdigest(), "of": of}]

    capsule = changed(made[0], tmp_path / "built.zip", built, {name: b"wheel"})
    kept = Path(cli.env["RUNPROJ_HOME"], "capsules", "wheels", f"{of}.json")
    left = cli.json("import", str(capsule))
    assert left["wheels"] == 0 and not kept.exists() and any("Left out" in note for note in left["notes"])
    taken = cli.json("import", str(capsule), "--trust")
    assert taken["wheels"] == 1 and json.loads(kept.read_text())["name"] == "thing-1.0-py3-none-any.whl"
