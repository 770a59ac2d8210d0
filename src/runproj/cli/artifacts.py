"""`runs artifacts` and `models artifacts`: files of runs and models, listed or fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.logs import looking
from runproj.core.values import dataclass
from runproj.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runproj.core.run import Run
    from runproj.core.tracking import ArtifactInfo, ArtifactStore
    from runproj.fetching import Fetch
    from runproj.wiring import Wiring


Inner = Annotated[str, typer.Argument(metavar="[PATH]", help="A file or folder of it; all without it.")]
Download = Annotated[
    Path | None, typer.Option("--download", "-d", metavar="FOLDER", help="Fetch them into this folder, which is made if new.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Fetch what is there, too, and replace it.")]


def artifacts(
    reference: opt.RunReference, path: Inner = "", download: Download = None, force: Force = False, json: opt.Json = False
) -> None:
    """List the files of a run with their sizes, or fetch them.

    What is fetched is compared with the sha256 that the store, the server or the run's record has of it.  Begun again, it
    fetches what is not there yet.
    """
    wiring = looking()
    run = wiring.find_run(reference)
    _give(
        wiring,
        Asked(run, wiring.artifacts, "", path.strip("/"), _hashes(wiring, run) if download else {}),
        download,
        force=force,
        json=json,
    )


def model_artifacts(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="NAME/VERSION, NAME@ALIAS, NAME (its newest), or m-….", autocompletion=complete.models
        ),
    ],
    path: Inner = "",
    download: Download = None,
    force: Force = False,
    json: opt.Json = False,
) -> None:
    """List the files of a model with their sizes, or fetch them.

    What is fetched is compared with the sha256 that the store or the server has of it.  Begun again, it fetches what is not
    there yet.
    """
    import os

    from runproj.artifacts import open_artifacts
    from runproj.cli.catalogue import catalogue
    from runproj.references import find_model

    wiring = looking()
    found = find_model(reference, catalogue(wiring).shelf, wiring.tracking)
    settings, store = wiring.settings, wiring.artifacts
    if found.logged:
        place, uri = settings.artifacts_uri, settings.tracking_uri
        store = open_artifacts(uri, home=settings.home, environ=os.environ, place=place, of_models=True)
    _give(wiring, Asked(found.owner, store, found.root, path.strip("/"), {}), download, force=force, json=json)


@dataclass(frozen=True)
class Asked:
    """Which files: those at `path` below `root`, of a run or what has the shape of one."""

    run: Run
    store: ArtifactStore
    root: str
    path: str
    hashes: Mapping[str, str]

    def joined(self, path: str) -> str:
        return "/".join(filter(None, (self.root, path)))


def _give(wiring: Wiring, asked: Asked, download: Path | None, *, force: bool, json: bool) -> None:
    from runproj.core.views import ArtifactList
    from runproj.fetching import Fetch, files_below

    if force and download is None:
        raise UsageError("--force is about what is fetched", fix="Use it with --download FOLDER.")
    run = asked.run
    files = files_below(run, asked.joined(asked.path), asked.store)
    if download is None:
        if json:
            output.write_json(ArtifactList(run.id, tuple(files)))
        else:
            _list(files)
        return
    fetch = Fetch(run, asked.store, download, asked.joined(asked.path.rpartition("/")[0]), asked.hashes)
    wanted = files if force else fetch.missing(files)
    _bring(wiring, fetch, wanted)
    if json:
        output.write_json(ArtifactList(run.id, tuple(files), str(download.absolute()), len(wanted)))
    kept = len(files) - len(wanted)
    size = _size(sum(entry.size or 0 for entry in wanted))
    there = f"; {output.count(kept, 'file')} {'was' if kept == 1 else 'were'} there already" if kept else ""
    wiring.reporter.done(f"{output.count(len(wanted), 'file')}, {size}, fetched into {download}{there}")


def _hashes(wiring: Wiring, run: Run) -> Mapping[str, str]:
    """What the run's record knows of its files."""
    from runproj.core.record import RunRecord
    from runproj.references import read_document

    record = read_document(RunRecord, run, "runproj/record.json", wiring.artifacts, wiring.settings.cache / "views")
    return {item.path: item.sha256 for item in record.outputs} if record else {}


def _bring(wiring: Wiring, fetch: Fetch, files: Sequence[ArtifactInfo]) -> None:
    total = _size(sum(entry.size or 0 for entry in files))

    def tell(number: int, size: int) -> None:
        wiring.reporter.progress(f"{number} of {output.count(len(files), 'file')}, {_size(size)} of {total}")

    wiring.reporter.phase("fetch", f"{output.count(len(files), 'file')}, {total}")
    if files:
        fetch.fetch(files, tell)


def _list(files: Sequence[ArtifactInfo]) -> None:
    if not files:
        output.say("There are no files.")
        return
    output.table(("SIZE", "PATH"), [(_size(entry.size or 0), entry.path) for entry in files], right=(0,))
    output.say(f"{output.count(len(files), 'file')}, {_size(sum(entry.size or 0 for entry in files))}.")


def _size(number: float) -> str:
    """Bytes for people: 512 B, 1.5 MB."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"
