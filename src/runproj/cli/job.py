"""`execute-job`, `execute-parcel`, `prepare-parcel`: the executor in a process of its own, as backends do.  Not for people."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("execute-job", hidden=True)(execute_job)
    app.command("execute-parcel", hidden=True)(execute_parcel)
    app.command("prepare-parcel", hidden=True)(prepare_parcel)


def execute_job(token: Annotated[str, typer.Argument()], descriptor: Annotated[int, typer.Argument()]) -> int:
    """Execute the run whose lease, locked on `descriptor`, was handed to this process."""
    from runproj.cli.output import TerminalReporter
    from runproj.settings import load
    from runproj.wiring import Wiring

    return Wiring(load(), TerminalReporter()).take_over(token, descriptor)


def execute_parcel(
    folder: Annotated[Path, typer.Argument(help="The parcel: what the job needs, and where its record is written.")],
    apart: Annotated[bool, typer.Option("--apart", help="In a process that whoever kills this one does not find.")] = False,
    tee: Annotated[bool, typer.Option("--tee", help="Copy the output of the command to this process's own.")] = False,
    fleeting: Annotated[bool, typer.Option("--fleeting", help="Remove the folder that holds the parcel at the end.")] = False,
    pack: Annotated[bool, typer.Option("--pack", help="Have the record fetched: one file at the end, and the logs.")] = False,
) -> int:
    """Execute the job that a parcel holds, on the machine that an engine has chosen."""
    from runproj import apart as away
    from runproj import packing
    from runproj.cli import output
    from runproj.errors import RunprojError
    from runproj.files import remove_tree

    def work() -> int:
        from runproj.errands import Errand
        from runproj.parcels import Received
        from runproj.settings import load

        parcel = Received(folder.absolute())
        if pack:
            packing.announce(parcel.record, load().runs / parcel.waybill.run.id / "logs")
        try:
            return Errand(parcel, output.TerminalReporter(), (1, 2) if tee else (None, None)).execute()
        finally:
            if pack and parcel.ended is not None:
                packing.pack(parcel.record)
            if fleeting:
                remove_tree(folder.absolute().parent)

    def told() -> int:
        try:
            return work()
        except RunprojError as error:
            output.show_error(error)
            return error.exit_code
        except KeyboardInterrupt:
            return 128 + signal.SIGTERM

    return away.apart(told) if apart else work()


def prepare_parcel(
    folder: Annotated[Path, typer.Argument(help="The parcel.")],
    portable: Annotated[Path, typer.Argument(help="Where a copy of this Python goes, for an image that has none like it.")],
) -> int:
    """Lay out the code of a parcel, and a runproj that runs anywhere, for an executor in the image of the project."""
    from runproj import portable as copies
    from runproj.cli import output
    from runproj.errands import Errand
    from runproj.parcels import Received

    copies.copy(portable)
    Errand(Received(folder.absolute()), output.TerminalReporter()).prepare()
    return 0
