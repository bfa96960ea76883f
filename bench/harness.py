"""Clusters and figures for measurements."""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.nanokube import Cluster


@dataclass(frozen=True)
class Figure:
    """One measured thing: what, the value with its unit, the target, and what the real control plane takes."""

    what: str
    value: str
    target: str = ""
    real: str = ""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0…1) of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.contextmanager
def cluster(name: str, *arguments: str) -> Iterator[Cluster]:
    """A cluster for the length of the block."""
    with tempfile.TemporaryDirectory() as home:
        made = Cluster(name, Path(home))
        made.nanokube("down")
        try:
            made.nanokube("up", *arguments)
            yield made
        finally:
            made.nanokube("down")


def memory(pid: int) -> tuple[float, float]:
    """(proportional, resident) set size of a process in MiB."""
    found = {"Pss": 0.0, "Rss": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in found:
            found[key] = int(rest.split()[0]) / 1024
    return found["Pss"], found["Rss"]
