"""What decisions are made from: what the cloud offers, pools, claims, and nodes with their pods. Plain and frozen.

Owns shapes and units. Amounts are the scheduler's: milli-CPU, bytes, counts. Durations are cluster seconds, None for
Never; instants are wall time. Prices are dollars per hour. Made by `world` from caches and by tests by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from api.models import core_v1
from nodepool_autoscaler import names
from nodepool_autoscaler.requirements import Requirement
from scheduler.framework.pod_info import PodInfo

Amounts = Mapping[str, int]
NODES = "nodes"
"""The resource under which limits count nodes."""
DisruptionReason = Literal["Underutilized", "Empty", "Drifted"]
ConsolidationPolicy = Literal["WhenEmpty", "WhenEmptyOrUnderutilized"]


@dataclass(frozen=True, slots=True)
class Offering:
    """An instance type in a zone, bought in one way. `labels`: all that its nodes bear because of it."""

    instance_type: str
    zone: str
    capacity_type: str
    price: float
    capacity: Amounts
    allocatable: Amounts
    labels: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.instance_type, self.zone, self.capacity_type

    def __str__(self) -> str:
        return f"{self.instance_type} {self.capacity_type} in {self.zone}"


@dataclass(frozen=True, slots=True)
class Budget:
    """`nodes`: a count or a percentage. `schedule` (cron, UTC) and `duration` (seconds) come together, or neither."""

    nodes: str = "10%"
    schedule: str | None = None
    duration: float | None = None
    reasons: tuple[DisruptionReason, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """A NodePool. `hash`: of its template, as its claims carry it. `not_ready`: why it takes no part, "" if it does."""

    name: str
    uid: str = ""
    weight: int = 0
    node_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    startup_taints: tuple[core_v1.Taint, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    limits: Amounts = field(default_factory=dict)
    expire_after: float | None = None
    termination_grace: float | None = None
    consolidation_policy: ConsolidationPolicy = "WhenEmptyOrUnderutilized"
    consolidate_after: float | None = 0.0
    budgets: tuple[Budget, ...] = (Budget(),)
    hash: str = ""
    not_ready: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Of a claim or pool; `since`: its last transition."""

    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A NodeClaim."""

    name: str
    created: datetime
    uid: str = ""
    pool: str = ""
    node_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    startup_taints: tuple[core_v1.Taint, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    provider_id: str = ""
    node_name: str = ""
    capacity: Amounts = field(default_factory=dict)
    allocatable: Amounts = field(default_factory=dict)
    expire_after: float | None = None
    termination_grace: float | None = None
    last_pod_event: datetime | None = None
    deleting: bool = False

    def is_true(self, condition: str) -> bool:
        found = self.conditions.get(condition)
        return found is not None and found.status == "True"

    @property
    def initialized(self) -> bool:
        return self.is_true(names.INITIALIZED_CONDITION)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node, a claim that has none yet, or both. `name`: the Node's, else the claim's.

    `offering`: what it was launched as; None for nodes that are not ours, or that the cloud offers no more. `pods`: all
    on the node. `marked`: on its way out, so neither room nor candidate. `nominated`: pods were promised to it of late.
    """

    name: str
    node: core_v1.Node | None = None
    claim: Claim | None = None
    offering: Offering | None = None
    pods: tuple[PodInfo, ...] = ()
    marked: bool = False
    nominated: bool = False

    @property
    def pool(self) -> str:
        return self.claim.pool if self.claim is not None else ""

    @property
    def price(self) -> float:
        return self.offering.price if self.offering is not None else 0.0

    @property
    def initialized(self) -> bool:
        """Whether pods can run there; nodes that are not ours are as the scheduler sees them."""
        return self.node is not None and (self.claim is None or self.claim.initialized)

    @property
    def capacity(self) -> Amounts:
        return self.claim.capacity if self.claim is not None else {}


@dataclass(frozen=True, slots=True)
class World:
    """One look. `offerings`: by node class, those that may be had now; `class_hashes`: of each class, as claims of it
    carry it."""

    now: datetime
    nodes: tuple[NodeState, ...] = ()
    pools: tuple[Pool, ...] = ()
    offerings: Mapping[str, tuple[Offering, ...]] = field(default_factory=dict)
    class_hashes: Mapping[str, str] = field(default_factory=dict)

    def pool(self, name: str) -> Pool | None:
        return next((each for each in self.pools if each.name == name), None)


@dataclass(frozen=True, slots=True)
class PlannedClaim:
    """A claim to be made. `offerings`: all that fit its pods, the cheapest first; `requests`: of pods and daemons."""

    pool: Pool
    pods: tuple[PodInfo, ...]
    offerings: tuple[Offering, ...]
    requirements: tuple[Requirement, ...]
    labels: Mapping[str, str]
    requests: Amounts

    @property
    def price(self) -> float:
        """Of the offering that is launched if the cloud has it."""
        return self.offerings[0].price

    @property
    def instance_types(self) -> tuple[str, ...]:
        """The cheapest first."""
        return tuple(dict.fromkeys(each.instance_type for each in self.offerings))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where pods would go. `placed`: name of the NodeState by uid; `errors`: why a pod fits nowhere, by uid.

    `refusals`: for pods that needed or lacked a new node, by uid and pool, why offerings were refused.
    """

    placed: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[PlannedClaim, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def price(self) -> float:
        """Of all new claims together."""
        return sum(each.price for each in self.claims)
