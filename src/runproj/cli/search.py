"""`runs search`: runs found by what they were given and what came out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.logs import looking
from runproj.cli.select import Experiments, Filter, named, select

if TYPE_CHECKING:
    from runproj.core.run import Run

_ATTRIBUTES = ("run_id", "experiment_id", "run_name", "status", "start_time", "end_time", "user_id", "artifact_uri")


def search(
    text: Filter = "",
    sort: Annotated[
        list[str] | None,
        typer.Option(
            "--sort",
            metavar="KEY[:asc|desc]",
            help="In this order: metrics.accuracy:desc; newest first without it.",
            autocompletion=complete.keys,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many.")] = 100,
    experiment: Experiments = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="KEYS",
            help="Show this: params.lr,metrics.loss; what differs without it.",
            autocompletion=complete.keys,
        ),
    ] = None,
    csv: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write all that these runs hold as CSV ('-': standard output).")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Find runs by parameters, metrics, tags and attributes, in MLflow's filter language."""
    from runproj.core.views import RunList

    wiring = looking()
    found = select(wiring, text, sort=sort or (), experiments=experiment, limit=limit + 1)
    runs = found[:limit]
    if json:
        output.write_json(RunList(tuple(runs)))
    if csv is not None:
        _write_csv(csv, runs)
    elif not json:
        _show(runs, text, sort or (), columns)
    if len(found) > limit:
        output.say(f"These are the first {limit}; there are more (--limit).")


def _show(runs: Sequence[Run], text: str, sort: Sequence[str], columns: Sequence[str] | None) -> None:
    from runproj.cli.columns import chosen, facts_of, table, worth_showing

    if not runs:
        output.say("No run is like that." if text else "No runs yet.  Start one with: runproj run URI")
        return
    facts = [facts_of(run) for run in runs]
    hidden = table(runs, facts, chosen(columns, facts) if columns else worth_showing(facts, named(text, sort)))
    if hidden:
        names = ", ".join(output.clean(column.full_name) for column in hidden[:6]) + (", …" if len(hidden) > 6 else "")
        output.say(f"Not wide enough for {output.count(len(hidden), 'more column')}: {names}  (--columns chooses, --csv has all)")


def _write_csv(target: str, runs: Sequence[Run]) -> None:
    import csv
    import io

    from runproj.cli.columns import all_columns, facts_of
    from runproj.files import atomic_write

    facts = [facts_of(run) for run in runs]
    columns = all_columns(facts)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_ATTRIBUTES, *(column.full_name for column in columns)])
    for run, found in zip(runs, facts, strict=True):
        writer.writerow([*_attributes(run), *(found.get(column, "") for column in columns)])
    content = text.getvalue().encode("utf-8", "backslashreplace")
    if target == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        atomic_write(Path(target), content)
        output.say(f"{output.count(len(runs), 'run')} written to {output.clean(target)}.")


def _attributes(run: Run) -> tuple[str, ...]:
    named = (run.id, run.experiment_id, run.name, run.status.value)
    return (*named, _time(run.start), _time(run.end), run.user, run.artifact_uri)


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
