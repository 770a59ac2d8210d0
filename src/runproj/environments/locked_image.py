"""A virtualenv's lock as an image: a base image with that Python, and the locked packages, their hashes checked."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runproj import codec
from runproj.core.environment import EnvLock, ImageBuild
from runproj.environments import dockerfiles, pylock, trees
from runproj.environments.versions import parse
from runproj.errors import EnvironmentFailure
from runproj.files import explained

DEFAULT_BASE = "python:{python}-slim-bookworm"
_VERSION = 1
_PIP = "python3 -m pip install --no-cache-dir --no-input --disable-pip-version-check"


def minor(lock: EnvLock) -> str:
    """The Python version of a lock as images are named by it: "3.11".  Raises `EnvironmentFailure`."""
    version = parse(lock.python.version) if lock.python else None
    if version is None or lock.pylock is None:
        raise EnvironmentFailure("An image can be made of a virtualenv's lock only", fix="Use --env-manager virtualenv.")
    return ".".join(map(str, version[:2]))


WRONG_PYTHON = "The base image has Python"
"""How the build's complaint begins when its base image has another Python than the lock."""


def _dockerfile(lock: EnvLock, base: str) -> str:
    python = minor(lock)
    lines = [
        f"FROM {base}",
        "ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore",
        f"""RUN python3 -c "import sys; found = '%d.%d' % sys.version_info[:2]; sys.exit(found != '{python}' and """
        f"""'{WRONG_PYTHON} ' + found + ', and {python} is wanted')\"""",
        "COPY requirements.txt /tmp/runproj/",
        f"RUN {_PIP} --no-deps --require-hashes -r /tmp/runproj/requirements.txt",
    ]
    for number, _ in enumerate(lock.local_packages):
        lines += [f"COPY local{number} /tmp/runproj/local{number}", f"RUN {_PIP} --no-deps /tmp/runproj/local{number}"]
    return "\n".join([*lines, "RUN rm -rf /tmp/runproj", ""])


def inputs(lock: EnvLock, base: tuple[str, str]) -> str:
    """The digest of all that such an image is made of; `base` as it is called, and pinned."""
    deciding = {
        "version": _VERSION,
        "dockerfile": _dockerfile(lock, base[1]),
        "requirements": pylock.as_requirements(lock.pylock or ""),
        "local": codec.to_plain(lock.local_packages),
        "platform": lock.platform,
    }
    return hashlib.sha256(codec.to_json(deciding).encode()).hexdigest()


@contextlib.contextmanager
def recipe(lock: EnvLock, base: tuple[str, str], project: Path) -> Iterator[dockerfiles.Recipe]:
    """What to build, laid out for as long as the block lasts.  Raises `EnvironmentFailure`."""
    with tempfile.TemporaryDirectory(prefix="runproj-") as name:
        folder = Path(name)
        with explained(folder):
            (folder / "requirements.txt").write_text(pylock.as_requirements(lock.pylock or ""))
            (folder / "Dockerfile").write_text(_dockerfile(lock, base[0]))
            for number, package in enumerate(lock.local_packages):
                source = project / package.path
                if trees.digest_of(source) != package.digest:
                    raise EnvironmentFailure(f"The local package {package.path} is not what it was when it was locked")
                _copy(source, folder / f"local{number}")
        yield dockerfiles.read(ImageBuild(), folder, lambda _: base[1])


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    else:  # an archive keeps its name, by which pip knows what it is
        target.mkdir()
        shutil.copyfile(source, target / source.name)
