"""Remotes over file://, the git daemon and HTTP: revisions, the cache, credentials, offline, concurrency, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gitservers import GitHttp, git_daemon
from runproj.core.source import Checkout, Pin, Source
from runproj.errors import SourceError
from runproj.files import Objects
from runproj.source import SourceStore, sweep
from runproj.source.cache import Remote
from runproj.source.gitcmd import Git


def store(home: Path, **options) -> SourceStore:
    return SourceStore(home / "cache", home / "checkouts", Objects(home / "objects"), **options)


def git(checkout: Checkout, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=checkout.root, text=True).strip()


def cached(home: Path, url: str) -> Path:
    return Remote(home / "cache", url, offline=True, progress=print).folder


@pytest.fixture
def home(isolated: Path) -> Path:
    return isolated / "runproj home"


@pytest.fixture
def project(repository):
    repository.commit({"a.txt": "one\n", "sub/b.txt": "b\n"}, date="2024-01-02T03:04:05-03:00")
    repository.git("tag", "v1.0", "-a", "-m", "first")
    repository.git("branch", "feature/x")
    repository.commit({"a.txt": "two\n"})
    repository.git("tag", "light")
    return repository


@pytest.fixture
def git_calls(monkeypatch) -> list[tuple[str, ...]]:
    """Every git command that is run from now on."""
    calls: list[tuple[str, ...]] = []
    real = Git.run

    def run(self, *arguments, **options):
        calls.append(arguments)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", run)
    return calls


def test_the_default_branch(project, home: Path) -> None:
    checkout = store(home).fetch(Source(project.url))
    assert checkout.pin.commit == project.head == git(checkout, "rev-parse", "HEAD")
    assert (checkout.pin.branch, checkout.pin.revision, checkout.pin.patch) == ("main", None, None)
    assert checkout.pin.tree == git(checkout, "rev-parse", "HEAD^{tree}")
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "--format=%s").count("a commit") == 2
    assert git(checkout, "describe") == "v1.0-1-g" + project.head[:7]
    assert git(checkout, "config", "remote.origin.url") == project.url
    assert (checkout.root / "a.txt").read_text() == "two\n"


@pytest.mark.parametrize(
    ("revision", "back", "branch"),
    [
        *(("main", 0, "main"), ("v1.0", 1, None), ("light", 0, None), ("feature/x", 1, "feature/x"), ("HEAD~1", 1, None)),
        *(
            ("refs/heads/feature/x", 1, "feature/x"),
            ("refs/tags/v1.0", 1, None),
            ("v1.0^{commit}", 1, None),
            ("v1.0^{}", 1, None),
        ),
        *(("main^", 1, None), ("origin/main", 0, "main"), ("tags/light", 0, None), ("@", 0, "main"), ("heads/main~1", 1, None)),
    ],
)
def test_revisions(project, home: Path, revision: str, back: int, branch: str | None) -> None:
    pin = store(home).fetch(Source(project.url, revision)).pin
    assert (pin.commit, pin.branch, pin.revision) == (project.git("rev-parse", f"HEAD~{back}"), branch, revision)
    if back == 1:
        assert pin.committed_at == "2024-01-02T03:04:05-03:00"


def test_hashes_full_short_and_described(project, home: Path) -> None:
    old = project.git("rev-parse", "HEAD~1")
    tag_object = project.git("rev-parse", "v1.0")
    sources = store(home)
    for revision in (old, old.upper(), old[:7], f"v0-3-g{old[:9]}", tag_object, f"{project.head}~1"):
        assert sources.fetch(Source(project.url, revision)).pin.commit == old


def test_a_commit_that_no_branch_leads_to(project, home: Path) -> None:
    lost = project.commit({"a.txt": "lost\n"})
    project.git("reset", "-q", "--hard", "HEAD~1")
    assert store(home).fetch(Source(project.url, lost)).pin.commit == lost


def test_what_does_not_exist_is_named_with_its_neighbours(project, home: Path) -> None:
    with pytest.raises(SourceError, match="'feature/y' is no branch") as error:
        store(home).fetch(Source(project.url, "feature/y"))
    assert "feature/x" in error.value.why
    for revision in ("f" * 40, "deadbeef", "main~99"):
        with pytest.raises(SourceError):
            store(home).fetch(Source(project.url, revision))
    with pytest.raises(SourceError, match="is not a commit"):
        store(home).fetch(Source(project.url, project.git("rev-parse", "HEAD^{tree}")))
    assert os.listdir(home / "checkouts") == []


def test_an_empty_and_a_missing_repository(repository, home: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no default branch"):
        store(home).fetch(Source(repository.url))
    with pytest.raises(SourceError, match="There is no folder"):
        store(home).fetch(Source(f"file://{tmp_path}/nope"))
    with pytest.raises(SourceError) as error:
        store(home).fetch(Source("git://127.0.0.1:1/x"))
    assert "refused" in error.value.why


def test_branch_and_tag_of_one_name(project, home: Path) -> None:
    project.git("tag", "feature/x", "HEAD")
    pin = store(home).fetch(Source(project.url, "feature/x")).pin
    assert pin.commit == project.git("rev-parse", "HEAD~1") and "is a branch and a tag" in pin.notes[0]


def test_warm_runs_ask_once_and_fetch_nothing(project, home: Path, git_calls) -> None:
    store(home).fetch(Source(project.url))
    git_calls.clear()
    sources = store(home)
    sources.checkout(sources.fetch(Source(project.url)).pin, home / "runs/1/work")
    assert [call[0] for call in git_calls] == ["ls-remote", "read-tree", "status"]
    git_calls.clear()
    store(home).fetch(Source(project.url, project.head))
    assert [call[0] for call in git_calls] == ["read-tree"]


def test_new_commits_are_fetched_into_the_same_repository(project, home: Path) -> None:
    store(home).fetch(Source(project.url))
    new = project.commit({"c.txt": "c"})
    assert store(home).fetch(Source(project.url)).pin.commit == new
    assert [path.name for path in (home / "cache").iterdir() if path.is_dir()] == [cached(home, project.url).name]


def test_many_fetches_do_not_pile_up(project, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("runproj.source.cache._MANY_PACKS", 2)
    sources = store(home)
    for number in range(4):
        project.commit({"a.txt": str(number)})
        checkout = sources.fetch(Source(project.url))
    assert len(list(cached(home, project.url).glob("objects/pack/*.pack"))) <= 3
    assert git(checkout, "log", "--oneline").count("\n") == 5


def test_checkout_moves_what_fetch_laid_out(project, home: Path) -> None:
    sources = store(home)
    fetched = sources.fetch(Source(project.url))
    inode = (fetched.root / "a.txt").stat().st_ino
    first = sources.checkout(fetched.pin, home / "runs/1/work")
    assert (first.root / "a.txt").stat().st_ino == inode
    assert os.listdir(home / "checkouts") == []
    second = sources.checkout(fetched.pin, home / "runs/2/work")
    assert git(second, "status", "--porcelain") == "" and second.root != first.root
    for checkout in (first, second, second):
        sources.discard(checkout)
    assert not first.root.exists() and not second.root.exists()


def test_a_tree_that_was_written_to_is_not_handed_on(project, home: Path) -> None:
    sources = store(home)
    fetched = sources.fetch(Source(project.url))
    (fetched.root / "build").mkdir()
    (fetched.root / "build/x").write_text("left by a resolver")
    assert not (sources.checkout(fetched.pin, home / "runs/1/work").root / "build").exists()
    assert os.listdir(home / "checkouts") == []


def test_scratch_trees_are_discarded(project, home: Path) -> None:
    sources = store(home)
    pin = sources.fetch(Source(project.url)).pin
    checkout = sources.checkout(pin, sources.scratch())
    sources.discard(checkout)
    assert os.listdir(home / "checkouts") == []


def test_sweep_removes_what_dead_processes_left(project, home: Path) -> None:
    code = "import sys,os;from test_source_remotes import *;store(Path(sys.argv[1])).fetch(Source(sys.argv[2]));os._exit(9)"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    subprocess.run([sys.executable, "-c", code, str(home), project.url], env={**os.environ, "PYTHONPATH": path}, check=False)
    mine = store(home).scratch()
    assert len(os.listdir(home / "checkouts")) == 2
    assert sweep(home / "checkouts") == 1
    assert os.listdir(home / "checkouts") == [mine.parent.name]


def test_offline_uses_what_was_seen(project, home: Path, tmp_path: Path) -> None:
    with git_daemon(project.path.parent) as base:
        url = f"{base}/project"
        with pytest.raises(SourceError, match="not in the cache"):
            store(home, offline=True).fetch(Source(url))
        online = store(home).fetch(Source(url)).pin
        assert online.commit == project.head
        project.commit({"c": "c"})
        for revision in (None, "HEAD", online.commit, online.commit[:8], "HEAD~1"):
            pin = store(home, offline=True).fetch(Source(url, revision)).pin
            assert pin.commit == (project.git("rev-parse", "HEAD~2") if revision == "HEAD~1" else online.commit)
        with pytest.raises(SourceError, match="not in the cache"):
            store(home, offline=True).fetch(Source(url, "feature/x"))
        with pytest.raises(SourceError, match="not in the cache"):
            store(home, offline=True).fetch(Source(url, project.head))
    # The server is gone, and the pin is still good: here from the cache, elsewhere not.
    assert store(home).checkout(online, home / "w").pin == online
    with pytest.raises(SourceError, match="cannot be had any more"):
        store(tmp_path / "elsewhere").checkout(online, tmp_path / "w")


def test_a_pin_is_fetched_again_where_the_cache_is_gone(project, home: Path, tmp_path: Path) -> None:
    pin = store(home).fetch(Source(project.url, "v1.0")).pin
    project.git("tag", "-d", "v1.0")
    checkout = store(tmp_path / "elsewhere").checkout(pin, tmp_path / "w")
    assert git(checkout, "rev-parse", "HEAD", "HEAD^{tree}").split() == [pin.commit, pin.tree]


def damaged_object(folder: Path) -> None:
    for pack in folder.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(b"garbage")


def no_objects(folder: Path) -> None:
    shutil.rmtree(folder / "objects")
    (folder / "objects").mkdir()


def no_head(folder: Path) -> None:
    (folder / "HEAD").unlink()
    shutil.rmtree(folder / "runproj")


def left_locks(folder: Path) -> None:
    shutil.rmtree(folder / "runproj")
    shutil.rmtree(folder / "refs/runproj")
    for name in ("config.lock", "packed-refs.lock", "shallow.lock", "refs/heads/x.lock", "objects/pack/tmp_pack_x"):
        (folder / name).write_text("")
    (folder / "objects/tmp_objdir-incoming-x").mkdir()


@pytest.mark.parametrize("damage", [damaged_object, no_objects, no_head, left_locks], ids=lambda function: function.__name__)
def test_a_damaged_cache_is_fetched_anew(project, home: Path, damage) -> None:
    store(home).fetch(Source(project.url))
    damage(cached(home, project.url))
    checkout = store(home).fetch(Source(project.url))
    assert git(checkout, "log", "--oneline").count("\n") == 1
    project.commit({"new": "x"})
    assert (store(home).fetch(Source(project.url)).root / "new").exists()
    assert not list(cached(home, project.url).glob("**/*.lock"))


def test_two_processes_fetch_at_once(project, home: Path) -> None:
    code = "import sys;from test_source_remotes import *;print(store(Path(sys.argv[1])).fetch(Source(sys.argv[2])).pin.commit)"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home), project.url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        for _ in range(4)
    ]
    assert [process.communicate()[0].strip() for process in started] == [project.head] * 4


def test_web_links(project, home: Path) -> None:
    with GitHttp(project.path.parent) as server:
        url = f"{server.url}/project/.git"
        remote = Remote(home / "cache", url, offline=False, progress=print)
        from runproj.source.revisions import resolve_link

        assert resolve_link(remote, "feature/x/sub", offline=False) == ("feature/x", "sub")
        project.git("clone", "-q", "--bare", ".", str(project.path.parent / "owner/r"))
        checkout = store(home).fetch(Source(f"{server.url}/owner/r/tree/feature/x/sub"))
        assert (checkout.pin.uri, checkout.pin.revision, checkout.pin.subdirectory) == (
            f"{server.url}/owner/r",
            "feature/x",
            "sub",
        )
        assert (checkout.project / "b.txt").exists()


def secrets_in(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_credentials_in_the_url_work_and_are_kept_nowhere(project, home: Path) -> None:
    with GitHttp(project.path.parent, password="s3cret-t0ken") as server:
        told: list[str] = []
        checkout = store(home, progress=told.append).fetch(Source(f"http://user:s3cret-t0ken@{server.host}/project/.git"))
        assert checkout.pin.uri == f"{server.url}/project/.git"
        assert git(checkout, "config", "remote.origin.url") == checkout.pin.uri
        with pytest.raises(SourceError) as error:
            store(home).fetch(Source(f"http://user:wr0ng-t0ken@{server.host}/project/.git", "light"))
        asked = len(server.requests)
        with pytest.raises(SourceError) as missing:
            store(home).fetch(Source(f"http://user:s3cret-t0ken@{server.host}/nope/.git"))
        assert len(server.requests) - asked <= 3  # an answer like "not found" is final
    for text in (repr(checkout.pin), *told, str(error.value), str(missing.value)):
        assert "t0ken" not in text
    assert "git access" in error.value.fix
    assert secrets_in(home, "t0ken") == []


def test_credential_helpers_of_the_user_work(project, home: Path, isolated: Path) -> None:
    with GitHttp(project.path.parent, password="s3cret-t0ken") as server:
        helper = "!f() { echo username=user; echo password=s3cret-t0ken; }; f"
        subprocess.run(["git", "config", "--global", "credential.helper", helper], check=True)
        pin = store(home).fetch(Source(f"{server.url}/project/.git")).pin
        assert pin.commit == project.head
    assert secrets_in(home, "t0ken") == []


def test_credentials_are_not_in_any_command_line(project, home: Path) -> None:
    with GitHttp(project.path.parent, password="s3cret-t0ken") as server:
        log = home.parent / "commands"
        wrapper = home.parent / "bin"
        wrapper.mkdir()
        real = shutil.which("git")
        (wrapper / "git").write_text(f"#!/bin/sh\nprintf '%s ' \"$@\" >> '{log.name}'\nexec {real} \"$@\"\n")
        (wrapper / "git").chmod(0o755)
        code = "import sys;from test_source_remotes import *;store(Path(sys.argv[1])).fetch(Source(sys.argv[2]))"
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
        (wrapper / "git").write_text(f'#!/bin/sh\nprintf "%s " "$@" >> "$COMMANDS"\nexec {real} "$@"\n')
        env = {**os.environ, "PYTHONPATH": path, "PATH": f"{wrapper}:{os.environ['PATH']}", "COMMANDS": str(log)}
        subprocess.run(
            [sys.executable, "-c", code, str(home), f"http://user:s3cret-t0ken@{server.host}/project/.git"], env=env, check=True
        )
    assert "ls-remote" in log.read_text() and "fetch" in log.read_text() and "t0ken" not in log.read_text()


def test_variables_in_a_url_stay_literal(project, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("CANARY", "expanded-t0ken")
    with GitHttp(project.path.parent) as server:
        with pytest.raises(SourceError):
            store(home).fetch(Source(f"{server.url}/${{CANARY}}/$CANARY/~root/.git"))
        paths = " ".join(path for _, path, _ in server.requests)
    assert "CANARY" in paths and "expanded" not in paths


def test_a_server_that_stumbles_is_asked_again(project, home: Path) -> None:
    with GitHttp(project.path.parent) as server:
        server.failures = 1
        assert store(home).fetch(Source(f"{server.url}/project/.git")).pin.commit == project.head
        server.failures, before = 99, len(server.requests)
        with pytest.raises(SourceError, match="Cannot fetch"):
            store(home).fetch(Source(f"{server.url}/project/.git"))
        assert 1 < len(server.requests) - before < 12


def test_a_shallow_source(project, home: Path, tmp_path: Path) -> None:
    project.commit({"c": "c"})
    subprocess.run(["git", "clone", "-q", "--depth=1", project.url, str(tmp_path / "shallow")], check=True)
    for uri in (f"file://{tmp_path}/shallow", str(tmp_path / "shallow")):
        checkout = store(home).fetch(Source(uri))
        assert git(checkout, "log", "--oneline").count("\n") == 0
        assert git(checkout, "status", "--porcelain") == ""


def test_a_sha256_repository(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    subprocess.run(["git", "init", "-q", "--object-format=sha256", str(folder)], check=True)
    (folder / "a").write_text("a")
    for arguments in (["add", "a"], ["commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    assert len(store(home).fetch(Source(f"file://{folder}")).pin.commit or "") == 64
    (folder / "b").write_text("b")
    pin = store(home).fetch(Source(str(folder))).pin
    assert pin.dirty and store(home).checkout(pin, tmp_path / "w").root.joinpath("b").exists()


def submodules(make_repository, url: str = "../inner"):
    deepest, inner, outer = (make_repository(name) for name in ("deepest", "inner", "outer"))
    deepest.commit({"d.txt": "d"})
    allow = ("-c", "protocol.file.allow=always")
    inner.commit({"i.txt": "i"})
    inner.git(*allow, "submodule", "add", "-q", "../deepest", "deep est")
    inner.commit({})
    outer.commit({"o.txt": "o"})
    outer.git("remote", "add", "origin", outer.url)
    outer.git(*allow, "submodule", "add", "-q", "../inner", "libs/inner")
    outer.commit({})
    outer.git(*allow, "submodule", "update", "-q", "--init", "--recursive")
    return outer, inner, deepest


def test_submodules_nested_and_restored(make_repository, home: Path, tmp_path: Path) -> None:
    outer, inner, deepest = submodules(make_repository)
    old = inner.head
    inner.commit({"i.txt": "newer than what the parent records"})
    for uri in (outer.url, str(outer.path)):
        checkout = store(home).fetch(Source(uri))
        pins = checkout.pin.submodules
        assert [(pin.path, pin.commit) for pin in pins] == [("libs/inner", old), ("libs/inner/deep est", deepest.head)]
        assert (checkout.root / "libs/inner/i.txt").read_text() == "i"
        assert (checkout.root / "libs/inner/deep est/d.txt").exists()
        assert git(checkout, "status", "--porcelain") == "" and not checkout.pin.dirty
        again = store(tmp_path / uri.replace("/", "_")[-20:]).checkout(checkout.pin, tmp_path / "w" / str(len(uri)))
        assert (again.root / "libs/inner/deep est/d.txt").exists()


def test_submodules_that_moved_on_or_were_edited(make_repository, home: Path, tmp_path: Path) -> None:
    outer, _, _ = submodules(make_repository)
    module = outer.path / "libs/inner"
    (module / "i.txt").write_text("edited")
    with pytest.raises(SourceError, match="Submodule libs/inner has uncommitted changes") as error:
        store(home).fetch(Source(str(outer.path)))
    assert "i.txt" in error.value.why
    subprocess.run(["git", "commit", "-qam", "moved on, not pushed"], cwd=module, check=True)
    sources = store(home)
    checkout = sources.fetch(Source(str(outer.path)))
    assert checkout.pin.dirty and (checkout.root / "libs/inner/i.txt").read_text() == "edited"
    again = store(home).checkout(checkout.pin, tmp_path / "w")
    assert (again.root / "libs/inner/i.txt").read_text() == "edited"


def test_a_submodule_without_url_is_left_empty_and_noted(make_repository, home: Path) -> None:
    outer, _, _ = submodules(make_repository)
    outer.git("rm", "-q", "--cached", ".gitmodules")
    outer.git("commit", "-qm", "lost the list")
    checkout = store(home).fetch(Source(outer.url))
    assert "libs/inner" in checkout.pin.notes[0] and os.listdir(checkout.root / "libs/inner") == []


@pytest.fixture
def plain(tmp_path: Path, monkeypatch) -> Path:
    """A folder for git-lfs, which cannot work below a path with a newline."""
    folder = tmp_path / 'it\'s "lärge" $(x)'
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def large(repository, plain: Path):
    repo = type(repository)(plain / "large")
    repo.git("lfs", "install", "--local")
    repo.git("lfs", "track", "*.bin")
    repo.commit({"w/model.bin": b"weights" * 1000, "a.txt": "small"})
    return repo


def test_lfs_files_are_there_and_kept_for_later(large, plain: Path) -> None:
    sources = store(plain / "rp")
    checkout = sources.fetch(Source(large.url))
    assert (checkout.root / "w/model.bin").read_bytes() == b"weights" * 1000
    assert git(checkout, "status", "--porcelain") == ""
    shutil.rmtree(large.path / ".git/lfs")
    assert (store(plain / "rp").checkout(checkout.pin, plain / "w").root / "w/model.bin").read_bytes() == b"weights" * 1000
    with pytest.raises(SourceError, match="cannot be had from Git LFS") as error:
        store(plain / "fresh").checkout(checkout.pin, plain / "w2")
    assert "w/model.bin" in error.value.why


def test_lfs_in_a_local_folder(large, plain: Path) -> None:
    (large.path / "a.txt").write_text("dirty")
    checkout = store(plain / "rp").fetch(Source(str(large.path)))
    assert (checkout.root / "w/model.bin").read_bytes() == b"weights" * 1000
    assert (checkout.root / "a.txt").read_text() == "dirty" and checkout.pin.dirty


def test_without_git_lfs_the_error_says_so(large, plain: Path, tmp_path: Path, monkeypatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "env", "sh"):
        (tools / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(SourceError, match="git-lfs is not installed") as error:
        store(plain / "rp").fetch(Source(large.url))
    assert "w/model.bin" in error.value.why
    monkeypatch.setenv("GIT_LFS_SKIP_SMUDGE", "1")
    assert (store(plain / "rp").fetch(Source(large.url)).root / "w/model.bin").read_bytes().startswith(b"version https://git-lfs")


def test_nothing_is_left_in_the_temporary_folder(project, home: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (project.path / "dirty").write_text("x")
    sources = store(home)
    sources.discard(sources.fetch(Source(project.url)))
    sources.discard(sources.fetch(Source(str(project.path))))
    assert os.listdir(tmp_path / "tmp") == [] and os.listdir(home / "checkouts") == []


def test_a_write_that_fails_leaves_nothing(repository, tmp_path: Path) -> None:
    import resource

    from runproj.errors import StorageError

    repository.commit({"small": "x", "big.bin": os.urandom(400_000)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # what is written beyond it fails, as on a full disk
    try:
        with pytest.raises((StorageError, SourceError)):
            store(tmp_path / "rp").fetch(Source(repository.url))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "rp/checkouts") == []
    assert (store(tmp_path / "rp").fetch(Source(repository.url)).root / "small").exists()


def test_pins_are_plain_data(project, home: Path) -> None:
    from runproj.codec import from_json, to_json

    pin = store(home).fetch(Source(project.url)).pin
    assert from_json(Pin, to_json(pin)) == pin
