"""If these nodes were gone and these pods pending: where do pods go, and which claims are needed, at what price. Pure.

Runs on a fork of the scheduler's snapshot, with the scheduler's own filters; everything is undone at the end. Pods go
to nodes and claims that are there first; what is left opens new claims in the pool of highest weight that fits. A claim
keeps every offering that would hold its pods; the cheapest of them is what it costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from api.models import apps_v1
from nodepool_autoscaler.claims import OpenClaim, PoolPlan
from nodepool_autoscaler.disruption.pods import reschedulable
from nodepool_autoscaler.model import NODES, NodeState, Outcome, Pool, World
from nodepool_autoscaler.refusals import Refusals
from nodepool_autoscaler.shapes import shapes_of
from nodepool_autoscaler.simulation import Shapes, Simulator, future_node, without_node
from scheduler.framework.columns import BoolArray
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.resources import CPU, MEMORY
from scheduler.framework.snapshot import ClusterSnapshot


def movable(state: NodeState) -> list[PodInfo]:
    """The pods that need another node when this one goes, as their controllers would make them again."""
    return [without_node(info) for info in state.pods if reschedulable(info)]


def by_weight(pools: Iterable[Pool]) -> list[Pool]:
    """Pools that may launch, in the order in which they are tried."""
    able = [each for each in pools if not each.not_ready and not each.deleting]
    return sorted(sorted(able, key=lambda each: each.name, reverse=True), key=lambda each: -each.weight)


def in_order(pods: Iterable[PodInfo]) -> list[PodInfo]:
    """The most important first, then the largest: these are the hardest to place."""
    return sorted(
        pods,
        key=lambda each: (
            -each.priority,
            -each.requests.get(CPU, 0),
            -each.requests.get(MEMORY, 0),
            each.created,
            each.uid,
        ),
    )


class Solver:
    """Over one snapshot, which holds the real nodes and the pods on them. To be kept: making one is not cheap."""

    def __init__(self, snapshot: ClusterSnapshot, daemons: Iterable[apps_v1.DaemonSet] = ()) -> None:
        self._snapshot = snapshot
        self._simulator = Simulator(snapshot)
        self.set_daemons(daemons)

    def set_daemons(self, daemons: Iterable[apps_v1.DaemonSet]) -> None:
        """Those whose pods new nodes may get."""
        self._simulator.set_daemons(daemons)

    def solve(self, world: World, pods: Sequence[PodInfo], *, without: Collection[str] = ()) -> Outcome:
        """`pods`: those to be placed. `without`: names of NodeStates that are taken away; the pods that would have to
        move from there are placed too. Nodes that are marked are no room either, but their pods are placed only if they
        are in `pods` (see `movable`)."""
        moving = [info for each in world.nodes if each.name in without for info in movable(each)]
        self._snapshot.fork()
        try:
            return _Solving(self._simulator, world, without).run([*pods, *moving])
        finally:
            self._snapshot.revert()


class _Solving:
    """One question, while the fork lasts."""

    def __init__(self, simulator: Simulator, world: World, without: Collection[str]) -> None:
        self._simulator = simulator
        self._world = world
        self._placed: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._claims: list[OpenClaim] = []
        self._without = without
        self._refusals = Refusals(simulator)

    def run(self, pods: Sequence[PodInfo]) -> Outcome:
        ready, starting = self._arrange()
        left = [info for info in in_order(pods) if not self._place(info, ready, starting)]
        if left:
            self._launch(left, ready | starting)
        return Outcome(
            placed=dict(self._placed),
            claims=tuple(each.planned() for each in self._claims),
            errors=self._refusals.errors,
            refusals=self._refusals.by_pool,
        )

    # --- what is there -----------------------------------------------------------------------------------------------

    def _arrange(self) -> tuple[BoolArray, BoolArray]:
        """Take away what goes and add what comes. Columns of nodes that are there, and of those that will be."""
        simulator, starting = self._simulator, []
        for state in self._world.nodes:
            if state.marked or state.name in self._without:
                simulator.snapshot.remove_node(state.name)
            elif state.claim is not None and not state.initialized:
                column = simulator.add_node(future_node(state))
                simulator.add_daemons([column], state.pods)
                starting.append(state.name)
        coming = simulator.columns(starting)
        there = simulator.snapshot.exists[: simulator.snapshot.width] & ~coming
        return there, coming

    def _place(self, info: PodInfo, ready: BoolArray, starting: BoolArray) -> bool:
        simulator = self._simulator
        promised = info.nominated_node
        if promised and simulator.snapshot.column(promised) is not None:
            simulator.snapshot.add_pod(info, promised)  # it waits there for those it displaces
            self._placed[info.uid] = promised
            return True
        for columns in (ready, starting):
            node = simulator.place(info, columns)
            if node:
                self._placed[info.uid] = node
                return True
        return False

    # --- what is to come ---------------------------------------------------------------------------------------------

    def _launch(self, pods: Sequence[PodInfo], there: BoolArray) -> None:
        plans = [self._plan(pool, pods) for pool in by_weight(self._world.pools)]
        for info in pods:
            if not self._put(info, plans, there):
                self._refusals.add(info, plans)

    def _plan(self, pool: Pool, pods: Sequence[PodInfo]) -> PoolPlan:
        shapes = Shapes(self._simulator, pool, shapes_of(self._world, pool, pods))
        used = dict.fromkeys(pool.limits, 0)
        for state in self._world.nodes:
            if state.pool == pool.name and state.name not in self._without:
                for name in used:
                    used[name] += 1 if name == NODES else state.capacity.get(name, 0)
        return PoolPlan(self._simulator, pool, shapes, used)

    def _put(self, info: PodInfo, plans: Sequence[PoolPlan], there: BoolArray) -> bool:
        node = self._simulator.place(info, there)
        if node:
            self._placed[info.uid] = node
            return True
        feasible = self._simulator.feasible(info).copy()
        signature = self._simulator.framework.signature(info)
        for claim in sorted(self._claims, key=lambda each: len(each.pods)):
            if signature not in claim.too_large and claim.put(info, feasible):
                return True
        for plan in plans:
            opened = plan.open(info, feasible, f"{plan.pool.name}/claim-{len(self._claims)}")
            if opened is not None:
                self._claims.append(opened)
                return True
        return False
