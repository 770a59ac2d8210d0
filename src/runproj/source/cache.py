"""A bare repository per remote, shared by all runs: fetched incrementally, and not at all where the commit is there already."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runproj.codec import DocumentError, from_json, to_json
from runproj.errors import RunprojError, SourceError, StorageError
from runproj.files import Lock, atomic_write, explained, remove_tree
from runproj.source import worktree
from runproj.source.gitcmd import Git, Ran
from runproj.source.uris import file_url, scrub, scrub_text
from runproj.source.vet import Facts, examine

ASK_TIMEOUT = 120.0
FETCH_TIMEOUT = 4 * 3600.0
_MANY_PACKS = 50
_FULL_DISK = "Free some space (`runproj gc` removes what no run needs), or set RUNPROJ_HOME to a larger disk."
_PAUSES = (0.5, 2.0)
"""Seconds to wait before the second and the third attempt."""
_FINAL = re.compile(
    r"(?i)authentication failed|could not read (username|password)|permission denied|access denied|not found|does not exist|"
    r"no such file|not appear to be a git|error: 40[0-9]|host key verification|not our ref|unadvertised|not allowed|"
    r"forbidden|unable to find remote helper|timed out: git|could not resolve host"
)
_FLAKY = re.compile(
    r"(?i)early eof|rpc failed|connection (was )?reset|reset by peer|timed out|hung up|unexpected disconnect|"
    r"returned error: (5|429)|"
    r"(gnutls|openssl|ssl|tls)[_ ]|transfer closed|empty reply|temporary failure|broken pipe|connection closed|bad line length|"
    r"curl (18|28|52|56|92)|expected flush|invalid index-pack|unexpected end"
)
_DAMAGED = re.compile(r"(?i)bad object|corrupt|did not send all necessary objects|inflate|packfile .* cannot|loose object")
_NO_SUCH = re.compile(r"(?i)not our ref|unadvertised object|couldn't find remote ref")


class Remote:
    """One remote and its bare repository in the cache.

    url: as git is to use it, credentials included; `shown` is the scrubbed one, which names the repository.
    """

    def __init__(self, cache: Path, url: str, *, offline: bool, progress: Callable[[str], None]) -> None:
        self.url = url
        self.shown = scrub(url).rstrip("/") or url
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", self.shown.rpartition("://")[2])[-40:].strip("-.")
        self.folder = cache / f"{slug}-{hashlib.sha256(self.shown.encode()).hexdigest()[:16]}"
        self._offline = offline
        self._progress = progress

    @property
    def git(self) -> Git:
        """The bare repository, without the network and the user's configuration."""
        return Git(self.folder)

    def lock(self) -> Lock:
        """Held by whoever changes the repository."""
        return Lock(self.folder.with_name(self.folder.name + ".lock"))

    def facts(self, name: str) -> Facts | None:
        """What is known of a commit (or annotated tag) in the cache, by full hash; None where it is not there."""
        try:
            found = from_json(Facts, self._facts_path(name).read_bytes())
        except (FileNotFoundError, DocumentError):
            return None
        return found if found.version == Facts.version else None

    def _facts_path(self, name: str) -> Path:
        return self.folder / "runproj" / f"{name}.json"

    def ensure(self, name: str, *, nearby: Path | None = None) -> Facts:
        """Have the commit of that full hash in the cache.  Raises `SourceError`.

        `nearby` is a local repository that may have it, and is asked first.
        """
        if facts := self.facts(name):
            return facts
        with self._locked():
            if facts := self.facts(name):
                return facts
            self._prepare(sha256=len(name) == 64)
            if not self._has(name) and not (nearby and self._take_from(nearby, name)):
                self._download(name)
            facts = examine(self.git, name)
            if facts is None:
                raise SourceError(f"{name} is not a commit of {self.shown}", fix="Name a branch, a tag or a commit.")
            self._consolidate()
            text = to_json(facts)
            atomic_write(self._facts_path(facts.commit), text)
            if facts.commit != name:
                atomic_write(self._facts_path(name), text)
            return facts

    def take(self, name: str, bundle: Path, shallow: Sequence[str], check: Callable[[Facts, str], None]) -> Facts:
        """Have the commit of that full hash from a bundle, if it is not there yet, where `check` finds it fit.

        shallow: commits whose parents are not in the bundle.  Raises `SourceError`.
        """
        with self._locked():
            if facts := self.facts(name):
                return facts
            self._make(sha256=len(name) == 64)  # what a killed process has left counts for nothing
            with explained(self.folder):
                (self.folder / "shallow").write_text("".join(f"{commit}\n" for commit in shallow))
            wanted = (f"+refs/runproj/commits/{name}:refs/runproj/commits/{name}", "+refs/tags/*:refs/tags/*")
            options = ("--force", "--no-write-fetch-head", "--no-recurse-submodules", "--quiet")
            ran = self.git.run("fetch", *options, "--end-of-options", str(bundle), *wanted, timeout=FETCH_TIMEOUT)
            facts = examine(self.git, name) if ran.code == 0 else None
            if facts is None or facts.commit != name:
                raise git_error(f"The bundle does not hold commit {name}", ran.err)
            check(facts, "The capsule")
            atomic_write(self._facts_path(name), to_json(facts))
            return facts

    def rebuild(self) -> None:
        """Throw a damaged repository away; the next `ensure` fetches it anew."""
        self._require_network(f"The cached copy of {self.shown} is damaged")
        with self._locked():
            remove_tree(self.folder)

    def fetch_all(self, *, sha256: bool) -> None:
        """Have all branches and tags of the remote in the cache."""
        with self._locked():
            self._prepare(sha256=sha256)
            self._fetch("+refs/heads/*:refs/runproj/heads/*", "+refs/tags/*:refs/tags/*")

    def find(self, revision: str) -> str | None:
        """The full hash of a commit in the cache, from a short one or an expression over a full one."""
        if not (self.folder / "HEAD").exists():
            return None
        ran = self.git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        return ran.out.decode().strip() if ran.code == 0 else None

    def ask(self, *patterns: str) -> list[tuple[str, str]]:
        """(hash or "ref: target", name) of the remote's references that match.  Raises `SourceError`."""
        self._require_network(f"{self.shown} cannot be asked")
        ran = self._talk(ASK_TIMEOUT, None, "ls-remote", "--symref", "--end-of-options", self.shown, *patterns)
        if ran.code:
            raise self._failure(ran)
        lines = ran.out.decode(errors="surrogateescape").splitlines()
        return [(value, name) for value, _, name in (line.partition("\t") for line in lines) if name]

    def _require_network(self, what: str) -> None:
        if self._offline and not self.url.startswith("file://"):
            raise SourceError(
                what, why="runproj is offline, and the cache does not have it.", fix="Run the same once without --offline."
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.lock()
        lock.acquire(on_wait=lambda: self._progress(f"waiting for another fetch of {self.shown}"))
        try:
            yield
        finally:
            lock.release()

    def _prepare(self, *, sha256: bool) -> None:
        """Make the repository, or tidy up after a process that was killed in the middle of something."""
        if not all((self.folder / part).exists() for part in ("HEAD", "config", "objects", "refs")):
            self._make(sha256)
        else:
            self._tidy()

    def _tidy(self) -> None:
        """Remove what a killed git left; we hold the lock, so nobody is at work on it."""
        for pattern in ("*.lock", "refs/**/*.lock", "objects/info/*.lock", "objects/**/tmp_*", "objects/**/.tmp-*"):
            for left in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    remove_tree(left) if left.is_dir() else left.unlink()

    def _make(self, sha256: bool) -> None:
        beside = self.folder.with_name(f".{self.folder.name}.new")
        remove_tree(self.folder)
        remove_tree(beside)
        worktree.make_repository(beside, worktree.repository_config(bare=True, sha256=sha256), "ref: refs/heads/main")
        (beside / "runproj").mkdir()
        with explained(self.folder):
            os.replace(beside, self.folder)

    def _consolidate(self) -> None:
        """Many small fetches leave many packs: make one of them.  Nothing is dropped, running checkouts may need it."""
        if sum(name.endswith(".pack") for name in os.listdir(self.folder / "objects/pack")) > _MANY_PACKS:
            self.git.run("repack", "-a", "-d", "-k", "-q")

    def _has(self, name: str) -> bool:
        return self.git.run("cat-file", "-e", name).code == 0

    def _take_from(self, nearby: Path, name: str) -> bool:
        neighbour = Remote(self.folder.parent, file_url(nearby), offline=False, progress=self._progress)
        ran = self._fetch_once(f"+{name}:refs/runproj/commits/{name}", source=neighbour)
        return ran.code == 0 and self._has(name)

    def _download(self, name: str) -> None:
        self._require_network(f"Commit {name} of {self.shown} is not in the cache")
        self._progress(f"fetching {self.shown}")
        ran = self._fetch_once(f"+{name}:refs/runproj/commits/{name}")
        if ran.code and _DAMAGED.search(ran.err):
            self._make(sha256=len(name) == 64)
            ran = self._fetch_once(f"+{name}:refs/runproj/commits/{name}")
        if ran.code and _NO_SUCH.search(ran.err):
            self._fetch("+refs/heads/*:refs/runproj/heads/*", "+refs/tags/*:refs/tags/*")
            if not self._has(name):
                raise SourceError(
                    f"{self.shown} has no commit {name}",
                    why=scrub_text(ran.err, self.url),
                    fix="Check the hash; a commit that no branch or tag leads to may have been removed.",
                )
        elif ran.code:
            raise self._failure(ran)

    def _fetch(self, *refspecs: str) -> None:
        self._require_network(f"The history of {self.shown} is not in the cache")
        ran = self._fetch_once(*refspecs)
        if ran.code:
            raise self._failure(ran)

    def _fetch_once(self, *refspecs: str, source: Remote | None = None) -> Ran:
        options = ("--progress", "--force", "--no-write-fetch-head", "--no-recurse-submodules", "--update-shallow")
        url = (source or self).shown
        return self._talk(FETCH_TIMEOUT, self._progress, "fetch", *options, "--end-of-options", url, *refspecs)

    def _talk(self, timeout: float, progress: Callable[[str], None] | None, *arguments: str) -> Ran:
        """Run a command that uses the network, again where the connection was to blame."""
        in_repository = self.folder if arguments[0] == "fetch" else None
        git = Git(in_repository, users_config=True, env=self.environment())
        for pause in (*_PAUSES, None):
            ran = git.run(*arguments, timeout=timeout, progress=progress)
            if ran.code == 0 or pause is None or _FINAL.search(ran.err) or not _FLAKY.search(ran.err):
                return ran
            self._progress(f"{self.shown}: trying again")
            if in_repository:
                self._tidy()
            time.sleep(pause)
        raise AssertionError("the last attempt returns")

    def environment(self, *config: tuple[str, str]) -> dict[str, str]:
        """Variables for a git command that uses the remote, with further configuration.

        Credentials of the URL reach git by its environment: an argument could be read by every user of the machine.
        """
        settings = [*config]
        if self.url.rstrip("/") != self.shown:
            settings.append((f"url.{self.url}.insteadOf", self.shown))
        if not settings:
            return {}
        count = os.environ.get("GIT_CONFIG_COUNT", "0")
        first = int(count) if count.isdigit() else 0
        env = {"GIT_CONFIG_COUNT": str(first + len(settings))}
        for number, (key, value) in enumerate(settings, start=first):
            env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return env

    def _failure(self, ran: Ran) -> RunprojError:
        words = scrub_text(ran.err.strip(), self.url)
        fix = "Check the URL and the connection; with --offline, runproj uses what it has seen last."
        if re.search(r"(?i)authentication failed|could not read (username|password)|permission denied|error: 40[13]", words):
            fix = "Give git access (a credential helper, an ssh key, or a token), then try `git ls-remote` on the same URL."
        return git_error(f"Cannot fetch {self.shown}", words, fix)


def git_error(what: str, words: str, fix: str = "") -> RunprojError:
    """An error for the user out of what git said, already scrubbed: its last words, without its advice."""
    lines = [line for line in words.splitlines() if line and not line.startswith(("hint:", "warning:"))]
    if re.search(r"(?i)no space left|quota exceeded|unable to write|write error|cannot create .* file", words):
        return StorageError(what, why="\n".join(lines[-4:]), fix=_FULL_DISK)
    return SourceError(what, why="\n".join(lines[-8:]), fix=fix)
