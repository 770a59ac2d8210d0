"""The metrics of a run, as they are compared."""

from __future__ import annotations

from collections.abc import Sequence

from runproj.core.views import RunView
from runproj.reproduce.outputs import matches


def metrics_of(view: RunView, ignored: Sequence[str] = ()) -> dict[str, float]:
    """The latest value of each metric."""
    return {metric.key: metric.value for metric in view.run.metrics if not matches(metric.key, ignored)}
