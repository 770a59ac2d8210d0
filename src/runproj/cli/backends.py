"""`backends`: where runs can be, and what can be said to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from runproj.cli import options as opt
from runproj.cli import output, places

if TYPE_CHECKING:
    from runproj.core.backend import Option
    from runproj.core.views import BackendView
    from runproj.wiring import Wiring


def register(app: typer.Typer) -> None:
    app.command("backends")(backends)


def backends(json: opt.Json = False) -> None:
    """List where runs can be: which backends can be used here, why the others cannot, their options, and profiles."""
    from runproj.core.views import BackendList
    from runproj.settings import load
    from runproj.wiring import Wiring

    settings = load()
    wiring = Wiring(settings, output.TerminalReporter(quiet=True))
    found = BackendList(
        tuple(_view(name, wiring) for name in wiring.backends.names()),
        {name: str(profile.get("backend", name)) for name, profile in sorted(settings.profiles.items())},
    )
    if json:
        output.write_json(found)
        return
    for view in found.backends:
        output.write(f"{view.name}  {output.clean(view.problem) or output.good('can be used')}")
        for option in view.options:
            output.write(output.dim(f"  {option.name} ({option.kind.value})  {output.clean(option.help)}"))
    names = {view.name for view in found.backends}
    for name, backend in found.profiles.items():
        unknown = "" if backend in names else ", and there is no such backend"
        output.write(f"{output.clean(name)}  profile of {output.clean(backend)}{unknown}")


def _view(name: str, wiring: Wiring) -> BackendView:
    """A backend, tried with what `config.toml` says to it."""
    from runproj.core.backend import Demand, checked, resources_with
    from runproj.core.project import Resources
    from runproj.core.views import BackendView
    from runproj.errors import RunprojError

    known: tuple[Option, ...] = ()
    try:
        backend = wiring.backends.open(name)
        known = backend.options
        _, options = places.chosen(name, None)
        backend.check(Demand(resources=resources_with(Resources(), options), options=checked(options, known, name)))
    except RunprojError as error:
        said = [text if text.endswith((".", "?", "!")) else f"{text}." for text in (error.what, error.why) if text]
        return BackendView(name, " ".join([*said, error.fix]).strip(), known)
    return BackendView(name, "", known)
