"""Histories: whole, in pages, and thinned out for a plot, on both databases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runproj.core.run import Metric, NewRun, RunChanges
from runproj.tracking import open_full_store, points
from runproj.tracking.full import FullStore


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, isolated: Path) -> FullStore:
    uri = request.getfixturevalue("postgres") if request.param == "postgresql" else "sqlite:///runs.db"
    return open_full_store(uri, home=isolated)


def logged(store: FullStore, measured: Iterable[tuple[int, int]]) -> str:
    """A run with a point at each (step, timestamp)."""
    run = store.create_run(NewRun("0", 1)).id
    store.update(run, RunChanges(metrics=tuple(Metric("m", step / 7, at, step) for step, at in measured)))
    return run


def thinned(store: FullStore, run: str, limit: int, steps: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    [(_, found)] = store.thinned([run], "m", limit, steps)
    return [(point.step, point.timestamp) for point in found]


@given(st.integers(1, 5000), st.integers(1, 400))
def test_runs_of_equal_length(count, limit):
    """As NTILE has it: lengths differ by one at most, and the longer ones come first."""
    starts = points.chosen(count, min(limit, count))
    assert starts == sorted(set(starts))
    assert (starts[0], starts[-1]) == (0, count - 1)
    lengths = [after - before for before, after in zip(starts[: limit + 1], [*starts[1:limit], count], strict=False)]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_short_histories_are_returned_whole(store):
    run = logged(store, [(step, 1) for step in range(10)])
    assert thinned(store, run, 10) == [(step, 1) for step in range(10)]
    assert thinned(store, run, 3) == [(0, 1), (4, 1), (7, 1), (9, 1)]
    assert thinned(store, run, 10, (3, 5)) == [(3, 1), (4, 1), (5, 1)]
    assert thinned(store, run, 10, (30, 50)) == []
    assert thinned(store, "f" * 32, 10) == []


def test_long_histories_whose_steps_are_regular_are_cut_as_short_ones(store):
    run = logged(store, [(step, 1) for step in range(30_000)])
    assert thinned(store, run, 100) == [(step, 1) for step in (*range(0, 30_000, 300), 29_999)]
    assert thinned(store, run, 100, (5_000, 27_999)) == [(step, 1) for step in (*range(5_000, 28_000, 230), 27_999)]


@pytest.mark.parametrize(
    "measured",
    [
        [(step * step, step) for step in range(25_000)],
        [(0, step) for step in range(25_000)],
        [(step % 7, step) for step in range(25_000)],
        [(-step, 5) for step in range(25_000)],
    ],
    ids=["irregular", "one step", "few steps", "negative"],
)
def test_long_histories_of_any_kind_keep_their_ends(store, measured):
    found = thinned(store, logged(store, measured), 100)
    assert 50 <= len(found) <= 102
    assert found == sorted(found)
    assert found[-1] == max(measured)
    assert set(found) <= set(measured)
    assert found[0][0] == min(measured)[0]


def test_a_history_in_pages(store):
    run = logged(store, [(step, 100 - step) for step in range(10)])
    pages = [store.history_page(run, "m", 4, offset) for offset in (0, 4, 8, 12)]
    assert [len(page) for page in pages] == [4, 4, 2, 0]
    assert [point for page in pages for point in page] == list(store.history(run, "m"))
    assert [point.step for point in store.history(run, "m")] == list(range(9, -1, -1))
