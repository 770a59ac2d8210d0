"""Two files, compared by value: what a format says matters, not how it happens to be written."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from runproj.core.values import dataclass
from runproj.reproduce import archives, arrays, images, texts
from runproj.reproduce.unreadable import Unreadable

Compare = Callable[[memoryview, memoryview], bool]
"""Whether two contents are equal by value.  Raises `Unreadable`."""

LARGEST = 128 << 20
"""Bytes of a file that is unfolded in memory; larger ones are compared by bytes.  Arrays are compared as they lie."""


@dataclass(frozen=True)
class Format:
    """A format, by its name for people.  `whole`: it has to be unfolded in memory to be read."""

    name: str
    compare: Compare
    whole: bool = True


@dataclass(frozen=True)
class Finding:
    """Whether two files are equal, and how that was found, in words."""

    equal: bool
    how: str


_JSON = Format("JSON", texts.json_equal)
_LINES = Format("JSON lines", texts.json_lines_equal)
_YAML = Format("YAML", texts.yaml_equal)
_NOTEBOOK = Format("notebook", texts.notebooks_equal)
_PNG = Format("PNG pixels", images.png_equal)
_NPY = Format("NumPy array", arrays.npy_equal, whole=False)
_SAFETENSORS = Format("safetensors", arrays.safetensors_equal, whole=False)
_PARQUET = Format("Parquet", arrays.parquet_equal)

_FORMATS: Mapping[str, Format] = {
    ".json": _JSON,
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".yaml": _YAML,
    ".yml": _YAML,
    ".ipynb": _NOTEBOOK,
    ".csv": Format("CSV", texts.csv_equal),
    ".tsv": Format("TSV", texts.tsv_equal),
    ".png": _PNG,
    ".npy": _NPY,
    ".safetensors": _SAFETENSORS,
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
}
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"})


def format_of(name: str, content: memoryview) -> Format | None:
    """The format of a file, by its name, or by its first bytes; None where only bytes can be compared."""
    path = PurePosixPath(name.lower())
    if path.suffix in _PICKLES:
        return None
    if known := _FORMATS.get(path.suffix):
        return known
    if path.name == "mlmodel":  # MLflow's description of a model
        return _YAML
    head = bytes(content[:8])
    if head.startswith(b"PK\x03\x04"):
        return Format("zip archive without times", _members(archives.zip_members))
    if head.startswith(b"\x1f\x8b") or path.suffixes[-1:] == [".tar"] or bytes(content[257:262]) == b"ustar":
        return _packed(path)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    return _NPY if head.startswith(b"\x93NUMPY") else None


def _packed(path: PurePosixPath) -> Format:
    """A tar archive, compressed or not, or one compressed file, whose name without `.gz` says what it is."""
    if path.suffix in (".tgz", ".tar") or ".tar" in path.suffixes:
        return Format("tar archive without times", _members(archives.tar_members))
    inner = path.stem

    def unpacked(first: memoryview, second: memoryview) -> bool:
        return _contents_equal(inner, archives.gunzip(first, LARGEST), archives.gunzip(second, LARGEST))

    return Format("gzip without its time", unpacked)


def _members(read: Callable[[memoryview, int], Mapping[str, tuple[str, bytes]]]) -> Compare:
    """Archives are equal where they hold the same names, of the same kind, with contents that are equal by value."""

    def compare(first: memoryview, second: memoryview) -> bool:
        one, other = read(first, LARGEST), read(second, LARGEST)
        if one.keys() != other.keys():
            return False
        return all(
            kind == other[name][0] and _contents_equal(name, content, other[name][1]) for name, (kind, content) in one.items()
        )

    return compare


def _contents_equal(name: str, first: bytes, second: bytes) -> bool:
    if first == second:
        return True
    found = format_of(name, memoryview(first))
    if found is None:
        return False
    try:
        return found.compare(memoryview(first), memoryview(second))
    except Unreadable:
        return False


def compare_files(name: str, first: Path, second: Path) -> Finding:
    """Whether two files whose bytes differ are equal by value.  `name` is what the output is called."""
    one, other = _view(first), _view(second)
    found = format_of(name, one)
    if found is None:
        pickled = PurePosixPath(name.lower()).suffix in _PICKLES
        return Finding(False, "by bytes: loading a pickle would execute it" if pickled else "by bytes")
    if found.whole and max(len(one), len(other)) > LARGEST:
        return Finding(False, f"by bytes: too large to be read as {found.name}")
    try:
        equal = found.compare(one, other)
    except Unreadable as error:
        return Finding(False, f"by bytes: {error}")
    return Finding(equal, f"{found.name}, by value")


def _view(path: Path) -> memoryview:
    """The content of a file, without reading it all into memory; the mapping goes when nobody looks at it any more."""
    if path.stat().st_size == 0:
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
