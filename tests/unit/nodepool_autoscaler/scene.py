"""Pools, what a cloud offers, nodes and pods as plain facts: what the solver and disruption decide from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from api.models import apps_v1, core_v1, meta_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.model import Claim, Condition, NodeState, Offering, Outcome, PlannedClaim, Pool, World
from nodepool_autoscaler.requirements import Requirement
from nodepool_autoscaler.solver import Solver
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from tests.unit.scheduler.objects import node as node_object
from tests.unit.scheduler.objects import pod as pod_object

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
GIB = 1 << 30
SIZES = ((1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 32), (16, 64))
ZONES = ("a", "b", "c")


def offering(
    cores: int, gib: int, zone: str = "a", capacity_type: str = names.ON_DEMAND, price: float | None = None
) -> Offering:
    """A general machine; spot costs a third."""
    amounts = {"cpu": cores * 1000, "memory": gib * GIB, "pods": 110, "ephemeral-storage": 100 * GIB}
    name = f"m-{cores}x{gib}"
    labels = {
        names.INSTANCE_TYPE: name,
        names.ZONE: zone,
        names.CAPACITY_TYPE: capacity_type,
        names.ARCH: "amd64",
        names.OS: "linux",
    }
    if price is None:
        price = (cores * 0.04 + gib * 0.005) * (0.3 if capacity_type == names.SPOT else 1.0)
    return Offering(name, zone, capacity_type, price, amounts, amounts, labels)


def offerings(
    sizes: Sequence[tuple[int, int]] = SIZES,
    zones: Sequence[str] = ZONES,
    capacity_types: Sequence[str] = (names.ON_DEMAND, names.SPOT),
) -> tuple[Offering, ...]:
    return tuple(offering(cores, gib, zone, kind) for cores, gib in sizes for zone in zones for kind in capacity_types)


def demand(key: str, operator: str, *values: str, least: int | None = None) -> Requirement:
    return Requirement.of(key, operator, values, least)


ON_DEMAND = demand(names.CAPACITY_TYPE, "In", names.ON_DEMAND)


class Scene:
    """`solve` asks; `launch` makes what was planned true at once."""

    def __init__(self, *pools: Pool, offers: Sequence[Offering] | None = None) -> None:
        self.snapshot = ClusterSnapshot()
        self.solver = Solver(self.snapshot)
        self.pools = list(pools) or [Pool("default", node_class="real", requirements=(ON_DEMAND,))]
        self.offers = tuple(offers) if offers is not None else offerings()
        self.states: dict[str, NodeState] = {}
        self.daemons: list[apps_v1.DaemonSet] = []
        self.now = START
        self._made = 0

    @property
    def world(self) -> World:
        states = []
        for state in self.states.values():
            record = self.snapshot.record(state.name)
            states.append(replace(state, pods=tuple(record.pods.values()) if record is not None else ()))
        classes = {each.node_class for each in self.pools}
        return World(self.now, tuple(states), tuple(self.pools), dict.fromkeys(classes, self.offers))

    def pod(self, name: str, cpu: str = "1", memory: str = "1Gi", *, node: str = "", **rest: Any) -> PodInfo:
        made = pod_object(name, {"cpu": cpu, "memory": memory}, labels=rest.pop("labels", {"app": "web"}), **rest)
        assert made.metadata is not None and made.spec is not None
        made.metadata.uid = name
        made.metadata.ownerReferences = [
            meta_v1.OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="web", uid="web", controller=True)
        ]
        made.spec.nodeName = node or None
        info = PodInfo(made)
        if node:
            self.snapshot.add_pod(info, node)
        return info

    def pods(self, count: int, cpu: str = "1", memory: str = "1Gi", **rest: Any) -> list[PodInfo]:
        self._made += count
        return [self.pod(f"pod-{self._made - number}", cpu, memory, **rest) for number in range(count)]

    def node(self, offer: Offering, pool: str = "default", *, ready: bool = True, age: float = 3600.0) -> str:
        """A node of a pool; one that is not `ready` is a claim whose machine has not come yet."""
        self._made += 1
        name = f"node-{self._made}"
        created = self.now - timedelta(seconds=age)
        done = Condition("True", since=created)
        claim = Claim(
            name,
            created,
            uid=name,
            pool=pool,
            node_class="real",
            labels={**offer.labels, names.NODE_POOL: pool},
            conditions={names.INITIALIZED_CONDITION: done, names.LAUNCHED: done} if ready else {names.LAUNCHED: done},
            provider_id=f"fake://{name}",
            capacity=offer.capacity,
            allocatable=offer.allocatable,
        )
        node: core_v1.Node | None = None
        if ready:
            cores, memory = offer.allocatable["cpu"], offer.allocatable["memory"]
            node = node_object(name, cpu=f"{cores}m", memory=str(memory), labels=dict(claim.labels))
            self.snapshot.set_node(node)
        self.states[name] = NodeState(name, node, claim, offer)
        return name

    def remove(self, name: str) -> None:
        record = self.snapshot.record(name)
        for uid in list(record.pods) if record is not None else ():
            self.snapshot.remove_pod(uid)
        self.snapshot.remove_node(name)
        del self.states[name]

    def solve(self, *pods: PodInfo, without: Collection[str] = ()) -> Outcome:
        self.solver.set_daemons(self.daemons)
        return self.solver.solve(self.world, pods, without=without)

    def launch(self, planned: PlannedClaim) -> str:
        """The cheapest offering becomes a node with the pods."""
        name = self.node(planned.offerings[0], planned.pool.name)
        for info in planned.pods:
            self.snapshot.add_pod(info, name)
        return name
