"""The last two points of every node and container, and the usage between them.

Owns: which points are kept and when they say something. Pure, real time only: what is measured is real. Rules as
upstream's metrics-server: a rate needs two points of one life of a container; what a scrape does not bring is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FRESH_SECONDS = 10.0
"""A container younger than this says too little about itself for its start to count as a point."""
_SECOND = 1_000_000_000

PodKey = tuple[str, str]  # namespace, name


class Point(NamedTuple):
    """One measurement: nanoseconds of real time, core-nanoseconds since the start, bytes of working set."""

    at: int
    cpu: int
    memory: int
    started: int = 0  # 0 = not told


class Batch(NamedTuple):
    """One scrape of everything."""

    nodes: dict[str, Point]
    pods: dict[PodKey, dict[str, Point]]


class Usage(NamedTuple):
    """Nanocores over the window, and bytes at its end. Times in nanoseconds."""

    cpu: int
    memory: int
    at: int
    window: int


class Storage:
    """Two generations of points."""

    def __init__(self, resolution: float = 15.0) -> None:
        """`resolution`: real seconds between scrapes."""
        self._resolution = int(resolution * _SECOND)
        self._nodes: tuple[Mapping[str, Point], Mapping[str, Point]] = ({}, {})  # last, before
        self._pods: tuple[Mapping[PodKey, dict[str, Point]], Mapping[PodKey, dict[str, Point]]] = ({}, {})
        self.ready = False
        """Whether anything can be told."""

    def store(self, batch: Batch) -> None:
        """Take over a scrape."""
        last, before = self._nodes
        nodes: dict[str, Point] = {}
        for name, point in batch.nodes.items():
            found = _earlier(point, last.get(name), before.get(name))
            if found is not None:
                nodes[name] = found
        self._nodes = (batch.nodes, nodes)
        last_pods, before_pods = self._pods
        pods: dict[PodKey, dict[str, Point]] = {}
        for key, containers in batch.pods.items():
            earlier: dict[str, Point] = {}
            last_of, before_of = last_pods.get(key) or {}, before_pods.get(key) or {}
            for name, point in containers.items():
                found = self._fresh(point) or _earlier(point, last_of.get(name), before_of.get(name))
                if found is not None:
                    earlier[name] = found
            if earlier:
                pods[key] = earlier
        self._pods = (batch.pods, pods)
        self.ready = bool(nodes or pods) or self.ready

    def _fresh(self, point: Point) -> Point | None:
        """The start of a container that began since the last scrape, as a point."""
        age = point.at - point.started
        if point.started and FRESH_SECONDS * _SECOND <= age < self._resolution:
            return Point(point.started, 0, 0, point.started)
        return None

    def node(self, name: str) -> Usage | None:
        """What a node uses; None while that is not known."""
        last, before = (points.get(name) for points in self._nodes)
        return usage(last, before) if last is not None and before is not None else None

    def pod(self, namespace: str, name: str) -> dict[str, Usage] | None:
        """What each container of a pod uses; None while that is not known of all of them."""
        last, before = (points.get((namespace, name)) for points in self._pods)
        if last is None or before is None or not last.keys() <= before.keys():
            return None
        found = {container: usage(point, before[container]) for container, point in last.items()}
        return {container: each for container, each in found.items() if each is not None}


def _earlier(point: Point, last: Point | None, before: Point | None) -> Point | None:
    """The point to measure from: of the same life, and earlier."""
    for candidate in (last, before):
        if candidate is None or (point.started and point.started >= candidate.at):
            continue
        if candidate.at < point.at:
            return candidate
    return None


def usage(last: Point, before: Point) -> Usage | None:
    """The usage between two points; None when they are of two lives."""
    window = last.at - before.at
    if window <= 0 or last.started < before.started or last.cpu < before.cpu:
        return None
    return Usage((last.cpu - before.cpu) * _SECOND // window, last.memory, last.at, window)
