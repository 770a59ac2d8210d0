"""The figure: a panel for each parameter, scatter and line for numbers, strips for words."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runproj.core.correlation import CategoryEffect, Correlation, NumericEffect, Sample, Scale, TestedEffect, p_text, r_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 24
_GROUPS = 12
_SMALLEST = 1e-100
_MANY = 1000  # runs above which dots are pixels: an element of the document for each would be megabytes
_WIDTH, _HEIGHT = 4.2, 3.3  # of a panel, in inches
_DOT, _LINE, _FAINT = "#1f6feb", "#d1570a", "#8b949e"
_SETTINGS = {
    "text.parse_math": False,  # a name may hold dollars
    "svg.hashsalt": "runproj",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.facecolor": "white",
}


def draw_figure(found: Correlation, given: Sample, kind: str, *, links: bool = False) -> bytes:
    """The figure as PNG or SVG.  With `links`, each dot of an SVG leads to `#run-ID` and tells its run."""
    import matplotlib
    from matplotlib.figure import Figure

    effects = found.tested[:PANELS]
    columns = min(max(1, len(effects)), 3)
    rows = max(1, math.ceil(len(effects) / columns))
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks is no reason to fail
        figure = Figure(figsize=(columns * _WIDTH, rows * _HEIGHT + 0.7), layout="constrained")
        figure.suptitle(_title(found, len(effects)), fontsize=11)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for axis, effect in zip(axes, effects, strict=False):
            if not _drawable(effect, given):
                axis.set_title(f"{short(effect.name, 40)}: numbers beyond what can be drawn", loc="left")
            elif isinstance(effect, NumericEffect):
                _scatter(axis, effect, given, links=links)
            else:
                _strips(axis, effect, given, links=links)
        for axis in axes[len(effects) :]:
            axis.set_axis_off()
        if not effects:
            axes[0].text(0.5, 0.5, "No parameter varies.", ha="center", va="center")
        written = io.BytesIO()
        figure.savefig(written, format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None)
    return _told(written.getvalue().decode(), given).encode() if links else written.getvalue()


def _title(found: Correlation, shown: int) -> str:
    fitting = f"{short(found.filter, 70)}\n" if found.filter else ""
    more = len(found.numeric) + len(found.categories) - shown
    return f"{fitting}{short(found.metric, 60)} in {found.n} runs" + (f" ({more} more parameters are not drawn)" if more else "")


def _drawable(effect: TestedEffect, given: Sample) -> bool:
    """Matplotlib computes with the squares of what it draws."""
    values = [*given.values, *((effect.least, effect.greatest) if isinstance(effect, NumericEffect) else ())]
    return all(value == 0 or _SMALLEST < abs(value) < 1 / _SMALLEST for value in values)


def _scatter(axis: Axes, effect: NumericEffect, given: Sample, *, links: bool) -> None:
    read = given.numbers(effect.name)
    xs, ys = [number for _, number in read], [given.values[place] for place, _ in read]
    _points(axis, xs, ys, [place for place, _ in read], given, links=links)
    log = effect.scale is Scale.LOG
    if log:
        axis.set_xscale("log")
    else:
        axis.locator_params(axis="x", nbins=5)
    axis.locator_params(axis="y", nbins=6)
    if effect.pearson.value is not None:
        ends = [min(xs), max(xs)]
        sure = effect.p_adjusted is not None and effect.p_adjusted < 0.05
        axis.plot(ends, _line(xs, ys, ends, log=log), color=_LINE if sure else _FAINT, lw=1.5, ls="-" if sure else "--")
    axis.set_xlabel(short(effect.name, 40) + (" (log scale)" if log else ""))
    axis.set_ylabel(short(given.metric, 32))
    axis.set_title(
        f"Spearman {r_text(effect.spearman.value)}   adjusted p {p_text(effect.p_adjusted)}   {effect.n} runs", loc="left"
    )


def _line(xs: Sequence[float], ys: Sequence[float], at: Sequence[float], *, log: bool) -> list[float]:
    """The least-squares line's values at `at`."""
    placed, wanted = ([math.log10(x) for x in values] if log else list(values) for values in (xs, at))
    largest = max(map(abs, placed)) or 1.0
    units = [x / largest for x in placed]
    mean_x, mean_y = math.fsum(units) / len(units), math.fsum(y / len(ys) for y in ys)
    spread = math.fsum((x - mean_x) ** 2 for x in units)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(units, ys, strict=True)) / spread if spread else 0.0
    return [mean_y + slope * (x / largest - mean_x) for x in wanted]


def _strips(axis: Axes, effect: CategoryEffect, given: Sample, *, links: bool) -> None:
    places = given.groups(effect.name)
    shown = effect.groups[:_GROUPS]
    for row, group in enumerate(shown):
        members = places[group.value]
        spread = [row + 0.18 * math.sin(12.9898 * (number + 1)) for number in range(len(members))]  # the same in every picture
        _points(axis, [given.values[place] for place in members], spread, members, given, links=links)
        axis.plot([group.mean, group.mean], [row - 0.32, row + 0.32], color=_LINE, lw=2)
    axis.set_yticks(range(len(shown)), [f"{short(group.value, 20)} ({group.n})" for group in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.locator_params(axis="x", nbins=5)
    axis.set_xlabel(short(given.metric, 40) + ", line: mean")
    more = f", {len(effect.groups) - len(shown)} not drawn" if len(effect.groups) > len(shown) else ""
    axis.set_ylabel(short(effect.name, 32) + more)
    share = "-" if effect.eta_squared is None else f"{effect.eta_squared:.3f}"
    axis.set_title(f"η² {share} (by chance {effect.by_chance:.3f})   adjusted p {p_text(effect.p_adjusted)}", loc="left")


def _points(axis: Axes, xs: Sequence[float], ys: Sequence[float], places: Sequence[int], given: Sample, *, links: bool) -> None:
    dots: Any = axis.scatter(xs, ys, s=18, color=_DOT, alpha=0.65, linewidths=0)
    dots.set_rasterized(len(given.runs) > _MANY)
    if links and len(given.runs) <= _MANY:
        dots.set_urls([f"#run-{given.runs[place]}" for place in places])


def _told(svg: str, given: Sample) -> str:
    """The SVG with a title, which browsers show beside the mouse, in each dot's link."""
    import re

    from runproj.pictures.page import escape

    runs = dict(zip(given.runs, zip(given.names, given.values, strict=True), strict=True))

    def titled(match: re.Match[str]) -> str:
        name, value = runs[match[1]]
        return f'<a xlink:href="#run-{match[1]}"><title>{escape(name)}: {escape(given.metric)} {value!r}</title>'

    return re.sub(r'<a xlink:href="#run-([^"]*)" target="_blank">', titled, svg)


def short(text: str, length: int) -> str:
    """A text on one line, cut in its middle where it is too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    half = (length - 1) // 2
    return line if len(line) <= length else f"{line[:half]}…{line[-half:]}"
