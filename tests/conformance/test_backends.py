"""What every backend promises (`runproj.core.backend.Backend`).  A new one is added to `BACKENDS` and passes unchanged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Repository
from runproj.codec import from_json
from runproj.core.backend import Backend, Demand, JobHandle, JobState
from runproj.core.project import Resources
from runproj.core.run import RunStatus
from runproj.errors import BackendError
from runproj.runner import handle_of
from runproj.settings import load
from runproj.wiring import Wiring
from support.program import SYSTEM, Cli

BACKENDS = ("local",)


class Quiet:
    """Hears what happens, and says nothing."""

    def phase(self, name: str, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture(params=BACKENDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wiring(isolated: Path) -> Wiring:
    return Wiring(load(os.environ), Quiet())


@pytest.fixture
def backend(wiring: Wiring, name: str) -> Backend:
    return wiring.backends.open(name)


def submitted(cli: Cli, project: Repository, name: str, entry_point: str) -> str:
    started = cli("run", project.url, "-e", entry_point, "--backend", name, "--detach", *SYSTEM)
    assert started.returncode == 0, started.stderr
    return started.stdout.strip()


@pytest.fixture
def waiting(cli: Cli, project: Repository, wiring: Wiring, backend: Backend, name: str) -> Iterator[JobHandle]:
    """A job that runs until it is cancelled."""
    handle = handle_of(wiring.tracking.get_run(submitted(cli, project, name, "wait")))
    yield handle
    backend.cancel(handle)


def until(backend: Backend, handle: JobHandle, state: JobState) -> None:
    deadline = time.monotonic() + 60
    while backend.status([handle])[0].state is not state:
        assert time.monotonic() < deadline, f"never became {state.value}"
        time.sleep(0.05)


def test_check_refuses_what_can_never_run(backend: Backend) -> None:
    backend.check(Demand())
    with pytest.raises(BackendError):
        backend.check(Demand(resources=Resources(nodes=10_000)))


def test_a_handle_is_plain_data_that_finds_the_job_from_another_process(backend: Backend, waiting: JobHandle) -> None:
    from runproj.codec import to_json

    again = from_json(JobHandle, to_json(waiting))
    until(backend, again, JobState.RUNNING)


def test_status_of_many_in_their_order(
    backend: Backend, waiting: JobHandle, cli: Cli, project: Repository, wiring: Wiring, name: str
) -> None:
    over = handle_of(wiring.tracking.get_run(submitted(cli, project, name, "main")))
    until(backend, over, JobState.ENDED)
    found = [status.state for status in backend.status([over, waiting, over])]
    assert found == [JobState.ENDED, JobState.RUNNING, JobState.ENDED]
    assert list(backend.status([])) == []


def test_cancel_ends_the_job_as_killed_and_may_be_repeated(backend: Backend, waiting: JobHandle, wiring: Wiring) -> None:
    until(backend, waiting, JobState.RUNNING)
    next(iter(backend.logs(waiting, follow=True)))
    backend.cancel(waiting)
    until(backend, waiting, JobState.ENDED)
    assert wiring.tracking.get_run(waiting.run_id).status is RunStatus.KILLED
    backend.cancel(waiting)


def test_logs_follow_to_the_end(backend: Backend, waiting: JobHandle) -> None:
    chunks = backend.logs(waiting, follow=True)
    assert next(iter(chunks)) == b"waiting\n"
    assert b"".join(backend.logs(waiting, follow=False)) == b"waiting\n"
    backend.cancel(waiting)
    assert b"".join(chunks) == b""


def test_a_job_of_nobody(backend: Backend, name: str) -> None:
    nobody = JobHandle(name, "0" * 32, run_id="0" * 32)
    assert backend.status([nobody])[0].state in (JobState.ENDED, JobState.UNKNOWN)
    backend.cancel(nobody)
    assert list(backend.logs(nobody, follow=False)) == []
