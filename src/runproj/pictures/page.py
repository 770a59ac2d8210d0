"""The page: figure, tables and runs in one HTML file without scripts, fonts or anything else from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from runproj.core.correlation import Correlation, Sample, p_text, r_text

_RUNS = 2_000
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1rem 0; background: white; border-radius: 8px; padding: 8px; overflow-x: auto; }
figure svg { display: block; max-width: 100%; height: auto; margin: auto; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #8884; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr:target { background: #f5c51855; }
code { overflow-wrap: anywhere; }
"""


def escape(text: str) -> str:
    """Text of others inside a document, without what no document may hold."""
    return html.escape("".join(sign if sign.isprintable() else " " for sign in text))


def page(found: Correlation, given: Sample, svg: str) -> str:
    """The whole document."""
    title = escape(f"What goes with {found.metric}")
    hint = ". A dot leads to its run." if 'xlink:href="#run-' in svg else "."
    shown = f"<p>{found.n} of {found.found} runs" + (f" that fit <code>{escape(found.filter)}</code>" if found.filter else "")
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy"'
            " content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"{shown}{hint}</p>",
            f"<figure>{svg[svg.index('<svg') :]}</figure>",
            *_numeric(found),
            *_categories(found),
            *_remarks(found),
            *_runs(given),
            "</body></html>",
            "",
        ]
    )


def _numeric(found: Correlation) -> Iterable[str]:
    rows = []
    for effect in found.numeric:
        other = f" ({effect.other[0].value} {r_text(effect.other[1].value)})" if effect.other else ""
        rows.append(
            (
                effect.name,
                str(effect.n),
                f"{effect.least:g} … {effect.greatest:g}",
                effect.scale.value,
                r_text(effect.pearson.value) + other,
                p_text(effect.pearson.p),
                r_text(effect.spearman.value),
                p_text(effect.spearman.p),
                p_text(effect.p_adjusted),
            )
        )
    header = ("parameter", "runs", "from … to", "scale", "Pearson", "p", "Spearman", "p", "adjusted p")
    return _table("Numbers", header, rows, right=(1, 4, 5, 6, 7, 8)) if rows else ()


def _categories(found: Correlation) -> Iterable[str]:
    rows = []
    for effect in found.categories:
        share = "-" if effect.eta_squared is None else f"{effect.eta_squared:.3f}"
        tests = (p_text(effect.anova.p), p_text(effect.kruskal.p), p_text(effect.p_adjusted))
        groups = ", ".join(f"{group.value} {group.mean:.6g} ({group.n})" for group in effect.groups)
        rows.append((effect.name, str(effect.n), share, f"{effect.by_chance:.3f}", *tests, groups))
    header = ("parameter", "runs", "η²", "by chance", "ANOVA p", "Kruskal p", "adjusted p", "mean (runs)")
    return _table("Words", header, rows, right=(1, 2, 3, 4, 5, 6)) if rows else ()


def _remarks(found: Correlation) -> Iterable[str]:
    remarks = [f"{item.name} = {item.value} in all its runs." for item in found.constants]
    remarks += [f"{item.name} is left out: {item.why}." for item in found.left_out]
    remarks += [f"{' and '.join(pair.names)} vary together (Spearman {pair.spearman:+.2f})." for pair in found.together]
    remarks += found.notes
    remarks.append("Adjusted p: of Spearman's or Kruskal's test, adjusted for the number of parameters (Benjamini-Hochberg).")
    remarks.append("What goes together need not be cause and effect.")
    return ["<ul>", *(f"<li>{escape(remark)}</li>" for remark in remarks), "</ul>"]


def _runs(given: Sample) -> Iterable[str]:
    names = [name for name, _ in given.params]
    order = sorted(range(len(given.runs)), key=lambda place: given.values[place], reverse=True)
    rows = [
        (given.names[place], given.runs[place], repr(given.values[place]), *(texts[place] or "" for _, texts in given.params))
        for place in order[:_RUNS]
    ]
    cut = f" (the first {_RUNS} of {len(order)})" if len(order) > _RUNS else ""
    ids = [f"run-{given.runs[place]}" for place in order[:_RUNS]]
    return _table(f"Runs{cut}", ("name", "run", given.metric, *names), rows, right=(2,), ids=ids)


def _table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int], ids: Sequence[str] = ()
) -> Iterable[str]:
    yield f"<table><caption>{escape(caption)}</caption>"
    for number, row in enumerate([header, *rows]):
        kind = "th" if number == 0 else "td"
        cells = [f'<{kind} class="n">' if index in right else f"<{kind}>" for index in range(len(row))]
        name = f' id="{escape(ids[number - 1])}"' if ids and number else ""
        yield f"<tr{name}>" + "".join(f"{begin}{escape(cell)}</{kind}>" for begin, cell in zip(cells, row, strict=True)) + "</tr>"
    yield "</table>"
