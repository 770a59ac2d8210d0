"""Moving a record between stores: what SOURCE and TARGET are is found out here; `engine` does the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runproj.core.transfer import Source, Target
from runproj.core.values import dataclass
from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.transfer.ours import OurStore

_SQLITE = "sqlite:///"
_DATABASES = ("postgresql://", "postgres://")
_SERVERS = ("http://", "https://")
_KINDS = "a server (http://…), a database (sqlite:///PATH, a .db file, postgresql://…), or an `mlruns` folder"


@dataclass(frozen=True)
class Surroundings:
    """What places are relative to, and where credentials come from.

    home:      what relative `sqlite:///` URIs of ours are relative to;  cwd: where the user is.
    artifacts: folders that the user named as places of artifacts.
    place:     where a store of ours keeps its artifacts; empty stands for beside its database.
    """

    home: Path
    cwd: Path
    environ: Mapping[str, str]
    artifacts: Sequence[Path] = ()
    place: str = ""


def check_places(source: str, target: str, use: Surroundings) -> None:
    """Raises `UsageError` where one of the two is not named, as by a variable that is not set, or both are the same."""
    for what, where in (("source", source), ("target", target)):
        if not where.strip():
            raise UsageError(f"The name of the {what} is empty", fix=f"Name a {what}: {_KINDS}.")
    if _identity(source, use) == _identity(target, use):
        shown = source if "@" not in source else "one place"
        raise UsageError(f"Source and target are the same: {shown}", fix="Name another place for one of them.")


def _identity(where: str, use: Surroundings) -> str:
    """The same text for all names of a place, as far as names can tell."""
    if where.startswith((*_SERVERS, *_DATABASES)):
        parts = urlsplit(where)
        postgres = where.startswith(_DATABASES)
        host = "127.0.0.1" if (name := parts.hostname or "") == "localhost" else name
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 5432)
        return f"{'postgresql' if postgres else 'server'}://{host}:{port}{parts.path.rstrip('/')}"
    path = _path(where, use)
    return str((path / "mlruns" if (path / "mlruns").is_dir() else path).resolve())


def open_source(where: str, use: Surroundings) -> Source:
    """The store at a URL or path, whatever it is.  Raises `UsageError` where it is nothing that can be read."""
    from runproj.transfer.trees import Places

    given = tuple(use.cwd / folder for folder in use.artifacts)
    if where.startswith(_SERVERS):
        from runproj.remote import Remote
        from runproj.transfer.server import MlflowServer

        return MlflowServer(Remote(where, use.environ), Places(use.cwd, (), given))
    if where.startswith(_DATABASES):
        return _ours(where, use)
    path = _path(where, use)
    if path.is_dir():
        from runproj.transfer.mlruns import Mlruns

        root = path if not (path / "mlruns").is_dir() else path / "mlruns"
        return Mlruns(root, Places(root.parent, (root, *_beside(root)), given))
    if not path.is_file():
        raise UsageError(f"There is no {path}", fix=f"Name {_KINDS}.")
    if _made_by_us(path):
        return _ours(f"{_SQLITE}{path}", use)
    from runproj.transfer.mlflowdb import MlflowDatabase

    return MlflowDatabase(path, Places(path.parent, _beside(path), given))


def open_target(where: str, use: Surroundings, *, into_ours: bool) -> Target:
    """The store at a URL or path, to be written.  Raises `UsageError` where it is nothing that can be.

    into_ours: a database that does not exist yet is made, as one of ours.
    """
    given = tuple(use.cwd / folder for folder in use.artifacts)
    if where.startswith(_SERVERS):
        from runproj.remote import Remote
        from runproj.transfer.intoserver import IntoServer
        from runproj.transfer.trees import Places

        return IntoServer(Remote(where, use.environ), Places(use.cwd, (), given))
    if where.startswith(_DATABASES):
        return _ours(where, use)
    path = _path(where, use)
    if path.is_file() and not _made_by_us(path, begun=into_ours):
        from runproj.transfer.intomlflowdb import IntoMlflowDatabase

        return IntoMlflowDatabase(path, given[0] if given else None)
    if path.is_file() or (where.startswith(_SQLITE) and into_ours):
        return _ours(where if where.startswith(_SQLITE) else f"{_SQLITE}{path}", use)
    if where.startswith(_SQLITE) or path.suffix in (".db", ".sqlite"):
        raise UsageError(
            f"There is no database {path}",
            fix=f"Let MLflow make it (`mlflow db upgrade sqlite:///{path}`), or name a folder to get an mlruns folder.",
        )
    from runproj.transfer.intomlruns import IntoMlruns

    return IntoMlruns(path)


def _ours(uri: str, use: Surroundings) -> OurStore:
    from runproj.artifacts import open_artifacts
    from runproj.remote import scrubbed
    from runproj.tracking import open_full_store
    from runproj.transfer.ours import OurStore

    files = open_artifacts(uri, home=use.home, environ=use.environ, place=use.place)
    shown = uri if uri.startswith(_SQLITE) else scrubbed(uri)
    return OurStore(open_full_store(uri, home=use.home), files, shown)


def _path(where: str, use: Surroundings) -> Path:
    """The file or folder that a text means.  Paths are relative to where the user is, `sqlite:///` ones to our home."""
    if where.startswith(_SQLITE):
        path = where.removeprefix(_SQLITE)
        return use.cwd / path if (use.cwd / path).exists() else use.home / path
    return use.cwd / Path(where.removeprefix("file://")).expanduser()


def _beside(path: Path) -> tuple[Path, ...]:
    """The folders in which MLflow keeps artifacts unless it is told otherwise."""
    return path.parent / "mlruns", path.parent / "mlartifacts"


def _made_by_us(path: Path, *, begun: bool = False) -> bool:
    """Whether a database is one of ours.  begun: so is an empty one, whose maker was killed before it was filled."""
    from runproj.tracking.schema import APPLICATION_ID

    try:
        # what was cut off is rolled back first, for which the file has to be writable
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={'rw' if begun else 'ro'}", uri=True)
        try:
            if begun and connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                return True
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be read as a database", why=str(error), fix=f"Name {_KINDS}.") from error
