"""The last decisions, one record per pod, bounded: what explanations and people ask for first.

A record is a few numbers and texts. The verdicts of all nodes are kept too, while they fit a few MiB and while
decisions are not too many a second: in a flood nobody asks for each one, and asking later computes them anew.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from scheduler.framework.decision import VerdictTable

KEPT: Final = 1024
TABLE_BYTES: Final = 2 << 20
TABLES_PER_SECOND: Final = 50.0


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One attempt."""

    pod: str
    uid: str
    at: datetime
    attempt: int
    nodes: int
    node: str = ""
    ties: int = 0
    score: float = 0.0
    message: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict)
    nominated_node: str = ""


class DecisionLog:
    """The last attempt of each of the last pods. `now` tells real seconds."""

    def __init__(
        self, kept: int = KEPT, table_bytes: int = TABLE_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept = kept
        self._records: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._tables: OrderedDict[str, VerdictTable] = OrderedDict()
        self._room = table_bytes
        self._now = now
        self._tokens = TABLES_PER_SECOND
        self._counted_at = now()

    def add(self, record: DecisionRecord, table: Callable[[], VerdictTable] | None = None) -> None:
        """`table` is asked for if there is time and room to keep it."""
        self._records[record.pod] = record
        self._records.move_to_end(record.pod)
        self._drop(record.pod)
        if len(self._records) > self._kept:
            self._drop(self._records.popitem(last=False)[0])
        if table is not None and self._has_time():
            made = self._tables[record.pod] = table()
            self._room -= made.size
            while self._room < 0:
                self._drop(next(iter(self._tables)))

    def _drop(self, pod: str) -> None:
        old = self._tables.pop(pod, None)
        if old is not None:
            self._room += old.size

    def _has_time(self) -> bool:
        now = self._now()
        self._tokens = min(self._tokens + (now - self._counted_at) * TABLES_PER_SECOND, TABLES_PER_SECOND)
        self._counted_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def get(self, pod: str) -> DecisionRecord | None:
        return self._records.get(pod)

    def table(self, pod: str) -> VerdictTable | None:
        """All nodes' verdicts at the pod's last attempt, if they were kept."""
        return self._tables.get(pod)

    def __len__(self) -> int:
        return len(self._records)
