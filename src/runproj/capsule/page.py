"""A page of headings, tables and texts, as HTML that needs nothing else or as Markdown; whatever is in it stays text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from runproj.core.values import dataclass

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #d8dee6; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.2rem .2rem 0; }
th { font-weight: 600; color: #556173; white-space: nowrap; } td { overflow-wrap: anywhere; }
pre { background: #f4f6f9; border-radius: 4px; padding: .7rem 1rem; overflow-x: auto; font-size: 13px; }
.good { color: #17723a; } .bad { color: #b3261e; } .lead { font-size: 1.05rem; }
svg { vertical-align: middle; } svg polyline { fill: none; stroke: #2f6fd0; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  body { background: #14181f; color: #dde3ec; } pre { background: #1f2530; } th { color: #9aa7b8; }
  .good { color: #6fd08c; } .bad { color: #ff8a80; }
}
@media print { body { margin: 0; max-width: none; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_WIDTH, _HEIGHT = 160, 28


@dataclass(frozen=True)
class Line:
    """Points of a metric, to be drawn small."""

    values: tuple[float, ...]


Cell = str | Line


@dataclass(frozen=True)
class Text:
    """A paragraph.  `mood`: "good", "bad" or nothing."""

    text: str
    mood: str = ""


@dataclass(frozen=True)
class Code:
    """Lines as they are; `title` where they are folded away."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows below a header; without a header the first column says what the others are."""

    rows: tuple[tuple[Cell, ...], ...]
    header: tuple[str, ...] = ()


Block = Text | Code | Table


@dataclass(frozen=True)
class Page:
    """A title, and sections with their headings."""

    title: str
    sections: tuple[tuple[str, tuple[Block, ...]], ...]


def as_html(page: Page) -> str:
    """One file, without anything to be loaded: a policy in it forbids the browser to try."""
    body = [f"<h1>{_text(page.title)}</h1>"]
    for heading, blocks in page.sections:
        body += [f"<h2>{_text(heading)}</h2>"] if heading else []
        body += [_block(block) for block in blocks]
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_text(page.title)}</title>\n'
        f"<style>{_STYLE}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n' + "\n".join(body) + "\n</body>\n</html>\n"


def _clean(text: str) -> str:
    """Without what would steer a terminal or turn the direction of writing."""
    return _CONTROL.sub("�", text).encode("utf-8", "replace").decode()


def _text(text: str) -> str:
    return html.escape(_clean(text))


def _block(block: Block) -> str:
    match block:
        case Text(text, mood):
            return f'<p class="lead {mood}">{_text(text)}</p>' if mood else f"<p>{_text(text)}</p>"
        case Code(text, ""):
            return f"<pre>{_text(text)}</pre>"
        case Code(text, title):
            return f"<details><summary>{_text(title)}</summary><pre>{_text(text)}</pre></details>"
        case Table(rows, header):
            head = "".join(f"<th>{_text(name)}</th>" for name in header)
            lines = [f"<tr>{head}</tr>"] if header else []
            lines += [_row(row, first="td" if header else "th") for row in rows]
            return "<table>\n" + "\n".join(lines) + "\n</table>"


def _row(row: Sequence[Cell], *, first: str) -> str:
    tags = [first, *["td"] * (len(row) - 1)]
    cells = (_text(cell) if isinstance(cell, str) else _svg(cell.values) for cell in row)
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for tag, cell in zip(tags, cells, strict=True)) + "</tr>"


def _svg(values: Sequence[float]) -> str:
    """A line as small as a word; nothing where there is nothing to draw."""
    drawn = [value for value in values if value - value == 0]
    if len(drawn) < 2:
        return ""
    drawn = [value / 2 for value in drawn]  # so that no difference is more than a number can hold
    low, high = min(drawn), max(drawn)
    span = (high - low) or 1.0
    step = _WIDTH / (len(drawn) - 1)
    points = " ".join(f"{i * step:.1f},{2 + (_HEIGHT - 4) * ((high - value) / span):.1f}" for i, value in enumerate(drawn))
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="history"><polyline points="{points}"/></svg>'


def as_markdown(page: Page) -> str:
    """The same in Markdown, as forges and notebooks show it."""
    lines = [f"# {_plain(page.title)}", ""]
    for heading, blocks in page.sections:
        lines += [f"## {_plain(heading)}", ""] if heading else []
        for block in blocks:
            lines += [*_marked(block), ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(_clean(text).split()))
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", escaped)


def _marked(block: Block) -> Iterable[str]:
    match block:
        case Text(text, mood):
            return [f"**{_plain(text)}**" if mood else _plain(text)]
        case Code(text, title):
            fence = "`" * (1 + max([2, *(len(run) for run in re.findall("`+", text))]))
            return [*([f"{_plain(title)}:", ""] if title else []), fence, *_clean(text).splitlines(), fence]
        case Table(rows, header):
            top = header or ("", *[""] * (max((len(row) for row in rows), default=1) - 1))
            cells = [[_plain(cell) if isinstance(cell, str) else "" for cell in row] for row in rows]
            wanted = [[_plain(name) for name in top], ["---"] * len(top), *cells]
            return [f"| {' | '.join(row)} |" for row in wanted]
