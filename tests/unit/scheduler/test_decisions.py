"""The log of decisions: bounded in records, in bytes and in time."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from scheduler.decisions import TABLES_PER_SECOND, DecisionLog, DecisionRecord
from scheduler.framework.decision import VerdictTable


def record(name: str) -> DecisionRecord:
    return DecisionRecord(name, f"uid-{name}", datetime(2026, 1, 1, tzinfo=UTC), 1, 3)


def table(nodes: int = 100) -> VerdictTable:
    return VerdictTable([""] * nodes, ("A", "B"), np.zeros((2, nodes), dtype=np.float32), ())


def test_tables_keep_within_their_bytes() -> None:
    log = DecisionLog(table_bytes=3 * table().size, now=iter(range(10_000)).__next__)
    for index in range(10):
        log.add(record(f"p{index}"), table)
    assert [index for index in range(10) if log.table(f"p{index}") is not None] == [7, 8, 9]
    log.add(record("p9"), table)
    assert log.table("p8") is not None and log.table("p7") is not None
    log.add(record("huge"), lambda: table(100_000))
    assert log.table("huge") is None and log.get("huge") is not None
    log.add(record("later"), table)
    assert log.table("later") is not None


def test_a_flood_is_recorded_without_tables() -> None:
    now = 0.0
    log = DecisionLog(now=lambda: now)
    made = 0

    def counted() -> VerdictTable:
        nonlocal made
        made += 1
        return table()

    for index in range(500):
        log.add(record(f"p{index}"), counted)
    assert made == TABLES_PER_SECOND
    assert log.get("p499") is not None
    now = 1.0
    log.add(record("calm"), counted)
    assert log.table("calm") is not None


def test_an_attempt_without_a_table_forgets_the_old_one() -> None:
    log = DecisionLog(kept=2)
    log.add(record("a"), table)
    log.add(record("a"))
    assert log.table("a") is None
    log.add(record("a"), table)
    log.add(record("b"), table)
    log.add(record("c"), table)
    assert log.get("a") is None and log.table("a") is None and len(log) == 2
