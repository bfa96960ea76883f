"""NodePools, NodeClaims and node classes as they are read from the API, and what decisions make of them.

Owns names of fields and the reading of durations and quantities. Fields carry the API's own names; what is not read is
skipped. Nothing here fails on odd values: what cannot be read is told as the reason why a pool is not ready.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from api.models import core_v1, meta_v1
from api.resources import Resource, Subresource
from client.kinds import View
from nodepool_autoscaler import names
from nodepool_autoscaler.disruption.drift import template_hash
from nodepool_autoscaler.model import NODES, Budget, Claim, Condition, Pool
from nodepool_autoscaler.requirements import Requirement
from scheduler.framework import resources as amounts

_STATUS = {"status": Subresource("")}
NODE_POOLS: Final = Resource(names.GROUP, names.VERSION, "nodepools", "NodePool", False, subresources=_STATUS)
NODE_CLAIMS: Final = Resource(names.GROUP, names.VERSION, "nodeclaims", "NodeClaim", False, subresources=_STATUS)
NODE_CLASSES: Final = Resource(
    names.CLOUD_GROUP, names.VERSION, "nanokubenodeclasses", "NanokubeNodeClass", False, subresources=_STATUS
)
CLASS_KIND: Final = NODE_CLASSES.kind
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST: Final = float(2**63 // 10**9)  # 292 years: the longest duration that upstream can read


def seconds(text: str | None) -> float | None:
    """Of a duration, 292 years at most; None for Never, for nothing, and for what is none."""
    if not text or _PART.sub("", text):
        return None
    return min(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), _LONGEST)


def reference_to(obj: NodePool | NodeClaim) -> core_v1.ObjectReference:
    """What an event is about."""
    name, uid = obj.metadata.name, obj.metadata.uid
    return core_v1.ObjectReference(apiVersion=obj.apiVersion, kind=obj.kind, name=name, uid=uid)


class ClassRef(msgspec.Struct):
    group: str = ""
    kind: str = ""
    name: str = ""


class RequirementSpec(msgspec.Struct, omit_defaults=True):
    key: str
    operator: str
    values: list[str] = []
    minValues: int | None = None


class NodeSpec(msgspec.Struct, omit_defaults=True):
    """What the spec of a claim and a pool's template have in common."""

    nodeClassRef: ClassRef = msgspec.field(default_factory=ClassRef)
    requirements: list[RequirementSpec] = []
    taints: list[core_v1.Taint] = []
    startupTaints: list[core_v1.Taint] = []
    expireAfter: str | None = None
    terminationGracePeriod: str | None = None


class TemplateMeta(msgspec.Struct, omit_defaults=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Template(msgspec.Struct, omit_defaults=True):
    metadata: TemplateMeta = msgspec.field(default_factory=TemplateMeta)
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)


class BudgetSpec(msgspec.Struct):
    nodes: str = "10%"
    reasons: list[str] = []
    schedule: str | None = None
    duration: str | None = None


class Disruption(msgspec.Struct):
    consolidateAfter: str = "0s"
    consolidationPolicy: str = "WhenEmptyOrUnderutilized"
    budgets: list[BudgetSpec] = msgspec.field(default_factory=lambda: [BudgetSpec()])


class PoolSpec(msgspec.Struct):
    template: Template = msgspec.field(default_factory=Template)
    disruption: Disruption = msgspec.field(default_factory=Disruption)
    limits: dict[str, str | int | float] = {}
    weight: int | None = None


class ConditionStatus(msgspec.Struct):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    lastTransitionTime: datetime | None = None
    observedGeneration: int | None = None


class PoolStatus(msgspec.Struct):
    resources: dict[str, str | int | float] = {}
    conditions: list[ConditionStatus] = []
    nodeClassObservedGeneration: int | None = None


class NodePool(msgspec.Struct):
    """karpenter.sh/v1 NodePool."""

    metadata: meta_v1.ObjectMeta
    spec: PoolSpec = msgspec.field(default_factory=PoolSpec)
    status: PoolStatus = msgspec.field(default_factory=PoolStatus)
    apiVersion: str = f"{names.GROUP}/{names.VERSION}"
    kind: str = "NodePool"


class Requested(msgspec.Struct):
    requests: dict[str, str | int | float] = {}


class ClaimSpec(NodeSpec):
    resources: Requested = msgspec.field(default_factory=Requested)


class ClaimStatus(msgspec.Struct):
    providerID: str = ""
    nodeName: str = ""
    imageID: str = ""
    capacity: dict[str, str | int | float] = {}
    allocatable: dict[str, str | int | float] = {}
    conditions: list[ConditionStatus] = []
    lastPodEventTime: datetime | None = None


class NodeClaim(msgspec.Struct):
    """karpenter.sh/v1 NodeClaim."""

    metadata: meta_v1.ObjectMeta
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: ClaimStatus = msgspec.field(default_factory=ClaimStatus)
    apiVersion: str = f"{names.GROUP}/{names.VERSION}"
    kind: str = "NodeClaim"

    @property
    def name(self) -> str:
        return str(self.metadata.name or "")

    @property
    def pool(self) -> str:
        return str((self.metadata.labels or {}).get(names.NODE_POOL, ""))

    def condition(self, kind: str) -> ConditionStatus | None:
        return next((each for each in self.status.conditions if each.type == kind), None)

    def is_true(self, kind: str) -> bool:
        found = self.condition(kind)
        return found is not None and found.status == "True"


class ClassSpec(msgspec.Struct):
    machines: str = "Real"
    bootDelay: str = "5s"
    zones: list[str] = []
    instanceTypes: list[str] = []


class ClassStatus(msgspec.Struct):
    conditions: list[ConditionStatus] = []


class NodeClass(msgspec.Struct):
    """cloud.nanokube.io/v1 NanokubeNodeClass."""

    metadata: meta_v1.ObjectMeta
    spec: ClassSpec = msgspec.field(default_factory=ClassSpec)
    status: ClassStatus = msgspec.field(default_factory=ClassStatus)
    apiVersion: str = f"{names.CLOUD_GROUP}/{names.VERSION}"
    kind: str = "NanokubeNodeClass"

    @property
    def hollow(self) -> bool:
        return self.spec.machines == "Hollow"


POOLS: Final = View(NODE_POOLS, NodePool)
CLAIMS: Final = View(NODE_CLAIMS, NodeClaim)
CLASSES: Final = View(NODE_CLASSES, NodeClass)


def demands_of(specs: Iterable[RequirementSpec]) -> tuple[Requirement, ...]:
    """Raises ValueError for what the API server's rules would not have let in."""
    return tuple(Requirement.of(each.key, each.operator, each.values, each.minValues) for each in specs)


def _limits(listed: Mapping[str, Any]) -> dict[str, int]:
    found = amounts.amounts(listed)
    if NODES in listed:
        found[NODES] = amounts.amounts({amounts.PODS: listed[NODES]})[amounts.PODS]  # counts, as pods are
    return found


def hash_of(pool: NodePool) -> str:
    """Of the template, as pools and claims carry it."""
    return template_hash(msgspec.to_builtins(pool.spec.template))


def pool_of(pool: NodePool, not_ready: str = "") -> Pool:
    """What decisions are made from."""
    spec, template = pool.spec, pool.spec.template
    demands: tuple[Requirement, ...] = ()
    try:
        demands = demands_of(template.spec.requirements)
    except ValueError as error:
        not_ready = not_ready or f"requirements: {error}"
    return Pool(
        name=pool.metadata.name or "",
        uid=pool.metadata.uid or "",
        weight=spec.weight or 0,
        node_class=template.spec.nodeClassRef.name,
        labels={**template.metadata.labels, names.NODE_CLASS: template.spec.nodeClassRef.name},
        annotations=template.metadata.annotations,
        taints=tuple(template.spec.taints),
        startup_taints=tuple(template.spec.startupTaints),
        requirements=demands,
        limits=_limits(spec.limits),
        expire_after=seconds(template.spec.expireAfter),
        termination_grace=seconds(template.spec.terminationGracePeriod),
        consolidation_policy="WhenEmpty"
        if spec.disruption.consolidationPolicy == "WhenEmpty"
        else "WhenEmptyOrUnderutilized",
        consolidate_after=seconds(spec.disruption.consolidateAfter),
        budgets=tuple(
            Budget(each.nodes, each.schedule, seconds(each.duration), tuple(each.reasons))  # type: ignore[arg-type]
            for each in spec.disruption.budgets
        ),
        hash=hash_of(pool),
        not_ready=not_ready,
        deleting=pool.metadata.deletionTimestamp is not None,
    )


def claim_of(claim: NodeClaim) -> Claim:
    """What decisions are made from. Raises ValueError for requirements that are none."""
    metadata, spec, status = claim.metadata, claim.spec, claim.status
    created = metadata.creationTimestamp
    assert created is not None, "objects of the API have one"
    return Claim(
        name=claim.name,
        created=created,
        uid=metadata.uid or "",
        pool=claim.pool,
        node_class=spec.nodeClassRef.name,
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
        taints=tuple(spec.taints),
        startup_taints=tuple(spec.startupTaints),
        requirements=demands_of(spec.requirements),
        conditions={
            each.type: Condition(each.status, each.reason, each.message, each.lastTransitionTime)
            for each in status.conditions
        },
        provider_id=status.providerID,
        node_name=status.nodeName,
        capacity=amounts.amounts(status.capacity),
        allocatable=amounts.amounts(status.allocatable),
        expire_after=seconds(spec.expireAfter),
        termination_grace=seconds(spec.terminationGracePeriod),
        last_pod_event=status.lastPodEventTime,
        deleting=metadata.deletionTimestamp is not None,
    )
