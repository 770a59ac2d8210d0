"""Pictures of what goes with a metric: PNG, SVG, or a page that needs nothing else.  Drawn with Matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from runproj.core.correlation import Correlation, Sample
from runproj.errors import StartError, UsageError

Drawing = Callable[[Correlation, Sample], None]
_KINDS = (".png", ".svg", ".html")


def drawing(path: Path) -> Drawing:
    """What draws into `path`.  Raises `UsageError` for an ending that is no picture's, `StartError` without Matplotlib."""
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise UsageError(f"{path.name!r} is no picture that can be written", fix=f"Let its name end in {', '.join(_KINDS)}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be written", why="It is a folder." if path.is_dir() else "Its folder does not exist.")
    if importlib.util.find_spec("matplotlib") is None:
        raise StartError("Pictures need Matplotlib, which is not installed", fix='pip install "runproj[analysis]"')

    def draw(found: Correlation, given: Sample) -> None:
        from runproj.files import atomic_write
        from runproj.pictures.figure import draw_figure
        from runproj.pictures.page import page

        content = draw_figure(found, given, "png" if kind == ".png" else "svg", links=kind == ".html")
        atomic_write(path, page(found, given, content.decode()) if kind == ".html" else content)

    return draw
