"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete

if TYPE_CHECKING:
    from runproj.core.call import Given

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output; words go to standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only notes and what went wrong.")]
Uri = Annotated[str, typer.Argument(metavar="URI", help="Git URL, folder or .zip; '#sub/dir' names a folder inside it.")]
EntryPoint = Annotated[
    str,
    typer.Option(
        "--entry-point",
        "-e",
        metavar="NAME",
        help="Entry point of the project, or a script of it (train.py).",
        autocompletion=complete.entry_points,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--version", "-v", "--rev", metavar="REV", help="Branch, tag, commit (full or short), HEAD~1, refs/…."),
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", "--param-list", metavar="NAME=VALUE", help="A parameter.", autocompletion=complete.parameters),
]
ParamsFile = Annotated[Path | None, typer.Option("--params-file", metavar="FILE", help="Parameters from a YAML or JSON file.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse fallbacks and undeclared parameters instead of noting them.")]
RequireClean = Annotated[bool, typer.Option("--require-clean", help="Refuse a folder with uncommitted changes.")]
EnvManager = Annotated[
    str,
    typer.Option(
        "--env-manager",
        metavar="auto|virtualenv|conda|system|docker",
        help="Who makes the environment ('local' means system).",
        autocompletion=complete.words("auto", "virtualenv", "conda", "system", "docker"),
    ),
]
With = Annotated[list[str] | None, typer.Option("--with", metavar="PACKAGE", help="Add a package to the environment.")]
AsOf = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="commit|now|DATE",
        help="Resolve loose requirements as the index stood then.",
        autocompletion=complete.words("commit", "now"),
    ),
]
Relock = Annotated[bool, typer.Option("--relock", help="Resolve anew even where this request was locked before.")]
Locked = Annotated[bool, typer.Option("--locked", help="Refuse if the committed lock is missing or does not fit the project.")]
Installer = Annotated[
    str,
    typer.Option("--installer", metavar="uv|pip", help="Who installs packages.", autocompletion=complete.words("uv", "pip")),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is cached.")]
Backend = Annotated[
    str,
    typer.Option(
        "--backend", "-b", metavar="NAME", help="Backend, or profile; local by default.", autocompletion=complete.backends
    ),
]
OwnBackend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        metavar="NAME",
        help="Backend, or profile; by default the one that the entry point names, or local.",
        autocompletion=complete.backends,
    ),
]
BackendConfig = Annotated[
    str | None,
    typer.Option("--backend-config", "-c", metavar="FILE|JSON", help="Resources, and the backend's own options."),
]
Experiment = Annotated[
    str | None,
    typer.Option(
        "--experiment-name",
        "--experiment",
        metavar="NAME",
        envvar="MLFLOW_EXPERIMENT_NAME",
        help="Experiment; made if new.",
        autocompletion=complete.active_experiments,
    ),
]
RunName = Annotated[str | None, typer.Option("--run-name", metavar="NAME", help="Name of the run; one is made up otherwise.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="A tag of the run.")]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Stop the run after this long (90, 30m, 2h).")]
Grace = Annotated[
    float, typer.Option("--grace", min=0, metavar="SECONDS", help="Time between asking the run to stop and killing it.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the run's checkout when it fails, to look at it.")]
CleanEnv = Annotated[
    bool, typer.Option("--clean-env", help="Hide this shell's variables from the run, but for PATH, HOME and the like.")
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", help="One thread, fixed hash seed, deterministic BLAS, CUDA and TensorFlow, UTC and C.UTF-8."
    ),
]
Audit = Annotated[bool, typer.Option("--audit", help="Record files and addresses that the run uses without declaring them.")]
AuditStrict = Annotated[bool, typer.Option("--audit-strict", help="As --audit, and the run fails where there are any (21).")]
DockerArgs = Annotated[
    list[str] | None,
    typer.Option("--docker-args", "-A", metavar="NAME=VALUE", help="Something for the container, as 'docker run' has it."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Let the project have what it asks of this machine, now and later at this commit.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return at once; follow with 'runproj runs logs -af RUN'.")]
Queue = Annotated[
    bool, typer.Option("--queue", help="Put it in the queue of this machine, for 'runproj worker', and return at once.")
]
Priority = Annotated[
    int | None, typer.Option("--priority", metavar="N", help="In the queue: before those of a lower one; 0 by default.")
]
Wait = Annotated[bool, typer.Option("--wait", help="With --queue: wait for its end, as if it ran here.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, metavar="N", help="Run it N times, and tell how its metrics vary.")]
Force = Annotated[bool, typer.Option("--force", help="Run every step of a pipeline, whatever has been run before.")]
FromStep = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STEP",
        help="Run this step of a pipeline and all that need it, changed or not.",
        autocompletion=complete.entry_points,
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", "-j", min=1, metavar="K", help="So many steps of a pipeline at a time; by default a core each."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan and start nothing.")]
WouldRemove = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be removed, and remove nothing.")]
RunReference = Annotated[
    str, typer.Argument(metavar="RUN", help="Id, beginning of an id, name, or @last.", autocompletion=complete.runs)
]
RunReferences = Annotated[
    list[str], typer.Argument(metavar="RUN…", help="Ids, beginnings of ids, names, or @last.", autocompletion=complete.runs)
]


def audit_word(*, audit: bool, strict: bool) -> str:
    """What the two options mean in a plan."""
    return "strict" if strict else "note" if audit else "never"


def given(params: list[str] | None, file: object) -> tuple[Given, ...]:
    """Parameters of a file, overridden by those of the command line."""
    from runproj.descriptor import parse_given, read_params_file
    from runproj.errors import UsageError

    typed = [parse_given(text) for text in params or ()]
    names = {item.name for item in typed}
    if repeated := sorted({item.name for item in typed if sum(other.name == item.name for other in typed) > 1}):
        raise UsageError(f"Parameter given more than once: {', '.join(repeated)}")
    read = read_params_file(file) if isinstance(file, Path) else ()
    return (*(item for item in read if item.name not in names), *typed)
