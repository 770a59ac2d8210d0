"""A PostgreSQL database kept as it is before its schema changes: by `pg_dump`, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from runproj import proc
from runproj.core.values import dataclass
from runproj.errors import StartError, TrackingError
from runproj.files import explained
from runproj.tracking import schema

_PROGRAM = "pg_dump"


def _nobody(_: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Backups:
    """What is done before a migration.

    folder: where dumps go; None for nowhere.
    unsaved: a migration may go on without a dump, whatever it does.
    note:   is told what was done.
    """

    folder: Path | None = None
    unsaved: bool = False
    note: Callable[[str], None] = _nobody

    def before(self, uri: str, shown: str, within: str, version: int, steps: Sequence[schema.Step]) -> None:
        """Dump the schema `within` of the database, which has that version.

        Without a dump, raises `TrackingError` for steps that take something away, unless the user has said that it may be.
        """
        why = self._dump(uri, shown, within, version)
        if not why:
            return
        if self.unsaved or schema.additive(steps):
            self.note(f"{shown} is brought up to date from version {version} without a backup: {why}.")
            return
        raise TrackingError(
            f"The run database {shown} has to be brought up to date, and there is no backup of it",
            why=f"{why}.  What has to be done takes something away.",
            fix="Put pg_dump on PATH; or make a backup yourself, and then: runproj server --store URL --no-backup",
        )

    def _dump(self, uri: str, shown: str, within: str, version: int) -> str:
        """Write a dump; says why there is none, or nothing."""
        program = shutil.which(_PROGRAM)
        if program is None or self.folder is None:
            return f"{_PROGRAM} is not on PATH" if program is None else "there is no folder for it"
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in shown.partition("://")[2])
        target = self.folder / f"{name}.v{version}.dump"
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        address, secret = _apart(uri)
        try:
            with explained(target):
                self.folder.mkdir(parents=True, exist_ok=True)
                os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its owner's alone
            argv = [program, "--format=custom", "--no-password", f"--schema={_pattern(within)}", f"--file={temporary}", address]
            done = proc.run(argv, env={**os.environ, **({"PGPASSWORD": secret} if secret else {})})
            if done.code:
                said = done.text.splitlines()[-1:] or [f"it ended with {done.code}"]
                return f"{_PROGRAM} failed: {said[0].replace(secret, '***') if secret else said[0]}"
            with explained(target):
                temporary.replace(target)
        except StartError as error:
            return error.what
        finally:
            temporary.unlink(missing_ok=True)
        self.note(f"{shown} is brought up to date from version {version}; as it was, it is in {target}")
        return ""


def _apart(uri: str) -> tuple[str, str]:
    """How pg_dump is told the address, and the password, which others would see among its arguments."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    found = {key: str(value) for key, value in conninfo_to_dict(uri).items() if value is not None}
    secret = found.pop("password", "")
    return f"--dbname={make_conninfo(**found)}", secret


def _pattern(name: str) -> str:
    """A name as pg_dump takes it, which would read a pattern otherwise."""
    return '"' + name.replace('"', '""') + '"'
