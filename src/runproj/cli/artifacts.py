"""`runs artifacts`: the files of a run, listed or fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.cli.logs import looking
from runproj.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runproj.core.run import Run
    from runproj.core.tracking import ArtifactInfo
    from runproj.fetching import Fetch
    from runproj.wiring import Wiring


def artifacts(
    reference: opt.RunReference,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="A file or folder of the run; all without it.")] = "",
    download: Annotated[
        Path | None, typer.Option("--download", "-d", metavar="FOLDER", help="Fetch them into this folder, which is made if new.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Fetch what is there, too, and replace it.")] = False,
    json: opt.Json = False,
) -> None:
    """List the files of a run with their sizes, or fetch them.

    What is fetched is compared with the sha256 that the store, the server or the run's record has of it.  Begun again, it
    fetches what is not there yet.
    """
    from runproj.core.views import ArtifactList
    from runproj.fetching import files_below

    if force and download is None:
        raise UsageError("--force is about what is fetched", fix="runproj runs artifacts RUN --download FOLDER --force")
    wiring = looking()
    run = wiring.find_run(reference)
    path = path.strip("/")
    files = files_below(run, path, wiring.artifacts)
    if download is None:
        if json:
            output.write_json(ArtifactList(run.id, tuple(files)))
        else:
            _list(files)
        return
    fetch = _fetch(wiring, run, path, download)
    wanted = files if force else fetch.missing(files)
    _bring(wiring, fetch, wanted)
    if json:
        output.write_json(ArtifactList(run.id, tuple(files), str(download.absolute()), len(wanted)))
    kept = len(files) - len(wanted)
    size = _size(sum(entry.size or 0 for entry in wanted))
    there = f"; {output.count(kept, 'file')} {'was' if kept == 1 else 'were'} there already" if kept else ""
    wiring.reporter.done(f"{output.count(len(wanted), 'file')}, {size}, fetched into {download}{there}")


def _fetch(wiring: Wiring, run: Run, path: str, folder: Path) -> Fetch:
    from runproj.core.record import RunRecord
    from runproj.fetching import Fetch
    from runproj.references import read_document

    record = read_document(RunRecord, run, "runproj/record.json", wiring.artifacts, wiring.settings.cache / "views")
    hashes = {item.path: item.sha256 for item in record.outputs} if record else {}
    return Fetch(run, wiring.artifacts, folder, path.rpartition("/")[0], hashes)


def _bring(wiring: Wiring, fetch: Fetch, files: Sequence[ArtifactInfo]) -> None:
    total = _size(sum(entry.size or 0 for entry in files))

    def tell(number: int, size: int) -> None:
        wiring.reporter.progress(f"{number} of {output.count(len(files), 'file')}, {_size(size)} of {total}")

    wiring.reporter.phase("fetch", f"{output.count(len(files), 'file')}, {total}")
    if files:
        fetch.fetch(files, tell)


def _list(files: Sequence[ArtifactInfo]) -> None:
    if not files:
        output.say("The run has no files.")
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
