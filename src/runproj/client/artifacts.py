"""Files, texts and pictures: put into the spool as they are now, to be sent later."""

import json
import os
from typing import Any, Callable

from runproj.client import values
from runproj.client.delivery import warn
from runproj.client.files import below, keep
from runproj.client.runs import Run
from runproj.client.values import Refused


def log_path(run: Run, path: Any, folder: str, whole: bool) -> None:
    """See `runproj.log_artifact` (`whole`: a folder with its own name) and `runproj.log_artifacts`.  Raises FileNotFoundError."""
    found = os.fspath(path)
    if not os.path.exists(found):
        raise FileNotFoundError(2, "No such file or folder", found)
    if not whole and not os.path.isdir(found):
        raise NotADirectoryError(20, "Not a folder", found)
    name = os.path.basename(os.path.abspath(found)) if whole and os.path.isdir(found) else ""
    for source, inner in below(found):
        if os.path.isfile(source):
            target = "/".join(part for part in (folder.strip("/"), name, inner) if part)
            _log(run, values.path(target), source)


def _log(run: Run, target: str, source: str) -> None:
    kept, full = run.place_for_file()
    try:
        keep(source, full)
    except OSError as error:
        _remove(full)
        warn(f"{source} could not be copied ({error.strerror}); it is sent as it is when its turn comes")
        kept = os.path.abspath(source)
    run.write("a", kept, target)


def log_bytes(run: Run, content: bytes, path: str) -> None:
    """Store bytes as a file of a run."""

    def write(full: str) -> None:
        with open(full, "wb") as file:
            file.write(content)

    _made(run, path, write)


def log_json(run: Run, content: Any, path: str) -> None:
    """See `runproj.log_dict`."""
    log_bytes(run, json.dumps(values.plain(content), indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"), path)


def _made(run: Run, path: str, write: Callable[[str], None]) -> None:
    """Store a file that is made for the purpose."""
    target = values.path(path)
    kept, full = run.place_for_file()
    try:
        write(full)
    except OSError as error:
        _remove(full)
        warn(f"{target} could not be kept ({error.strerror or error}), and is not logged")
        return
    run.write("a", kept, target)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def log_figure(run: Run, figure: Any, path: str) -> None:
    """See `runproj.log_figure`.  Whatever the figure raises for a format that it does not know is the caller's to see."""
    ending = os.path.splitext(values.path(path))[1].lower()
    if ending == ".html" and hasattr(figure, "write_html"):
        save = figure.write_html
    elif hasattr(figure, "savefig"):
        save = figure.savefig
    elif hasattr(figure, "write_image"):
        save = figure.write_image
    elif hasattr(figure, "save"):
        save = figure.save
    else:
        raise Refused(f"{type(figure).__name__} cannot be saved as a picture: it has no savefig, write_html, write_image or save")

    def write(full: str) -> None:
        named = full + ending  # which is what savers look at
        save(named)
        os.rename(named, full)

    _made(run, path, write)
