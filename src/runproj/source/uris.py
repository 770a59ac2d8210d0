"""What people type for a source, parsed: URLs, scp-like addresses, web links, folders and archives.  Pure text, no I/O."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlencode, urlsplit, urlunsplit

from runproj.core.source import Source
from runproj.core.values import dataclass
from runproj.errors import SourceError


class Form(Enum):
    """What stands behind an address."""

    REMOTE = "remote"  # a git repository behind a URL
    FOLDER = "folder"  # a local folder, to be captured as it is
    ARCHIVE = "archive"  # a .zip, local or behind a URL


@dataclass(frozen=True)
class Address:
    """A parsed source.

    url:    what git or the download is given; may hold credentials.  For a local path, its `file://` URL.
    path:   the local path, where there is one.
    revision: as given apart or behind `@`.
    link:   the part of a web link behind `/tree/`: a branch, which may contain slashes, and a folder, still unseparated.
    """

    form: Form
    url: str
    path: Path | None = None
    revision: str | None = None
    subdirectory: str = ""
    link: str | None = None

    @property
    def shown(self) -> str:
        """The URL without anything secret."""
        return scrub(self.url)


_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCP = re.compile(r"(?:[A-Za-z0-9_][\w.+-]*@)?(?:[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\]):(?!//)[^\s:].*", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET_KEYS = re.compile(r"(?i)(^|[_-])(token|sig|signature|secret|password|passwd|pwd|key|auth|credential|code|jwt)s?$|^x-amz-")
_BAD_REVISION = re.compile(r"^-|[\x00-\x20\x7f?*\[\\:]|\.\.|@\{(?!\d+\})|//|/$|\^\{(?!(commit|tag|object|)\})")
_WEB_LINK = re.compile(
    r"/(?P<repository>[^?#]+?)/(?:-/)?(?P<kind>tree|blob|commit|commits|src)/"
    r"(?:(?P<gitea>branch|tag|commit)/)?(?P<rest>[^?#]+)$"
)


def parse(source: Source) -> Address:
    """The address in what was typed.  Raises `SourceError` for one that has no meaning or could do harm."""
    text = source.uri.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    if not text or (any(ord(c) < 32 or ord(c) == 127 for c in text) and "://" in text) or "\0" in text:
        raise _refused(text, "It is empty or contains control characters.")
    base, _, fragment = text.partition("#")
    if fragment and source.subdirectory:
        raise SourceError(f"The sub-folder of {scrub(base)} is given twice", why=f"{fragment!r} and {source.subdirectory!r}.")
    where = _subdirectory(fragment or source.subdirectory, base)
    address = _address(base, text)
    if where and address.subdirectory:
        where = f"{address.subdirectory}/{where}"
    address = replace(address, subdirectory=where or address.subdirectory)
    if source.revision:
        if address.revision and address.revision != source.revision:
            raise SourceError(
                f"Two revisions are given for {address.shown}",
                why=f"The address says {address.revision!r}, the option says {source.revision!r}.",
                fix="Give one of them.",
            )
        address = replace(address, revision=source.revision)
    if address.revision is not None:
        check_revision(address.revision)
    return address


def _refused(text: str, why: str) -> SourceError:
    return SourceError(
        f"{scrub(text)!r} is not a source that runproj can use",
        why=why,
        fix="Use an https, ssh, git or file URL, git@host:path, a folder, or a .zip file.",
    )


def _address(base: str, text: str) -> Address:
    pip_style = base.startswith("git+")
    if pip_style:
        base = base.removeprefix("git+")
    if match := _SCHEME.match(base):
        if match[1].lower() not in _SCHEMES:
            raise _refused(text, f"The scheme {match[1]!r} is not supported.")
        return _url(match[1].lower() + base[len(match[1]) :], pip_style)
    if pip_style:
        raise _refused(text, "A URL has to follow git+.")
    if base.startswith("-") or "::" in base.partition("/")[0]:
        raise _refused(text, "It would be an option or a transport helper to git.")
    if not base.startswith(("/", ".", "~")) and not os.path.lexists(base) and _SCP.fullmatch(base):
        return Address(Form.REMOTE, base)
    return local(base)


def local(text: str | Path) -> Address:
    """The address of a folder or archive on this machine."""
    path = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - lexical: a link stays the link it is
    form = Form.ARCHIVE if path.suffix.lower() == ".zip" and not path.is_dir() else Form.FOLDER
    return Address(form, file_url(path), path)


def file_url(path: Path) -> str:
    """The `file://` URL of an absolute path, whatever bytes are in it."""
    return "file://" + quote(os.fsencode(path))


def file_path(url: str) -> Path:
    """The path of a `file://` URL."""
    rest = url.removeprefix("file://").partition("?")[0]
    host, slash, tail = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise _refused(url, "A file URL names an absolute path on this machine: file:///folder.")
    return Path(os.fsdecode(unquote_to_bytes("/" + tail)))


def _url(url: str, pip_style: bool) -> Address:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(url, str(error)) from None
    if parts.scheme == "file":
        url, revision = _at_revision(url) if pip_style else (url, None)
        path = file_path(url)
        form = Form.ARCHIVE if path.suffix.lower() == ".zip" and not path.is_dir() else Form.REMOTE
        return Address(form, file_url(path), path, revision)
    if not host or host.startswith("-") or (parts.username or "").startswith("-") or "%" in (parts.netloc.rpartition("@")[2]):
        raise _refused(url, "The host name is missing or malformed.")
    if parts.scheme in ("http", "https"):
        if parts.path.lower().endswith(".zip") and not pip_style:
            return Address(Form.ARCHIVE, url)
        if (link := _web_link(url)) is not None:
            return link
    if pip_style:
        url, revision = _at_revision(url)
        return Address(Form.REMOTE, url, revision=revision)
    return Address(Form.REMOTE, url)


def _at_revision(url: str) -> tuple[str, str | None]:
    """`URL@rev` apart: the last `@` behind the host name, as pip reads it."""
    scheme, _, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    path, at, revision = path.rpartition("@")
    return (f"{scheme}://{netloc}{slash}{path}", unquote(revision)) if at and revision else (url, None)


def _web_link(url: str) -> Address | None:
    """The repository, revision and folder behind a page of a forge; None where the URL is no such page."""
    parts = urlsplit(url)
    match = _WEB_LINK.fullmatch(parts.path.rstrip("/"))
    if match is None or match["repository"].endswith(".git") or match["repository"].count("/") < 1:
        return None
    rest = unquote(match["rest"])
    if match["kind"] == "src" and not match["gitea"] and "bitbucket" not in (parts.hostname or ""):
        return None
    repository = urlunsplit((parts.scheme, parts.netloc, "/" + match["repository"], "", ""))
    address = Address(Form.REMOTE, repository)
    if (match["kind"] in ("commit", "commits") and not match["gitea"]) or match["gitea"] == "commit":
        revision, _, folder = rest.partition("/")
        return replace(address, revision=revision, subdirectory=_subdirectory(folder, url))
    if match["kind"] == "blob":
        raise SourceError(
            f"{scrub(url)} is the page of a file", why="A project is a repository or a folder of it.", fix="Link to its folder."
        )
    return replace(address, link=rest)


def split_link(link: str, names: frozenset[str]) -> tuple[str, str]:
    """The revision and the folder in `branch/with/slash/folder`: the longest branch or tag that is there wins."""
    parts = link.split("/")
    for length in range(len(parts), 0, -1):
        if (name := "/".join(parts[:length])) in names:
            return name, _subdirectory("/".join(parts[length:]), link)
    return parts[0], _subdirectory("/".join(parts[1:]), link)


def require_inside(text: str, base: str) -> None:
    """Raise `SourceError` for a sub-folder, of a plan from anybody, that leads out of its repository."""
    _subdirectory(text, base)


def _subdirectory(text: str, base: str) -> str:
    if not text:
        return ""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or "\0" in text or any(part.lower() == ".git" for part in parts):
        raise SourceError(f"{text!r} is not a sub-folder of {scrub(base)}", why="It is absolute, or leads out of the repository.")
    return "/".join(parts)


def check_revision(text: str) -> None:
    """Raise `SourceError` for text that can be no revision.  What passes is safe to hand to git."""
    if not text or _BAD_REVISION.search(text):
        raise SourceError(
            f"{text!r} is not a revision",
            why="It would be no branch, tag or commit to git.",
            fix="Use a branch, a tag, a commit hash, HEAD~1 or refs/…",
        )


def scrub(url: str) -> str:
    """`url` without credentials: user and password, and tokens in the query.  Never raises, never expands anything."""
    match = _SCHEME.match(url)
    if match is None:
        return re.sub(r"^([^@/\s:]+):[^@/\s]+@", r"\1@", url)
    head, rest = url[: match.end()], url[match.end() :]
    cut = min((i for i in (rest.find(c) for c in "/?#") if i >= 0), default=len(rest))
    netloc, tail = rest[:cut], rest[cut:]
    user, at, host = netloc.rpartition("@")
    if at:
        keep = user.partition(":")[0] if "ssh" in head.lower() else ""
        netloc = f"{keep}@{host}" if keep else host
    path, question, query = tail.partition("?")
    if question:
        query, hash_, fragment = query.partition("#")
        kept = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if not _SECRET_KEYS.search(key)]
        tail = path + (f"?{urlencode(kept)}" if kept else "") + hash_ + fragment
    return head + netloc + tail


def secrets_of(url: str) -> tuple[str, ...]:
    """The texts in `url` that must not be shown, longest first."""
    if not _SCHEME.match(url):
        return ()
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    found = {parts.password or "", unquote(parts.password or "")}
    if parts.scheme != "ssh":
        found |= {parts.username or "", unquote(parts.username or "")}
    found |= {value for key, value in parse_qsl(parts.query) if _SECRET_KEYS.search(key)}
    return tuple(sorted((text for text in found if len(text) > 2), key=len, reverse=True))


def scrub_text(text: str, *urls: str) -> str:
    """A message of git without the credentials of `urls`, nor of any other URL in it."""
    for url in urls:
        text = text.replace(url, scrub(url))
        for secret in secrets_of(url):
            text = text.replace(secret, "***")
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+", lambda match: scrub(match[0]), text)
