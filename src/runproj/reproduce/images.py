"""PNG pictures by their pixels (PNG specification, third edition: chunks in section 5, filters in section 9)."""

from __future__ import annotations

import struct
import zlib

from runproj.core.values import dataclass
from runproj.reproduce.unreadable import Unreadable

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BESIDE = frozenset((b"IEND", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"eXIf"))
"""Chunks that say who drew a picture, when, and for what size; all others decide how it looks, further frames among them."""
_LARGEST = 256 << 20
_MOST_UNFILTERED = 32 << 20
"""Bytes of pixels that are worked out one by one where two encoders chose other filters."""


@dataclass(frozen=True)
class _Picture:
    """header: width, height, depth, colour type, and whether it is interlaced;  `looks`: chunks that decide how pixels look."""

    header: tuple[int, int, int, int, int]
    looks: tuple[tuple[bytes, bytes], ...]
    filtered: bytes


def png_equal(first: memoryview, second: memoryview) -> bool:
    """The same pixels and palette, whatever program wrote them, when, and how well it compressed them."""
    one, other = _read(first), _read(second)
    if one.header != other.header or one.looks != other.looks:
        return False
    return one.filtered == other.filtered or _pixels(one) == _pixels(other)


def _read(content: memoryview) -> _Picture:
    if bytes(content[:8]) != _SIGNATURE:
        raise Unreadable("it is not a PNG")
    at, header, packed = 8, b"", []
    looks: list[tuple[bytes, bytes]] = []
    while at + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        data = bytes(content[at + 8 : at + 8 + length])
        at += 12 + length
        if kind == b"IHDR":
            header = data
        elif kind == b"IDAT":
            packed.append(data)
        elif kind not in _BESIDE:
            looks.append((kind, data))
    if len(header) != 13 or not packed:
        raise Unreadable("it is a damaged PNG")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    unpack = zlib.decompressobj()
    try:
        filtered = unpack.decompress(b"".join(packed), _LARGEST)
    except zlib.error as error:
        raise Unreadable("it is a damaged PNG") from error
    if unpack.unconsumed_tail:
        raise Unreadable("the picture is too large")
    return _Picture((width, height, depth, colour, interlaced), tuple(looks), filtered)


def _pixels(picture: _Picture) -> bytes:
    """The rows without their filters."""
    width, height, depth, colour, interlaced = picture.header
    if interlaced:
        raise Unreadable("interlaced pictures of other filters are not unfolded")
    bits = _CHANNELS.get(colour, 1) * depth
    step, row = max(1, bits // 8), (width * bits + 7) // 8
    if row * height > _MOST_UNFILTERED:
        raise Unreadable("the picture is too large to be unfolded")
    if len(picture.filtered) < (row + 1) * height:
        raise Unreadable("it is a damaged PNG")
    above, rows = bytearray(row), []
    for number in range(height):
        start = number * (row + 1)
        above = _unfiltered(picture.filtered[start], bytearray(picture.filtered[start + 1 : start + 1 + row]), above, step)
        rows.append(above)
    return b"".join(rows)


def _unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    if kind > 4:
        raise Unreadable("it is a damaged PNG")
    for place in range(len(line)) if kind else ():
        left = line[place - step] if place >= step else 0
        corner = above[place - step] if place >= step else 0
        guess = (0, left, above[place], (left + above[place]) // 2, _paeth(left, above[place], corner))[kind]
        line[place] = (line[place] + guess) & 255
    return line


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))
