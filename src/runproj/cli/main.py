"""The program `runproj`: picks the command's module, turns errors into words, and exits."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from runproj import __version__
from runproj.errors import Interrupted, RunprojError, StartError, UsageError

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "run": "run",
    "plan": "run",
    "rerun": "run",
    "sweep": "sweep",
    "sweep-worker": "sweep",
    "reproduce": "reproduce",
    "why": "reproduce",
    "diff": "reproduce",
    "runs": "runs",
    "wait": "runs",
    "queue": "queue",
    "worker": "queue",
    "experiments": "catalogue",
    "models": "catalogue",
    "report": "report",
    "export": "transfer",
    "import": "transfer",
    "sync": "sync",
    "init": "project",
    "validate": "project",
    "lock": "lock",
    "ci": "ci",
    "backends": "backends",
    "env": "env",
    "gc": "maintenance",
    "doctor": "maintenance",
    "server": "server",
    "server-worker": "server",
    "user": "user",
    "execute-job": "job",
    "execute-parcel": "job",
}
"""Which module of this package has a command: only that one is imported, so that a command pays for itself alone.

In the order in which help lists them."""

STARTING = frozenset(
    {"run", "plan", "lock", "rerun", "sweep", "reproduce", "why", "diff", "wait", "ci", "execute-job", "execute-parcel"}
)
"""Commands that start a project, or decide how it would be started: only these end with 125, where `git bisect run` skips."""


def build(wanted: str | None = None) -> typer.Typer:
    """The Typer application with one command's module, or with all of them for help, completion and documentation."""
    import importlib

    import typer

    from runproj.cli.summaries import in_order, put_summaries

    app = typer.Typer(
        name="runproj",
        cls=in_order(COMMANDS),
        help="Run any project from a git URL, pinned and recorded, and run it again exactly as before.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def version(value: bool) -> None:
        if value:
            typer.echo(f"runproj {__version__}")
            raise typer.Exit

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Show the version and exit."),
    ) -> None: ...

    modules = [COMMANDS[wanted]] if wanted in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for module in modules:
        importlib.import_module(f"runproj.cli.{module}").register(app)
    put_summaries(app)
    return app


def _on_signal(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


def _wanted(arguments: Sequence[str]) -> str | None:
    """The command that was typed."""
    return next((word for word in arguments if not word.startswith("-")), None)


def _invoke(arguments: Sequence[str]) -> int:
    import typer
    from typer.main import get_command

    wanted = _wanted(arguments)
    completing = "_RUNPROJ_COMPLETE" in os.environ
    command = get_command(build(None if completing else wanted))
    if completing:
        command.main(prog_name="runproj")
    try:
        with command.make_context("runproj", list(arguments)) as context:
            result = command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # Typer's own words for a wrong command line
            if "--json" in arguments and hasattr(error, "format_message"):
                path = getattr(getattr(error, "ctx", None), "command_path", "runproj")
                raise UsageError(error.format_message(), fix=f"{path} --help") from None
            error.show()
            return int(error.exit_code)
        raise
    return result if isinstance(result, int) else 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.  Errors for the user are printed; bugs keep their traceback."""
    if list(arguments) == ["--version"]:  # the one answer that needs nothing
        sys.stdout.write(f"runproj {__version__}\n")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants SIGHUP left alone
            signal.signal(number, _on_signal)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()  # here, where it can still be told what a failure means
        return code
    except RunprojError as error:
        from runproj.cli import output

        output.show_error(error, as_json="--json" in arguments)
        return 1 if isinstance(error, StartError) and _wanted(arguments) not in STARTING else error.exit_code
    except Interrupted as stop:
        from runproj.cli import output

        output.say(f"\nStopped by {signal.Signals(stop.number).name}.")
        return 128 + stop.number
    except BrokenPipeError:  # the reader of our output has gone
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that flushing at exit says nothing
        return 128 + signal.SIGPIPE
    except Exception:  # a bug of ours: it keeps its traceback, and `git bisect run` must not blame the commit for it
        import traceback

        traceback.print_exc()
        return StartError.exit_code


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
