"""Where conda's channels are: the names that projects use, and the places that configuration gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from runproj.core.values import dataclass
from runproj.environments.uvtool import scrub
from runproj.errors import EnvironmentFailure, UsageError

ALIAS = "https://conda.anaconda.org"
"""Where a channel is that is given by name alone, as for conda itself."""
FALLBACK = "conda-forge"
"""The channel of projects that name none."""

_LICENSED = frozenset(("defaults", "anaconda", "main", "free", "pro", "r", "msys2", "mro"))
_LICENSED_HOSTS = ("repo.anaconda.com", "repo.continuum.io")


class Unmapped(EnvironmentFailure):
    """A channel is under terms that the user has to accept, and nothing says what to take in its stead."""


@dataclass(frozen=True)
class Channels:
    """alias: the URL below which channels are found by name;  places: name → URL, folder, or another name."""

    places: Mapping[str, str] = field(default_factory=dict)
    alias: str = ALIAS

    def names(self, listed: tuple[str, ...]) -> tuple[str, ...]:
        """The channels of a project by the names under which they are recorded, in order, each once.

        Raises `Unmapped` for Anaconda's own, unless configuration says what to do with them.
        """
        wanted = [name for name in listed if name != "nodefaults"] or [FALLBACK]
        found = dict.fromkeys(self.name(text) for text in wanted)
        return tuple(name for name in found if name) or (FALLBACK,)

    def name(self, written: str) -> str:
        """The name of a channel as it is recorded: aliases followed, credentials left out.  Empty for one to leave out."""
        text = written.strip().rstrip("/")
        if text.startswith(f"{self.alias}/"):
            text = text.removeprefix(f"{self.alias}/")
        seen = set()
        while text not in seen:
            seen.add(text)
            key = text if text in self.places else "defaults" if _licensed(text) and text not in self.places else text
            place = self.places.get(key)
            if place is None:
                if _licensed(text):
                    raise _unmapped(written)
                return _without_secrets(text)
            if place in ("", "none"):
                return ""
            if _is_place(place):
                return key
            text = place
        raise UsageError(f"The conda channel {written!r} is mapped in a circle", fix="Correct RUNPROJ_CONDA_CHANNELS.")

    def url(self, name: str) -> str:
        """Where a recorded channel is, without a slash at the end."""
        text, place = name, self.places.get(name)
        while place is not None and not _is_place(place) and place != text:
            text, place = place, self.places.get(place)
        text = place if place is not None and _is_place(place) else text
        if text.startswith(("/", "~")):
            return Path(text).expanduser().as_uri().rstrip("/")
        if _is_place(text):
            return text.rstrip("/")
        if not re.fullmatch(r"[\w@-][\w.@-]*(/[\w@-][\w.@-]*)*", text):
            raise EnvironmentFailure(f"{name!r} is not a conda channel", fix="Name it by a name, a URL or an absolute path.")
        return f"{self.alias.rstrip('/')}/{text}"

    def described(self) -> tuple[str, ...]:
        """All that decides where packages come from, for the key of a lock."""
        return (self.alias, *(f"{name}={place}" for name, place in sorted(self.places.items())))


def _without_secrets(text: str) -> str:
    """A channel's URL without a password, and without the token that Anaconda's servers take in a path."""
    return re.sub(r"(://[^/]+)/t/[^/]+/", r"\1/", scrub(text))


def _is_place(text: str) -> bool:
    return "://" in text or text.startswith(("/", "~/"))


def _licensed(text: str) -> bool:
    if "://" in text:
        return urlsplit(text).hostname in _LICENSED_HOSTS
    return text in _LICENSED or text.startswith("pkgs/")


def _unmapped(name: str) -> Unmapped:
    return Unmapped(
        f"The project takes packages from Anaconda's channel {name!r}, whose terms of service you have to accept yourself",
        why="Organisations need a licence for it, so nothing is fetched from there, nor from elsewhere in its stead, unasked.",
        fix="Say what to use: RUNPROJ_CONDA_CHANNELS='defaults=conda-forge', or defaults=URL of the channel or of a mirror, "
        "or use `--env-manager virtualenv`, which takes the packages from the Python package index.",
    )
