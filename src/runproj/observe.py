"""Metrics and outputs of projects that log nothing themselves: patterns over the output, files left in the folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runproj.core.project import MetricSpec
from runproj.core.run import Metric
from runproj.errors import DescriptorError

_LONGEST_LINE = 64 * 1024
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE)


class MetricWatcher:
    """Finds metrics in standard output as it passes, in bounded memory."""

    def __init__(self, specs: Sequence[MetricSpec]) -> None:
        self._patterns = [(spec.name, re.compile(spec.pattern)) for spec in specs if spec.pattern]
        self._rest = b""
        self._steps: dict[str, int] = {}
        self.found: list[Metric] = []

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output.  A line longer than 64 KiB is looked at up to there."""
        lines = re.split(rb"[\r\n]+", self._rest + data)
        self._rest = lines.pop()[:_LONGEST_LINE]
        for line in lines:
            self._line(line[:_LONGEST_LINE].decode(errors="replace"))

    def close(self) -> None:
        """The output has ended: its last line may lack a line end."""
        if self._rest:
            self._line(self._rest.decode(errors="replace"))
            self._rest = b""

    def take(self) -> list[Metric]:
        """What was found since the last call."""
        found, self.found = self.found, []
        return found

    def _line(self, line: str) -> None:
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                groups = match.groupdict()
                key = groups.get("name") or name
                text = groups.get("value") or (match.group(1) if match.re.groups else match.group())
                if key is None or text is None or not _NUMBER.fullmatch(text.strip()):
                    continue
                step = int(groups["step"]) if (groups.get("step") or "").isdigit() else self._steps.get(key, -1) + 1
                self._steps[key] = step
                self.found.append(Metric(key, float(text), int(time.time() * 1000), step))


def metrics_from_files(specs: Sequence[MetricSpec], project: Path) -> Iterator[Metric]:
    """Metrics in the JSON and CSV files that the project declares; a file that is missing or broken is a `DescriptorError`."""
    import csv

    now = int(time.time() * 1000)
    for spec in specs:
        if not spec.file:
            continue
        path = inside(project, spec.file)
        try:
            if path.exists() and not path.is_file():  # a pipe, say, that nobody writes to any more
                raise ValueError("it is not a file")
            if path.suffix.lower() == ".csv":
                yield from _from_csv(path, spec.name, now)
            else:
                yield from _from_json(path, spec.name, now)
        except (OSError, ValueError, OverflowError, RecursionError, csv.Error) as error:
            raise DescriptorError(f"The metrics file {spec.file!r} cannot be read", why=str(error)) from error


def _from_json(path: Path, only: str | None, now: int) -> Iterator[Metric]:
    import json

    for key, value in _flat(json.loads(path.read_text())):
        if only is None or key == only:
            yield Metric(key, value, now)


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested objects, by dotted names; other values are not metrics."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and prefix:
        yield prefix, float(value)


def _from_csv(path: Path, only: str | None, now: int) -> Iterator[Metric]:
    """A row is a step (its column "step" says which, if there is one); a column is a metric."""
    import csv

    with path.open(newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            step = row.get("step") or row.get("epoch") or ""
            for key, text in row.items():
                if key and key not in ("step", "epoch") and (only is None or key == only) and _NUMBER.fullmatch(text or ""):
                    yield Metric(key, float(text), now, int(step) if step.isdigit() else index)


def inside(root: Path, relative: str) -> Path:
    """`root/relative`, made sure that no link or `..` leads out of `root`.  Raises `DescriptorError`."""
    real_root = os.path.realpath(root)
    real = os.path.realpath(root / relative)
    if real != real_root and not real.startswith(real_root + os.sep):
        raise DescriptorError(f"The path {relative!r} leaves the project's folder")
    return Path(real)


RESERVED = ("runproj", "logs/stdout.log", "logs/stderr.log", "logs/timeline")
"""Where the run's own files are among its artifacts: no output of a project may take their place."""


def find_outputs(patterns: Sequence[str], project: Path) -> tuple[list[str], list[str]]:
    """Files that the output patterns name, relative to the project's folder and sorted, and the patterns that name none.

    A folder stands for everything in it.  Links that lead out of the project are not followed, `RESERVED` names are left out.
    """
    found: set[str] = set()
    empty = []
    for pattern in patterns:
        matches = [path for path in _matches(pattern, project) if ".git" not in path.relative_to(project).parts]
        files = {file for match in matches for file in _files(match)}
        names = {str(file.relative_to(project)) for file in files if _safe(project, file)}
        names = {name for name in names if not any(name == taken or name.startswith(taken + "/") for taken in RESERVED)}
        if not names:
            empty.append(pattern)
        found |= names
    return sorted(found), empty


def _matches(pattern: str, project: Path) -> list[Path]:
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        return []
    try:
        return list(project.glob(pattern))
    except (ValueError, NotImplementedError):  # not a pattern at all
        return []


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            yield from (Path(folder, name) for name in names)
    elif path.is_file():
        yield path


def _safe(project: Path, file: Path) -> bool:
    try:
        inside(project, str(file.relative_to(project)))
    except DescriptorError:
        return False
    return file.is_file()
