"""Files by value: what each format says matters, and what does not."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy
import pytest

from runproj.reproduce.semantic import Finding, compare_files


def compare(tmp_path: Path, name: str, first: bytes | str, second: bytes | str) -> Finding:
    paths = tmp_path / "first", tmp_path / "second"
    for path, content in zip(paths, (first, second), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return compare_files(name, *paths)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a.json", '{"a": 1, "b": [1.5, NaN, "x"]}', '{\n "b": [1.50, NaN, "\\u0078"],\n "a": 1.0}'),
        ("a.jsonl", '{"a": 1, "b": 2}\n\n3\n', '{"b": 2, "a": 1}\n3'),
        ("a.yaml", "a: 1\nb: &x [1, 2]\nc: *x\n", "{c: [1, 2], b: [1, 2], a: 1}"),
        ("MLmodel", "flavors: {f: {x: 1}}\n", "flavors:\n  f:\n    x: 1\n"),
        ("a.csv", "x,y\r\n1,2.50\r\n", "y,x\n2.5,1\n"),
        ("a.tsv", "1\t2\n3\t4\n", "1.0\t2\n3\t4.0\n"),
        ("a.json.gz", gzip.compress(b'{"a":1,"b":2}', mtime=1), gzip.compress(b'{"b":2,"a":1}', mtime=2)),
        ("a.gz", gzip.compress(b"x", mtime=1), gzip.compress(b"x", 1, mtime=2)),
    ],
)
def test_equal_by_value(tmp_path: Path, name: str, first: bytes | str, second: bytes | str) -> None:
    found = compare(tmp_path, name, first, second)
    assert found.equal, found.how
    assert "value" in found.how


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a.json", '{"a": 1}', '{"a": true}'),
        ("a.json", '{"a": 1}', '{"a": "1"}'),
        ("a.json", "[1, 2]", "[2, 1]"),
        ("a.json", '{"a": 9007199254740993}', '{"a": 9007199254740992}'),
        ("a.json", '{"a": 1}', '{"a": 1, "b": null}'),
        ("a.jsonl", "1\n2\n", "1\n"),
        ("a.yaml", "a: 1\n", "a: '1'\n"),
        ("a.csv", "x,y\n1,2\n3,4\n", "x,y\n3,4\n1,2\n"),
        ("a.csv", "1,2\n", "2,1\n"),
        ("a.csv", "x\n1_0\n", "x\n10\n"),
        ("a.csv", "x,y\n1,2\n", "x,y\n1\n"),
        ("a.csv", "id\n9007199254740993\n", "id\n9007199254740992\n"),
        ("a.csv", "x\n1e400\n", "x\ninf\n"),
        ("a.txt", "x", "x\n"),
        ("a.gz", gzip.compress(b"x", mtime=1), gzip.compress(b"y", mtime=1)),
        ("a.json.gz", gzip.compress(b'{"a":1}', mtime=1), gzip.compress(b'{"a":2}', mtime=1)),
    ],
)
def test_not_equal(tmp_path: Path, name: str, first: bytes | str, second: bytes | str) -> None:
    assert not compare(tmp_path, name, first, second).equal


@pytest.mark.parametrize(
    ("name", "first", "second", "words"),
    [
        ("a.json", "{", "{ ", "not JSON"),
        ("a.json", b"\xff\xfe", b"\xff", "not UTF-8"),
        ("a.yaml", "a: !!python/object:os.system {}", "b: 1", "plain YAML"),
        ("a.png", b"PNG", b"PNG!", "not a PNG"),
        ("a.npy", b"x", b"y", "not a NumPy array"),
        ("a.safetensors", b"x", b"y", "damaged"),
        ("a.pkl", pickle.dumps(1), pickle.dumps(1.0), "would execute"),
        ("a.zip", b"PK\x03\x04 no", b"PK\x03\x04 none", "cannot be read"),
        ("a.tar", b"x", b"y", "cannot be read"),
        ("a.bin", b"x", b"y", "by bytes"),
        ("a.npy", b"", b"y", "not a NumPy array"),
    ],
)
def test_what_cannot_be_read_is_compared_by_bytes_and_says_so(
    tmp_path: Path, name: str, first: bytes | str, second: bytes | str, words: str
) -> None:
    found = compare(tmp_path, name, first, second)
    assert not found.equal
    assert found.how.startswith("by bytes")
    assert words in found.how


def test_a_document_that_holds_itself_many_times_is_compared_in_no_time(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert compare(tmp_path, "a.yaml", "\n".join(lines), "\n".join([*lines, "", ""])).equal


def npy(array: numpy.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    numpy.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def test_numpy_arrays(tmp_path: Path) -> None:
    array = numpy.arange(12, dtype="f8").reshape(3, 4)
    assert compare(tmp_path, "a.npy", npy(array, (1, 0)), npy(array, (2, 0))).equal
    assert compare(tmp_path, "a.npy", npy(array), npy(numpy.asfortranarray(array))).equal
    assert not compare(tmp_path, "a.npy", npy(array), npy(array + 1)).equal
    assert not compare(tmp_path, "a.npy", npy(array), npy(array.astype("f4"))).equal
    assert not compare(tmp_path, "a.npy", npy(array), npy(array.reshape(4, 3))).equal
    named = numpy.array([(1.0, 2)], dtype=[("Out", "f8"), ("O", "i4")])
    assert compare(tmp_path, "a.npy", npy(named, (1, 0)), npy(named, (2, 0))).equal
    objects = [npy(numpy.array([value], dtype=object)) for value in ("x", "y")]
    assert "execute" in compare(tmp_path, "a.npy", *objects).how


def npz(level: int | None, **arrays: numpy.ndarray) -> bytes:
    file = io.BytesIO()
    (numpy.savez if level is None else numpy.savez_compressed)(file, **arrays)
    return file.getvalue()


def test_archives_of_arrays(tmp_path: Path) -> None:
    a, b = numpy.arange(3), numpy.ones(2)
    assert compare(tmp_path, "a.npz", npz(None, a=a, b=b), npz(9, b=b, a=a)).equal
    assert not compare(tmp_path, "a.npz", npz(None, a=a, b=b), npz(None, a=a, b=a)).equal
    assert not compare(tmp_path, "a.npz", npz(None, a=a), npz(None, a=a, b=b)).equal


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import save

    a, b = numpy.arange(6, dtype="f4").reshape(2, 3), numpy.arange(2, dtype="i8")
    assert compare(tmp_path, "a.safetensors", save({"a": a, "b": b}), save({"b": b, "a": a}, {"made": "today"})).equal
    assert not compare(tmp_path, "a.safetensors", save({"a": a}), save({"a": a + 1})).equal
    assert not compare(tmp_path, "a.safetensors", save({"a": a}), save({"b": a})).equal


def parquet(rows: int, **columns: list[object]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    write_table(pyarrow.table(columns), file, row_group_size=rows, compression="none" if rows == 1 else "snappy")
    return file.getvalue()


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1.5, float("nan"), None]
    assert compare(tmp_path, "a.parquet", parquet(1, x=values, y=[1, 2, 3]), parquet(3, x=values, y=[1, 2, 3])).equal
    other = parquet(3, x=[1.5, 2.0, None])
    assert not compare(tmp_path, "a.parquet", parquet(3, x=values), other).equal
    assert not compare(tmp_path, "a.parquet", parquet(3, x=[1, 2]), parquet(3, x=[1.0, 2.0])).equal
    assert "cannot be read" in compare(tmp_path, "a.parquet", b"PAR1", other).how
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = compare(tmp_path, "a.parquet", other, other + b" ")
    assert (found.equal, "pyarrow, which is not installed" in found.how) == (False, True)


def png(pixels: numpy.ndarray, filters: int, level: int, text: bytes) -> bytes:
    """A greyscale picture whose rows all use one filter (0 none, 1 left, 2 up, 3 mean, 4 Paeth)."""
    height, width = pixels.shape
    rows = b""
    for y in range(height):
        line = bytearray([filters])
        for x in range(width):
            left = int(pixels[y, x - 1]) if x else 0
            up = int(pixels[y - 1, x]) if y else 0
            corner = int(pixels[y - 1, x - 1]) if x and y else 0
            near = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            line.append((int(pixels[y, x]) - (0, left, up, (left + up) // 2, near)[filters]) % 256)
        rows += bytes(line)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"tEXt", text), (b"IDAT", zlib.compress(rows, level)), (b"IEND", b""))
    )


def test_pictures_by_their_pixels(tmp_path: Path) -> None:
    pixels = numpy.random.default_rng(1).integers(0, 256, (7, 9), dtype="u1")
    plain = png(pixels, 0, 1, b"Software\0a")
    for filters in range(5):
        assert compare(tmp_path, "a.png", plain, png(pixels, filters, 9, b"Software\0b")).equal, filters
    other = pixels.copy()
    other[3, 3] ^= 1
    assert not compare(tmp_path, "a.png", plain, png(other, 4, 9, b"")).equal


def test_pictures_that_move_are_more_than_their_first_frame(tmp_path: Path) -> None:
    def moving(second: bytes) -> bytes:
        still = png(numpy.zeros((2, 2), numpy.uint8), 0, 1, b"x")
        chunk = b"fdAT" + second
        at = len(still) - 12  # before the end
        return still[:at] + struct.pack(">I", len(second)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + still[at:]

    assert compare(tmp_path, "a.png", moving(b"a"), moving(b"a")).equal
    assert not compare(tmp_path, "a.png", moving(b"a"), moving(b"b")).equal


def test_pictures_that_a_library_drew(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    def drawn(height: float, **about: str) -> bytes:
        figure = Figure((1, 1))
        figure.subplots().plot([0, height])
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata=about)
        return file.getvalue()

    assert compare(tmp_path, "picture", drawn(1, Author="a"), drawn(1, Author="b")).equal
    assert not compare(tmp_path, "picture", drawn(1), drawn(2)).equal


def notebook(count: int, text: list[str], picture: bytes, when: str) -> str:
    import base64

    outputs = [{"output_type": "stream", "name": "stdout", "text": piece} for piece in text]
    data = {"image/png": base64.b64encode(picture).decode(), "text/plain": ["<Fig", "ure>"]}
    outputs.append({"output_type": "display_data", "data": data, "metadata": {"at": when}})
    cell = {"cell_type": "code", "id": when, "execution_count": count, "metadata": {"at": when}, "source": ["x = 1\n", "x"]}
    return json.dumps({"nbformat": 4, "metadata": {"at": when}, "cells": [{**cell, "outputs": outputs}]})


def test_notebooks(tmp_path: Path) -> None:
    pixels = numpy.zeros((2, 2), dtype="u1")
    one = notebook(1, ["a\n", "b\n"], png(pixels, 0, 1, b"x"), "today")
    assert compare(tmp_path, "a.ipynb", one, notebook(7, ["a\nb\n"], png(pixels, 1, 9, b"y"), "now")).equal
    assert not compare(tmp_path, "a.ipynb", one, notebook(1, ["a\nc\n"], png(pixels, 0, 1, b"x"), "today")).equal
    assert not compare(tmp_path, "a.ipynb", one, notebook(1, ["a\nb\n"], png(pixels + 1, 0, 1, b"x"), "today")).equal


def zipped(names: list[str], year: int, content: bytes = b"{}") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


def test_zip_archives(tmp_path: Path) -> None:
    assert compare(tmp_path, "a.zip", zipped(["a.json", "b"], 2001), zipped(["b", "a.json"], 2002)).equal
    assert compare(tmp_path, "model.whl", zipped(["a.json"], 2001), zipped(["a.json"], 2001, b"{ }")).equal
    assert not compare(tmp_path, "a.zip", zipped(["a.txt"], 2001), zipped(["a.txt"], 2001, b"{ }")).equal
    assert not compare(tmp_path, "a.zip", zipped(["a"], 2001), zipped(["b"], 2001)).equal


def tarred(names: list[str], when: int, how: str = "w", mode: int = 0o644) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=how) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.mode = 2, when, when, mode
            archive.addfile(info, io.BytesIO(b"{}"))
    return file.getvalue()


def test_tar_archives(tmp_path: Path) -> None:
    assert compare(tmp_path, "a.tar", tarred(["a", "b"], 1), tarred(["b", "a"], 2)).equal
    assert compare(tmp_path, "a.tar.gz", tarred(["a"], 1, "w:gz"), tarred(["a"], 2, "w:gz")).equal
    assert compare(tmp_path, "a.tgz", tarred(["a"], 1, "w:gz"), tarred(["a"], 2, "w:gz")).equal
    assert not compare(tmp_path, "a.tar", tarred(["a"], 1), tarred(["a"], 1, mode=0o755)).equal
    assert not compare(tmp_path, "a.tar", tarred(["a"], 1), tarred(["c"], 1)).equal
