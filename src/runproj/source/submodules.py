"""Submodules: where they come from, at the commits that the parent records, and never from where a stranger must not point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from runproj.core.source import Source, SubmodulePin
from runproj.core.values import dataclass
from runproj.errors import SourceError
from runproj.source.cache import Remote
from runproj.source.uris import Form, file_url, parse, scrub
from runproj.source.vet import Facts

_DEEPEST = 8


@dataclass(frozen=True)
class Found:
    """Submodules with the URLs they were fetched from, and what is to be said about them."""

    pins: tuple[SubmodulePin, ...] = ()
    notes: tuple[str, ...] = ()
    lfs: bool = False


@dataclass(frozen=True)
class Submodules:
    """Has the commits of submodules in the cache, nested ones too.

    open:    gives the cached repository of a URL;  `check` refuses commits that are not fit to be laid out.
    nearby:  the working tree whose submodules may have the commits already; None for a remote.
    """

    open: Callable[[str], Remote]
    check: Callable[[Facts, str], None]
    nearby: Path | None = None

    def collect(self, declared: Iterable[SubmodulePin], parent: str, prefix: str = "", depth: int = 0) -> Found:
        """Fetch what `declared` (paths and URLs as in `.gitmodules`) names.  Raises `SourceError`."""
        pins: list[SubmodulePin] = []
        notes: list[str] = []
        lfs = False
        for module in declared:
            path = f"{prefix}{module.path}"
            if not module.uri:
                notes.append(f"{path} is recorded as a submodule without a URL; it was left empty.")
                continue
            if depth >= _DEEPEST:
                raise SourceError(f"Submodules are nested more than {_DEEPEST} deep at {path}")
            url = self._url(module.uri, parent, path)
            facts = self._ensure(url, module.commit, path)
            pins.append(SubmodulePin(path, scrub(url), facts.commit))
            below = self.collect(facts.submodules, url, f"{path}/", depth + 1)
            pins += below.pins
            notes += below.notes
            lfs = lfs or facts.lfs or below.lfs
        return Found(tuple(pins), tuple(notes), lfs)

    def _ensure(self, url: str, commit: str, path: str) -> Facts:
        remote = self.open(url)
        folder = self.nearby / path if self.nearby else None
        try:
            facts = remote.ensure(commit, nearby=folder if folder and (folder / ".git").exists() else None)
        except SourceError as error:
            raise SourceError(f"Cannot get submodule {path}", why=f"{error.what}\n{error.why}", fix=error.fix) from error
        self.check(facts, f"Submodule {path}")
        return facts

    def _url(self, declared: str, parent: str, path: str) -> str:
        """The submodule's URL, relative ones taken relative to the parent's."""
        url = relative(declared, parent) if declared.startswith(("./", "../")) else declared
        parent_local = parent.startswith("file://")
        if parent_local and url.startswith("/"):
            return file_url(Path(url))
        unsafe = url.startswith(("/", ".", "~", "-")) or any(ord(c) < 33 or ord(c) == 127 for c in url) or "#" in url
        address = None if unsafe else parse(Source(url))
        if address is None or address.form is not Form.REMOTE or address.link or address.revision:
            raise _refused(path, declared, "Its address is not one of a git repository.")
        if address.path is not None and not parent_local:
            raise _refused(path, declared, "A repository from elsewhere must not point into this machine.")
        return address.url


def relative(declared: str, parent: str) -> str:
    """`declared` (`../name.git`) relative to the URL of the parent repository, as git reads it."""
    base, rest = parent.rstrip("/"), declared
    separator = "/"
    while rest.startswith(("./", "../")):
        if rest.startswith("./"):
            rest = rest[2:]
            continue
        rest = rest[3:]
        head, slash, _ = base.rpartition("/")
        if slash and not head.endswith(("/", ":/")):
            base = head
        elif ":" in base and "://" not in base:
            base, separator = base.rpartition(":")[0], ":"
        else:
            raise SourceError(f"The submodule address {declared!r} leads out of {scrub(parent)}")
    return f"{base}{separator}{rest}"


def _refused(path: str, declared: str, why: str) -> SourceError:
    return SourceError(
        f"The address {scrub(declared)!r} of submodule {path} is refused", why=why, fix="Use an https or ssh URL in .gitmodules."
    )


def lay_out_order(pins: Iterable[SubmodulePin]) -> list[SubmodulePin]:
    """Parents before what is nested in them."""
    return sorted(pins, key=lambda pin: pin.path.count("/"))
