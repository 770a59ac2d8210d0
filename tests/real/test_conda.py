"""conda projects, for real: a channel made here, solved, installed and run without a conda on the machine."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import HOSTILE, Repository
from support.condachannel import MINOR, VERSION, Channel
from support.package_index import PackageIndex
from support.program import Cli

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    """Packages that all tests here start from."""
    channel = Channel(tmp_path_factory.mktemp("channel") / HOSTILE)
    channel.add_python()
    channel.add_module("greet", "1.0")
    channel.add_module("base", "1.0")
    channel.add_module("uses-greet", "1.0", depends=("python", "greet >=1"))
    channel.index()
    return channel


@pytest.fixture
def channel(made: Channel, tmp_path: Path) -> Channel:
    """A copy that the test may change."""
    return Channel(Path(shutil.copytree(made.folder, tmp_path / HOSTILE / "channel", copy_function=os.link)))


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    made = PackageIndex()
    made.add_wheel("fromindex", "1.0", requires=("greet",), fromindex="import greet; V = 'fromindex with greet ' + greet.V\n")
    made.add_wheel("greet", "9.0", greet="V = 'of the index'\n")
    yield made
    made.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / f"runproj {HOSTILE}"


@pytest.fixture
def conda(cli: Cli, home: Path, channel: Channel, index: PackageIndex) -> Cli:
    """The program, for which `conda-forge` is the channel made here."""
    cli.env |= {
        "RUNPROJ_HOME": str(home),
        "RUNPROJ_CONDA_CHANNELS": f"conda-forge={channel.url}",
        "UV_DEFAULT_INDEX": index.url,
        "CONDA_PREFIX": "/of/the/caller",
    }
    return cli


def environment(*dependencies: str, pip: tuple[str, ...] = (), more: str = "") -> str:
    lines = [*dependencies, *([{"pip": list(pip)}] if pip else [])]
    return f"name: x\nchannels: [conda-forge]\ndependencies: {json.dumps(lines)}\n{more}"


def last(cli: Cli) -> dict:
    return cli.json("runs", "show", "@last")


ONE = environment("python", "greet")
SHOW = {"main.py": "import greet; print(greet.V)\n"}
CONDA = ("--env-manager", "conda")
COMMITTED = "2022-06-01T12:00:00+00:00"


def run(cli: Cli, repository: Repository, *more: str) -> subprocess.CompletedProcess[str]:
    return cli("run", repository.url, "-e", "main.py", *more)


def forget_environments(home: Path) -> None:
    shutil.rmtree(home / "envs")


def test_a_conda_project_with_a_pip_section_runs(conda: Cli, repository: Repository, isolated: Path) -> None:
    of_the_user = isolated / f".local/lib/python{MINOR}/site-packages"
    of_the_user.mkdir(parents=True)
    (of_the_user / "greet.py").write_text("V = 'of the user'\n")
    code = "import sys, os, greet, fromindex; print(greet.V, fromindex.V, sys.prefix == os.environ['CONDA_PREFIX'])\n"
    files = {"environment.yml": environment("python", "greet", pip=("fromindex",)), "main.py": code}
    repository.commit(files)
    result = conda("run", repository.url, "-e", "main.py", "--env-manager", "conda")
    assert (result.returncode, result.stdout) == (0, "1.0 fromindex with greet 1.0 True\n"), result.stderr
    lock = last(conda)["plan"]["lock"]
    assert [(item["name"], item["version"], item["channel"]) for item in lock["conda"]] == [
        ("greet", "1.0", "conda-forge"),
        ("python", VERSION, "conda-forge"),
    ]
    assert all(len(item["sha256"]) == 64 for item in lock["conda"])
    assert "fromindex" in lock["pylock"] and 'name = "greet"' not in lock["pylock"], "conda's greet serves pip's package"
    assert "file:" not in json.dumps(lock["conda"])
    assert MINOR in lock["python"]["version"]


def test_a_lock_is_replayed_after_the_channel_has_moved(conda: Cli, repository: Repository, channel: Channel, home: Path) -> None:
    repository.commit({"environment.yml": ONE, **SHOW})
    assert run(conda, repository).stdout == "1.0\n", "auto uses conda where the channel answers"
    first = last(conda)["plan"]["lock"]
    assert first["manager"] == "conda"
    channel.add_module("greet", "2.0", made=datetime.datetime.now(datetime.UTC))
    channel.index()
    forget_environments(home)
    again = conda("rerun", "@last")
    assert (again.returncode, again.stdout) == (0, "1.0\n"), again.stderr
    assert last(conda)["plan"]["lock"] == first
    newer = run(conda, repository, "--relock", "--as-of", "now")
    assert newer.stdout == "2.0\n", newer.stderr
    assert last(conda)["plan"]["lock"]["digest"] != first["digest"]


def test_equal_requests_have_equal_digests_on_another_machine(
    conda: Cli, repository: Repository, channel: Channel, tmp_path: Path
) -> None:
    repository.commit({"environment.yml": environment("python", "greet", pip=("fromindex",))})
    asked = ("plan", repository.url, "-e", "main.py", *CONDA)
    repository.commit(SHOW)
    here = conda.json(*asked)["lock"]
    moved = Path(shutil.copytree(channel.folder, tmp_path / "elsewhere"))
    with _served(tmp_path) as server:
        for place in (str(moved), f"{server}/elsewhere"):
            conda.env |= {"RUNPROJ_HOME": str(tmp_path / f"home {len(place)}"), "RUNPROJ_CONDA_CHANNELS": f"conda-forge={place}"}
            assert conda.json(*asked)["lock"]["digest"] == here["digest"]


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The folder over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_known_environment_asks_no_channel_and_a_kept_package_is_enough_to_make_it_again(
    conda: Cli, repository: Repository, channel: Channel, home: Path
) -> None:
    repository.commit({"environment.yml": ONE, **SHOW})
    assert run(conda, repository).returncode == 0
    shutil.rmtree(channel.folder)
    assert run(conda, repository).stdout == "1.0\n", "the lock and the environment are there"
    forget_environments(home)
    again = run(conda, repository, "--offline")
    assert (again.returncode, again.stdout) == (0, "1.0\n"), again.stderr


def test_a_file_that_is_not_the_locked_one_is_refused(
    conda: Cli, repository: Repository, channel: Channel, tmp_path: Path
) -> None:
    conda.env["RUNPROJ_HOME"] = str(tmp_path / "home")
    repository.commit({"environment.yml": ONE, **SHOW})
    assert conda("plan", repository.url, "-e", "main.py").returncode == 0
    file = channel.folder / "noarch" / "greet-1.0-0.conda"
    wanted = hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    other = channel.add_module("greet", "1.0", depends=("python", "base"))
    result = run(conda, repository)
    assert (result.returncode, result.stdout) == (125, "")
    assert wanted in result.stderr
    assert hashlib.sha256(other.read_bytes()).hexdigest() in result.stderr


@pytest.mark.parametrize(
    ("options", "version", "as_of"),
    [
        ((), "1.0", "2022-06-03T00:00:00Z"),
        (("--as-of", "now"), "2.0", None),
        (("--as-of", "2023-05-01"), "2.0", "2023-05-02T00:00:00Z"),
    ],
)
def test_packages_are_those_of_the_commits_time(
    conda: Cli, repository: Repository, channel: Channel, options: tuple[str, ...], version: str, as_of: str | None
) -> None:
    channel.add_module("greet", "2.0", made=datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC))
    channel.index()
    repository.commit({"environment.yml": ONE, **SHOW}, date=COMMITTED)
    lock = conda.json("plan", repository.url, "-e", "main.py", *CONDA, *options)["lock"]
    found = {item["name"]: item["version"] for item in lock["conda"]}
    assert (found["greet"], lock["as_of"]) == (version, as_of)


def test_a_mirror_that_was_listed_lately_is_read_by_the_times_at_which_packages_were_built(
    conda: Cli, repository: Repository, channel: Channel
) -> None:
    channel.add_module("greet", "2.0", made=datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC))
    channel.index()
    repository.commit({"environment.yml": ONE, **SHOW}, date=COMMITTED)
    asked = ("plan", repository.url, "-e", "main.py", *CONDA)
    with _served(channel.folder) as server:
        conda.env["RUNPROJ_CONDA_CHANNELS"] = f"conda-forge={server}"
        uncached = conda(*asked, "--offline")
        assert uncached.returncode == 125
        assert "without --offline" in uncached.stderr
        lock = conda.json(*asked)["lock"]
    assert [item["version"] for item in lock["conda"] if item["name"] == "greet"] == ["1.0"]
    assert lock["as_of"] == "2022-06-03T00:00:00Z"


def test_where_the_date_has_no_solution_todays_channel_is_used_and_the_note_says_so(
    conda: Cli, repository: Repository, channel: Channel
) -> None:
    channel.add_module("young", "1.0", made=datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC))
    channel.index()
    repository.commit({"environment.yml": environment("python", "young"), "main.py": ""}, date=COMMITTED)
    lock = conda.json("plan", repository.url, "-e", "main.py", *CONDA)["lock"]
    assert lock["as_of"] is None
    assert any("2022-06-03" in note and "young" in note for note in lock["notes"])
    strict = run(conda, repository, *CONDA, "--strict")
    assert strict.returncode == 125
    assert "young" in strict.stderr


def test_auto_takes_the_package_index_where_no_channel_answers_and_records_why(
    conda: Cli, repository: Repository, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        conda.env["RUNPROJ_CONDA_CHANNELS"] = f"conda-forge=http://127.0.0.1:{deaf.getsockname()[1]}/forge"
        repository.commit({"environment.yml": ONE, **SHOW})
        result = run(conda, repository)
        assert (result.returncode, result.stdout) == (0, "of the index\n"), result.stderr
        strict = run(conda, repository, "--strict")
        assert strict.returncode == 125
        assert "Conda cannot be used" in strict.stderr
        notes = last(conda)["plan"]["notes"]
        assert any("Conda is not used" in note and "conda-forge does not answer" in note for note in notes)


def test_what_activation_sets_is_set_for_commands(conda: Cli, repository: Repository, channel: Channel) -> None:
    files = {
        "etc/conda/activate.d/one.sh": 'export TOOL_HOME="$CONDA_PREFIX/opt/tool"\nPATH="$TOOL_HOME/bin:$PATH"\necho chatter\n',
        "etc/conda/activate.d/two.sh": "export BOTH=\"$THREADS of $TOOL_HOME\"\nexport LINES_OF='a\nb'\nlocal_only=1\n",
        "etc/conda/env_vars.d/tool.json": '{"FROM_PACKAGE": "yes"}',
        "opt/tool/bin/tool": '#!/bin/sh\necho "tool: $BOTH"\n',
    }
    channel.add("tool", "1.0", files)
    channel.index()
    code = (
        (
            "import os, subprocess\nprefix = os.environ['CONDA_PREFIX']\n"
            "said = subprocess.run('sh $TOOL_HOME/bin/tool', shell=True, capture_output=True, text=True).stdout\n"
            "print(said.strip().replace(prefix, 'PREFIX'))\nprint(repr(os.environ['LINES_OF']), os.environ['FROM_PACKAGE'])\n"
            "print([p.replace(prefix, 'PREFIX') for p in os.environ['PATH'].split(':')[:2]], 'local_only' in os.environ)\n"
            "print(os.environ['CONDA_SHLVL'])\n"
        )
        .replace("sh $TOOL_HOME", 'sh "$TOOL_HOME')
        .replace("/bin/tool'", "/bin/tool\"'")
    )
    declared = environment("python", "tool", more="variables: {THREADS: 2}\n")
    repository.commit({"environment.yml": declared, "main.py": code})
    result = run(conda, repository, *CONDA)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "tool: 2 of PREFIX/opt/tool",
        "'a\\nb' yes",
        "['PREFIX/opt/tool/bin', 'PREFIX/bin'] False",
        "1",
    ]
    mapped = {"environment.yml": environment("python", more="variables: {THREADS: 2}\n")}
    repository.commit({**mapped, "main.py": "import os; print(os.environ['THREADS'])\n"})
    assert run(conda, repository, "--env-manager", "virtualenv").stdout == "2\n"
    assert run(conda, repository, "--env-manager", "system").stdout == "2\n"


def test_a_damaged_environment_is_found_and_made_anew_from_sound_files(
    conda: Cli, repository: Repository, tmp_path: Path
) -> None:
    home = tmp_path / "home"  # whose caches hold the same files as the environment
    conda.env["RUNPROJ_HOME"] = str(home)
    code = "import greet, fromindex; print(greet.V, fromindex.V)\n"
    repository.commit({"environment.yml": environment("python", "greet", pip=("fromindex",)), "main.py": code})
    assert run(conda, repository, *CONDA).returncode == 0
    digest = last(conda)["plan"]["lock"]["digest"]
    assert conda("env", "verify", digest).returncode == 0
    packages = home / "envs" / digest[:32] / "env/lib" / f"python{MINOR}/site-packages"
    for name in ("fromindex.py", "greet.py"):
        sound = (packages / name).read_bytes()
        (packages / name).write_bytes(b"V = 'changed in place'\n")
        assert name in conda.json("env", "verify", digest)["environments"][0]["problem"]
        (packages / name).write_bytes(sound if name == "fromindex.py" else b"V = 'changed for good'\n")
    again = run(conda, repository, *CONDA)
    assert again.stdout == "1.0 fromindex with greet 1.0\n", again.stderr


@pytest.mark.parametrize(
    ("dependencies", "said"),
    [(("python", "no-such-thing"), "no-such-thing"), (("greet >=9",), "greet >=9"), (("greet ==>9",), "greet")],
)
def test_what_cannot_be_solved_is_said_in_the_solvers_words(
    conda: Cli, repository: Repository, dependencies: tuple[str, ...], said: str
) -> None:
    repository.commit({"environment.yml": environment(*dependencies), "main.py": ""})
    result = run(conda, repository, *CONDA)
    assert result.returncode == 125
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_the_channel_of_a_package_and_an_r_environment_without_python(
    conda: Cli, repository: Repository, channel: Channel, tmp_path: Path
) -> None:
    other = Channel(tmp_path / HOSTILE / "other")
    other.add("hello", "3.0", {"bin/hello": "#!/bin/sh\necho hello from other\n"})
    other.index()
    channel.add("hello", "4.0", {"bin/hello": "#!/bin/sh\necho hello from forge\n"})
    channel.index()
    conda.env["RUNPROJ_CONDA_CHANNELS"] += f" mine={other.url}"
    repository.commit({"environment.yml": environment("mine::hello"), "run.sh": 'sh "$CONDA_PREFIX/bin/hello"\n'})
    result = conda("run", repository.url, "-e", "run.sh", *CONDA)
    assert (result.returncode, result.stdout) == (0, "hello from other\n"), result.stderr
    lock = last(conda)["plan"]["lock"]
    assert [(item["name"], item["channel"]) for item in lock["conda"]] == [("hello", "mine")]
    assert lock["python"] is None


def test_an_environment_file_that_asks_for_nothing(conda: Cli, repository: Repository, channel: Channel) -> None:
    repository.commit({"environment.yml": "name: x\nchannels: [conda-forge]\n", "run.sh": 'echo "$CONDA_SHLVL"\n'})
    asked = ("run", repository.url, "-e", "run.sh", *CONDA)
    assert conda(*asked).stdout == "1\n"
    shutil.rmtree(channel.folder)
    assert conda(*asked).stdout == "1\n", "it is locked once"


def test_pip_may_replace_what_conda_brings_only_where_it_has_to(conda: Cli, repository: Repository, index: PackageIndex) -> None:
    index.add_wheel("needs-new", "1.0", requires=("greet>=9",))
    code = "import greet; print(greet.V)\n"
    repository.commit({"environment.yml": environment("python", "greet", pip=("needs-new",)), "main.py": code})
    strict = run(conda, repository, *CONDA, "--strict")
    assert strict.returncode == 125
    result = run(conda, repository, *CONDA)
    assert (result.returncode, result.stdout) == (0, "of the index\n"), result.stderr
    assert any("greet 1.0 → 9.0" in note for note in last(conda)["plan"]["notes"])
    verified = conda("env", "verify", last(conda)["plan"]["lock"]["digest"])
    assert verified.returncode == 0, verified.stdout


def test_package_files_that_nothing_uses_are_garbage(conda: Cli, repository: Repository, tmp_path: Path) -> None:
    home = tmp_path / "home"
    conda.env["RUNPROJ_HOME"] = str(home)
    killed = home / "cache/conda/archives/.4194305-x"  # more than a process id can be
    killed.mkdir(parents=True)
    repository.commit({"environment.yml": ONE, **SHOW})
    assert run(conda, repository).returncode == 0
    assert not killed.exists()
    assert not [line for line in conda.json("gc")["removed"] if "conda" in line], "it has just been used"
    long_ago = time.time() - 40 * 86400
    for folder in ("archives", "pkgs"):
        for path in (home / "cache/conda" / folder).iterdir():
            os.utime(path, (long_ago, long_ago))
    removed = conda.json("gc")["removed"]
    assert "unused conda package greet-1.0-0.conda" in removed
    assert "unpacked conda package greet-1.0-0" in removed
    assert run(conda, repository).stdout == "1.0\n", "environments have their own links"
    forget_environments(home)
    assert run(conda, repository).stdout == "1.0\n", "and can be made again"


def test_an_interrupted_solve_leaves_nothing_behind(conda: Cli, repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        conda.env["RUNPROJ_CONDA_CHANNELS"] = f"conda-forge=http://127.0.0.1:{deaf.getsockname()[1]}/forge"
        repository.commit({"environment.yml": ONE, **SHOW})
        process = conda.start("run", repository.url, "-e", "main.py", *CONDA)
        deaf.settimeout(300)
        connection, _ = deaf.accept()
        below = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == process.pid]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert below
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
        connection.close()


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_without_the_library_the_error_says_what_to_install_and_auto_goes_on(
    conda: Cli, repository: Repository, tmp_path: Path
) -> None:
    """An interpreter that has all that this one has but py-rattler."""
    import runproj

    bare, packages = tmp_path / "bare", tmp_path / "packages"
    packages.mkdir()
    for path in Path(sys.prefix, "lib", f"python{MINOR}", "site-packages").iterdir():
        if "rattler" not in path.name and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    source = Path(runproj.__file__).parents[1]
    (bare / "bin/uv").symlink_to(Path(sys.executable).with_name("uv"))
    (bare / "lib" / f"python{MINOR}" / "site-packages" / "all.pth").write_text(f"{source}\n{packages}\n")
    repository.commit({"environment.yml": ONE, **SHOW})
    command = [bare / "bin/python", "-m", "runproj.cli.main", "plan", repository.url, "-e", "main.py", "--json"]
    refused = subprocess.run([*command, *CONDA], env=conda.env, capture_output=True, text=True)
    assert refused.returncode == 125
    assert "pip install 'runproj[conda]'" in refused.stdout + refused.stderr
    mapped = subprocess.run(command, env=conda.env, capture_output=True, text=True)
    assert mapped.returncode == 0, mapped.stderr
    lock = json.loads(mapped.stdout)["lock"]
    assert lock["manager"] == "virtualenv"
    assert "py-rattler is not installed" in lock["notes"][0]


def test_a_committed_lock_of_conda_is_replayed_on_another_machine(
    conda: Cli, repository: Repository, channel: Channel, tmp_path: Path
) -> None:
    code = "import greet, fromindex; print(greet.V, fromindex.V)\n"
    repository.write({"environment.yml": environment("python", "greet", pip=("fromindex",)), "main.py": code})
    report = conda.json("lock", str(repository.path))
    assert (report["file"], report["state"], report["packages"]) == ("runproj.lock", "written", 3)
    text = (repository.path / "runproj.lock").read_text()
    assert "file:" not in text
    assert str(tmp_path) not in text
    repository.commit({})
    channel.add_module("greet", "2.0")
    channel.index()
    conda.env["RUNPROJ_HOME"] = str(tmp_path / "other home")
    result = run(conda, repository, "--locked")
    assert (result.returncode, result.stdout) == (0, "1.0 fromindex with greet 1.0\n"), result.stderr
    assert last(conda)["plan"]["lock"]["digest"] == report["digest"]
    assert conda("lock", str(repository.path), "--check").returncode == 0
    repository.commit({"environment.yml": environment("python", "greet>1", pip=("fromindex",))})
    assert run(conda, repository, "--locked").returncode == 125
    assert run(conda, repository).stdout == "2.0 fromindex with greet 2.0\n"


def test_a_capsule_brings_a_conda_environment_along(
    conda: Cli, repository: Repository, channel: Channel, index: PackageIndex, tmp_path: Path
) -> None:
    code = "import greet, fromindex; print(greet.V, fromindex.V)\n"
    repository.commit({"environment.yml": environment("python", "greet", "base", pip=("fromindex",)), "main.py": code})
    assert run(conda, repository, *CONDA).returncode == 0
    name = last(conda)["run"]["name"]
    capsule = tmp_path / "run.zip"
    exported = conda("export", "@last", str(capsule))
    assert exported.returncode == 0, exported.stderr
    shutil.rmtree(channel.folder)
    conda.env |= {"RUNPROJ_HOME": str(tmp_path / "other home"), "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    imported = conda("import", str(capsule))
    assert imported.returncode == 0, imported.stderr
    again = conda("rerun", name, "--offline")
    assert (again.returncode, again.stdout) == (0, "1.0 fromindex with greet 1.0\n"), again.stderr
