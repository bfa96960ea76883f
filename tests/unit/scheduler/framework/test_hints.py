"""No event that makes a refused pod schedulable goes unheard: what keeps a pod from waiting for the flush."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models import core_v1
from scheduler import changes
from scheduler.framework.events import Action, ClusterEvent, EventResource
from scheduler.framework.pod_info import PodInfo
from tests.unit.scheduler import neighbours
from tests.unit.scheduler.framework.test_agreement import placed
from tests.unit.scheduler.framework.test_pod_agreement import Pair


def node_event(pair: Pair) -> ClusterEvent | None:
    """A node comes, changes or goes."""
    rng = pair.rng
    name = rng.choice([*pair.nodes, "fresh"])
    old = pair.nodes.get(name)
    if old is not None and len(pair.nodes) > 1 and rng.random() < 0.3:
        del pair.nodes[name]
        pair.snapshot.remove_node(name)
        return ClusterEvent(EventResource.NODE, Action.DELETE, old, None)
    pair.set_node(name)
    new = pair.nodes[name]
    action = Action.ADD if old is None else changes.node_change(old, new)
    return ClusterEvent(EventResource.NODE, action, old, new) if action else None


def pod_event(pair: Pair) -> ClusterEvent | None:
    """An assigned pod comes, changes or goes."""
    rng = pair.rng
    if not pair.pods or rng.random() < 0.3:
        fresh = f"fresh-{rng.getrandbits(32)}"
        pair.place(pair.instance(fresh), rng.choice(sorted(pair.nodes)))
        return ClusterEvent(EventResource.ASSIGNED_POD, Action.ADD, None, PodInfo(pair.pods[fresh]))
    name = rng.choice(sorted(pair.pods))
    old = pair.pods[name]
    if rng.random() < 0.5:
        del pair.pods[name]
        removed = pair.snapshot.remove_pod(name)
        return ClusterEvent(EventResource.ASSIGNED_POD, Action.DELETE, removed, None)
    assert old.metadata is not None and old.spec is not None
    metadata = msgspec.structs.replace(old.metadata, labels=neighbours.pod_labels(rng))
    changed: core_v1.Pod = msgspec.structs.replace(old, metadata=metadata)
    if rng.random() < 0.3:
        neighbours.terminating(changed)
    home = old.spec.nodeName or ""
    pair.place(placed(changed, home), home)
    before, after = PodInfo(old), PodInfo(pair.pods[name])
    action = changes.pod_change(before, after)
    return ClusterEvent(EventResource.ASSIGNED_POD, action, before, after) if action else None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_what_helps_is_heard(seed: int) -> None:
    pair = Pair(Random(seed))
    framework = pair.framework
    pod = PodInfo(pair.instance("waiting"))
    for _ in range(12):
        error = framework.schedule(pod, pair.snapshot).error
        if error is None:
            pair.templates.append(neighbours.make_pod(pair.rng, "another"))
            pod = PodInfo(pair.instance("waiting"))
            continue
        event = node_event(pair) if pair.rng.random() < 0.4 else pod_event(pair)
        if event is not None and framework.schedule(pod, pair.snapshot).error is None:
            assert framework.may_help(pod, error.plugins, event), (error.message, event)
