"""One suite for every TrackingStore: the embedded one, ours over HTTP, and a real MLflow server."""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runproj.core.run import Lifecycle, Metric, NewRun, Param, RunChanges, RunQuery, RunStatus, Tag, TagName
from runproj.core.tracking import TrackingStore
from runproj.errors import NotFoundError, TrackingError
from runproj.tracking import open_store
from runproj.tracking.memory import MemoryStore

HOSTILE_TEXT = 'it\'s "quoted"\nline two\t`$(x)` {y} %s ünï 文字 🙂'
AWKWARD = (0.1, 0.0, 5e-324, -1.7976931348623157e308, float(2**53), 2.0**53 + 2, math.pi, math.nan)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        "postgresql",
        "ours over http",
        pytest.param("mlflow server", marks=[pytest.mark.slow, pytest.mark.network]),
    ]
)
def store(request: pytest.FixtureRequest, isolated: Path) -> Iterator[TrackingStore]:
    home = isolated / "runproj home"
    if request.param == "mlflow server":
        yield open_store(request.getfixturevalue("mlflow_server"), home=home, environ={})
        return
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "postgresql":
        yield open_store(request.getfixturevalue("postgres"), home=home, environ={})
        return
    local = open_store(f"sqlite:///{home / 'runproj.db'}", home=home, environ={})
    if request.param == "sqlite":
        yield local
        return
    from runproj.artifacts import open_artifacts
    from runproj.server.endpoint import Endpoint

    run = local.create_run(NewRun("0", 0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        artifacts = open_artifacts(f"sqlite:///{home / 'runproj.db'}", home=home, environ={})
        endpoint = Endpoint(listener, "secret", local, artifacts, run.id, "0")
        endpoint.start()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield open_store(uri, home=home, environ={"MLFLOW_TRACKING_TOKEN": "secret"})
        endpoint.close()


@pytest.fixture
def experiment(store: TrackingStore, request: pytest.FixtureRequest) -> str:
    return store.experiment(f"{request.node.name} {time.time_ns()}").id


def begin(store: TrackingStore, experiment: str, **fields: object) -> str:
    fields.setdefault("start", int(time.time() * 1000))
    return store.create_run(NewRun(experiment_id=experiment, **fields)).id  # type: ignore[arg-type]  # fields of NewRun


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("d", value)


def test_an_experiment_is_not_made_by_a_question(store: TrackingStore) -> None:
    name = f"asked for {time.time_ns()}"
    for _ in range(2):
        with pytest.raises(NotFoundError, match="asked for"):
            store.experiment(name, make=False)
    made = store.experiment(name)
    assert store.experiment(name, make=False) == made


def test_an_experiment_is_made_once(store):
    first = store.experiment("an experiment")
    assert (first.name, first.lifecycle) == ("an experiment", Lifecycle.ACTIVE)
    assert store.experiment("an experiment") == first
    assert store.experiment("Default").id == "0"
    assert store.experiment("another").id != first.id


def test_a_new_run_holds_what_it_was_given(store, experiment):
    tags = (Tag("mlflow.source.name", HOSTILE_TEXT), Tag("plain", "x"))
    new = NewRun(experiment, start=1_700_000_000_123, name="a name", user="somebody", params=(Param("p/q", "0.10"),), tags=tags)
    run = store.create_run(new)
    assert store.get_run(run.id) == run
    assert (run.experiment_id, run.name, run.user, run.start, run.end) == (
        experiment,
        "a name",
        "somebody",
        1_700_000_000_123,
        None,
    )
    assert (run.status, run.lifecycle) == (RunStatus.RUNNING, Lifecycle.ACTIVE)
    assert run.params == (Param("p/q", "0.10"),)
    assert {(tag.key, tag.value) for tag in tags} <= {(tag.key, tag.value) for tag in run.tags}
    assert run.tag(TagName.RUN_NAME) == "a name"
    assert run.artifact_uri


def test_a_run_without_a_name_is_given_one(store, experiment):
    run = store.get_run(begin(store, experiment))
    adjective, noun, number = run.name.split("-")
    assert adjective and noun and number.isdigit()
    assert run.tag(TagName.RUN_NAME) == run.name


def test_a_run_that_does_not_exist_is_not_found(store):
    with pytest.raises(NotFoundError):
        store.get_run("0" * 32)
    with pytest.raises(NotFoundError):
        store.update("0" * 32, RunChanges(tags=(Tag("a", "b"),)))
    assert list(store.history("0" * 32, "loss")) == []


def test_a_run_needs_an_experiment_that_exists(store):
    with pytest.raises((NotFoundError, TrackingError)):
        begin(store, "999999999")


def test_a_run_ends(store, experiment):
    run_id = begin(store, experiment, start=1_000)
    store.update(run_id, RunChanges(status=RunStatus.FAILED, end=2_000, name="renamed", tags=(Tag("why", "because"),)))
    run = store.get_run(run_id)
    assert (run.status, run.end, run.name) == (RunStatus.FAILED, 2_000, "renamed")
    assert (run.tag("why"), run.tag(TagName.RUN_NAME)) == ("because", "renamed")


def test_tags_are_replaced_and_removed(store, experiment):
    run_id = begin(store, experiment, tags=(Tag("a", "1"), Tag("b", "1")))
    store.update(run_id, RunChanges(tags=(Tag("a", HOSTILE_TEXT),), deleted_tags=("b", "never there")))
    run = store.get_run(run_id)
    assert (run.tag("a"), run.tag("b")) == (HOSTILE_TEXT, None)


def test_the_name_follows_its_tag(store, experiment):
    run_id = begin(store, experiment, name="before")
    store.update(run_id, RunChanges(tags=(Tag(TagName.RUN_NAME, "after"),)))
    assert store.get_run(run_id).name == "after"


def test_a_parameter_is_written_once(store, experiment):
    run_id = begin(store, experiment, params=(Param("lr", "0.1"),))
    store.update(run_id, RunChanges(params=(Param("lr", "0.1"), Param("text", HOSTILE_TEXT))))
    with pytest.raises(TrackingError, match="lr"):
        store.update(run_id, RunChanges(params=(Param("lr", "0.2"), Param("other", "1"))))
    assert store.get_run(run_id).params == (Param("lr", "0.1"), Param("text", HOSTILE_TEXT))


def test_metrics_keep_every_bit(store, experiment):
    run_id = begin(store, experiment)
    points = tuple(Metric("m", value, 1_000, step) for step, value in enumerate(AWKWARD))
    store.update(run_id, RunChanges(metrics=points))
    assert [bits(point.value) for point in store.history(run_id, "m")] == [bits(value) for value in AWKWARD]


def test_infinite_metrics_stay_huge(store, experiment):
    """MLflow's own server makes them the greatest double; ours keeps them."""
    run_id = begin(store, experiment)
    store.update(run_id, RunChanges(metrics=(Metric("m", math.inf, 1, 0), Metric("m", -math.inf, 1, 1))))
    up, down = store.history(run_id, "m")
    assert up.value >= 1.7976931348623157e308
    assert down.value <= -1.7976931348623157e308


def test_a_metric_point_is_stored_once(store, experiment):
    run_id = begin(store, experiment)
    points = (
        Metric("m", 1.0, 5, 1),
        Metric("m", 1.0, 5, 1),
        Metric("m", math.nan, 5, 1),
        Metric("m", 2.0, 5, 1),
        Metric("n", 1.0, 5, 1),
    )
    for _ in range(2):
        store.update(run_id, RunChanges(metrics=points))
    assert len(store.history(run_id, "m")) == 3
    assert len(store.history(run_id, "n")) == 1


def test_history_is_in_order(store, experiment):
    run_id = begin(store, experiment)
    order = [(1, -3, 7.0), (1, 0, 1.0), (1, 0, 2.0), (2, -1, 0.0)]
    store.update(run_id, RunChanges(metrics=tuple(Metric("m", value, at, step) for at, step, value in reversed(order))))
    assert [(point.timestamp, point.step, point.value) for point in store.history(run_id, "m")] == order


@pytest.mark.parametrize(
    ("points", "latest"),
    [
        ([(9, 1, 1.0), (1, 2, 2.0), (5, 0, 3.0)], 2.0),  # the greatest step
        ([(9, 1, 1.0), (10, 1, 2.0), (8, 1, 3.0)], 2.0),  # then the latest time
        ([(9, 1, 1.0), (9, 1, 3.0), (9, 1, 2.0)], 3.0),  # then the greatest value
        ([(9, 1, 5.0), (9, 1, math.nan)], 5.0),  # NaN counts as 0
        ([(9, 1, -5.0), (9, 1, math.nan)], math.nan),
        ([(9, 1, 5.0), (9, 2, math.nan)], math.nan),
        ([(9, -2, 5.0), (9, -1, 4.0)], 4.0),
    ],
)
def test_the_latest_metric(store, experiment, points, latest):
    run_id = begin(store, experiment)
    for at, step, value in points:
        store.update(run_id, RunChanges(metrics=(Metric("m", value, at, step),)))
    (metric,) = store.get_run(run_id).metrics
    assert bits(metric.value) == bits(latest)


def test_more_than_fits_into_one_request(store, experiment):
    run_id = begin(store, experiment)
    changes = RunChanges(
        params=tuple(Param(f"p{i}", str(i)) for i in range(150)),
        tags=tuple(Tag(f"t{i}", str(i)) for i in range(150)),
        metrics=tuple(Metric("m", i / 3, i, i) for i in range(1_500)),
    )
    store.update(run_id, changes)
    run = store.get_run(run_id)
    assert len(run.params) == 150
    assert sum(tag.key.startswith("t") for tag in run.tags) == 150
    assert [point.value for point in store.history(run_id, "m")] == [i / 3 for i in range(1_500)]


def test_deleted_runs_are_kept_and_come_back(store, experiment):
    run_id = begin(store, experiment)
    store.update(run_id, RunChanges(lifecycle=Lifecycle.DELETED))
    assert store.get_run(run_id).lifecycle is Lifecycle.DELETED
    assert list(store.search(RunQuery((experiment,)))) == []
    assert [run.id for run in store.search(RunQuery((experiment,), lifecycle=Lifecycle.DELETED))] == [run_id]
    assert [run.id for run in store.search(RunQuery((experiment,), lifecycle=None))] == [run_id]
    store.update(run_id, RunChanges(lifecycle=Lifecycle.ACTIVE))
    assert [run.id for run in store.search(RunQuery((experiment,)))] == [run_id]


def test_search_is_newest_first_in_pages(store, experiment):
    ids = [begin(store, experiment, start=1_000 + i) for i in range(7)]
    assert [run.id for run in store.search(RunQuery((experiment,)))] == ids[::-1]
    assert [run.id for run in store.search(RunQuery((experiment,), limit=2))] == ids[:-3:-1]
    assert [run.id for run in store.search(RunQuery((experiment,), limit=3, offset=5))] == [ids[1], ids[0]]
    assert list(store.search(RunQuery((experiment,), offset=7))) == []


def test_search_returns_whole_runs(store, experiment):
    run_id = begin(store, experiment, params=(Param("p", "1"),), tags=(Tag("t", "1"),))
    store.update(run_id, RunChanges(metrics=(Metric("m", 1.5, 1, 2),)))
    assert list(store.search(RunQuery((experiment,)))) == [store.get_run(run_id)]


def test_search_by_what_runs_are(store, experiment):
    tagged = begin(store, experiment, name="one", tags=(Tag("k.x/y z", HOSTILE_TEXT), Tag("a", "b")))
    named = begin(store, experiment, name="it's", tags=(Tag("a", "b" * 100),))
    store.update(named, RunChanges(status=RunStatus.FINISHED))
    failed = begin(store, experiment, name="One")
    store.update(failed, RunChanges(status=RunStatus.FAILED))

    def found(**fields: object) -> set[str]:
        return {run.id for run in store.search(RunQuery((experiment,), **fields))}  # type: ignore[arg-type]  # fields of RunQuery

    assert found(tags=(Tag("k.x/y z", HOSTILE_TEXT),)) == {tagged}
    assert found(tags=(Tag("a", "b"),)) == {tagged}
    assert found(tags=(Tag("a", "b" * 100),)) == {named}
    assert found(tags=(Tag("a", "b"), Tag("a", "c"))) == set()
    assert found(name="one") == {tagged}
    assert found(name="it's") == {named}
    assert found(statuses=(RunStatus.FINISHED, RunStatus.FAILED)) == {named, failed}
    assert found(statuses=(RunStatus.RUNNING,)) == {tagged}
    assert found(prefix=failed[:10]) == {failed}
    assert found(prefix="%") == set()
    assert found(prefix="' OR ''='") == set()


def test_search_in_all_experiments(store, experiment):
    other = store.experiment(f"other {time.time_ns()}").id
    here, there = begin(store, experiment), begin(store, other)
    mark = (Tag("mark", here),)
    for run_id in (here, there):
        store.update(run_id, RunChanges(tags=mark))
    assert {run.id for run in store.search(RunQuery(tags=mark))} == {here, there}
    assert [run.id for run in store.search(RunQuery((other,), tags=mark))] == [there]
