"""Runs on the Slurm of the tests, and waiting for what becomes of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from runproj.codec import from_json, to_json
from runproj.core.backend import Job, JobHandle
from runproj.core.plan import Plan
from runproj.core.run import RunChanges, Tag, TagName
from runproj.parcels import FreshParcel
from runproj.runner import demand_of, new_run, store_plan
from runproj.settings import load
from runproj.wiring import Wiring
from support import placing
from support.placing import home, nothing_left
from support.program import SYSTEM, Cli

if TYPE_CHECKING:
    from conftest import Repository
    from support.slurm import Slurm

ON = ("--backend", "slurm", *SYSTEM)


@pytest.fixture
def away(cli: Cli, slurm: Slurm) -> Cli:
    """The program, with the cluster."""
    cli.env |= slurm.environ
    return cli


def job_of(cli: Cli, run_id: str) -> str:
    tags = {tag["key"]: tag["value"] for tag in cli.json("runs", "show", run_id)["run"]["tags"]}
    return str(json.loads(tags["runproj.handle"])["id"])


def reason_of(run: dict) -> str:
    return next((tag["value"] for tag in run["tags"] if tag["key"] == "runproj.reason"), "")


def detached(cli: Cli, project: Repository, *arguments: str) -> str:
    return placing.detached(cli, project, *ON, *arguments)


def begun(cli: Cli, run_id: str, word: str = "begun") -> None:
    """Wait until the command has said something."""
    log = home(cli) / "runs" / run_id / "logs" / "stdout.log"
    deadline = time.monotonic() + 300
    while not log.exists() or word not in log.read_text():
        assert time.monotonic() < deadline, (home(cli) / "slurm").exists()
        time.sleep(0.05)


def ended(cli: Cli, run_id: str) -> dict:
    cli("wait", run_id)
    run = cli.json("runs", "show", run_id)["run"]
    nothing_left(cli)
    return run


class Quiet:
    """Hears what happens, and says nothing."""

    def phase(self, name: str, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def submitted_together(
    cli: Cli, project: Repository, count: int, entry_point: str, at_once: int | None = None
) -> list[JobHandle]:
    """Jobs of one plan, given to the backend at once; their environment is not there yet."""
    planned = cli("plan", project.url, "-e", entry_point, "--backend", "slurm", "--json")
    assert planned.returncode == 0, planned.stderr
    plan = from_json(Plan, planned.stdout)
    wiring = Wiring(load(cli.env), Quiet(), environ=cli.env)
    use = wiring.services()
    backend = use.backends.open("slurm")
    leases, jobs = [], []
    for index in range(count):
        token = f"{index:016x}"
        lease = wiring.leases.take(token, use.tracking_uri)
        run = use.tracking.create_run(new_run(plan, use, token, waits=True))
        folder = use.runs / run.id
        lease.update(run_id=run.id, folder=folder)
        store_plan(plan, run, use)
        lease.intend(JobHandle("slurm", "", run_id=run.id))
        leases.append(lease)
        jobs.append(Job(run.id, token, folder, FreshParcel(run, plan, {}, use), run.name, demand_of(plan, backend)))
    handles = list(backend.submit(jobs, at_once=at_once))
    for lease, handle in zip(leases, handles, strict=True):
        lease.place(handle)
        use.tracking.update(handle.run_id, RunChanges(tags=(Tag(TagName.HANDLE, to_json(handle)),)))
    wiring.close()
    return handles
