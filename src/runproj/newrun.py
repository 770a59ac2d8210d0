"""What a run starts with in the store: its name, parameters and tags, from its plan; and the end of one that did not start."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
import uuid

from runproj.core.outcome import Outcome
from runproj.core.plan import Plan
from runproj.core.recipe import recipe_of
from runproj.core.run import NewRun, Param, Phase, Run, RunChanges, RunStatus, Tag, TagName
from runproj.core.services import Services
from runproj.core.source import Pin, PinKind
from runproj.errors import RunprojError
from runproj.parcels import Received, folder_of


def new_run(decided: Plan, use: Services, token: str, *, waits: bool = False) -> NewRun:
    """What the run of a plan starts with; `token` is of its lease.  waits: it does not run yet."""
    named = decided.options.experiment
    experiment_id = use.experiment_id if use.experiment_id and not named else use.tracking.experiment(named or use.experiment).id
    local = not use.tracking_uri.startswith("http")
    run_id = uuid.uuid4().hex if local else None  # a remote server chooses
    return NewRun(
        experiment_id=experiment_id,
        start=int(time.time() * 1000),
        id=run_id,
        name=decided.options.run_name,
        user=_user(),
        status=RunStatus.SCHEDULED if waits else RunStatus.RUNNING,
        params=tuple(Param(value.name, value.value) for value in decided.call.values if value.value is not None),
        tags=tuple(Tag(key, value) for key, value in _tags(decided, token).items() if value),
    )


def source_name(pin: Pin) -> str:
    """The project, as people name it."""
    return pin.uri + (f"#{pin.subdirectory}" if pin.subdirectory else "")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in many containers
        return str(os.getuid())


def _tags(decided: Plan, token: str) -> dict[str, str | None]:
    pin, options = decided.code, decided.options
    return {
        TagName.USER: _user(),
        TagName.SOURCE_NAME: source_name(pin),
        TagName.SOURCE_TYPE: "PROJECT",
        TagName.COMMIT: pin.commit,
        TagName.REPO_URL: pin.origins[0] if pin.origins else (pin.uri if pin.kind is PinKind.GIT else None),
        TagName.BRANCH: pin.branch,
        TagName.DIRTY: ("true" if pin.dirty else "false") if pin.kind is PinKind.GIT else None,
        TagName.ENTRY_POINT: decided.call.entry_point,
        TagName.PROJECT_ENV: decided.lock.manager.value,
        TagName.PROJECT_BACKEND: options.backend,
        TagName.IMAGE_URI: decided.lock.image.reference if decided.lock.image else None,
        TagName.IMAGE_ID: decided.lock.image.id if decided.lock.image else None,
        TagName.PARENT: options.parent_run,
        TagName.TREE: pin.tree,
        TagName.PATCH: pin.patch,
        TagName.LOCK: decided.lock.digest,
        TagName.RERUN_OF: decided.rerun_of,
        TagName.RECIPE: recipe_of(decided),
        TagName.ATTEMPT: token,
        TagName.PHASE: Phase.START.value,
        **dict(options.tags),
    }


def ending(outcome: Outcome) -> tuple[Tag, ...]:
    """The tags that tell how a run ended."""
    return Tag(TagName.EXIT_CODE, str(outcome.exit_code)), Tag(TagName.REASON, outcome.reason[:2000])


def close_unstarted(run: Run | None, outcome: Outcome, use: Services) -> None:
    """Close a run that did not come to its executor, with the reason; where its engine has it all the same, nothing happens."""
    if run is not None and (folder := folder_of(run.id, use.home)).is_dir():
        with contextlib.suppress(OSError, RunprojError):
            Received(folder).give_up()
    with contextlib.suppress(RunprojError):
        if run is not None and not use.tracking.get_run(run.id).status.final:
            changes = RunChanges(status=outcome.status, end=int(time.time() * 1000), tags=ending(outcome))
            use.tracking.update(run.id, changes)
