"""Local folders: captured as they are, never changed, and the same again from the record alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from runproj.core.source import Checkout, PinKind, Source
from runproj.errors import SourceError
from runproj.files import Objects
from runproj.source import SourceStore

BINARY = bytes(range(256)) * 40


def store(home: Path, **options) -> SourceStore:
    return SourceStore(home / "cache", home / "checkouts", Objects(home / "objects"), **options)


def entries(top: Path) -> list[Path]:
    """Everything below `top`; links are not followed."""
    return [Path(path, name) for path, folders, names in os.walk(top) for name in [*folders, *names]]


def content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def fingerprint(folder: Path) -> dict[Path, tuple]:
    """Every byte, mode and time stamp below `folder`, git's own files included."""
    return {path: (path.lstat().st_mode, path.lstat().st_mtime_ns, content(path)) for path in entries(folder)}


def files(root: Path) -> dict[bytes, tuple]:
    """What a run sees: names, modes, contents, links."""
    return {
        os.fsencode(path.relative_to(root)): (path.is_symlink() or path.lstat().st_mode & 0o111 != 0, content(path))
        for path in entries(root)
        if ".git" not in path.relative_to(root).parts and (path.is_symlink() or path.is_file())
    }


def staged(repo) -> None:
    repo.write({"a.txt": "staged\n"})
    repo.git("add", "a.txt")


def staged_then_changed(repo) -> None:
    staged(repo)
    repo.write({"a.txt": "changed again\n"})


def unstaged(repo) -> None:
    repo.write({"a.txt": "unstaged, no newline at the end"})


def untracked(repo) -> None:
    repo.write({"new folder/ü 'x'\n.txt": "new\r\n"})


def deleted(repo) -> None:
    (repo.path / "a.txt").unlink()


def deleted_from_index_only(repo) -> None:
    repo.git("rm", "-q", "--cached", "a.txt")


def renamed(repo) -> None:
    repo.git("mv", "a.txt", "renamed.txt")


def mode(repo) -> None:
    (repo.path / "a.txt").chmod(0o755)


def binary(repo) -> None:
    repo.write({"data.bin": BINARY[::-1], "more.bin": BINARY})


def symlink(repo) -> None:
    (repo.path / "link").symlink_to("a.txt")
    (repo.path / "dangling").symlink_to("nowhere")


def empty_file(repo) -> None:
    repo.write({"empty": ""})


def non_utf8(repo) -> None:
    Path(os.fsdecode(os.fsencode(repo.path) + b"/caf\xe9")).write_bytes(b"\xff\xfe")


def file_becomes_folder(repo) -> None:
    (repo.path / "a.txt").unlink()
    repo.write({"a.txt/inside": "x"})


def folder_becomes_file(repo) -> None:
    shutil.rmtree(repo.path / "pkg")
    repo.write({"pkg": "now a file"})


def file_becomes_link(repo) -> None:
    (repo.path / "a.txt").unlink()
    (repo.path / "a.txt").symlink_to("data.bin")


def intent_to_add(repo) -> None:
    repo.write({"later.txt": "x"})
    repo.git("add", "-N", "later.txt")


def hidden_from_git(repo) -> None:
    repo.git("update-index", "--assume-unchanged", "a.txt")
    repo.write({"a.txt": "git was told not to look\n"})


def same_size_at_once(repo) -> None:
    repo.write({"a.txt": "jello\n"})


def line_endings(repo) -> None:
    repo.write({".gitattributes": "*.crlf text eol=crlf\n*.txt -diff\n", "x.crlf": "a\r\nb\r\n", "a.txt": "x\n"})


DIRT = [
    *(staged, staged_then_changed, unstaged, untracked, deleted, deleted_from_index_only, renamed, mode, binary, symlink),
    *(empty_file, non_utf8, file_becomes_folder, folder_becomes_file, file_becomes_link, intent_to_add, hidden_from_git),
    *(same_size_at_once, line_endings),
]


@pytest.fixture
def project(repository):
    repository.commit(
        {"a.txt": "hello\n", "data.bin": BINARY, "pkg/mod.py": "x = 1\n", ".gitignore": "*.log\n"},
        date="2024-05-06T07:08:09+02:00",
    )
    return repository


@pytest.mark.parametrize("dirty", DIRT, ids=lambda function: function.__name__)
def test_every_kind_of_dirt_is_captured_and_restored(project, isolated: Path, tmp_path: Path, dirty) -> None:
    dirty(project)
    before, seen = fingerprint(project.path), files(project.path)
    sources = store(isolated / "rp")
    checkout = sources.fetch(Source(str(project.path)))
    assert fingerprint(project.path) == before
    pin = checkout.pin
    assert (pin.kind, pin.commit) == (PinKind.GIT, project.head)
    assert pin.dirty or dirty is deleted_from_index_only
    assert files(checkout.root) == seen
    # The folder is cleaned up; the record alone, in another home, gives the same files.
    project.git("update-index", "--no-assume-unchanged", "a.txt") if dirty is hidden_from_git else None
    project.git("reset", "-q", "--hard")
    project.git("clean", "-qfdx")
    fresh = Objects(tmp_path / "fresh" / "objects")
    if pin.patch:
        assert fresh.put(sources._objects.path(pin.patch)) == pin.patch
    again = store(tmp_path / "fresh").checkout(pin, tmp_path / "fresh" / "work")
    assert files(again.root) == seen
    assert tree_of(again) == pin.tree == tree_of(checkout)


def tree_of(checkout: Checkout) -> str:
    return subprocess.check_output(["git", "write-tree"], cwd=checkout.root, text=True).strip()


def test_the_same_dirt_is_the_same_patch(project, tmp_path: Path) -> None:
    binary(project)
    pins = [store(tmp_path / name).fetch(Source(str(project.path))).pin for name in ("one", "two")]
    assert pins[0] == pins[1]


def test_a_clean_folder_is_its_commit(project, isolated: Path) -> None:
    project.write({"ignored.log": "x"})
    pin = store(isolated / "rp", require_clean=True).fetch(Source(str(project.path))).pin
    assert (pin.patch, pin.dirty, pin.branch) == (None, False, "main")
    assert pin.committed_at == "2024-05-06T07:08:09+02:00"
    assert any("only here" in note for note in pin.notes)


def test_require_clean_names_what_is_dirty(project, isolated: Path) -> None:
    unstaged(project)
    with pytest.raises(SourceError, match="uncommitted") as error:
        store(isolated / "rp", require_clean=True).fetch(Source(str(project.path)))
    assert "a.txt" in error.value.why


def test_a_subfolder_finds_its_repository(project, isolated: Path) -> None:
    untracked(project)
    checkout = store(isolated / "rp").fetch(Source(str(project.path / "pkg")))
    assert checkout.pin.subdirectory == "pkg"
    assert (checkout.project / "mod.py").read_text() == "x = 1\n"
    assert (checkout.root / "new folder").is_dir()
    with pytest.raises(SourceError, match="no folder 'nix'") as error:
        store(isolated / "rp").fetch(Source(f"{project.path}#nix"))
    assert "pkg" in error.value.why
    assert list((isolated / "rp/checkouts").iterdir()) == [checkout.root.parent]


def test_a_revision_of_a_local_repository_is_clean(project, isolated: Path) -> None:
    first = project.head
    project.commit({"a.txt": "second\n"})
    project.git("branch", "other")
    unstaged(project)
    sources = store(isolated / "rp")
    for revision, commit, branch in [("HEAD~1", first, None), (first[:8], first, None), ("other", project.head, "other")]:
        pin = sources.fetch(Source(str(project.path), revision)).pin
        assert (pin.commit, pin.patch, pin.branch, pin.revision) == (commit, None, branch, revision)
    with pytest.raises(SourceError, match="no branch, tag or commit"):
        sources.fetch(Source(str(project.path), "nope"))


def test_a_worktree_and_a_bare_repository(project, isolated: Path, tmp_path: Path) -> None:
    project.git("worktree", "add", "-q", str(tmp_path / "wt"), "-b", "side")
    (tmp_path / "wt/new.txt").write_text("x")
    checkout = store(isolated / "rp").fetch(Source(str(tmp_path / "wt")))
    assert checkout.pin.branch == "side" and (checkout.root / "new.txt").exists()
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    assert store(isolated / "rp").fetch(Source(str(tmp_path / "bare.git"))).pin.commit == project.head


def test_a_folder_without_git(isolated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain 'ü'"
    (folder / "sub").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_bytes(b"x")
    for name, content in {"a.py": "1", "sub/b.bin": "\0", "x.log": "no", "data.csv": "no", ".gitignore": "*.log\n"}.items():
        (folder / name).write_text(content)
    (folder / ".runprojignore").write_text("data.csv\n")
    (folder / "a.py").chmod(0o755)
    before = fingerprint(folder)
    checkout = store(isolated / "rp").fetch(Source(str(folder)))
    pin = checkout.pin
    assert fingerprint(folder) == before
    assert (pin.kind, pin.commit, pin.committed_at, pin.dirty) == (PinKind.TREE, None, None, False)
    assert set(files(checkout.root)) == {b"a.py", b"sub/b.bin", b".gitignore", b".runprojignore"}
    assert "Left out: __pycache__." in pin.notes
    expected = files(checkout.root)
    shutil.rmtree(folder)
    again = store(isolated / "rp").checkout(pin, tmp_path / "again")
    assert files(again.root) == expected
    with pytest.raises(SourceError, match="no revision"):
        (tmp_path / "empty").mkdir()
        store(isolated / "rp").fetch(Source(str(tmp_path / "empty"), "main"))


def test_a_repository_before_its_first_commit(repository, isolated: Path) -> None:
    repository.write({"a.py": "1"})
    repository.git("add", "a.py")
    checkout = store(isolated / "rp").fetch(Source(str(repository.path)))
    assert checkout.pin.kind is PinKind.TREE and (checkout.root / "a.py").exists()


def test_too_much_is_refused_with_names(project, isolated: Path) -> None:
    project.write({"big.bin": b"x" * 300_000, "small": "x", "ignored.log": b"x" * 900_000})
    sources = store(isolated / "rp", capture_limit=200_000)
    with pytest.raises(SourceError, match="limit") as error:
        sources.fetch(Source(str(project.path)))
    assert "big.bin" in error.value.why and "ignored.log" not in error.value.why
    assert "RUNPROJ_CAPTURE_LIMIT" in error.value.fix and ".gitignore" in error.value.fix
    (project.path / ".runprojignore").write_text("big.bin\n")
    assert not (sources.fetch(Source(str(project.path))).root / "big.bin").exists()


def test_nothing_is_left_out_silently(project, isolated: Path) -> None:
    os.mkfifo(project.path / "pipe")
    (project.path / "empty dir").mkdir()
    (project.path / "logs.log").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(project.path / "pkg", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/sock")
        os.close(folder)
        pin = store(isolated / "rp").fetch(Source(str(project.path))).pin
    notes = "\n".join(pin.notes)
    assert "pipe" in notes and "pkg/sock" in notes and "empty dir" in notes and "logs.log" not in notes


def test_other_repositories_inside_are_refused(project, isolated: Path, make_repository) -> None:
    make_repository("project/nested").commit({"x": "1"})
    with pytest.raises(SourceError, match="contains other repositories: nested/"):
        store(isolated / "rp").fetch(Source(str(project.path)))


def test_runprojs_own_home_inside_the_project_is_not_captured(project) -> None:
    home = project.path / "[home]*"
    store(home).fetch(Source(str(project.path)))
    checkout = store(home).fetch(Source(str(project.path)))
    assert not checkout.pin.dirty and not (checkout.root / "[home]*").exists()


def test_links_out_of_the_own_folder_are_kept_and_noted(project, isolated: Path, tmp_path: Path) -> None:
    (project.path / "data").symlink_to("/somewhere/big")
    project.commit({})
    pin = store(isolated / "rp").fetch(Source(str(project.path))).pin
    assert any("data -> /somewhere/big" in note for note in pin.notes)
    assert (store(tmp_path / "x").checkout(pin, tmp_path / "w").root / "data").is_symlink()


def test_origins_bring_a_vanished_folder_back(project, make_repository, isolated: Path, tmp_path: Path) -> None:
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "remote.git"))
    project.git("remote", "add", "backup", "https://user:s3cret@nowhere.invalid/x.git")
    project.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    project.git("fetch", "-q", "origin")
    unstaged(project)
    sources = store(isolated / "rp")
    pin = sources.fetch(Source(str(project.path))).pin
    assert pin.origins[0].startswith("file://") and pin.origins[1] == "https://nowhere.invalid/x.git"
    assert "s3cret" not in repr(pin) and not any("only here" in note for note in pin.notes)
    shutil.rmtree(project.path)
    fresh = Objects(tmp_path / "fresh/objects")
    fresh.put(sources._objects.path(pin.patch))
    again = store(tmp_path / "fresh").checkout(pin, tmp_path / "work")
    assert (again.root / "a.txt").read_text() == "unstaged, no newline at the end"


def test_a_lost_or_damaged_patch_is_named(project, isolated: Path, tmp_path: Path) -> None:
    unstaged(project)
    sources = store(isolated / "rp")
    pin = sources.fetch(Source(str(project.path))).pin
    with pytest.raises(SourceError, match=r"recorded changes .* are lost"):
        store(tmp_path / "fresh").checkout(pin, tmp_path / "work")
    patch = sources._objects.path(pin.patch)
    patch.chmod(0o644)
    patch.write_bytes(patch.read_bytes() + b"x")
    with pytest.raises(SourceError, match=r"recorded changes .* are lost"):
        store(isolated / "rp").checkout(pin, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_folder_that_the_repository_around_it_ignores_is_on_its_own(project, isolated: Path) -> None:
    project.commit({".gitignore": "/mine/\n"})
    project.write({"mine/a.py": "1"})
    pin = store(isolated / "rp").fetch(Source(str(project.path / "mine"))).pin
    assert (pin.kind, pin.subdirectory) == (PinKind.TREE, "")


def test_the_users_filters_and_variables_change_nothing(project, isolated: Path, monkeypatch) -> None:
    canary = isolated / "canary"
    project.git("config", "filter.evil.clean", f"touch '{isolated}/canary'; cat")
    project.git("config", "core.fsmonitor", f"touch '{isolated}/canary'")
    project.git("config", "diff.external", f"touch '{isolated}/canary'")
    project.git("config", "core.autocrlf", "true")
    project.write({".gitattributes": "* filter=evil diff=evil\n", "a.txt": "dirty\r\n"})
    monkeypatch.setenv("GIT_DIR", str(isolated / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(isolated / "no-index"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {canary}")
    checkout = store(isolated / "rp").fetch(Source(str(project.path)))
    assert (checkout.root / "a.txt").read_bytes() == b"dirty\r\n"
    assert not canary.exists()


def test_global_ignore_rules_hold(project, isolated: Path) -> None:
    (isolated / "my ignore").write_text("*.swp\n")
    (isolated / ".gitconfig").write_text('[core]\n excludesFile = "~/my ignore"\n')
    project.write({"x.swp": "x", "y.tmp": "x"})
    (project.path / ".git/info/exclude").write_text("*.tmp\n")
    assert not store(isolated / "rp").fetch(Source(str(project.path))).pin.dirty


def test_missing_folder_and_file(isolated: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no folder"):
        store(isolated / "rp").fetch(Source(str(tmp_path / "nope")))
    (tmp_path / "file.py").write_text("")
    with pytest.raises(SourceError, match="is a file"):
        store(isolated / "rp").fetch(Source(str(tmp_path / "file.py")))
