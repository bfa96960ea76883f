"""Interned per-node facts as integer columns: label values and taint sets.

A snapshot keeps one small integer per node and fact; a plugin asks its question once per distinct value and spreads
the answer over the nodes by indexing. Ids are counted and reused, so nodes that come and go leave nothing behind.
Used by `ClusterSnapshot` only to write, by plugins only to read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableSequence
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
IdArray = NDArray[np.int32]

V = TypeVar("V", bound=Hashable)
A = TypeVar("A", bound=np.generic)


def row_view(row: NDArray[Any]) -> MutableSequence[Any]:
    """A row whose single numbers are read and written as plain Python ones, several times cheaper."""
    return cast("MutableSequence[Any]", memoryview(cast("Any", row)))


_MEMO_LIMIT = 256


class Interned(Generic[V]):
    """Distinct values of one fact. Id 0 is the absence of a value (`absent`).

    `answer` keeps what was asked about all values until a value comes or goes.
    """

    def __init__(self, capacity: int, absent: V) -> None:
        self.values: list[V | None] = [absent]
        self.ids: IdArray = np.zeros(capacity, dtype=np.int32)
        self._index: dict[V, int] = {absent: 0}
        self._counts = [0]
        self._free: list[int] = []
        self._answers: dict[Hashable, NDArray[Any]] = {}

    def set(self, column: int, value: V) -> None:
        """Give a node its value."""
        old = int(self.ids[column])
        new = self._index.get(value)
        if new is None:
            if self._free:
                new = self._free.pop()
                self.values[new] = value
            else:
                new = len(self.values)
                self.values.append(value)
                self._counts.append(0)
            self._index[value] = new
            self._answers.clear()
        if new == old:
            return
        self.ids[column] = new
        if new:
            self._counts[new] += 1
        if old:
            self._counts[old] -= 1
            if not self._counts[old]:
                self._forget(old)

    def clear(self, column: int) -> None:
        """Take a node's value away."""
        old = int(self.ids[column])
        if old:
            self.ids[column] = 0
            self._counts[old] -= 1
            if not self._counts[old]:
                self._forget(old)

    def _forget(self, id_: int) -> None:
        value = self.values[id_]
        assert value is not None
        del self._index[value]
        self.values[id_] = None
        self._free.append(id_)
        self._answers.clear()

    def answer(self, question: Hashable, ask: Callable[[list[V | None]], NDArray[A]]) -> NDArray[A]:
        """One answer per id; `ask` is given the values (None for ids not in use)."""
        known = self._answers.get(question)
        if known is None:
            if len(self._answers) >= _MEMO_LIMIT:
                self._answers.clear()
            known = self._answers[question] = ask(self.values)
        return known

    def id_of(self, value: V) -> int | None:
        """The id of a value that some node has (or of the absent one)."""
        return self._index.get(value)

    @property
    def is_empty(self) -> bool:
        return len(self._index) == 1

    def grow(self, capacity: int) -> None:
        """Make room for more nodes."""
        ids = np.zeros(capacity, dtype=np.int32)
        ids[: len(self.ids)] = self.ids
        self.ids = ids
