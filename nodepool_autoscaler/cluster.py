"""The cluster as decisions see it: informers into a snapshot, and one look at everything.

Owns the snapshot, which nodes have pods promised to them, and claims that were just created and that no cache shows
yet. Never writes. What disruption may ask (`Site`) is answered here.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec

from api.models import apps_v1, core_v1, policy_v1, storage_v1
from client.informer import EventHandler, Informer, Informers
from machinery.clock import Clock
from machinery.meta import ObjectKey
from nodepool_autoscaler import names
from nodepool_autoscaler.catalog import Catalog
from nodepool_autoscaler.disruption.blocking import PodBudget
from nodepool_autoscaler.disruption.pods import owned_by
from nodepool_autoscaler.model import Claim, NodeState, Offering, Outcome, World
from nodepool_autoscaler.objects import (
    CLAIMS,
    CLASS_KIND,
    CLASSES,
    POOLS,
    NodeClaim,
    NodeClass,
    NodePool,
    claim_of,
    demands_of,
    pool_of,
)
from nodepool_autoscaler.solver import Solver, movable
from scheduler.framework import node_facts, resources
from scheduler.framework.pod_info import PodInfo, is_assigned, is_terminal
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.relations import Relations

PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
NOMINATED_FOR: Final = 20.0
UNSEEN_FOR: Final = 30.0  # real seconds, in which a watch tells of anything
BY_MACHINE: Final = "providerID"


def is_unschedulable(pod: core_v1.Pod) -> bool:
    """Whether a scheduler looked for a node and found none."""
    conditions: Iterable[core_v1.PodCondition] = (pod.status.conditions if pod.status is not None else None) or ()
    return any(
        each.type == "PodScheduled" and each.status == "False" and each.reason == "Unschedulable" for each in conditions
    )


def is_provisionable(pod: core_v1.Pod) -> bool:
    """Whether a node should be found for the pod: not those that already displace others, nor those of DaemonSets."""
    return (
        pod.spec is not None
        and not pod.spec.nodeName
        and pod.metadata.deletionTimestamp is None
        and is_unschedulable(pod)
        and not PodInfo.nominated_in(pod)
        and not owned_by(pod, "DaemonSet")
        and not owned_by(pod, "Node")
    )


def scheduled_at(pod: core_v1.Pod) -> datetime | None:
    """When the pod came to its node: long ago, as far as we are concerned, if it was there before us."""
    conditions: Iterable[core_v1.PodCondition] = (pod.status.conditions if pod.status is not None else None) or ()
    return next((each.lastTransitionTime for each in conditions if each.type == "PodScheduled"), None)


def _machine_of(node: core_v1.Node) -> Iterable[str]:
    return (node.spec.providerID,) if node.spec is not None and node.spec.providerID else ()


def _machine_of_claim(claim: NodeClaim) -> Iterable[str]:
    return (claim.status.providerID,) if claim.status.providerID else ()


class Cluster:
    """Everything read from the API server."""

    def __init__(self, informers: Informers, catalog: Catalog, clock: Clock) -> None:
        self.catalog = catalog
        self._clock = clock
        self.snapshot = ClusterSnapshot()
        self._solver = Solver(self.snapshot)
        self.pods: Informer[core_v1.Pod] = informers.informer(core_v1.Pod, field_selector=PODS)
        self.nodes: Informer[core_v1.Node] = informers.informer(core_v1.Node, indexers={BY_MACHINE: _machine_of})
        self.pools: Informer[NodePool] = informers.informer(POOLS)
        self.claims: Informer[NodeClaim] = informers.informer(CLAIMS, indexers={BY_MACHINE: _machine_of_claim})
        self.classes: Informer[NodeClass] = informers.informer(CLASSES)
        self.daemons: Informer[apps_v1.DaemonSet] = informers.informer(apps_v1.DaemonSet)
        self.budgets: Informer[policy_v1.PodDisruptionBudget] = informers.informer(policy_v1.PodDisruptionBudget)
        self.attachments: Informer[storage_v1.VolumeAttachment] = informers.informer(storage_v1.VolumeAttachment)
        self.relations = Relations(informers, self.snapshot, lambda event: None)
        self.pods.add_handler(EventHandler(self._set_pod, self._update_pod, self._pod_deleted))
        self.nodes.add_handler(
            EventHandler(self.snapshot.set_node, lambda _, new: self.snapshot.set_node(new), self._node_deleted)
        )
        self.claims.add_handler(EventHandler(self._claim_seen, lambda _, new: self._claim_seen(new), self._claim_seen))
        self._nominated: dict[str, float] = {}
        self._unseen: dict[str, tuple[float, NodeClaim]] = {}
        self.marked: Callable[[], Collection[str]] = frozenset
        """Names of claims that are as good as gone, though nobody deletes them yet."""
        self.on_waiting: Callable[[], None] = lambda: None
        """Called when a pod wants a node."""
        self.on_pod_event: Callable[[str, datetime], None] = lambda node, moment: None
        """Called with a node to which a pod has come, or which one leaves, and when; not for DaemonSets' pods."""

    def informers(self) -> list[Informer[Any]]:
        """Those that must be complete before the first decision."""
        own = (self.pods, self.nodes, self.pools, self.claims, self.classes, self.daemons, self.budgets)
        return [*own, self.attachments, *self.relations.informers()]

    # --- what changes ------------------------------------------------------------------------------------------------

    def _set_pod(self, pod: core_v1.Pod) -> None:
        if is_provisionable(pod):
            self.on_waiting()
        if is_terminal(pod) or not is_assigned(pod):
            self.snapshot.remove_pod(PodInfo.uid_of(pod))
            return
        info = PodInfo(pod)
        if self.snapshot.home_of(info.uid) != info.node_name:
            self._pod_event(pod, scheduled_at(pod))
        self.snapshot.add_pod(info, info.node_name)

    def _update_pod(self, old: core_v1.Pod, new: core_v1.Pod) -> None:
        leaving = new.metadata.deletionTimestamp is not None and old.metadata.deletionTimestamp is None
        if leaving or (is_terminal(new) and not is_terminal(old)):
            self._pod_event(new)
        self._set_pod(new)

    def _pod_deleted(self, pod: core_v1.Pod) -> None:
        self._pod_event(pod)
        self.snapshot.remove_pod(PodInfo.uid_of(pod))

    def _pod_event(self, pod: core_v1.Pod, moment: datetime | None = None) -> None:
        if pod.spec is not None and pod.spec.nodeName and not owned_by(pod, "DaemonSet"):
            self.on_pod_event(pod.spec.nodeName, moment or self._clock.now())

    def _node_deleted(self, node: core_v1.Node) -> None:
        self.snapshot.remove_node(node_facts.name(node))

    def _claim_seen(self, claim: NodeClaim) -> None:
        self._unseen.pop(claim.name, None)

    def created(self, claim: NodeClaim) -> None:
        """A claim that was just written; it counts before any cache shows it."""
        if self.claims.lister.get(ObjectKey("", claim.name)) is None:
            self._unseen[claim.name] = (self._clock.monotonic() + UNSEEN_FOR * self._clock.scale, claim)

    def nominate(self, name: str) -> None:
        """Pods were promised to this NodeState."""
        now = self._clock.monotonic()
        self._nominated = {each: until for each, until in self._nominated.items() if until > now}
        self._nominated[name] = now + NOMINATED_FOR

    # --- one look ----------------------------------------------------------------------------------------------------

    def all_claims(self) -> list[NodeClaim]:
        """Ours, by name."""
        now = self._clock.monotonic()
        self._unseen = {name: each for name, each in self._unseen.items() if each[0] > now}
        listed = {each.name: each for _, each in self._unseen.values()}
        listed |= {each.name: each for each in self.claims.lister.list()}
        return [listed[name] for name in sorted(listed) if is_ours(listed[name])]

    def claim_for(self, node: core_v1.Node) -> NodeClaim | None:
        """The claim whose machine a node runs on."""
        found = (claim for machine in _machine_of(node) for claim in self.claims.lister.by_index(BY_MACHINE, machine))
        return next((each for each in found if is_ours(each)), None)

    def nodes_of(self, claim: NodeClaim) -> list[core_v1.Node]:
        return [
            node for machine in _machine_of_claim(claim) for node in self.nodes.lister.by_index(BY_MACHINE, machine)
        ]

    def node_class(self, name: str) -> NodeClass | None:
        return self.classes.lister.get(ObjectKey("", name))

    def pool_ready(self, pool: NodePool) -> str:
        """Why a pool takes no part, "" if it does."""
        reference = pool.spec.template.spec.nodeClassRef
        if reference.group != names.CLOUD_GROUP or reference.kind != CLASS_KIND:
            return f"node class {reference.kind}.{reference.group} is not of this cloud"
        found = self.node_class(reference.name)
        if found is None:
            return f'node class "{reference.name}" not found'
        ready = next((each for each in found.status.conditions if each.type == names.READY), None)
        if ready is not None and ready.status == "False":
            return f'node class "{reference.name}" is not ready: {ready.message}'
        return ""

    def world(self) -> World:
        """A look at everything; nodes that commands have marked are marked in it."""
        pools = tuple(pool_of(each, self.pool_ready(each)) for each in self.pools.lister.list())
        classes = {each.metadata.name or "": each for each in self.classes.lister.list()}
        offerings = {name: self.catalog.available(each) for name, each in classes.items()}
        marked, now = frozenset(self.marked()), self._clock.monotonic()
        by_provider: dict[str, NodeClaim] = {}
        states: list[NodeState] = []
        free: list[NodeClaim] = []
        nodes = {node.spec.providerID: node for node in self.nodes.lister.list() if node.spec and node.spec.providerID}
        for claim in self.all_claims():
            if claim.status.providerID in nodes:
                by_provider[claim.status.providerID] = claim
            else:
                free.append(claim)
        for node in sorted(self.nodes.lister.list(), key=node_facts.name):
            claim_object = by_provider.get((node.spec.providerID if node.spec is not None else None) or "")
            states.append(self._state(node, claim_object, classes, marked, now))
        states += [self._state(None, each, classes, marked, now) for each in free]
        hashes = {name: (each.metadata.annotations or {}).get(names.CLASS_HASH, "") for name, each in classes.items()}
        return World(self._clock.now(), tuple(states), pools, offerings, hashes)

    def _state(
        self,
        node: core_v1.Node | None,
        claim: NodeClaim | None,
        classes: dict[str, NodeClass],
        marked: Collection[str],
        now: float,
    ) -> NodeState:
        name = node_facts.name(node) if node is not None else claim.name if claim is not None else ""
        record = self.snapshot.record(name) if node is not None else None
        made, offering = None, None
        leaving = node is not None and node.metadata.deletionTimestamp is not None
        if claim is not None:
            made, offering = self._resolved(claim, classes.get(claim.spec.nodeClassRef.name))
            leaving = leaving or made.deleting or claim.name in marked
        promised = self._nominated.get(name, 0.0) > now or (
            claim is not None and self._nominated.get(claim.name, 0.0) > now
        )
        pods = tuple(record.pods.values()) if record is not None else ()
        return NodeState(name, node, made, offering, pods, leaving, promised)

    def _resolved(self, claim: NodeClaim, node_class: NodeClass | None) -> tuple[Claim, Offering | None]:
        """The claim, with what its machine will be as long as none was launched: as roomy as the cheapest that will
        do, and against limits as large as any."""
        made = _read(claim)
        known = self.catalog.known(node_class) if node_class is not None else []
        key = tuple(made.labels.get(each, "") for each in (names.INSTANCE_TYPE, names.ZONE, names.CAPACITY_TYPE))
        offering = next((each for each in known if each.key == key), None)
        if made.allocatable:
            return made, offering
        if offering is not None:  # launched; what it has is written after its labels
            return replace(made, allocatable=offering.allocatable, capacity=offering.capacity), offering
        able = matching(claim, known)
        if not able:
            return made, None
        most = {
            name: max(each.capacity.get(name, 0) for each in able)
            for name in {key for each in able for key in each.capacity}
        }
        return replace(made, allocatable=able[0].allocatable, capacity=most), able[0]

    def claim(self, name: str) -> Claim | None:
        """As it is by now."""
        found = next((each for each in self.all_claims() if each.name == name), None)
        return _read(found) if found is not None else None

    def pod_budgets(self) -> Sequence[PodBudget]:
        return [PodBudget.of(each) for each in self.budgets.lister.list()]

    def waiting(self) -> Sequence[PodInfo]:
        """Pods that wait for room: refused by the scheduler, on no node."""
        return [PodInfo(each) for each in self.pods.lister.list() if is_provisionable(each)]

    def homeless(self, world: World) -> list[PodInfo]:
        """Pods of nodes that are on their way out: they will wait for room soon."""
        return [info for state in world.nodes if state.marked for info in movable(state)]

    def solve(self, world: World, pods: Sequence[PodInfo], *, without: Collection[str] = ()) -> Outcome:
        """See `Solver.solve`."""
        self._solver.set_daemons(self.daemons.lister.list())
        return self._solver.solve(world, pods, without=without)


def _read(claim: NodeClaim) -> Claim:
    """Requirements that make no sense, which the API server refuses, count as none."""
    try:
        return claim_of(claim)
    except ValueError:
        bare = msgspec.structs.replace(claim.spec, requirements=[])
        return claim_of(msgspec.structs.replace(claim, spec=bare))


def is_ours(claim: NodeClaim) -> bool:
    """Whether its node class is one of this cloud."""
    reference = claim.spec.nodeClassRef
    return reference.group == names.CLOUD_GROUP and reference.kind == CLASS_KIND


def matching(claim: NodeClaim, offerings: Iterable[Offering]) -> list[Offering]:
    """Offerings that a claim accepts, the cheapest first."""
    try:
        demands = demands_of(claim.spec.requirements)
    except ValueError:
        return []
    requests = resources.amounts(claim.spec.resources.requests)
    able = [
        each
        for each in offerings
        if all(demand.allows(each.labels[demand.key]) for demand in demands if demand.key in each.labels)
        and all(amount <= each.allocatable.get(name, 0) for name, amount in requests.items())
    ]
    return sorted(able, key=lambda each: (each.price, *each.key))
