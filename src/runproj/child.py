"""What the command is given: its variables, its program's full path, and a way to reach its run."""

from __future__ import annotations

import contextlib
import os
import secrets as tokens
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runproj.core.determinism import profile
from runproj.core.environment import Environment
from runproj.core.plan import Plan
from runproj.core.run import Run
from runproj.core.services import Endpoint, Services
from runproj.files import sha256_text

LOOPBACK = "127.0.0.1"

_NEVER_PASSED_ON = frozenset(
    (
        # where to record is this run's business
        *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
        *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
        # a git that runs us (bisect, hooks) must not make the run's git work on its repository
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
        # settings of this shell's Python
        *("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONINSPECT"),
    )
)
_PATIENCE = 60.0
"""Seconds for what is sent after the command has ended."""

_KEPT_WHEN_CLEAN = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TERM",
    "SHELL",
    "SSL_CERT_FILE",
    # which GPUs there are is what it was given, not what it takes
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)


def resolve(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[str, ...]:
    """The program by its full path in the environment's PATH, so that this process's own PATH decides nothing."""
    if "/" in argv[0]:
        return argv
    return (shutil.which(argv[0], path=env.get("PATH", "")) or argv[0], *argv[1:])


@dataclass
class Link:
    """How the child reaches its run: variables, and the socket to watch where we serve it ourselves."""

    variables: Mapping[str, str]
    listener: tuple[int, Callable[[], None]] | None = None
    endpoint: Endpoint | None = None


@contextlib.contextmanager
def endpoint(run: Run, use: Services, address: str) -> Iterator[Link]:
    """The way to the run, served at an address of this machine unless a remote server is used."""
    identity = {"MLFLOW_RUN_ID": run.id, "MLFLOW_EXPERIMENT_ID": run.experiment_id}
    if use.endpoint is None:
        yield Link({"MLFLOW_TRACKING_URI": use.tracking_uri, **use.child_env, **identity})
        return
    token = tokens.token_urlsafe(24)
    with socket.create_server((address, 0), backlog=64) as listening:
        served = use.endpoint(listening, token, run.id, run.experiment_id)
        uri = f"http://{address}:{listening.getsockname()[1]}"
        reach = {
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # nobody can visit it, and it is gone with the run
        }
        link = Link({**reach, **identity}, endpoint=served)

        def serve() -> None:
            served.start()

        link.listener = (listening.fileno(), serve)
        try:
            yield link
        finally:
            served.close()


def environment(plan: Plan, run: Run, built: Environment, use: Services, link: Mapping[str, str]) -> dict[str, str]:
    """The variables of the command: ours without what would confuse it, the environment's, the project's, the run's."""
    hidden = _NEVER_PASSED_ON.union(built.unset)
    base = {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("RUNPROJ_")}
    if plan.options.clean_env:
        base = {name: value for name, value in base.items() if name in _KEPT_WHEN_CLEAN}
    path = [*map(str, built.bin), *filter(None, [base.get("PATH", os.defpath)])]
    base |= {"PATH": os.pathsep.join(path), **built.variables, **profile(plan), **dict(plan.entry_point.env), **link}
    base.setdefault("PYTHONUNBUFFERED", "1")  # so that output is seen, and its time recorded, when it is written
    base["PYTHONPATH"] = os.pathsep.join(filter(None, [str(client_folder(use)), base.get("PYTHONPATH")]))
    base |= past_proxies(base, LOOPBACK)
    base |= {"RUNPROJ_RUN_ID": run.id, "RUNPROJ_GUARDED": run.id, "RUNPROJ_HOME": str(use.home)}
    base["RUNPROJ_SPOOL"] = str(spool(run, use))
    base["RUNPROJ_TRACKING_URI"] = use.tracking_uri  # for a runproj that the project itself starts
    return base


def past_proxies(variables: Mapping[str, str], address: str) -> dict[str, str]:
    """Variables with which the way to this machine's own endpoint leads past every proxy."""
    return {name: ",".join(filter(None, [variables.get(name, ""), address])) for name in ("NO_PROXY", "no_proxy")}


def contained(plan: Plan, link: Link, address: str) -> dict[str, str]:
    """The variables of a command in a container, which gets nothing of this machine's: the project's, the run's."""
    variables = {**profile(plan), **dict(plan.entry_point.env), **link.variables}
    return variables | past_proxies(variables, address)


def spool(run: Run, use: Services) -> Path:
    """Where the run's processes keep what they have logged and not sent yet.  Not with the run's files: it may outlive them."""
    return use.home / "spool" / f"run-{run.id}"


def send_what_is_left(link: Link, run: Run, use: Services) -> str:
    """Send what processes logged that ended without sending it; returns what to say where that cannot be done."""
    root = spool(run, use)
    with contextlib.suppress(OSError):
        root.rmdir()  # nothing was logged
    if not root.is_dir():
        return ""
    from runproj.client.sync import send_of_run
    from runproj.client.wire import Http, Server

    if link.listener is not None:
        link.listener[1]()
    left, problem = send_of_run(str(root), Server(Http(link.variables["MLFLOW_TRACKING_URI"], link.variables)), _PATIENCE)
    return f"{left} events that the project logged are not recorded yet ({problem}); `runproj sync` sends them." if left else ""


def client_folder(use: Services) -> Path:
    """A folder in which `import runproj` finds the small logging client, whatever the environment has installed.

    All runs share it, so that each Python compiles it once.
    """
    cache = use.home / "cache" / "client"
    package = Path(__file__).with_name("client")
    sources = sorted(package.glob("*.py"))
    stamps = [(path.name, found.st_size, found.st_mtime_ns) for path in sources for found in [path.stat()]]
    folder = cache / sha256_text(repr(stamps))[:16]
    try:
        os.utime(folder)  # it is in use: `gc` leaves it
    except FileNotFoundError:
        fresh = cache / f".{os.getpid()}-{tokens.token_hex(4)}"
        copy = fresh / "runproj" / "client"
        copy.mkdir(parents=True)
        for path in sources:
            shutil.copyfile(path, copy / path.name)
        shutil.copyfile(package / "standalone.py", fresh / "runproj" / "__init__.py")
        try:
            fresh.rename(folder)
        except OSError:  # somebody else was faster
            shutil.rmtree(fresh)
    return folder
