"""A claim that is being planned: its pods so far, and every shape that would still hold them.

Owns the packing of pods into claims and the limits of pools. A claim stands in the snapshot as one node, with the
labels of its cheapest shape and the room of its largest; what it may become is kept exactly beside that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nodepool_autoscaler import names
from nodepool_autoscaler.model import PlannedClaim, Pool
from nodepool_autoscaler.shapes import demands, preferred_terms
from nodepool_autoscaler.simulation import Shape, Shapes, Simulator, made_node
from scheduler.framework.columns import BoolArray
from scheduler.framework.pod_info import PodInfo

MOST_TYPES = 60  # of a claim's requirements, as upstream


def spread_keys(info: PodInfo) -> set[str]:
    """Labels whose values decide where this pod, or those beside it, may be: a claim with it has one value of each."""
    spec = info.spec
    keys = {
        each.topologyKey for each in spec.topologySpreadConstraints or () if each.whenUnsatisfiable != "ScheduleAnyway"
    }
    affinity = spec.affinity
    for each in (affinity.podAffinity, affinity.podAntiAffinity) if affinity is not None else ():
        if each is not None:
            keys |= {term.topologyKey for term in each.requiredDuringSchedulingIgnoredDuringExecution or ()}
    return keys - {names.HOSTNAME}


def clings(info: PodInfo) -> bool:
    """Whether the pod must be on the same node as others."""
    affinity = info.spec.affinity.podAffinity if info.spec.affinity is not None else None
    terms = (affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None) or ()
    return any(each.topologyKey == names.HOSTNAME for each in terms)


class PoolPlan:
    """A pool in one decision: its shapes, and how much of its limits is left."""

    def __init__(self, simulator: Simulator, pool: Pool, shapes: Shapes, used: Mapping[str, int]) -> None:
        self.simulator = simulator
        self.pool = pool
        self.shapes = shapes
        self.left = {name: limit - used.get(name, 0) for name, limit in pool.limits.items()}
        """Of each limit, without the claims that are being planned."""
        self._amounts = {name: shapes.amounts(name) for name in pool.limits}
        self._least = [each for each in pool.requirements if each.min_values]
        self._held: dict[str, int] = {}

    def affordable(self, but: int | None = None) -> BoolArray:
        """Shapes that the limits allow; `but`: a shape that is held already and would be given back."""
        hits = np.ones(len(self.shapes), dtype=np.bool_)
        for name, amounts in self._amounts.items():
            room = self.left[name] - self._held.get(name, 0) + (int(amounts[but]) if but is not None else 0)
            hits &= amounts <= room
        return hits

    def hold(self, shape: int, sign: int = 1) -> None:
        """Count a claim that will be launched as this shape."""
        for name, amounts in self._amounts.items():
            self._held[name] = self._held.get(name, 0) + sign * int(amounts[shape])

    def flexible(self, mask: BoolArray) -> str:
        """The label of which these shapes have fewer values than the pool's minValues; "" when there is none."""
        for each in self._least:
            values = {shape.labels.get(each.key) for shape in self.shapes.offered(mask)} - {None}
            if each.min_values is not None and len(values) < each.min_values:
                return each.key
        return ""

    def open(self, info: PodInfo, feasible: BoolArray, name: str) -> OpenClaim | None:
        """A claim with this pod; None when no shape will do."""
        mask = self.shapes.fits(feasible) & self.affordable()
        if not mask.any() or self.flexible(mask):
            return None
        mask = self._preferred(info, mask)
        keys = spread_keys(info)
        if keys:
            mask = mask & self.shapes.alike(int(mask.argmax()), keys)
            if self.flexible(mask):
                return None
        return OpenClaim(self, name, mask, info)

    def _preferred(self, info: PodInfo, mask: BoolArray) -> BoolArray:
        """As much of the pod's wishes as can be had, the weightiest first."""
        for term in preferred_terms(info):
            wished = np.array(
                [all(each.allows(shape.labels.get(each.key)) for each in term) for shape in self.shapes.shapes],
                dtype=np.bool_,
            )
            narrowed = mask & wished
            if narrowed.any() and not self.flexible(narrowed):
                mask = narrowed
        return mask


class OpenClaim:
    """`mask`: shapes that hold its pods and daemons. `shape`: the one whose labels its node has."""

    def __init__(self, plan: PoolPlan, name: str, mask: BoolArray, info: PodInfo) -> None:
        self.plan = plan
        self.name = name
        self.pods: list[PodInfo] = []
        self.mask = mask
        self.shape = int(mask.argmax())
        self._requests: dict[str, int] = {}
        self._held: int | None = None
        self._daemons: list[PodInfo] = []
        self.too_large: set[bytes] = set()
        """Signatures of pods that will never fit, since what is taken only grows."""
        self._stand()
        self._take(info, mask)

    # --- its node in the snapshot ------------------------------------------------------------------------------------

    def _stand(self) -> None:
        shape = self.plan.shapes.shapes[self.shape]
        most: dict[str, int] = {}
        for each in self.plan.shapes.offered(self.mask):
            for name, amount in each.offering.allocatable.items():
                most[name] = max(most.get(name, 0), amount)
        simulator = self.plan.simulator
        self.column = simulator.add_node(made_node(self.name, shape.labels, self.plan.pool.taints, most))
        for info in self._daemons:
            simulator.snapshot.remove_pod(info.uid)
        self._daemons = [simulator.add_daemon(pod, self.name) for pod in self.plan.shapes.daemons[self.shape]]

    # --- pods --------------------------------------------------------------------------------------------------------

    def put(self, info: PodInfo, feasible: BoolArray) -> bool:
        """Take the pod if any shape would hold it beside the others. `feasible`: by column, as it was before."""
        plan = self.plan
        mask = self.mask & plan.shapes.holds(self._with(info), len(self.pods) + 1)
        if not mask.any():
            self.too_large.add(plan.simulator.framework.signature(info))
            return False
        if clings(info):  # to pods on this very node, so every other one would be refused
            if not feasible[self.column]:
                return False
            mask &= plan.shapes.fits(plan.simulator.feasible_alone(info))
            mask &= plan.shapes.alike(self.shape, {names.ZONE})
        else:
            mask &= plan.shapes.fits(feasible)
        mask &= plan.affordable(self._held)
        if not mask.any():
            return False
        if feasible[self.column]:
            return self._take(info, mask)
        empty = bool(feasible[plan.shapes.columns[self.shape]])  # then it is the pods on our node that are in the way
        return not empty and self._move(info, mask)

    def _move(self, info: PodInfo, mask: BoolArray) -> bool:
        """Stand for another shape, whose labels the pod may accept."""
        before = self.shape
        self.shape = int(mask.argmax())
        self._stand()
        if self.plan.simulator.feasible(info)[self.column] and self._take(info, mask):
            return True
        self.shape = before
        self._stand()
        return False

    def _take(self, info: PodInfo, mask: BoolArray) -> bool:
        """The pod passes the filters on our node; `mask`: shapes that hold it."""
        keys = spread_keys(info)
        if keys:
            mask = mask & self.plan.shapes.alike(self.shape, keys)
        if not mask.any() or self.plan.flexible(mask):
            return False
        self._requests = self._with(info)
        self.pods.append(info)
        self.mask = mask
        if self._held is not None:
            self.plan.hold(self._held, -1)
        self._held = int(mask.argmax())
        self.plan.hold(self._held)
        self.plan.simulator.snapshot.add_pod(info, self.name)
        return True

    def _with(self, info: PodInfo) -> dict[str, int]:
        names_ = self._requests.keys() | info.requests.keys()
        return {name: self._requests.get(name, 0) + info.requests.get(name, 0) for name in names_}

    # --- the result --------------------------------------------------------------------------------------------------

    def planned(self) -> PlannedClaim:
        """The claim, with no more shapes than the pool's limits bear."""
        plan, held = self.plan, self._held
        assert held is not None
        kept = self._bearable(held)
        labels = plan.shapes.shapes[held].labels
        alike = [each for each in kept if _own(each) == _own(plan.shapes.shapes[held])]
        daemons = [PodInfo(pod) for pod in plan.shapes.daemons[held]]
        requests = dict(self._requests)
        for each in daemons:
            for name, amount in each.requests.items():
                requests[name] = requests.get(name, 0) + amount
        requests["pods"] = len(self.pods) + len(daemons)
        own = {key: value for key, value in labels.items() if key not in (names.REGISTERED, names.INITIALIZED)}
        return PlannedClaim(
            pool=plan.pool,
            pods=tuple(self.pods),
            offerings=tuple(each.offering for each in alike),
            requirements=demands(plan.pool, alike, own, self.pods),
            labels={key: own[key] for key in own if key not in plan.shapes.shapes[held].offering.labels},
            requests=requests,
        )

    def _bearable(self, held: int) -> list[Shape]:
        """What is kept besides the cheapest must fit into the limits whatever the other claims become."""
        plan = self.plan
        mask = self.mask & plan.affordable(held)
        types: dict[str, None] = {}
        kept, largest = [], held
        for number in mask.nonzero()[0].tolist():
            shape = plan.shapes.shapes[number]
            types.setdefault(shape.offering.instance_type)
            if len(types) > MOST_TYPES:
                break
            kept.append(shape)
            largest = self._larger(largest, number)
        if plan.left:
            kept = [each for each in kept if self._within(each, plan.shapes.shapes[largest])]
            plan.hold(held, -1)
            plan.hold(largest)
        return kept

    def _larger(self, one: int, other: int) -> int:
        """The shape that takes more of the limits, where the other takes no more of any."""
        mine, theirs = self.plan.shapes.shapes[one], self.plan.shapes.shapes[other]
        return other if self._within(mine, theirs) else one

    def _within(self, one: Shape, other: Shape) -> bool:
        return all(
            one.offering.capacity.get(name, 0) <= other.offering.capacity.get(name, 0)
            for name in self.plan.left
            if name != "nodes"
        )


def _own(shape: Shape) -> dict[str, str]:
    """The labels that the pool, not the cloud, has chosen."""
    return {key: value for key, value in shape.labels.items() if key not in shape.offering.labels}
