"""The simulated world below the decisions: machines that boot, nodes that join, pods that start, and what is too few.

Owns what happens by time alone. Which machines there are is `cloud.core`'s decision, where pods run is the scheduler's
framework's, which pods go is the ReplicaSet controller's plan.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec

from api import codec
from api.models import core_v1, meta_v1
from cloud.core import Core
from cloud.model import Fault, Group, Health, Instance, Outage, State, node_labels, provider_id, standard_types
from cloud.orders import PREFIX, Orders
from cloud.requests import Requests
from cloud.template import template_node
from cluster_autoscaler.node_facts import TO_BE_DELETED
from controller_manager.replicaset.plan import plan_replicas
from machinery.clock import VirtualClock
from scheduler.framework.framework import Framework
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.plugins.registry import default_entries

JOIN = 20.0  # seconds from a machine's start to its Ready node
START = 8.0  # from a pod's node to Ready
NODE_GRACE = 50.0  # node-monitor-grace-period
TOLERATION = 300.0  # of pods on unreachable nodes
DISK = 64 << 30
UNREACHABLE = "node.kubernetes.io/unreachable"
INTERRUPTION = "nanokube.io/spot-interruption"
CORES = 1.0  # that one pod requests, and may use
REFUSED = core_v1.PodStatus(
    phase="Pending",
    conditions=[core_v1.PodCondition(type="PodScheduled", status="False", reason="Unschedulable")],
)


class SimulatedClock(VirtualClock):
    """Goes where it is put; nobody waits for it."""

    def put(self, seconds: float) -> None:
        self._elapsed = seconds


@dataclass
class Machine:
    """What the cloud has started: `joins` is when its node is Ready, `lost` since when it does not answer."""

    group: str
    joins: float
    lost: float | None = None


@dataclass
class Counters:
    """What a report adds up."""

    nodes_added: int = 0
    nodes_removed: int = 0
    interruptions: int = 0
    evicted: int = 0


@dataclass
class Site:
    """One cluster in one cloud. `version` changes with everything that a decision about nodes could depend on."""

    seed: int = 1
    replicas: int = 2
    boot: float = 60.0  # seconds, of machines that are ordered one by one
    version: int = 0
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    snapshot: ClusterSnapshot = field(default_factory=ClusterSnapshot)
    nodes: dict[str, core_v1.Node] = field(default_factory=dict)
    pods: dict[str, core_v1.Pod] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    dead_zones: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.core = Core(State("sim", 0.0, types=standard_types()))
        self.requests = Requests(self.core)
        self._orders = Orders(self.core)
        self.framework = Framework(default_entries(), rng=random.Random(self.seed))
        self._starting: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._ready: set[str] = set()
        self._made = 0
        self._stir = True
        self._templates: dict[str, core_v1.Node] = {}

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    @property
    def waiting(self) -> list[core_v1.Pod]:
        """Pods without a node."""
        return [self.pods[name] for name in sorted(self._waiting)]

    @property
    def working(self) -> int:
        """Pods that answer: Ready, on a machine that is alive."""
        if not self.dead_zones:
            return len(self._ready)
        lost = {name for name, machine in self.machines.items() if machine.lost is not None}
        return sum(self.home(name) not in lost for name in self._ready)

    def home(self, pod: str) -> str:
        spec = self.pods[pod].spec
        return (spec.nodeName if spec is not None else None) or ""

    def answering(self) -> list[str]:
        """Names of the pods that work."""
        lost = {name for name, machine in self.machines.items() if machine.lost is not None}
        return [name for name in self._ready if self.home(name) not in lost]

    def template(self, group: Group) -> core_v1.Node:
        """The cloud's template of a node of the group."""
        key = f"{group.name}/{group.type}"
        known = self._templates.get(key)
        if known is None:
            plain = template_node(group, self.core.state.types[group.type], DISK)
            del plain["status"]["nodeInfo"]  # the typed model wants it whole
            known = self._templates[key] = codec.decode(codec.encode(plain), core_v1.Node)
        return known

    # ---- time ----

    def step(self, now: float) -> None:
        """Everything that falls due until `now`, which is later than ever before."""
        self.clock.put(now)
        self._run_cloud()
        self._run_nodes()
        for name, due in list(self._starting.items()):
            if now >= due:
                del self._starting[name]
                self._become_ready(self.pods[name])
        if self._waiting:
            self._schedule()

    def wake(self) -> None:
        """The cloud was asked for something."""
        self._stir = True

    def _run_cloud(self) -> None:
        """A pass, unless nothing is under way."""
        now, state = self.now, self.core.state
        due = any(
            each.phase in ("pending", "launching", "deleting")
            or each.sick is not None
            or each.notice is not None
            or (each.interruptAt is not None and now >= each.interruptAt)
            for each in state.instances.values()
            if each.phase != "gone"
        )
        if not (due or self._stir):
            return
        self._stir = False
        seen = {name: Health(each.group, each.lost is None) for name, each in self.machines.items()}
        noticed = {each.name for each in state.instances.values() if each.notice is not None}
        for effect in self.core.tick(now, seen):
            instance = state.instances[effect.instance]
            if effect.verb == "launch":
                if instance.zone in self.dead_zones:
                    self.core.failed(effect, now, "the zone is down", out_of_resources=True)
                    continue
                self.machines[instance.name] = Machine(instance.group, now + JOIN)
                self.counters.nodes_added += 1
            elif effect.verb == "terminate":
                self.machines.pop(instance.name, None)
                self._remove_node(instance.name)
                self.counters.nodes_removed += 1
            self.core.done(effect, now)
            self._stir = True
        for instance in list(state.instances.values()):
            if instance.notice is not None and instance.name not in noticed:
                self.counters.interruptions += 1
                self._taint(instance.name, INTERRUPTION, "NoSchedule")
                self.evict(instance.name)

    def _run_nodes(self) -> None:
        for name, machine in self.machines.items():
            if machine.lost is None and name not in self.nodes and self.now >= machine.joins:
                self._join(name, machine)
            if machine.lost is None or name not in self.nodes:
                continue
            gone = self.now - machine.lost
            if gone >= NODE_GRACE and not self._has_taint(name, UNREACHABLE):
                self._lose(name)
            if gone >= NODE_GRACE + TOLERATION:
                self.evict(name)

    # ---- accidents ----

    def fail_zone(self, zone: str) -> None:
        """All its machines die, and no new one can be had there."""
        self.dead_zones.add(zone)
        for name, instance in self.core.state.instances.items():
            if instance.zone == zone and name in self.machines:
                self.machines[name].lost = self.now
        for group in self.core.state.groups.values():
            if group.zones == [zone]:
                self.requests.fail(group, Fault("out-of-capacity"))
        self._orders.set_outage(Outage(zone=zone), over=False, now=self.now)
        self._changed()
        self.wake()

    def restore_zone(self, zone: str) -> None:
        """Machines can be had there again, and those that nobody has taken away go on."""
        self.dead_zones.discard(zone)
        for name, machine in self.machines.items():
            if machine.lost is not None and self.core.state.instances[name].zone == zone:
                machine.lost = None
                self._recover(name)
        for group in self.core.state.groups.values():
            if group.zones == [zone]:
                self.requests.fail(group, Fault())
        self._orders.set_outage(Outage(zone=zone), over=True, now=self.now)
        self._changed()

    # ---- nodes ----

    def _join(self, name: str, machine: Machine) -> None:
        instance = self.core.state.instances[name]
        group = self.core.state.groups.get(machine.group) or _single(instance)
        template = self.template(group)
        assert template.status is not None
        made = core_v1.Node(
            metadata=meta_v1.ObjectMeta(
                name=name,
                labels={"kubernetes.io/hostname": name, **node_labels(group, instance.zone)},
                creationTimestamp=self.clock.now(),
            ),
            spec=core_v1.NodeSpec(providerID=provider_id("sim", name)),
            status=msgspec.structs.replace(
                template.status, conditions=[core_v1.NodeCondition(type="Ready", status="True")]
            ),
        )
        self._set_node(made)

    def _lose(self, name: str) -> None:
        """The node lifecycle controller notices."""
        self._set_ready(name, "Unknown")
        self._taint(name, UNREACHABLE, "NoExecute")
        for pod in [each for each in self._ready if self.home(each) == name]:
            self._ready.discard(pod)
            self._condition(self.pods[pod], "False")

    def _recover(self, name: str) -> None:
        """A kubelet reports again; pods that are still there answer again."""
        if name not in self.nodes:
            return
        self._set_ready(name, "True")
        self._untaint(name, UNREACHABLE)
        for pod in [each for each in self.pods if self.home(each) == name and each not in self._starting]:
            self._become_ready(self.pods[pod])

    def _set_ready(self, name: str, status: str) -> None:
        node = self.nodes[name]
        assert node.status is not None
        ready = [core_v1.NodeCondition(type="Ready", status=status)]
        self._set_node(msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, conditions=ready)))

    def _taint(self, name: str, key: str, effect: str) -> None:
        node = self.nodes.get(name)
        if node is None or self._has_taint(name, key):
            return
        assert node.spec is not None
        taints = [*(node.spec.taints or ()), core_v1.Taint(key=key, effect=effect)]
        self._set_node(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, taints=taints)))

    def _has_taint(self, name: str, key: str) -> bool:
        spec = self.nodes[name].spec
        return any(each.key == key for each in (spec.taints if spec is not None else None) or ())

    def mark(self, name: str) -> None:
        """It is about to be taken away."""
        self._taint(name, TO_BE_DELETED, "NoSchedule")

    def unmark(self, name: str) -> None:
        """It stays after all."""
        self._untaint(name, TO_BE_DELETED)

    def _untaint(self, name: str, key: str) -> None:
        node = self.nodes.get(name)
        if node is not None and node.spec is not None:
            taints = [each for each in node.spec.taints or () if each.key != key]
            self._set_node(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, taints=taints)))

    def _set_node(self, node: core_v1.Node) -> None:
        assert node.metadata is not None and node.metadata.name is not None
        self.nodes[node.metadata.name] = node
        self.snapshot.set_node(node)
        self._changed()

    def _remove_node(self, name: str) -> None:
        self.evict(name)
        if self.nodes.pop(name, None) is not None:
            self.snapshot.remove_node(name)
        self._changed()

    def evict(self, node: str) -> None:
        """Its pods go; their controller makes others at once."""
        gone = [name for name in self.pods if self.home(name) == node]
        for name in gone:
            self._remove_pod(name)
        self.counters.evicted += len(gone)
        if gone:
            self.reconcile()

    # ---- pods ----

    def scale(self, replicas: int) -> None:
        self.replicas = replicas
        self.reconcile()

    def reconcile(self) -> None:
        """The ReplicaSet controller's pass."""
        pods = list(self.pods.values())
        plan = plan_replicas(self.replicas, pods, pods, self.clock.now())
        for pod in plan.delete:
            assert pod.metadata is not None and pod.metadata.name is not None
            self._remove_pod(pod.metadata.name)
        for _ in range(plan.create):
            self._create_pod()

    def _create_pod(self) -> None:
        self._made += 1
        name = f"web-{self._made}"
        amounts = {"cpu": f"{CORES:g}", "memory": "1Gi"}
        owner = meta_v1.OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="web", uid="web", controller=True)
        container = core_v1.Container(
            name="main", image="web", resources=core_v1.ResourceRequirements(requests=amounts, limits=amounts)
        )
        self.pods[name] = core_v1.Pod(
            metadata=meta_v1.ObjectMeta(
                name=name,
                namespace="default",
                uid=name,
                labels={"app": "web"},
                ownerReferences=[owner],
                creationTimestamp=self.clock.now(),
            ),
            spec=core_v1.PodSpec(containers=[container]),
            status=REFUSED,
        )
        self._waiting.add(name)
        self._changed()

    def _remove_pod(self, name: str) -> None:
        pod = self.pods.pop(name)
        self.snapshot.remove_pod(PodInfo.uid_of(pod))
        self._waiting.discard(name)
        self._starting.pop(name, None)
        self._ready.discard(name)
        self._changed()

    def _schedule(self) -> None:
        for name in sorted(self._waiting):
            pod = self.pods[name]
            decision = self.framework.schedule(PodInfo(pod), self.snapshot)
            if not decision.node:
                break  # all are alike: none of the others has room either
            assert pod.spec is not None
            pod.spec.nodeName = decision.node
            pod.status = core_v1.PodStatus(phase="Running", startTime=self.clock.now())
            self._condition(pod, "False")
            self.snapshot.add_pod(PodInfo(pod), decision.node)
            self._waiting.discard(name)
            self._starting[name] = self.now + START
            self._changed()

    def _become_ready(self, pod: core_v1.Pod) -> None:
        assert pod.metadata is not None and pod.metadata.name is not None
        machine = self.machines.get(self.home(pod.metadata.name))
        if machine is not None and machine.lost is None:
            self._ready.add(pod.metadata.name)
            self._condition(pod, "True")

    def _condition(self, pod: core_v1.Pod, status: str) -> None:
        assert pod.status is not None
        pod.status.conditions = [
            core_v1.PodCondition(type="Ready", status=status, lastTransitionTime=self.clock.now()),
        ]

    def _changed(self) -> None:
        self.version += 1


def _single(instance: Instance) -> Group:
    """The group of which a machine that was ordered by itself would be."""
    spot = instance.spot
    return Group(
        instance.group, instance.type, 0, 1, 1, PREFIX, hollow=instance.hollow, spot=spot, zones=[instance.zone]
    )
