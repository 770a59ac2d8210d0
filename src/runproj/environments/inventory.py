"""What environments there are: list, show, check, remove."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runproj.core.environment import EnvironmentBuilder, EnvLock, EnvManager
from runproj.core.views import EnvironmentView
from runproj.environments.folders import EnvironmentFolder, Manifest
from runproj.errors import BackendError, NotFoundError
from runproj.files import LockedElsewhere, remove_tree

_DAY = 86400.0


class Inventory:
    """The environments in a folder.  `builder` knows how to look at those of a manager, `forget` removes an image."""

    def __init__(
        self, envs: Path, builder: Callable[[EnvManager], EnvironmentBuilder], forget: Callable[[EnvLock], None]
    ) -> None:
        self._envs = envs
        self._builder = builder
        self._forget = forget

    def views(self) -> tuple[EnvironmentView, ...]:
        """Every complete environment, the last used first."""
        return tuple(self._view(folder, manifest, self._quick(folder, manifest)) for folder, manifest in self._ranked())

    def show(self, reference: str) -> tuple[EnvironmentView, EnvLock]:
        """The environment whose digest begins with `reference`, and its lock.  Raises `NotFoundError`."""
        folder, manifest = self._one(reference)
        return self._view(folder, manifest, self._quick(folder, manifest)), manifest.lock

    def verify(self, reference: str | None) -> tuple[EnvironmentView, ...]:
        """Check every file.  A damaged environment is marked, so that its next use rebuilds it."""
        chosen = [self._one(reference)] if reference else self._ranked()
        return tuple(self._verified(folder, manifest) for folder, manifest in chosen)

    def prune(self, *, days: float, keep: int, dry_run: bool) -> tuple[EnvironmentView, ...]:
        """Remove what was not used for so many days, is not among the `keep` last used, and not in use."""
        limit = time.time() - days * _DAY
        removed: list[EnvironmentView] = []
        for folder, manifest in self._ranked()[keep:]:
            if folder.used_time() > limit:
                continue
            with folder.alone() as free:
                if free:
                    removed.append(self._view(folder, manifest, None))
                    if not dry_run:
                        if manifest.lock.image:
                            self._forget(manifest.lock)
                        folder.clear()
        if not dry_run:
            self._sweep()
        return tuple(removed)

    def _ranked(self) -> list[tuple[EnvironmentFolder, Manifest]]:
        return sorted(self._all(), key=lambda item: item[0].used_time(), reverse=True)

    def _all(self) -> Iterator[tuple[EnvironmentFolder, Manifest]]:
        for path in sorted(self._envs.iterdir()) if self._envs.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                folder = EnvironmentFolder(self._envs, path.name)
                if (manifest := folder.manifest()) is not None:
                    yield folder, manifest

    def _one(self, reference: str) -> tuple[EnvironmentFolder, Manifest]:
        found = [item for item in self._all() if item[1].digest.startswith(reference)]
        if len(found) == 1:
            return found[0]
        what = "No environment has" if not found else f"{len(found)} environments have"
        raise NotFoundError(f"{what} a digest that begins with {reference!r}", fix="`runproj env list` shows them.")

    def _quick(self, folder: EnvironmentFolder, manifest: Manifest) -> str | None:
        try:
            problem = self._builder(manifest.lock.manager).problem(manifest.lock, folder.environment)
        except BackendError as error:  # no engine that could tell
            return error.what
        return problem or _drift(folder, manifest)

    def _verified(self, folder: EnvironmentFolder, manifest: Manifest) -> EnvironmentView:
        builder = self._builder(manifest.lock.manager)
        problem = builder.problem(manifest.lock, folder.environment, thorough=True) or _drift(folder, manifest)
        if problem is not None:
            folder.condemn(manifest)
        return self._view(folder, manifest, problem)

    @staticmethod
    def _view(folder: EnvironmentFolder, manifest: Manifest, problem: str | None) -> EnvironmentView:
        image = manifest.lock.image
        return EnvironmentView(
            digest=manifest.digest,
            manager=manifest.lock.manager.value,
            python=manifest.lock.python.version if manifest.lock.python else "",
            origin=manifest.lock.origin,
            packages=manifest.lock.package_count if manifest.lock.conda or image else folder.packages(),
            path=image.reference if image else str(folder.environment),
            size=None if image else folder.size(),
            used=int(folder.used_time() * 1000) or None,
            problem=problem,
        )

    def _sweep(self) -> None:
        """Remove what killed builds and removals left."""
        for path in self._envs.iterdir() if self._envs.is_dir() else ():
            if path.name.startswith(".trash-"):
                remove_tree(path)
            elif path.is_dir() and not (path / "manifest.json").exists():
                folder = EnvironmentFolder(self._envs, path.name)
                with contextlib.suppress(LockedElsewhere), folder.building():
                    if folder.manifest() is None:
                        folder.clear()


def _drift(folder: EnvironmentFolder, manifest: Manifest) -> str | None:
    if manifest.damaged:
        return "it was found to be damaged; its next use rebuilds it"
    return None if folder.entries() == manifest.entries else "packages were added or removed after it was built"
