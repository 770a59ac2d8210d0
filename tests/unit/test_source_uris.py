"""What people type as a source, parsed; and nothing secret in what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.core.source import Source
from runproj.errors import SourceError
from runproj.source.revisions import _candidates
from runproj.source.submodules import relative
from runproj.source.uris import Address, Form, check_revision, file_path, file_url, parse, scrub, scrub_text, split_link


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://github.com/o/r", Address(Form.REMOTE, "https://github.com/o/r")),
        ("  'https://github.com/o/r.git' ", Address(Form.REMOTE, "https://github.com/o/r.git")),
        ("HTTPS://github.com/o/r", Address(Form.REMOTE, "https://github.com/o/r")),
        ("https://github.com/o/r#examples/a", Address(Form.REMOTE, "https://github.com/o/r", subdirectory="examples/a")),
        ("ssh://git@host:2222/o/r.git", Address(Form.REMOTE, "ssh://git@host:2222/o/r.git")),
        ("git@github.com:o/r.git", Address(Form.REMOTE, "git@github.com:o/r.git")),
        ("git@github.com:o/r.git#sub/", Address(Form.REMOTE, "git@github.com:o/r.git", subdirectory="sub")),
        ("host.example:path/r", Address(Form.REMOTE, "host.example:path/r")),
        ("git://host/r", Address(Form.REMOTE, "git://host/r")),
        ("git+https://host/o/r.git@v1.0", Address(Form.REMOTE, "https://host/o/r.git", revision="v1.0")),
        ("git+ssh://git@host/o/r.git@a/b", Address(Form.REMOTE, "ssh://git@host/o/r.git", revision="a/b")),
        ("git+https://host/o/r.git", Address(Form.REMOTE, "https://host/o/r.git")),
        ("https://github.com/o/r/tree/main", Address(Form.REMOTE, "https://github.com/o/r", link="main")),
        ("https://github.com/o/r/tree/a/b/c", Address(Form.REMOTE, "https://github.com/o/r", link="a/b/c")),
        ("https://github.com/o/r/commit/abc123", Address(Form.REMOTE, "https://github.com/o/r", revision="abc123")),
        (
            "https://gitlab.com/g/s/r/-/tree/main/x?ref_type=heads",
            Address(Form.REMOTE, "https://gitlab.com/g/s/r", link="main/x"),
        ),
        ("https://bitbucket.org/o/r/src/main/x/", Address(Form.REMOTE, "https://bitbucket.org/o/r", link="main/x")),
        ("https://codeberg.org/o/r/src/branch/main/x", Address(Form.REMOTE, "https://codeberg.org/o/r", link="main/x")),
        ("https://codeberg.org/o/r/src/commit/abc1/x", Address(Form.REMOTE, "https://codeberg.org/o/r", None, "abc1", "x")),
        ("https://host/a/b.zip", Address(Form.ARCHIVE, "https://host/a/b.zip")),
        ("https://host/a/b.ZIP?sig=x#sub", Address(Form.ARCHIVE, "https://host/a/b.ZIP?sig=x", subdirectory="sub")),
        ("file:///a%20b%23c/r", Address(Form.REMOTE, "file:///a%20b%23c/r", Path("/a b#c/r"))),
        ("file://localhost/a/b.zip", Address(Form.ARCHIVE, "file:///a/b.zip", Path("/a/b.zip"))),
        ("/a/b", Address(Form.FOLDER, "file:///a/b", Path("/a/b"))),
        ("/a/b/../c/", Address(Form.FOLDER, "file:///a/c", Path("/a/c"))),
        ("/a/b.zip#x", Address(Form.ARCHIVE, "file:///a/b.zip", Path("/a/b.zip"), subdirectory="x")),
        ("/a/${HOME}/~b", Address(Form.FOLDER, "file:///a/%24%7BHOME%7D/~b", Path("/a/${HOME}/~b"))),
    ],
)
def test_forms(text: str, expected: Address) -> None:
    assert parse(Source(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "ext::sh -c touch% canary",
        "fd::17",
        "git+ext::sh -c x",
        "ext://sh -c x",
        "--upload-pack=touch canary",
        "-u",
        "ssh://-oProxyCommand=touch canary/x",
        "ssh://-oProxyCommand=x@host/y",
        "https://-host/r",
        "https:///r",
        "https://host:port/r",
        "https://host\n.evil/r",
        "https://ho%0ast/r",
        "https://[::1/r",
        "ftp://host/r",
        "javascript://x",
        "file://other-host/r",
        "git+/local/path",
        "https://host/r#../up",
        "https://host/r#a/../../b",
        "https://host/r#/etc",
        "https://host/r#x/.git",
        "https://github.com/o/r/blob/main/train.py",
        "https://github.com/o/r/commit/a/../../x",
        "/a\0b",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse(Source(text))


@pytest.mark.parametrize(
    "revision", ["-x", "--upload-pack=x", "a b", "a..b", "HEAD:path", "a\nb", "x*", "@{u}", "", "a//b", "^{/re}"]
)
def test_refused_revisions(revision: str) -> None:
    with pytest.raises(SourceError):
        check_revision(revision)


@pytest.mark.parametrize("revision", ["main", "a/b", "v1.0^{commit}", "HEAD~1", "HEAD^^2", "refs/pull/1/head", "v1.0-3-gabcdef1"])
def test_accepted_revisions(revision: str) -> None:
    check_revision(revision)


def test_two_revisions_or_two_folders_are_an_error() -> None:
    with pytest.raises(SourceError, match="Two revisions"):
        parse(Source("git+https://h/r@v1", "v2"))
    with pytest.raises(SourceError, match="twice"):
        parse(Source("https://h/r#a", subdirectory="b"))
    assert parse(Source("git+https://h/r@v1", "v1")).revision == "v1"
    assert parse(Source("https://h/r", "v2", "b")).subdirectory == "b"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:s3cret@host/r?x=1", "https://host/r?x=1"),
        ("https://s3cret@host/r", "https://host/r"),
        ("https://us@er:s3@cret@host:8443/r", "https://host:8443/r"),
        ("ssh://git:s3cret@host/r", "ssh://git@host/r"),
        ("git@host:o/r", "git@host:o/r"),
        ("user:s3cret@host:o/r", "user@host:o/r"),
        ("https://h/r.zip?access_token=s3cret&a=b", "https://h/r.zip?a=b"),
        ("https://h/r.zip?sig=s3cret&X-Amz-Signature=s3cret&private_token=s3cret", "https://h/r.zip"),
        ("https://h/${HOME}/~root", "https://h/${HOME}/~root"),
        ("https://u:s3cret@h#frag", "https://h#frag"),
        ("not a url", "not a url"),
    ],
)
def test_scrub(url: str, shown: str) -> None:
    assert scrub(url) == shown
    assert "s3cret" not in scrub_text(f"fatal: unable to access '{url}': and s3cret again", url).replace("s3cret again", "")


def test_messages_lose_the_password_wherever_it_stands() -> None:
    text = scrub_text("denied for p%40ss and p@ss at https://u:p%40ss@h/r", "https://user:p%40ss@h/r")
    assert "p@ss" not in text and "p%40ss" not in text


def test_file_urls_of_any_path() -> None:
    for name in ("/a b/ü#?%20", "/line\nbreak", "/non-utf8-\udcff"):
        assert file_path(file_url(Path(name))) == Path(name)


def test_web_links_take_the_longest_name_that_exists() -> None:
    names = frozenset({"feature", "feature/x", "main"})
    assert split_link("feature/x/sub/dir", names) == ("feature/x", "sub/dir")
    assert split_link("feature/y", names) == ("feature", "y")
    assert split_link("0123abc/sub", names) == ("0123abc", "sub")


@pytest.mark.parametrize(
    ("declared", "parent", "url"),
    [
        ("../b.git", "https://h/o/a.git", "https://h/o/b.git"),
        ("../../x/b", "https://h/o/a/", "https://h/x/b"),
        ("./b", "https://h/o/a", "https://h/o/a/b"),
        ("../b", "git@h:o/a", "git@h:o/b"),
        ("../b", "git@h:a", "git@h:b"),
        ("../b", "file:///s/a", "file:///s/b"),
    ],
)
def test_relative_submodules(declared: str, parent: str, url: str) -> None:
    assert relative(declared, parent) == url


def test_relative_submodules_stay_on_their_host() -> None:
    with pytest.raises(SourceError):
        relative("../../../../evil", "https://h/o/a")


def test_reference_candidates() -> None:
    assert _candidates("HEAD") == ["HEAD"]
    assert _candidates("refs/pull/1/head") == ["refs/pull/1/head"]
    assert "refs/heads/main" in _candidates("origin/main")
