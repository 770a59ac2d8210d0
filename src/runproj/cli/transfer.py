"""`import` and `export`: take a record over from MLflow and give it back; carry a run away in a capsule and take it in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import options as opt
from runproj.cli import output
from runproj.errors import UsageError

if TYPE_CHECKING:
    from runproj.carrying import Carrying
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
Sign = Annotated[Path | None, typer.Option("--sign", metavar="KEY", help="Sign the capsule with this Ed25519 key of ssh or PEM.")]
Signer = Annotated[
    Path | None, typer.Option("--signer", metavar="KEY.pub", help="Take the capsule only if it was signed with this key.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Take packages too that the maker of the capsule has built.")]
Inputs = Annotated[bool, typer.Option("--inputs/--no-inputs", help="Put the data that the run was given into the capsule.")]
Wheels = Annotated[bool, typer.Option("--wheels/--no-wheels", help="Put the packages of the environment into the capsule.")]
History = Annotated[bool, typer.Option("--history/--no-history", help="With the commits before the run's and their tags.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace a capsule of that name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be moved, and write nothing.")]


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)


def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="MLflow server (http://…), its mlflow.db, an mlruns folder, or a capsule (.zip)."),
    ],
    into: Annotated[str | None, typer.Option("--into", metavar="URL", help="Where to; the configured store otherwise.")] = None,
    experiment: Experiments = None,
    suffix: Suffix = "",
    artifacts: Artifacts = None,
    signer: Signer = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    json: opt.Json = False,
) -> int:
    """Take over everything from an MLflow server, its SQLite file, or an mlruns folder; or one run from a capsule.

    Ids, times, histories, models and files stay what they are, and each run is compared with its source when it has arrived.
    Only a server (--into http://…) chooses new ids and times: import into its database to keep them.
    Killed and started again, it goes on where it was; run again later, it takes what is new. The exit code is 1 where something
    does not agree.

    A capsule (.zip, made by `runproj export RUN FILE.zip`) is checked first, file by file. With its record come the code, the
    packages and the data of the run: `runproj reproduce` then needs no network.
    """
    if source.endswith(".zip"):
        if experiment or artifacts:
            raise UsageError("A capsule holds one run: --experiment and --artifacts mean nothing for it")
        return _take(Path(source), into, suffix, signer, trust=trust, dry_run=dry_run, json=json)
    if trust or signer:
        raise UsageError(f"{source} is no capsule (.zip)", why="--trust and --signer are about what a capsule brings.")
    return _transfer(True, source, into, experiment, suffix, artifacts, dry_run, json)


def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET/RUN",
            help="MLflow server (http://…), its mlflow.db, or a folder; before a capsule, the run: its id, name, or @last.",
        ),
    ],
    capsule: Annotated[Path | None, typer.Argument(metavar="[CAPSULE.zip]", help="A file for one run.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Where from; the configured store otherwise.")
    ] = None,
    experiment: Experiments = None,
    suffix: Suffix = "",
    artifacts: Artifacts = None,
    inputs: Inputs = True,
    wheels: Wheels = True,
    history: History = True,
    sign: Sign = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: opt.Json = False,
) -> int:
    """Give everything to an MLflow server, a database that MLflow has made, or an mlruns folder; or one run to a capsule.

    A server gives runs ids of its own; the tag runproj.imported_from holds those they had. The exit code is 1 where something
    does not agree.

    `runproj export RUN FILE.zip` writes a capsule: one file with the run's code, packages, data, results and record, from which
    `runproj import FILE.zip` makes a run that can be repeated on another machine, without a network.
    """
    if capsule is None:
        if target.endswith(".zip"):
            raise UsageError("A capsule holds one run: which?", fix=f"runproj export RUN {target}")
        if not (inputs and wheels and history) or force:
            raise UsageError(
                "--no-inputs, --no-wheels, --no-history and --force are for capsules", fix="runproj export RUN FILE.zip"
            )
        return _transfer(False, source, target, experiment, suffix, artifacts, dry_run, json)
    if capsule.suffix != ".zip":
        raise UsageError(f"{capsule} is no name of a capsule", fix=f"runproj export {target} {capsule}.zip")
    if source or experiment or suffix or artifacts or dry_run:
        raise UsageError(
            "--from, --experiment, --suffix, --artifacts and --dry-run mean nothing for a capsule, which holds one run"
        )
    return _pack(target, capsule, (inputs, wheels, history), sign, force=force, json=json)


def _pack(reference: str, target: Path, wanted: tuple[bool, bool, bool], sign: Path | None, *, force: bool, json: bool) -> int:
    from runproj.capsule.pack import Choices
    from runproj.capsule.signing import Key

    if target.exists() and not force:
        raise UsageError(f"{target} exists already", fix="Choose another name, or replace it with --force.")
    key = Key.read(sign, lambda: str(typer.prompt(f"Passphrase of {sign}", hide_input=True, err=True))) if sign else None
    carrying = _carrying()
    carrying.wiring.recover()
    view = carrying.pack(reference, target.absolute(), Choices(*wanted), key)
    if json:
        output.write_json(view)
        return 0
    for note in view.notes:
        output.say(f"note: {output.clean(note)}")
    parts = (output.count(view.wheels, "package"), output.count(view.inputs, "input"), output.count(view.files, "file"))
    output.write(f"{output.clean(view.path)}: {view.size / 1e6:,.1f} MB, {', '.join(parts)}")
    output.write(f"sha256 {view.sha256}" + (f", signed with {view.signature.key}" if view.signature else ""))
    if not view.complete:
        output.write("It does not hold everything: whoever repeats the run needs a network, or the data.")
    return 0


def _take(path: Path, into: str | None, suffix: str, signer: Path | None, *, trust: bool, dry_run: bool, json: bool) -> int:
    from runproj.capsule.signing import PublicKey
    from runproj.transfer.engine import Wishes

    if signer and not signer.is_file():
        raise UsageError(f"There is no key {signer}", fix="Name a file like ~/.ssh/id_ed25519.pub.")
    key = PublicKey.read(signer.read_bytes(), str(signer)) if signer else None
    found = _carrying().take(path.absolute(), into, Wishes(suffix=suffix, dry_run=dry_run), trust=trust, signer=key)
    if json:
        output.write_json(found)
        return 0 if found.verified else 1
    for note in found.notes:
        output.say(f"note: {output.clean(note)}")
    _tell(found.transfer)
    if found.signature and found.signature.trusted:
        output.write(output.good(f"Signed with {found.signature.key}."))
    if found.verified and not dry_run:
        output.write(f"Repeat it: runproj reproduce {found.run[:8]}")
    return 0 if found.verified else 1


def _carrying() -> Carrying:
    from runproj.carrying import Carrying
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Carrying(Wiring(load(), output.TerminalReporter()), Path.cwd())


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
