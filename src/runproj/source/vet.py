"""What a commit contains, looked at before any of it is laid out: facts that never change, and what makes it unfit."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence

from runproj.core.source import SubmodulePin
from runproj.core.values import dataclass
from runproj.source.gitcmd import Git, GitFailed

_MAX_LINKS = 40
_MAX_LISTING = 256 * 1024 * 1024
_MAX_SMALL_FILE = 1024 * 1024
_LINK, _GITLINK, _TREE = "120000", "160000", "040000"
_LFS = re.compile(rb"(?m)^[^#\n]*\bfilter=lfs\b")
# Code points that some file systems leave out when they compare names.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


@dataclass(frozen=True)
class Facts:
    """What is true of a commit for ever.

    committed_at: ISO 8601 with the committer's offset.
    problems:  why it must not be laid out, one sentence each.
    outside:   symbolic links that lead out of the tree.
    submodules: with the URLs as `.gitmodules` has them.
    lfs:       some files are pointers to Git LFS.
    """

    commit: str
    tree: str
    committed_at: str
    problems: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    submodules: tuple[SubmodulePin, ...] = ()
    lfs: bool = False
    version: int = 1


@dataclass(frozen=True)
class Entry:
    """A line of a tree listing."""

    mode: str
    object: str
    path: bytes


def entries(listing: bytes) -> list[Entry]:
    """The output of `git ls-tree -r -t -z`, parsed."""
    found = []
    for line in listing.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, name = head.split(b" ")[:3]
            found.append(Entry(mode.decode(), name.decode(), path))
    return found


@dataclass(frozen=True)
class Survey:
    """What a tree contains, as in `Facts`."""

    problems: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    submodules: tuple[SubmodulePin, ...] = ()
    lfs: bool = False


def survey(git: Git, tree: str) -> Survey:
    """Look at every entry of a commit or tree.  Raises `GitFailed` where it is none."""
    arguments = ("ls-tree", "-r", "-t", "-z", "--full-tree", tree)
    listed = git.run(*arguments, at_most=_MAX_LISTING)
    if listed.code:
        raise GitFailed(arguments, listed)
    listing = entries(listed.out)
    links = [entry for entry in listing if entry.mode == _LINK]
    attributes = [e for e in listing if e.path.rpartition(b"/")[2] == b".gitattributes" and e.mode.startswith("100")]
    huge = _huge(git, [*links, *attributes])
    links, attributes = ([entry for entry in group if entry not in huge] for group in (links, attributes))
    objects = cat(git, [entry.object for entry in (*links, *attributes)])
    targets = {entry.path: content or b"" for entry, content in zip(links, objects, strict=False)}
    return Survey(
        problems=(*_problems(listing), *(f"{text(entry.path)!r} is too large for what it is." for entry in huge)),
        outside=tuple(_outside(targets)),
        submodules=_submodules(git, tree, listing),
        lfs=any(content and _LFS.search(content) for content in objects[len(links) :]),
    )


def examine(git: Git, name: str) -> Facts | None:
    """The facts of the commit that `name` (a full hash) is or points to; None where it is no commit."""
    found = git.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found.code:
        return None
    commit = found.out.decode().strip()
    seen = survey(git, commit)
    header = (cat(git, [commit])[0] or b"").partition(b"\n\n")[0].decode(errors="replace")
    return Facts(
        commit=commit,
        tree=_header(header, "tree"),
        committed_at=_time(_header(header, "committer")),
        problems=seen.problems,
        outside=seen.outside,
        submodules=seen.submodules,
        lfs=seen.lfs,
    )


def _huge(git: Git, wanted: Sequence[Entry]) -> list[Entry]:
    """Links and attribute files that nobody makes in good faith, and that would fill the memory."""
    if not wanted:
        return []
    names = "".join(f"{entry.object}\n" for entry in wanted).encode()
    sizes = git.out("cat-file", "--batch-check=%(objectsize)", stdin=names).split(b"\n")
    return [entry for entry, size in zip(wanted, sizes, strict=False) if size.isdigit() and int(size) > _MAX_SMALL_FILE]


def cat(git: Git, names: Sequence[str]) -> list[bytes | None]:
    """The contents of objects, in order; None for those that are missing."""
    if not names:
        return []
    found: list[bytes | None] = []
    out = git.out("cat-file", "--batch", stdin="".join(f"{name}\n" for name in names).encode())
    position = 0
    for _ in names:
        end = out.index(b"\n", position)
        header = out[position:end].split(b" ")
        position = end + 1
        if header[-1] in (b"missing", b"ambiguous"):
            found.append(None)
            continue
        size = int(header[2])
        found.append(out[position : position + size])
        position += size + 1
    return found


def _header(text: str, key: str) -> str:
    return next((line[len(key) + 1 :] for line in text.splitlines() if line.startswith(key + " ")), "")


def _time(committer: str) -> str:
    match = re.search(r"(-?\d+) ([+-])(\d\d)(\d\d)$", committer)
    if match is None:
        return "1970-01-01T00:00:00+00:00"
    offset = datetime.timedelta(hours=int(match[3]), minutes=int(match[4])) * (-1 if match[2] == "-" else 1)
    zone = datetime.timezone(offset) if abs(offset) < datetime.timedelta(hours=24) else datetime.UTC
    try:
        return datetime.datetime.fromtimestamp(int(match[1]), zone).isoformat()
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00+00:00"


def text(path: bytes) -> str:
    """A path for people."""
    return path.decode(errors="backslashreplace")


def _problems(listing: list[Entry]) -> Iterable[str]:
    for entry in listing:
        for part in entry.path.split(b"/"):
            name = _IGNORED.sub("", part.decode(errors="replace")).lower().rstrip(" .")
            if part in (b"", b".", b".."):
                yield f"{text(entry.path)!r} leads out of the tree."
            elif name in (".git", "git~1"):
                yield f"{text(entry.path)!r} would be taken for git's own folder."
            elif b"\\" in part and (b"..\\" in part or b".git\\" in part.lower()):
                yield f"{text(entry.path)!r} leads out of the tree on some systems."
            else:
                continue
            break


def _outside(links: Mapping[bytes, bytes]) -> Iterable[str]:
    """Symbolic links that are absolute or lead out of the tree, through whatever other links of the tree."""
    for path, target in links.items():
        if target.startswith(b"/") or _escapes(path, target, links):
            yield f"{text(path)} -> {text(target)}"


def _escapes(path: bytes, target: bytes, links: Mapping[bytes, bytes]) -> bool:
    place = path.split(b"/")[:-1]
    todo = target.split(b"/")[::-1]
    followed = 0
    while todo:
        part = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not place:
                return True
            place.pop()
            continue
        place.append(part)
        if (further := links.get(b"/".join(place))) is not None:
            followed += 1
            if further.startswith(b"/"):
                return True
            if followed > _MAX_LINKS:  # a loop: the system will not follow it either
                return False
            place.pop()
            todo += further.split(b"/")[::-1]
    return False


def _submodules(git: Git, revision: str, listing: list[Entry]) -> tuple[SubmodulePin, ...]:
    gitlinks = [entry for entry in listing if entry.mode == _GITLINK]
    if not gitlinks:
        return ()
    declared: dict[bytes, dict[bytes, bytes]] = {}
    ran = git.run("config", "--no-includes", "-z", f"--blob={revision}:.gitmodules", "--list")
    for item in ran.out.split(b"\0") if not ran.code else ():
        key, _, value = item.partition(b"\n")
        section, _, rest = key.partition(b".")
        name, _, option = rest.rpartition(b".")
        if section == b"submodule":
            declared.setdefault(name, {})[option] = value
    urls = {module.get(b"path"): module.get(b"url", b"") for module in declared.values()}
    return tuple(SubmodulePin(text(e.path), text(urls.get(e.path, b"")), e.object) for e in gitlinks)
