"""Arrays by value: .npy, .safetensors and Parquet.

The .npy format is that of NumPy Enhancement Proposal 1 (numpy.lib.format); safetensors is a length of 8 bytes, a JSON header, and
the tensors.  Both are read here, so that neither library has to be there; an .npz is a zip archive of .npy files.
"""

from __future__ import annotations

import ast
import json
import struct

from runproj.core.values import dataclass
from runproj.reproduce.unreadable import Unreadable

_BLOCK = 1 << 20


def same_bytes(first: memoryview, second: memoryview) -> bool:
    """Equality of two stretches of memory, a block at a time: comparing views themselves goes byte by byte."""
    if len(first) != len(second):
        return False
    return all(bytes(first[at : at + _BLOCK]) == bytes(second[at : at + _BLOCK]) for at in range(0, len(first), _BLOCK))


@dataclass(frozen=True)
class _Array:
    """A .npy file: what its header says, and where its elements are."""

    kind: str
    fortran: bool
    shape: tuple[int, ...]
    elements: memoryview


def npy_equal(first: memoryview, second: memoryview) -> bool:
    """The same type, shape and elements.  An array that is laid out in the other order is turned by NumPy, if that is there."""
    one, other = _npy(first), _npy(second)
    if one.kind != other.kind or one.shape != other.shape:
        return False
    if one.fortran == other.fortran or len(one.shape) < 2:
        return same_bytes(one.elements, other.elements)
    try:
        import numpy
    except ImportError as error:
        raise Unreadable("the arrays are laid out in another order, and NumPy is not installed") from error

    def turned(array: _Array) -> bytes:
        flat = numpy.frombuffer(array.elements, dtype=numpy.dtype(ast.literal_eval(array.kind)))
        return flat.reshape(array.shape, order="F" if array.fortran else "C").tobytes()

    return turned(one) == turned(other)


def _npy(content: memoryview) -> _Array:
    if bytes(content[:6]) != b"\x93NUMPY" or len(content) < 12:
        raise Unreadable("it is not a NumPy array")
    long = content[6] >= 2
    length, start = (struct.unpack("<I", content[8:12])[0], 12) if long else (struct.unpack("<H", content[8:10])[0], 10)
    try:
        text = bytes(content[start : start + length]).decode("utf-8" if content[6] >= 3 else "latin-1")
        header = ast.literal_eval(text.strip())
        kind, fortran, shape = header["descr"], bool(header["fortran_order"]), tuple(map(int, header["shape"]))
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise Unreadable("it is a damaged NumPy array") from error
    if "|O" in str(kind):
        raise Unreadable("it holds Python objects, and loading them would execute them")
    return _Array(repr(kind), fortran, shape, content[start + length :])


def safetensors_equal(first: memoryview, second: memoryview) -> bool:
    """The same tensors by name, type, shape and elements, wherever they lie in the file; metadata is left aside."""
    one, other = _tensors(first), _tensors(second)
    if one.keys() != other.keys():
        return False
    return all(
        (kind, shape) == other[name][:2] and same_bytes(elements, other[name][2]) for name, (kind, shape, elements) in one.items()
    )


def _tensors(content: memoryview) -> dict[str, tuple[object, object, memoryview]]:
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(bytes(content[8 : 8 + length]))
        data = content[8 + length :]
        found = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                if not 0 <= start <= end <= len(data):
                    raise ValueError(name)
                found[name] = (entry["dtype"], entry["shape"], data[start:end])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable("it is a damaged safetensors file") from error
    return found


def parquet_equal(first: memoryview, second: memoryview) -> bool:
    """The same columns with the same values, whatever wrote them and however they are cut into groups."""
    try:
        from pyarrow import ArrowException, BufferReader, py_buffer
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise Unreadable("reading Parquet needs pyarrow, which is not installed") from error
    try:
        one, other = (read_table(BufferReader(py_buffer(content))) for content in (first, second))
    except (ArrowException, OSError) as error:
        raise Unreadable("it is a Parquet file that cannot be read") from error
    if one.schema.remove_metadata() != other.schema.remove_metadata():
        return False
    return one.equals(other) or all(  # the one is fast, and takes no NaN for equal
        _columns_equal(one.column(name).to_pylist(), other.column(name).to_pylist()) for name in dict.fromkeys(one.column_names)
    )


def _columns_equal(first: list[object], second: list[object]) -> bool:
    from runproj.reproduce.texts import same_value

    return same_value(first, second)
