"""`import` and `export`: take a record over from MLflow, and give it back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output

if TYPE_CHECKING:
    from runproj.core.transfer import TransferReport

_SHOWN = 20
"""Problems and losses that are told without `--json`."""

Experiments = Annotated[
    list[str] | None, typer.Option("--experiment", metavar="NAME", help="Only this experiment, and this one (repeatable).")
]
Suffix = Annotated[
    str, typer.Option("--suffix", metavar="TEXT", help="Put after the names of experiments that the target has already.")
]
Artifacts = Annotated[
    list[Path] | None, typer.Option("--artifacts", metavar="FOLDER", help="A folder that holds artifacts (repeatable).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be moved, and write nothing.")]


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="MLflow server (http://…), its mlflow.db, or an mlruns folder.")
    ],
    into: Annotated[str | None, typer.Option("--into", metavar="URL", help="Where to; the configured store otherwise.")] = None,
    experiment: Experiments = None,
    suffix: Suffix = "",
    artifacts: Artifacts = None,
    dry_run: DryRun = False,
    json: opt.Json = False,
) -> int:
    """Take over everything from an MLflow server, its SQLite file, or an mlruns folder.

    Ids, times, histories, models and files stay what they are, and each run is compared with its source when it has arrived.
    Only a server (--into http://…) chooses new ids and times: import into its database to keep them.
    Killed and started again, it goes on where it was; run again later, it takes what is new. The exit code is 1 where something
    does not agree.
    """
    return _transfer(True, source, into, experiment, suffix, artifacts, dry_run, json)


def export(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="MLflow server (http://…), its mlflow.db, or a folder.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Where from; the configured store otherwise.")
    ] = None,
    experiment: Experiments = None,
    suffix: Suffix = "",
    artifacts: Artifacts = None,
    dry_run: DryRun = False,
    json: opt.Json = False,
) -> int:
    """Give everything to an MLflow server, a database that MLflow has made, or an mlruns folder.

    A server gives runs ids of its own; the tag runproj.imported_from holds those they had. The exit code is 1 where something
    does not agree.
    """
    return _transfer(False, source, target, experiment, suffix, artifacts, dry_run, json)


def _transfer(
    into_ours: bool,
    source: str | None,
    target: str | None,
    experiments: list[str] | None,
    suffix: str,
    artifacts: list[Path] | None,
    dry_run: bool,
    json: bool,
) -> int:
    from runproj.settings import load
    from runproj.transfer.engine import Wishes
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    wishes = Wishes(tuple(experiments or ()), suffix, dry_run)
    report = wiring.transfer(source, target, artifacts or (), wishes, into_ours=into_ours)
    if json:
        output.write_json(report)
    else:
        _tell(report)
    return 0 if report.verified else 1


def _tell(report: TransferReport) -> None:
    verb = "would be taken over" if report.dry_run else "are in the target"
    counts = (
        (report.experiments, "experiment"),
        (report.runs, "run"),
        (report.points, "point"),
        (report.models, "logged model"),
        (report.registered_models, "registered model"),
        (report.versions, "version"),
        (report.files, "file"),
    )
    output.write(f"{', '.join(output.count(number, noun) for number, noun in counts)} {verb}.")
    kept = sum(item.state == "kept" for item in report.items)
    if kept:
        output.write(f"{kept} of the runs and models had been taken over before.")
    there = Counter(item.experiment for item in report.items if item.state == "there")
    for experiment, number in there.items():
        output.write(f"{number} of the runs and models were there already, in experiment {output.clean(experiment)}: the same.")
    for note in report.notes:
        output.write(output.clean(note))
    wrong = [item for item in report.items if item.state in ("wrong", "differs")]
    for item in wrong[:_SHOWN]:
        where = f", there already in experiment {output.clean(item.experiment)} and left so" if item.state == "differs" else ""
        output.write(f"{output.bad('differs')}  {item.kind} {item.id}{where}: {output.clean('; '.join(item.problems))}")
    for loss in report.losses[:_SHOWN]:
        count = f" ({loss.count})" if loss.count > 1 else ""
        output.write(f"not taken over: {output.clean(loss.what)}{count}: {output.clean(loss.why)}")
    more = len(wrong[_SHOWN:]) + len(report.losses[_SHOWN:])
    if more:
        output.write(f"… and {output.count(more, 'more line')}, which --json tells.")
    if not report.dry_run and report.verified:
        output.write(output.good("Each run and each file agrees with its source."))
