"""Making a damaged environment anew: what was installed is checked again, as the cache that it came from may be damaged too.

Files of an environment are links to the cache of packages: who writes into one of them has changed both.
"""

from __future__ import annotations

from collections.abc import Callable

from runproj.core.environment import EnvironmentBuilder, EnvLock, Progress
from runproj.environments import pylock
from runproj.environments.folders import EnvironmentFolder, Manifest
from runproj.environments.uvtool import Uv
from runproj.errors import EnvironmentFailure


def made_and_checked(
    folder: EnvironmentFolder,
    lock: EnvLock,
    builder: EnvironmentBuilder,
    uv: Uv,
    make: Callable[[], Manifest],
    progress: Progress,
) -> Manifest:
    """An environment all of whose files are as their packages say; of damaged packages the cache forgets its copies.

    Raises `EnvironmentFailure` where even fetching them anew does not help.
    """
    made = make()
    if builder.problem(lock, folder.environment, thorough=True) is None:
        return made
    progress("the cached packages are damaged as well; they are fetched anew")
    names = [str(package["name"]) for package in pylock.packages(lock.pylock or "")]
    if names:  # without any, uv would clean all of its cache
        with uv.scratch() as scratch:
            uv.run(["cache", "clean", *names], cwd=scratch, scratch=scratch)
    made = make()
    if problem := builder.problem(lock, folder.environment, thorough=True):
        folder.clear()
        raise EnvironmentFailure(
            "The environment is damaged, and so is what it is built from",
            why=problem,
            fix="Remove the folder cache/ of RUNPROJ_HOME, and run this again.",
        )
    return made
