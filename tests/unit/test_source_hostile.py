"""Hostile URLs, revisions, repositories and archives: each is refused or harmless, and nothing of theirs is executed."""

from __future__ import annotations

import os
import stat
import subprocess
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from gitservers import GitHttp
from runproj.core.source import PinKind, Source
from runproj.errors import RunprojError, SourceError
from runproj.files import Objects
from runproj.source import SourceStore


def store(home: Path, **options) -> SourceStore:
    return SourceStore(home / "cache", home / "checkouts", Objects(home / "objects"), **options)


@pytest.fixture
def home(isolated: Path) -> Path:
    return isolated / "runproj home"


@pytest.fixture
def canary(isolated: Path, tmp_path: Path, monkeypatch) -> Path:
    """A file that every attack tries to make; its short name needs no quoting in the attacks."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


URLS = [
    "ext::touch {canary}",
    "ext::sh -c 'touch {canary}'",
    "git+ext::touch {canary}",
    "fd::0",
    "--upload-pack=touch {canary}",
    "--upload-pack=touch${{IFS}}{canary}",
    "-u touch${{IFS}}{canary}",
    "--config=core.fsmonitor=touch {canary}",
    "--template={folder}/template",
    "ssh://-oProxyCommand=touch${{IFS}}{canary}/x",
    "ssh://x@-oProxyCommand=touch${{IFS}}{canary}/x",
    "-oProxyCommand=touch${{IFS}}{canary}:x",
    "git@-oProxyCommand=touch${{IFS}}{canary}:x",
    "file://{folder}/$(touch${{IFS}}{canary})",
    "{folder}/`touch {canary}`",
    "$(touch {canary})",
    "https://127.0.0.1:1/x;touch {canary}",
    "git://127.0.0.1:1/x --upload-pack=touch{canary}",
    "http://127.0.0.1:1/\ntouch {canary}",
    "svn://127.0.0.1:1/x",
]
REVISIONS = [
    "--upload-pack=touch {canary}",
    "-c core.fsmonitor=touch${{IFS}}{canary}",
    "--output={canary}",
    "$(touch {canary})",
    "`touch {canary}`",
    "main; touch {canary}",
    "main\ntouch {canary}",
    "HEAD:../../x",
    "+refs/heads/main:refs/heads/{canary}",
    "../../../../{canary}",
]


@pytest.mark.parametrize("url", URLS)
def test_hostile_urls_do_nothing(home: Path, canary: Path, tmp_path: Path, url: str) -> None:
    with pytest.raises(RunprojError):
        store(home).fetch(Source(url.format(canary=canary, folder=tmp_path)))
    assert not canary.exists()


@pytest.mark.parametrize("revision", REVISIONS)
def test_hostile_revisions_do_nothing(repository, home: Path, canary: Path, revision: str) -> None:
    repository.commit({"a": "a"})
    for uri in (repository.url, str(repository.path)):
        with pytest.raises(RunprojError):
            store(home).fetch(Source(uri, revision.format(canary=canary)))
    assert not canary.exists()


def object_in(repository, kind: str, content: bytes) -> str:
    """Write an object that git's own commands would refuse to make."""
    result = subprocess.run(
        ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"],
        cwd=repository.path,
        input=content,
        capture_output=True,
        check=True,
    )
    return result.stdout.decode().strip()


def commit_tree(repository, *entries: tuple[str, bytes, str]) -> str:
    """Make HEAD a commit of these (mode, name, hash) entries."""
    tree = object_in(repository, "tree", b"".join(f"{m} ".encode() + n + b"\0" + bytes.fromhex(h) for m, n, h in entries))
    commit = repository.git("commit-tree", tree, "-m", "hostile")
    repository.git("update-ref", "HEAD", commit)
    return commit


@pytest.mark.parametrize(
    "name", [b"..", b".", b".git", b".GIT", b".Git ", b"git~1", ".g\u200cit".encode(), b"..\\..\\x", b".git\\config"]
)
def test_trees_that_reach_out_are_refused(repository, home: Path, name: bytes) -> None:
    blob = object_in(repository, "blob", b"[core]\n\tfsmonitor = touch canary\n")
    inner = object_in(repository, "tree", b"100644 config\0" + bytes.fromhex(blob))
    commit_tree(repository, ("40000", name, inner), ("100644", b"zz", blob))
    with pytest.raises(SourceError, match="not safe to lay out") as error:
        store(home).fetch(Source(repository.url))
    assert "config" in error.value.why or "tree" in error.value.why
    assert os.listdir(home / "checkouts") == []


@pytest.mark.parametrize(
    "links",
    [
        {"m": "/etc"},
        {"m": "../../etc/passwd"},
        {"a/b/m": "../../../x"},
        {"up": ".", "m": "up/../.."},
        {"a/b/deep": "../../top", "top/x": "y", "a/b/m": "deep/../../x"},
        {"one": "two", "two": "/root"},
    ],
)
def test_links_out_of_the_tree_are_refused_and_named(repository, home: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        path = repository.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    repository.commit({"a.txt": "a"})
    with pytest.raises(SourceError, match="not safe to lay out") as error:
        store(home).fetch(Source(repository.url))
    assert " -> " in error.value.why
    with pytest.raises(SourceError):  # the verdict is kept with the cached commit
        store(home).fetch(Source(repository.url))


def test_links_inside_the_tree_are_fine(repository, home: Path) -> None:
    for name, target in {
        "a/b/m": "../../a.txt",
        "loop": "loop",
        "dangling": "nowhere",
        "dir": "a/b/..",
        "x": "dir/../a.txt",
    }.items():
        (repository.path / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / name).symlink_to(target)
    repository.commit({"a.txt": "a"})
    assert (store(home).fetch(Source(repository.url)).root / "a/b/m").read_text() == "a"


def test_a_file_behind_a_link_of_the_same_tree(repository, home: Path, canary: Path) -> None:
    """A tree with a link and a folder of one name, so that laying out would write through the link."""
    link = object_in(repository, "blob", str(canary.parent).encode())
    blob = object_in(repository, "blob", b"x")
    inner = object_in(repository, "tree", b"100644 canary\0" + bytes.fromhex(blob))
    commit_tree(repository, ("120000", b"m", link), ("40000", b"m", inner))
    with pytest.raises(SourceError):
        store(home).fetch(Source(repository.url))
    assert not canary.exists()


def test_a_tree_that_unfolds_without_end(repository, home: Path) -> None:
    entry = object_in(repository, "blob", b"x")
    mode = "100644"
    for _ in range(10):
        tree = object_in(repository, "tree", b"".join(f"{mode} d{n}\0".encode() + bytes.fromhex(entry) for n in range(10)))
        entry, mode = tree, "40000"
    commit_tree(repository, ("40000", b"top", entry))
    with pytest.raises(SourceError) as error:
        store(home).fetch(Source(repository.url))
    assert "more than" in error.value.why


def test_a_link_that_would_fill_the_memory(repository, home: Path) -> None:
    huge = object_in(repository, "blob", b"x" * 3_000_000)
    commit_tree(repository, ("100644", b".gitattributes", huge), ("120000", b"link", huge))
    with pytest.raises(SourceError, match="not safe to lay out") as error:
        store(home).fetch(Source(repository.url))
    assert "'link' is too large" in error.value.why


def test_hooks_filters_and_monitors_of_a_repository_do_not_run(repository, home: Path, canary: Path) -> None:
    repository.commit({".gitattributes": "* filter=evil diff=evil merge=evil\n", ".gitconfig": "[core]\nfsmonitor=x\n", "a": "a"})
    script = f"#!/bin/sh\ntouch '{canary}'\n"
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change", "fsmonitor-watchman", "post-merge"):
        path = repository.path / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    for key in ("filter.evil.smudge", "filter.evil.clean", "filter.evil.process", "core.fsmonitor", "uploadpack.packObjectsHook"):
        repository.git("config", key, f"touch {canary}")
    for key in ("core.sshCommand", "core.askPass", "core.editor", "core.pager", "diff.external", "diff.evil.textconv"):
        repository.git("config", key, f"touch {canary}")
    (repository.path / "dirty").write_text("x")
    for uri in (repository.url, str(repository.path)):
        sources = store(home)
        sources.checkout(sources.fetch(Source(uri)).pin, home / "runs" / str(len(uri)))
    assert not canary.exists()


def test_hooks_and_templates_of_the_user_do_not_run(repository, home: Path, isolated: Path, canary: Path, monkeypatch) -> None:
    repository.commit({"a": "a"})
    hooks = isolated / "template" / "hooks"
    hooks.mkdir(parents=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch '{canary}'\n")
        (hooks / hook).chmod(0o755)
    subprocess.run(["git", "config", "--global", "init.templateDir", str(isolated / "template")], check=True)
    subprocess.run(["git", "config", "--global", "core.hooksPath", str(hooks)], check=True)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(isolated / "template"))
    checkout = store(home).fetch(Source(repository.url))
    subprocess.run(["git", "checkout", "-q", "--detach", "HEAD"], cwd=checkout.root, check=True)
    assert not canary.exists()


def with_submodule(repository, url: str, path: str = "sub", name: str = "sub"):
    """HEAD gets a submodule with this address, which git itself may have refused."""
    target = repository.commit({"a": "a"})
    repository.write({".gitmodules": f'[submodule "{name}"]\n\tpath = "{path}"\n\turl = "{url}"\n'})
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{target},{path}")
    repository.git("commit", "-qm", "submodule")
    return repository


@pytest.mark.parametrize(
    "url",
    [
        *("ext::touch {canary}", "-u touch {canary}", "--upload-pack=touch {canary}", "ssh://-oProxyCommand=touch {canary}/x"),
        *("file:///etc", "/etc", "relative/path", "~root/x", "https://host/\\nx", "../../../../../../../../../../../.."),
    ],
)
def test_hostile_submodule_addresses(repository, home: Path, canary: Path, url: str) -> None:
    with_submodule(repository, url.format(canary=canary))
    with GitHttp(repository.path.parent) as server, pytest.raises(SourceError) as error:
        store(home).fetch(Source(f"{server.url}/project/.git"))
    assert "ubmodule" in error.value.what
    assert not canary.exists()


def test_a_submodule_name_that_climbs_and_an_include_do_nothing(repository, home: Path, canary: Path, make_repository) -> None:
    inner = make_repository("inner")
    inner.commit({"i": "i"})
    with_submodule(repository, inner.url, name="../../../../hooks/x")
    repository.write({".gitmodules": (repository.path / ".gitmodules").read_text() + "[include]\n\tpath = /etc/passwd\n"})
    repository.git("update-index", "--cacheinfo", f"160000,{inner.head},sub")
    repository.git("add", ".gitmodules")
    repository.git("commit", "-qm", "include")
    checkout = store(home).fetch(Source(repository.url))
    assert (checkout.root / "sub/i").read_text() == "i"
    assert "root:" not in repr(checkout.pin)


def make_zip(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    "entries",
    [
        [("../canary", b"x", FILE)],
        [("a/../../canary", b"x", FILE)],
        [("/tmp/canary-runproj", b"x", FILE)],
        [("..\\canary", b"x", FILE)],
        [("C:\\canary", b"x", FILE)],
        [("l", b"/tmp", LINK)],
        [("l", b"../../..", LINK)],
        [("l", b"..", LINK), ("l/canary", b"x", FILE)],
        [("a", b"x", FILE), ("a", b"y", FILE)],
        [("a", b"x", FILE), ("a/b", b"y", FILE)],
        [("a", b"x", stat.S_IFIFO | 0o644)],
        [("a", b"x", stat.S_IFCHR | 0o644)],
        [("sub/.git/config", b"x", FILE)],
        [("sub/.GIT/config", b"x", FILE)],
        [("bomb", b"\0" * 60_000_000, FILE)],
    ],
    ids=lambda entries: entries[-1][0],
)
def test_hostile_archives_are_refused(home: Path, tmp_path: Path, entries) -> None:
    archive = make_zip(tmp_path / "hostile.zip", *entries)
    before = sorted(path for path in tmp_path.rglob("*") if home not in path.parents)
    with pytest.raises(SourceError):
        store(home).fetch(Source(str(archive)))
    assert sorted(path for path in tmp_path.rglob("*") if home not in path.parents and path != home) == before
    assert os.listdir(home / "checkouts") == []
    assert not Path("/tmp/canary-runproj").exists()


def test_an_archive_that_lies_about_its_size(home: Path, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "lies.zip", ("a", b"\0" * 3_000_000, FILE))
    data = bytearray(archive.read_bytes())
    for offset in (14 + 8, data.rindex(b"PK\1\2") + 24):
        data[offset : offset + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(SourceError):
        store(home, capture_limit=1_000_000).fetch(Source(str(archive)))


@pytest.mark.parametrize("content", [b"", b"PK\3\4 not really", b"\0" * 1000, zlib.compress(b"x")])
def test_no_archive_at_all(home: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SourceError, match="is refused"):
        store(home).fetch(Source(str(tmp_path / "x.zip")))


def test_an_archive_is_a_tree(home: Path, tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "ü 'project'.zip",
        *(("p/run.sh", b"#!/bin/sh\n", stat.S_IFREG | 0o755), ("p/.gitignore", b"*.bin\n", FILE), ("p/m.bin", b"\0\1", FILE)),
        *(("p/link", b"m.bin", LINK), ("p/sub/", b"", stat.S_IFDIR | 0o755), ("p/sub/x", b"x", FILE)),
    )
    sources = store(home)
    checkout = sources.fetch(Source(str(archive)))
    assert (checkout.pin.kind, checkout.pin.subdirectory) == (PinKind.TREE, "p")
    assert os.access(checkout.project / "run.sh", os.X_OK) and (checkout.project / "m.bin").read_bytes() == b"\0\1"
    assert (checkout.project / "link").is_symlink()
    archive.unlink()
    sources.discard(checkout)
    assert (store(home).checkout(checkout.pin, tmp_path / "w").project / "m.bin").exists()
    assert os.listdir(home / "checkouts") == []


@pytest.mark.parametrize("where", ["..", "a/../../b", "/etc", ".git"])
def test_a_plan_cannot_have_its_project_elsewhere(home: Path, tmp_path: Path, where: str) -> None:
    archive = make_zip(tmp_path / "p.zip", ("a.py", b"1", FILE))
    pin = store(home).fetch(Source(str(archive))).pin
    with pytest.raises(SourceError, match="is not a sub-folder"):
        store(home).checkout(replace(pin, subdirectory=where), tmp_path / "w")


def test_archives_over_http(home: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    make_zip(tmp_path / "served/p.zip", ("a.py", b"1", FILE), ("sub/b.py", b"2", FILE))
    with GitHttp(tmp_path / "served", password="s3cret-t0ken") as server:
        url = f"http://user:s3cret-t0ken@{server.host}/p.zip?access_token=other-t0ken"
        pin = store(home).fetch(Source(f"{url}#sub")).pin
        assert (pin.uri, pin.subdirectory) == (f"{server.url}/p.zip", "sub")
        assert store(home).fetch(Source(url)).pin.tree == pin.tree
        with pytest.raises(SourceError, match="Cannot download") as error:
            store(home).fetch(Source(f"http://user:wr0ng-t0ken@{server.host}/p.zip"))
        assert "401" in error.value.why
    assert store(home, offline=True).fetch(Source(url)).pin.tree == pin.tree
    with pytest.raises(SourceError, match="Cannot download"):
        store(home).fetch(Source(url))
    with pytest.raises(SourceError, match="not in the cache"):
        store(home, offline=True).fetch(Source(f"{server.url}/other.zip"))
    assert "t0ken" not in repr(pin) + str(error.value)
    for path in home.rglob("*"):
        assert not path.is_file() or b"t0ken" not in path.read_bytes()
