"""What a call needs, and whether its caller has it.  Every route declares a `Need`; there is none without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, assert_never
from urllib.parse import parse_qs

from runproj.core.access import Role, experiment_number
from runproj.core.values import dataclass
from runproj.server.fields import Fields
from runproj.server.protocol import Problem, Request

if TYPE_CHECKING:
    from runproj.server.rest import Context


class Subject(Enum):
    """What a call is about, hence on what its caller needs a role."""

    ANYBODY = "nothing: who has not said who they are may ask too"
    USER = "nothing of anybody's, or only what is filtered by what the caller may read"
    EXPERIMENT = "the experiment that is named"
    RUN = "the experiments of the runs and logged models that are named"
    MODEL = "the experiment of the logged model that is named"
    FILE = "the experiment that the path of a file belongs to"
    REGISTRY = "registered models"
    SERVER = "the server itself"


@dataclass(frozen=True)
class Need:
    """A role on what a call is about."""

    subject: Subject
    role: Role = Role.NONE


PUBLIC = Need(Subject.ANYBODY)
ANY_USER = Need(Subject.USER)
READ_EXPERIMENT = Need(Subject.EXPERIMENT, Role.READ)
WRITE_EXPERIMENT = Need(Subject.EXPERIMENT, Role.WRITE)
ADMIN_EXPERIMENT = Need(Subject.EXPERIMENT, Role.ADMIN)
READ_RUN = Need(Subject.RUN, Role.READ)
WRITE_RUN = Need(Subject.RUN, Role.WRITE)
READ_MODEL = Need(Subject.MODEL, Role.READ)
WRITE_MODEL = Need(Subject.MODEL, Role.WRITE)
READ_FILE = Need(Subject.FILE, Role.READ)
WRITE_FILE = Need(Subject.FILE, Role.WRITE)
ADMIN_FILE = Need(Subject.FILE, Role.ADMIN)
READ_REGISTRY = Need(Subject.REGISTRY, Role.READ)
WRITE_REGISTRY = Need(Subject.REGISTRY, Role.WRITE)

_NOTHING = Fields({})


def checked(need: Need, use: Context, fields: Fields = _NOTHING, place: str = "") -> Context:
    """The context of a caller who has what is needed.  Raises `Problem` (403, 401).

    Nobody is refused, and nothing is left out of a list, by roles that may be out of date.

    fields: of a call.  place: the path of a file, as it is used.
    """
    if use.caller.admin:
        return use
    if need.subject is not Subject.USER:
        try:
            check(need, use, fields, place)
            return use
        except Problem as problem:
            if problem.status != 403:
                raise
    use = replace(use, caller=use.renew(use.caller))
    check(need, use, fields, place)
    return use


def check(need: Need, use: Context, fields: Fields = _NOTHING, place: str = "") -> None:
    """Raises `Problem` (403) unless the caller has what is needed; what does not exist is left for the handler to miss."""
    if use.caller.admin:
        return
    match need.subject:
        case Subject.ANYBODY | Subject.USER:
            return
        case Subject.REGISTRY:
            if use.caller.on_registry() < need.role:
                raise denied("registered models", need.role)
        case Subject.EXPERIMENT:
            allow(use, need.role, _experiments(use, fields))
        case Subject.RUN:
            allow(use, need.role, _of_runs(use, fields))
        case Subject.MODEL:
            allow(use, need.role, use.store.belongings.of_models(fields.every("model_id")))
        case Subject.FILE:
            _allow_file(use, need.role, place)
        case Subject.SERVER:
            raise denied("the server", need.role)
        case _:
            assert_never(need.subject)


def queried_path(request: Request) -> str:
    """The path that a listing of files is asked for."""
    return parse_qs(request.query).get("path", [""])[-1].strip("/")


def denied(what: str, role: Role) -> Problem:
    """The answer to who lacks a role."""
    needed = f"Permission denied: the role '{role.name.lower()}' is needed on {what}."
    return Problem("PERMISSION_DENIED", f"{needed} Who runs the server can give it (runproj user grant).", 403)


def allow(use: Context, role: Role, experiments: Iterable[int]) -> None:
    """Raises `Problem` unless the caller has the role on all experiments, given by number."""
    for number in experiments:
        if use.caller.role(number) < role and use.renew(use.caller).role(number) < role:
            raise denied(f"experiment {number}", role)


def _experiments(use: Context, fields: Fields) -> Sequence[int]:
    """Numbers of the experiments that are named, by id and by name."""
    named = [*fields.every("experiment_id"), *fields.every("experiment_ids")]
    found = [number for text in named if (number := experiment_number(text)) is not None]
    for name in fields.every("experiment_name"):
        if (experiment := use.store.experiments.named(name)) is not None:
            found.append(int(experiment.id))
    return found


def _of_runs(use: Context, fields: Fields) -> Sequence[int]:
    runs = {text for name in ("run_id", "run_uuid", "run_ids") for text in fields.every(name)}
    models = {*fields.every("model_id"), *fields.within("metrics", "model_id"), *fields.within("models", "model_id")}
    found = use.store.belongings.of_runs(sorted(runs)) if runs else []
    return [*found, *use.store.belongings.of_models(sorted(models))] if models else found


def _allow_file(use: Context, role: Role, place: str) -> None:
    """A path in the proxied store belongs to the experiment below whose location it is; all else to nobody but an admin."""
    parts = place.split("/")
    places = ["mlflow-artifacts:/" + "/".join(parts[: end + 1]) for end in range(len(parts))]
    owners = use.store.belongings.at(places)
    if not owners:
        raise denied("the artifact store itself", Role.ADMIN)
    allow(use, role, owners)
