"""Which of a Service port's endpoints this machine sends connections to: readiness, and hints of zone and node.

Source of the rules: the documentation of EndpointSlice conditions (ready endpoints; when there is none, those that
still serve while terminating, KEP-1669), of topology aware routing and of traffic distribution (KEP-2433, KEP-4444,
KEP-3015). Hints count only if every ready endpoint has one, and one of them is for this node or zone: a half-hinted
Service is served as if there were no hints. Pure. Called by services.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kube_proxy.rules import Endpoint

ZONE: Final = "topology.kubernetes.io/zone"


@dataclass(frozen=True)
class Place:
    """Where this proxy is; the host is on no node and in no zone."""

    node: str = ""
    zone: str = ""


@dataclass(frozen=True)
class Candidate:
    """An endpoint with what its slice says of it; `draining`: it terminates, but serves."""

    endpoint: Endpoint
    ready: bool
    draining: bool = False
    nodes: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()


def usable(candidates: Iterable[Candidate], place: Place) -> tuple[Endpoint, ...]:
    """The endpoints that a connection may go to now, sorted."""
    found = list(candidates)
    ready = [each for each in found if each.ready]
    chosen = {each.endpoint for each in _close(ready, place)} or {each.endpoint for each in found if each.draining}
    return tuple(sorted(chosen, key=lambda each: (each.ip, each.port)))


def local(candidates: Iterable[Candidate]) -> tuple[Endpoint, ...]:
    """The endpoints of this machine that a connection may go to now, sorted: hints say nothing about them."""
    here = [each for each in candidates if each.endpoint.local]
    chosen = {each.endpoint for each in here if each.ready} or {each.endpoint for each in here if each.draining}
    return tuple(sorted(chosen, key=lambda each: (each.ip, each.port)))


def _close(ready: Sequence[Candidate], place: Place) -> Sequence[Candidate]:
    """Those of the ready endpoints that are meant for this node, or else for this zone, or else all."""
    if all(each.nodes for each in ready):
        same_node = [each for each in ready if place.node in each.nodes]
        if same_node:
            return same_node
    if all(each.zones for each in ready):
        same_zone = [each for each in ready if place.zone in each.zones]
        if same_zone:
            return same_zone
    return ready
