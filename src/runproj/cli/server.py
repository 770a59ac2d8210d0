"""`server`: record the runs of a team, behind MLflow's protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from runproj.cli import output
from runproj.errors import Interrupted


def register(app: typer.Typer) -> None:
    app.command("server")(server)


def server(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 takes a free one.")] = 5000,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="The database; the configured one otherwise.")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option("--artifacts", metavar="URL", help="Where files go; beside the database otherwise.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", metavar="NAME", help="A further host name to answer to.")
    ] = None,
    auth: Annotated[bool, typer.Option("--auth", help="Ask who somebody is even while there are no users.")] = False,
) -> int:
    """Serve runs, artifacts and models to MLflow's clients: MLFLOW_TRACKING_URI is the address that is printed.

    Where there are users (`runproj user add`), everybody is asked who they are; without, only this machine is served.

    Ends on Ctrl-C and SIGTERM, after what has arrived is answered.
    """
    import threading

    from runproj.server.accounts import Accounts
    from runproj.server.team import Address, listening, serving
    from runproj.settings import load
    from runproj.tracking.users import Users
    from runproj.wiring import Wiring

    wiring = Wiring(load(), output.TerminalReporter())
    try:
        with wiring.served(store, artifacts) as (records, files), listening(host, port) as listener:
            address = Address(host, listener.getsockname()[1], tuple(allowed_host or ()))
            with serving(listener, address, records, files, Accounts(Users(records.database), required=auth)):
                output.write_now(address.url)
                threading.Event().wait()
    except Interrupted:
        output.say("Stopped; everything that had arrived was answered.")
    return 0
