"""The results of two runs, compared: every output, every metric, and the level that this comes to."""

from __future__ import annotations

from collections.abc import Sequence

from runproj.core.services import Services
from runproj.core.values import dataclass
from runproj.core.verdict import Level, MetricCheck, OutputCheck, Sameness, level_of
from runproj.core.views import RunView
from runproj.reproduce.outputs import OutputComparison, matches, scratch
from runproj.reproduce.tolerance import Tolerances, check_metrics


@dataclass(frozen=True)
class Compared:
    """What came of two runs, side by side."""

    outputs: tuple[OutputCheck, ...]
    metrics: tuple[MetricCheck, ...]

    @property
    def level(self) -> Level:
        return level_of(self.outputs, self.metrics)

    @property
    def same(self) -> bool:
        """Whether nothing differs but by how it is written; true also where there is nothing."""
        found = {check.same for check in self.outputs} | {check.same for check in self.metrics}
        return found <= {Sameness.EXACT, Sameness.EQUAL}


def compare(
    first: RunView, second: RunView, use: Services, tolerances: Tolerances | None = None, ignored: Sequence[str] = ()
) -> Compared:
    """Compare what came of two runs; `ignored` patterns are left aside."""
    with scratch(use) as folder:
        outputs = OutputComparison(first, second, use, folder).checks(ignored)
    allowed = tolerances or Tolerances({}, {})
    return Compared(outputs, check_metrics(_metrics(first, ignored), _metrics(second, ignored), allowed))


def _metrics(view: RunView, ignored: Sequence[str]) -> dict[str, float]:
    """The latest value of each metric."""
    return {metric.key: metric.value for metric in view.run.metrics if not matches(metric.key, ignored)}
