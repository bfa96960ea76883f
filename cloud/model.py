"""What the cloud knows: instance types, node groups, instances, money. Plain data, as kept in its state file.

Owns shapes and units. Instants are cluster seconds since the epoch (wall seconds times the time scale), so that every
delay, and every cent, follows the cluster's own time. Decides nothing (`cloud.core` does).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cloud.volumes_model import Volume
from machinery import quantity

PROVIDER = "nanokube"
REGION = "local"
ZONES = ("local-a", "local-b", "local-c")
GROUP_LABEL = "nanokube.io/node-group"
SPOT_LABEL = "nanokube.io/capacity-type"
TYPE_LABEL = "node.kubernetes.io/instance-type"
ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"

CPU_PRICE, GIB_PRICE = 0.0316, 0.0042  # dollars per hour of a core and of a GiB, as clouds ask for general machines
MACHINES = "machines"  # the group, in name only, of machines that were ordered one by one
SPOT, ON_DEMAND = "spot", "on-demand"
SPOT_FACTOR = 0.3  # of the price on demand

MAX_REAL = 200  # machines with an address on the underlay

Failure = Literal["", "out-of-capacity", "never-boots", "never-joins", "dies"]
Phase = Literal["pending", "launching", "running", "deleting", "gone"]
FAILURES: tuple[Failure, ...] = ("out-of-capacity", "never-boots", "never-joins", "dies")


class InstanceType(msgspec.Struct, omit_defaults=True):
    """A size of machine. `price`: dollars per hour."""

    name: str
    cpu: str
    memory: str
    maxPods: int = 110
    pricePerHour: float = 0.0


class Taint(msgspec.Struct, omit_defaults=True, frozen=True):
    """core/v1 Taint."""

    key: str
    effect: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


class Fault(msgspec.Struct, omit_defaults=True):
    """What goes wrong with the next `count` launches of a group (-1: all of them).

    `after`: seconds from running to death, for `dies`.
    """

    mode: Failure = ""
    count: int = -1
    after: float = 0.0


class SpotMarket(msgspec.Struct, omit_defaults=True):
    """How spot machines are taken away: `interruptions` per machine and hour, at random, `notice` seconds ahead.

    The same `seed` gives machines of the same names and instants the same lives. `draws`: how often lots were
    drawn anew.
    """

    interruptions: float = 0.0
    notice: float = 120.0
    seed: int = 0
    draws: int = 0


class Autoscaling(msgspec.Struct, omit_defaults=True):
    """What an autoscaler shall do differently with a group's nodes; None: as it does with others. Times are seconds."""

    scaleDownUtilizationThreshold: float | None = None
    scaleDownUnneededTime: float | None = None
    scaleDownUnreadyTime: float | None = None
    maxNodeProvisionTime: float | None = None
    maxNodeStartupTime: float | None = None
    ignoreDaemonSetsUtilization: bool | None = None


class Group(msgspec.Struct, omit_defaults=True):
    """A node group: a launch template and how many machines there shall be.

    `bootDelay` and `healAfter` are seconds; 0 for the latter: failed machines are not replaced. `prefix`: instances are
    called PREFIX-1, PREFIX-2, … `interruptions`: per machine and hour, instead of the spot market's.
    """

    name: str
    type: str
    min: int
    max: int
    desired: int
    prefix: str
    hollow: bool = False
    spot: bool = False
    zones: list[str] = []
    labels: dict[str, str] = {}
    taints: list[Taint] = []
    bootDelay: float = 0.0
    healAfter: float = 0.0
    fault: Fault = msgspec.field(default_factory=Fault)
    next: int = 1
    interruptions: float | None = None
    autoscaling: Autoscaling = msgspec.field(default_factory=Autoscaling)


class Problem(msgspec.Struct, frozen=True):
    """Why an instance could not be had: `out_of_resources` as cluster-autoscaler's error class 1, or another."""

    code: str
    message: str
    out_of_resources: bool = False


class SingleOrder(msgspec.Struct, omit_defaults=True):
    """What is known of a machine that was ordered by itself. `token`: the same one never gets a second machine."""

    token: str
    labels: dict[str, str] = {}
    taints: list[Taint] = []
    tags: dict[str, str] = {}
    bootDelay: float = 0.0


class Outage(msgspec.Struct, omit_defaults=True):
    """What cannot be launched singly; "" in a part: all. `until`: an instant, None for until further notice."""

    type: str = ""
    zone: str = ""
    capacityType: str = ""
    until: float | None = None

    def covers(self, type_: str, zone: str, capacity_type: str) -> bool:
        return self.type in ("", type_) and self.zone in ("", zone) and self.capacityType in ("", capacity_type)


class Instance(msgspec.Struct, omit_defaults=True):
    """One machine of a group, or ordered by itself (`order`), from request to end; `price`: per hour while it runs.

    `launched` and `ended` bound what is paid for. `sick`: since when it has been seen broken. `notice`: when it will be
    taken away, after a spot interruption notice; `interruptAt`: when the spot market will give that notice.
    """

    name: str
    group: str
    type: str
    zone: str
    price: float
    created: float
    phase: Phase = "pending"
    launched: float | None = None
    ended: float | None = None
    sick: float | None = None
    notice: float | None = None
    reason: str = ""
    problem: Problem | None = None
    retryAt: float = 0.0
    fault: Failure = ""
    dieAt: float | None = None
    hollow: bool = False
    spot: bool = False
    interruptAt: float | None = None
    order: SingleOrder | None = None

    @property
    def counts(self) -> bool:
        """Whether it is part of what the group wants to have."""
        return self.phase in ("pending", "launching", "running") and self.notice is None

    @property
    def exists(self) -> bool:
        """Whether there is, or may be, a machine."""
        return self.phase in ("launching", "running", "deleting")


class State(msgspec.Struct, omit_defaults=True):
    """Everything. `spent`: dollars by group, of instances that are forgotten; `volumesSpent`: of deleted volumes."""

    cluster: str
    since: float
    groups: dict[str, Group] = {}
    instances: dict[str, Instance] = {}
    types: dict[str, InstanceType] = {}
    spent: dict[str, float] = {}
    volumes: dict[str, Volume] = {}
    volumesSpent: float = 0.0
    nextVolume: int = 0
    market: SpotMarket = msgspec.field(default_factory=SpotMarket)
    outages: list[Outage] = []
    machineFault: Fault = msgspec.field(default_factory=Fault)
    nextMachine: int = 1

    def group_of(self, instance: Instance) -> Group | None:
        """Its group; of a machine ordered by itself one that stands for the order."""
        if instance.order is None:
            return self.groups.get(instance.group)
        order = instance.order
        return Group(
            name=MACHINES,
            type=instance.type,
            min=0,
            max=1,
            desired=1,
            prefix="",
            hollow=instance.hollow,
            spot=instance.spot,
            zones=[instance.zone],
            labels=order.labels,
            taints=order.taints,
            bootDelay=order.bootDelay,
        )

    def of(self, group: str) -> list[Instance]:
        """The instances of a group, gone ones too."""
        return [each for each in self.instances.values() if each.group == group]


class Health(msgspec.Struct, frozen=True):
    """What is seen of a machine. `group` is the one it was made for, "" when it was made for none."""

    group: str = ""
    healthy: bool = True


def price_of(cpu: str, memory: str) -> float:
    """Dollars per hour of a machine of this size."""
    cores, gib = quantity.milli(cpu) / 1000, quantity.value(memory) / (1 << 30)
    return round(cores * CPU_PRICE + gib * GIB_PRICE, 4)


def instance_type(cpu: str, memory: str, max_pods: int = 110, name: str = "") -> InstanceType:
    """A type by its size; the standard ones are called after it."""
    gib = f"{quantity.value(memory) / (1 << 30):g}"
    cores = f"{quantity.milli(cpu) / 1000:g}"
    return InstanceType(name or f"standard-{cores}x{gib}", cpu, memory, max_pods, price_of(cpu, memory))


def standard_types() -> dict[str, InstanceType]:
    """What every cloud offers."""
    sizes = ((1, 1), (1, 2), (2, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32), (16, 64), (32, 128))
    return {each.name: each for cpu, gib in sizes for each in [instance_type(str(cpu), f"{gib}Gi")]}


def node_labels(group: Group, zone: str) -> dict[str, str]:
    """The labels by which a node tells what machine it is."""
    return {
        TYPE_LABEL: group.type,
        ZONE_LABEL: zone,
        REGION_LABEL: REGION,
        GROUP_LABEL: group.name,
        **({SPOT_LABEL: "spot"} if group.spot else {}),
        **group.labels,
    }


def provider_id(cluster: str, instance: str) -> str:
    """`nanokube://CLUSTER/INSTANCE`: what spec.providerID of a Node says."""
    return f"{PROVIDER}://{cluster}/{instance}"


def instance_of(provider: str, cluster: str) -> str:
    """The instance that a providerID names, "" when it is not one of this cloud."""
    prefix = provider_id(cluster, "")
    return provider.removeprefix(prefix) if provider.startswith(prefix) else ""
