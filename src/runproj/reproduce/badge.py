"""A badge: the verdict as a small picture for a README."""

from __future__ import annotations

from runproj.core.verdict import Level

_COLOURS = {
    Level.R4: "#2e7d32",
    Level.R3: "#388e3c",
    Level.R2: "#558b2f",
    Level.R1: "#9e9d24",
    Level.R0: "#c62828",
    Level.FAILED: "#616161",
}
_SHORT = {
    Level.R4: "R4 bit by bit",
    Level.R3: "R3 by value",
    Level.R2: "R2 metrics equal",
    Level.R1: "R1 within tolerance",
    Level.R0: "R0 differs",
    Level.FAILED: "failed",
}
_LABEL = "reproduced"


def badge(level: Level) -> str:
    """An SVG document."""
    left, right = _width(_LABEL), _width(_SHORT[level])
    total = left + right
    said = f"{_LABEL}: {_SHORT[level]}"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{said}">
<title>{said}</title>
<clipPath id="r"><rect width="{total}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#424242"/>\
<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[level]}"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2:g}" y="14">{_LABEL}</text><text x="{left + right / 2:g}" y="14">{_SHORT[level]}</text></g>
</svg>
"""


def _width(text: str) -> int:
    """Pixels that a text takes at 11 px, and room beside it."""
    return round(len(text) * 6.6) + 12
