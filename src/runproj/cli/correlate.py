"""`runs correlate`: which parameters go with a metric, as a table, a small plot, and a picture."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.cli.logs import looking
from runproj.cli.select import Experiments, Filter, select
from runproj.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from runproj.analysis import Sort
    from runproj.cli.plot import Look
    from runproj.core.correlation import CategoryEffect, Correlation, NumericEffect, Sample, TestedEffect
    from runproj.core.run import Run
    from runproj.pictures import Drawing

_MOST = 10_000
_WIDE = 100
_GROUPS = 8
_NAME = 40


def correlate(
    metric: Annotated[
        str, typer.Option("--metric", "-m", metavar="NAME", help="The metric to explain.", autocompletion=complete.metrics)
    ],
    text: Filter = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME", help="Only this parameter (may be repeated).", autocompletion=complete.params),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="strength|p|name",
            help="Order of the parameters.",
            autocompletion=complete.words("strength", "p", "name"),
        ),
    ] = "strength",
    least: Annotated[
        int, typer.Option("--min-runs", metavar="N", min=1, help="Say nothing of parameters that fewer runs have.")
    ] = 3,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Look at the newest N runs that fit.")] = _MOST,
    experiment: Experiments = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a picture too: FILE.png, FILE.svg or FILE.html.")
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="No plot of characters below the table.")] = False,
    json: opt.Json = False,
) -> None:
    """Tell which parameters go with a metric.

    For numbers Pearson's and Spearman's coefficient with their p-values, for words the means of their groups, η² and the test of
    Kruskal and Wallis; p-values also adjusted for the number of parameters.
    """
    from runproj import analysis

    drawing = _drawing(plot)
    question = analysis.Question(text, tuple(param or ()), least, _sort(sort))
    runs = _runs(text, limit, experiment)
    given = analysis.sample(runs, _plain(metric, "metrics.", runs), [_plain(name, "params.", runs) for name in param or ()])
    if len(given.runs) < least:
        raise NotFoundError(
            f"{output.count(len(given.runs), 'run')} with the metric {given.metric!r}: {least} are asked for",
            fix="Lower --min-runs.",
        )
    found = analysis.correlate(runs, given, question)
    if drawing:
        drawing(found, given)
    if json:
        output.write_json(found)
    else:
        _show(found, given, plots=not no_plot)
    if plot:
        output.say(f"Picture: {output.clean(str(plot))}")


def _drawing(plot: Path | None) -> Drawing | None:
    """Draws the picture.  Whatever can be wrong with it is said before anything is computed."""
    if plot is None:
        return None
    from runproj import pictures

    return pictures.drawing(plot)


def _sort(word: str) -> Sort:
    from runproj.analysis import Sort

    try:
        return Sort(word)
    except ValueError:
        raise UsageError(f"Parameters cannot be sorted by {word!r}", fix="Use --sort strength, p or name.") from None


def _runs(text: str, limit: int, experiments: Sequence[str] | None) -> Sequence[Run]:
    runs = select(looking(), text, limit=limit + 1, experiments=experiments)
    if not runs:
        raise NotFoundError("No run is like that", fix="`runproj runs search` with the same filter shows what it finds.")
    if len(runs) > limit:
        output.say(f"These are the newest {limit} runs; there are more (--limit).")
    return runs[:limit]


def _plain(name: str, prefix: str, runs: Sequence[Run]) -> str:
    """A name as the filter language writes it (`metrics.accuracy`) means the same, unless something is really called so."""
    known = {item.key for run in runs for item in run.metrics} | {item.key for run in runs for item in run.params}
    return name if name in known else name.removeprefix(prefix)


def _show(found: Correlation, given: Sample, *, plots: bool) -> None:
    fitting = f" that fit {found.filter}" if found.filter else ""
    output.write(f"{output.clean(found.metric)} in {found.n} of {output.count(found.found, 'run')}{output.clean(fitting)}")
    if found.numeric:
        output.write("")
        _numeric(found.numeric)
    if found.categories:
        output.write("")
        _categories(found.categories)
    if plots:
        for line in _plots(found, given):
            output.write(line)
    for line in _remarks(found):
        output.write(line)


def _numeric(effects: Sequence[NumericEffect]) -> None:
    from runproj.cli.plot import cut, ends
    from runproj.core.correlation import p_text, r_text

    rows = []
    for effect in effects:
        low, high = ends(effect.least, effect.greatest)
        n = f"{effect.n}" + (f" (+{effect.texts} words)" if effect.texts else "")
        pearson = (r_text(effect.pearson.value), p_text(effect.pearson.p))
        spearman = (r_text(effect.spearman.value), p_text(effect.spearman.p), p_text(effect.p_adjusted))
        rows.append((cut(effect.name, _NAME), n, f"{low} … {high}", effect.scale.value, *pearson, *spearman))
        if effect.other:
            scale, measure = effect.other
            rows.append(("", "", "", scale.value, r_text(measure.value), p_text(measure.p), "", "", ""))
    header = ("NUMBER", "RUNS", "FROM … TO", "SCALE", "PEARSON", "p", "SPEARMAN", "p", "ADJUSTED p")
    output.table(header, rows, right=(1, 4, 5, 6, 7, 8))


def _categories(effects: Sequence[CategoryEffect]) -> None:
    from runproj.cli.plot import cut
    from runproj.core.correlation import p_text

    rows = []
    for effect in effects:
        share = "-" if effect.eta_squared is None else f"{effect.eta_squared:.3f}"
        tests = (p_text(effect.anova.p), p_text(effect.kruskal.p), p_text(effect.p_adjusted))
        groups = ", ".join(f"{cut(group.value, 24)} {group.mean:.4g} ({group.n})" for group in effect.groups[:_GROUPS])
        more = ", …" if len(effect.groups) > _GROUPS else ""
        rows.append((cut(effect.name, _NAME), str(effect.n), share, f"{effect.by_chance:.3f}", *tests, groups + more))
    header = ("WORD", "RUNS", "η²", "BY CHANCE", "ANOVA p", "KRUSKAL p", "ADJUSTED p", "MEAN (RUNS)")
    output.table(header, rows, right=(1, 2, 3, 4, 5, 6))


def _plots(found: Correlation, given: Sample) -> list[str]:
    """The strongest parameter; two where there is room and the second is more than chance."""
    from runproj.analysis import strength
    from runproj.cli.plot import Look, beside

    columns = min(shutil.get_terminal_size().columns, 160)
    rich = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    effects = sorted((effect for effect in found.tested if strength(effect) > 0), key=strength, reverse=True)
    if not effects:
        return []
    second = len(effects) > 1 and columns >= _WIDE and (effects[1].p_adjusted or 0.0) < 0.05
    if not second:
        return ["", *_plot(effects[0], given, Look(min(columns, 80), rich))]
    half = (columns - 2) // 2
    left, right = (_plot(effect, given, Look(half, rich)) for effect in effects[:2])
    return ["", *beside(left, right, half)]


def _plot(effect: TestedEffect, given: Sample, look: Look) -> list[str]:
    from runproj.cli.plot import scatter, strips
    from runproj.core.correlation import NumericEffect, Scale

    names = (effect.name, given.metric)
    if isinstance(effect, NumericEffect):
        read = given.numbers(effect.name)
        xs, ys = [number for _, number in read], [given.values[place] for place, _ in read]
        return scatter(xs, ys, names, look, log=effect.scale is Scale.LOG)
    places = given.groups(effect.name)
    shown = [(group.value, [given.values[place] for place in places[group.value]]) for group in effect.groups[:_GROUPS]]
    return strips(shown, names, look)


def _remarks(found: Correlation) -> list[str]:
    """What is not in the tables, and what may not be read out of them."""
    from runproj.cli.plot import cut

    lines = [""]
    if found.constants:
        lines.append("Never varied: " + ", ".join(f"{cut(item.name, _NAME)} = {cut(item.value, 40)}" for item in found.constants))
    lines += [f"Left out: {cut(item.name, _NAME)}, {item.why}" for item in found.left_out]
    for pair in found.together:
        one, other = (cut(name, _NAME) for name in pair.names)
        lines.append(
            f"{one} and {other} vary together (Spearman {pair.spearman:+.2f}): what goes with one may be due to the other."
        )
    lines += found.notes
    if found.tested:
        tested = output.count(len(found.tested), "parameter")
        lines.append(f"Adjusted p: of Spearman's or Kruskal's test, for {tested} looked at (Benjamini-Hochberg).")
        lines.append("What goes together need not be cause and effect.")
    return [output.dim(output.clean(line)) if line else line for line in lines]
