"""`server`: record the runs of a team, behind MLflow's protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import output
from runproj.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from runproj.server.team import Served
    from runproj.server.workers import Process

_JOB = "RUNPROJ_SERVER_WORKER"


def register(app: typer.Typer) -> None:
    app.command("server")(server)
    app.command("server-worker", hidden=True)(worker)


def server(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", metavar="PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = 5000,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="The database; the configured one otherwise.")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option("--artifacts", metavar="URL", help="Where files go; the configured place otherwise.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Processes; more than one needs PostgreSQL.")] = 1,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", metavar="NAME[:PORT]", help="A further host name to answer to.")
    ] = None,
    auth: Annotated[bool, typer.Option("--auth", help="Ask who somebody is even while there are no users.")] = False,
    artifact_root: Annotated[
        list[str] | None,
        typer.Option("--artifact-root", metavar="URL", help="Clients may choose locations below it for new experiments."),
    ] = None,
    max_upload: Annotated[str, typer.Option("--max-upload", metavar="SIZE", help="Largest file that is taken.")] = "1TiB",
    max_connections: Annotated[
        int, typer.Option("--max-connections", metavar="N", min=1, help="Connections of a process.")
    ] = 1000,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Bring a PostgreSQL database up to date even where it cannot be dumped first.")
    ] = False,
    access_log: Annotated[
        str, typer.Option("--access-log", metavar="FILE", help="A JSON line about each answer; - for standard output.")
    ] = "",
) -> int:
    """Serve runs, artifacts and models to MLflow's clients: MLFLOW_TRACKING_URI is the address that is printed.

    Where there are users (`runproj user add`), everybody is asked who they are; without, only this machine is served.

    Ends on Ctrl-C and SIGTERM, after what has arrived is answered.
    """
    from runproj.server.team import Address, Options, Served, listening
    from runproj.settings import load, parse_size
    from runproj.tracking import open_database
    from runproj.wiring import Wiring

    settings, reporter = load(), output.TerminalReporter()
    place = Wiring(settings, reporter).database_uri(store)
    if workers > 1 and not place.startswith(("postgresql://", "postgres://")):
        raise UsageError(
            "Several workers need PostgreSQL",
            why="An SQLite file has one writer at a time: a second process would only wait for the first.",
            fix="Leave out --workers, or use --store postgresql://USER@HOST/DATABASE.",
        )
    if no_backup:
        with open_database(place, home=settings.home, note=reporter.note, unsaved=True).reading():
            pass  # it is up to date now
    size = parse_size(max_upload)
    options = Options(auth, tuple(artifact_root or ()), size, max_connections, access_log)
    try:
        with listening(host, port) as listener:
            address = Address(host, listener.getsockname()[1], tuple(allowed_host or ()))
            served = Served(store, artifacts, address, options, listener.fileno())
            if workers == 1:
                _serve(served, lambda: _tell(address.url, place, access_log))
            else:
                _start(served, workers, lambda: _tell(address.url, place, access_log))
    except Interrupted:
        output.say("Stopped; everything that had arrived was answered.")
    return 0


def _tell(url: str, place: str, access_log: str) -> None:
    """Say where the server is, apart from its log, and where it keeps what it is told."""
    from runproj.remote import scrubbed

    kept = place if place.startswith("sqlite:") else scrubbed(place)
    output.say(f"Runs are kept in {kept}.  Clients: export MLFLOW_TRACKING_URI={url}")
    (output.say if access_log == "-" else output.write_now)(url)


def _serve(served: Served, ready: Callable[[], None]) -> None:
    """Serve in this process until it is told to stop."""
    import socket

    from runproj.server.team import serving
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    with (
        wiring.served(served.store, served.artifacts) as (records, files),
        socket.socket(fileno=os.dup(served.descriptor)) as listener,
        serving(listener, served.address, records, files, served.options),
    ):
        ready()
        _wait(once=served.alive >= 0)


def _wait(*, once: bool) -> None:
    """Until this process is told to stop; with `once`, whoever says so again (a terminal, and the parent) does not hurry it.

    Raises `Interrupted`.  The signals themselves raise nothing here: two that come together would meet inside each other.
    """
    import signal
    import socket

    told, teller = socket.socketpair()
    with told, teller:
        teller.setblocking(False)
        minded = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # as nohup and background jobs have them
        ]
        signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)  # whichever thread a signal comes to, from the first on
        try:
            before = {number: signal.signal(number, _heard) for number in minded}
            number = told.recv(1)[0]
        finally:
            signal.set_wakeup_fd(-1)
        for which, handler in before.items():
            signal.signal(which, signal.SIG_IGN if once else handler)
    raise Interrupted(number)


def _heard(number: int, frame: object) -> None:
    """A signal's number has been written to the wakeup descriptor by then."""


def _start(served: Served, workers: int, ready: Callable[[], None]) -> None:
    """Serve in processes of their own until this one is told to stop."""
    import dataclasses
    import sys
    import tempfile
    from pathlib import Path

    from runproj import proc
    from runproj.codec import to_json
    from runproj.server.team import refuse_open
    from runproj.server.workers import Workers
    from runproj.settings import load
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    with wiring.served(served.store, served.artifacts) as (records, _):  # what is wrong with them is said once, and here
        refuse_open(served.address, records, served.options)
    alive, held = os.pipe()  # its end tells the workers that this process is gone, however that happened
    with tempfile.TemporaryDirectory(prefix="runproj-server-") as shared:
        job = dataclasses.replace(served, options=dataclasses.replace(served.options, shared=shared), alive=alive)
        environ = {**os.environ, _JOB: to_json(job)}

        def start() -> Process:
            command = [sys.executable, "-P", "-m", "runproj.cli.main", "server-worker"]
            return proc.start(command, cwd=Path.cwd(), env=environ, out=1, err=2, keep=(served.descriptor, alive))

        ready()
        try:
            Workers(workers, start, output.say).run()
        finally:
            os.close(held)
            os.close(alive)


def worker() -> int:
    """Be one process of a server; what to serve is in the environment, which only this user can read."""
    import signal
    import threading

    from runproj.codec import from_json
    from runproj.server.team import Served

    served = from_json(Served, os.environ[_JOB])

    def end_with_parent() -> None:
        os.read(served.alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        _serve(served, lambda: None)
    except Interrupted:
        return 0
    return 0
