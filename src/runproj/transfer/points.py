"""Points on their way: how any history becomes blocks in order, and what a run's fingerprint is made of."""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter

from runproj.core.run import Run
from runproj.core.transfer import ORIGIN, Block, Fingerprint, Point
from runproj.tracking.rows import pack

SIZE = 20_000
"""Points in a block."""

_LARGEST = sys.float_info.max


def blocks(rows: Iterable[tuple[str, int, int, float, int]]) -> Iterator[Block]:
    """Blocks of rows (key, timestamp, step, value, kind) that are in order already."""
    for key, group in groupby(rows, itemgetter(0)):
        points = map(itemgetter(1, 2, 3, 4), group)
        while part := list(islice(points, SIZE)):
            yield Block(key, part)


def ordered(key: str, points: Iterable[tuple[int, int, float]]) -> Iterator[Block]:
    """Blocks of one metric's points (timestamp, step, value) in any order; each point comes once."""
    found = sorted({(timestamp, step, *pack(value)) for timestamp, step, value in points})
    for start in range(0, len(found), SIZE):
        yield Block(key, found[start : start + SIZE])


def clamped(given: Iterable[Block]) -> Iterator[Block]:
    """The blocks as a store holds them that knows no negative zero and no infinity."""
    for block in given:
        if all(kind != 2 and -_LARGEST <= value <= _LARGEST for _, _, value, kind in block.points):
            yield block
        else:
            plain = (
                (timestamp, step, min(max(value, -_LARGEST), _LARGEST), kind & 1) for timestamp, step, value, kind in block.points
            )
            yield Block(block.key, sorted(set(plain)))


class Digest:
    """The fingerprint of a run, while its points pass by."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.points = 0
        self._columns = [hashlib.sha256() for _ in range(4)]
        self._keys: dict[str, int] = {}

    def passing(self, given: Iterable[Block]) -> Iterator[Block]:
        """The same blocks, looked at."""
        for block in given:
            self.add(block.key, block.points)
            yield block

    def add(self, key: str, points: Sequence[Point]) -> None:
        """Points that follow those added before."""
        self.points += len(points)
        self._keys[key] = self._keys.get(key, 0) + len(points)
        for column, code, values in zip(self._columns, "qqdb", zip(*points, strict=True), strict=True):
            column.update(array(code, values))

    def fingerprint(self) -> Fingerprint:
        run = self.run
        params = sorted((param.key, param.value) for param in run.params)
        tags = sorted((tag.key, tag.value) for tag in run.tags if tag.key != ORIGIN)
        state = [run.name, run.status.value, run.lifecycle.value, run.start, run.end, run.user]
        told = json.dumps([state, params, tags, sorted(self._keys.items())]).encode()
        whole = hashlib.sha256(b"".join((told, *(column.digest() for column in self._columns))))
        return Fingerprint(len(params), len(tags), self.points, whole.hexdigest())


def fingerprint(run: Run, given: Iterable[Block], *, exact: bool) -> Fingerprint:
    """The fingerprint of a run that is read."""
    digest = Digest(run)
    for block in given if exact else clamped(given):
        digest.add(block.key, block.points)
    return digest.fingerprint()


def rows(given: Iterable[Block]) -> Iterator[tuple[str, Point]]:
    """Every point with its key."""
    return chain.from_iterable(((block.key, point) for point in block.points) for block in given)
