"""The last decisions, one record per pod, bounded: what explanations and people ask for first.

A record is a few numbers and texts. The verdict of every single node is computed when asked for
(`Framework.explain`), not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One attempt."""

    pod: str
    at: datetime
    attempt: int
    nodes: int
    node: str = ""
    ties: int = 0
    score: float = 0.0
    message: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict)


class DecisionLog:
    """The last attempt of each of the last pods."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._records: OrderedDict[str, DecisionRecord] = OrderedDict()

    def add(self, record: DecisionRecord) -> None:
        self._records[record.pod] = record
        self._records.move_to_end(record.pod)
        if len(self._records) > self._kept:
            self._records.popitem(last=False)

    def get(self, pod: str) -> DecisionRecord | None:
        return self._records.get(pod)

    def __len__(self) -> int:
        return len(self._records)
