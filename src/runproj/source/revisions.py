"""A revision as people write it → a full commit hash of a remote."""

from __future__ import annotations

import contextlib
import re

from runproj.codec import DocumentError, from_json, to_json
from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.files import atomic_write
from runproj.source.cache import Remote
from runproj.source.uris import split_link
from runproj.source.vet import Facts

_FULL = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
_SHORT = re.compile(r"[0-9a-fA-F]{4,63}")
_DESCRIBED = re.compile(r".+-\d+-g([0-9a-fA-F]{4,40})")
_SUFFIX = re.compile(r"(?:~\d*|\^\d*|\^\{(?:commit|tag|object|)\})*$")


@dataclass(frozen=True)
class Resolved:
    """A commit that is in the cache, and the branch it was reached by."""

    facts: Facts
    branch: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """References of a remote as they were when it was asked last: what `--offline` goes by."""

    refs: dict[str, str]


def resolve(remote: Remote, revision: str | None, *, offline: bool) -> Resolved:
    """The commit that `revision` names (None: the default branch).  Raises `SourceError`."""
    if revision is None:
        revision = "HEAD"
    suffix = _SUFFIX.search(revision)
    base, steps = (revision[: suffix.start()], suffix[0]) if suffix else (revision, "")
    if _FULL.fullmatch(base):
        return Resolved(_walk(remote, base.lower(), steps))
    references = _References(remote, offline)
    if found := references.look_up(base):
        _, commit, branch, notes = found
        facts = _walk(remote, commit, steps)
        references.keep()
        return Resolved(facts, branch if not steps else None, notes)
    described = _DESCRIBED.fullmatch(base)
    short = described[1] if described else base
    if _SHORT.fullmatch(short):
        known = remote.find(short.lower())
        if known is None and not offline:
            remote.fetch_all(sha256=references.sha256)
            known = remote.find(short.lower())
        if known:
            return Resolved(_walk(remote, known, steps))
    raise _unknown(remote, base, references)


def resolve_link(remote: Remote, link: str, *, offline: bool) -> tuple[str, str]:
    """Revision and folder of a web link's tail, by the branches and tags that the remote has."""
    if "/" not in link:
        return link, ""
    names = _References(remote, offline).names()
    return split_link(link, frozenset(names))


def _walk(remote: Remote, commit: str, steps: str) -> Facts:
    facts = remote.ensure(commit)
    if not steps:
        return facts
    found = remote.find(f"{facts.commit}{steps}")
    if found is None:
        raise SourceError(
            f"{facts.commit[:12]}{steps} does not exist in {remote.shown}", why="The history does not go back that far."
        )
    return remote.ensure(found)


def _unknown(remote: Remote, base: str, references: _References) -> SourceError:
    import difflib

    names = references.names()
    near = difflib.get_close_matches(base, names, n=5, cutoff=0.5) or names[:5]
    why = f"Similar names: {', '.join(near)}." if near else "It has no branches or tags."
    where = "is not in the cache (offline) for" if references.offline else "is no branch, tag or commit of"
    return SourceError(f"{base!r} {where} {remote.shown}", why=why, fix="Name one of them with -v, or a full commit hash.")


class _References:
    """The remote's references: asked for as few as possible, or remembered when offline."""

    def __init__(self, remote: Remote, offline: bool) -> None:
        self._remote = remote
        self.offline = offline and not remote.url.startswith("file://")
        self.sha256 = False
        self._fresh: dict[str, str] = {}
        self._path = remote.folder / "runproj" / "seen.json"

    def look_up(self, base: str) -> tuple[str, str, str | None, tuple[str, ...]] | None:
        """(full name, commit, branch, notes) of a reference."""
        candidates = _candidates(base)
        patterns = [*candidates, *(f"{name}^{{}}" for name in candidates if name != "HEAD")]
        refs = self._remembered() if self.offline else self._ask(*patterns)
        found = [name for name in candidates if name in refs]
        if not found:
            if base == "HEAD":
                raise self._empty()
            return None
        name = found[0]
        commit = refs.get(f"{name}^{{}}", refs[name])
        target = refs.get(f"{name}@", name)
        branch = target.removeprefix("refs/heads/") if target.startswith("refs/heads/") else None
        notes = [f"{base!r} is a branch and a tag; the branch was taken."] if len(found) > 1 and _both(found) else []
        if self.offline:
            notes.append(f"Offline: {base} is where it was when {self._remote.shown} was asked last.")
        return name, commit, branch, tuple(notes)

    def names(self) -> list[str]:
        """All branches and tags, by their short names."""
        try:
            refs = self._remembered() if self.offline else self._ask("refs/heads/*", "refs/tags/*")
        except SourceError:
            return []
        full = (name for name in refs if name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith(("^{}", "@")))
        return sorted({name.split("/", 2)[2] for name in full})

    def _empty(self) -> SourceError:
        if self.offline:
            return SourceError(
                f"{self._remote.shown} is not in the cache",
                why="runproj is offline.",
                fix="Run the same once without --offline.",
            )
        return SourceError(
            f"{self._remote.shown} has no default branch", why="It is empty, or its HEAD names a branch that does not exist."
        )

    def _ask(self, *patterns: str) -> dict[str, str]:
        refs: dict[str, str] = {}
        for value, name in self._remote.ask(*patterns):
            if value.startswith("ref: "):
                refs[f"{name}@"] = value.removeprefix("ref: ")
            else:
                refs[name] = value
                self.sha256 = len(value) == 64
        self._fresh |= refs
        return refs

    def _remembered(self) -> dict[str, str]:
        try:
            return from_json(Seen, self._path.read_bytes()).refs
        except (FileNotFoundError, DocumentError):
            return {}

    def keep(self) -> None:
        """Remember what was answered; called once the repository is in the cache."""
        old = self._remembered()
        if any(old.get(name) != value for name, value in self._fresh.items()):
            with contextlib.suppress(OSError):
                atomic_write(self._path, to_json(Seen(old | self._fresh)))


def _both(found: list[str]) -> bool:
    return found[0].startswith("refs/heads/") and any(name.startswith("refs/tags/") for name in found)


def _candidates(base: str) -> list[str]:
    if base in ("HEAD", "@"):
        return ["HEAD"]
    if base.startswith("refs/"):
        return [base]
    names = [f"refs/heads/{base}", f"refs/tags/{base}", f"refs/{base}"]
    if base.startswith("origin/"):
        rest = base.removeprefix("origin/")
        names.append("HEAD" if rest == "HEAD" else f"refs/heads/{rest}")
    return names
