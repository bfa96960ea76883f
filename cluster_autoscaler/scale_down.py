"""Which nodes nobody needs, since when, and which of them may go now. Pure but for its memory of earlier passes.

A node is unneeded when little of it is requested (or it has been unready for long), nothing holds its pods, and all of
them fit on other nodes, of which none is itself unneeded. `now` is cluster seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from api.models import core_v1
from cluster_autoscaler import drainability
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.cloud_view import CloudView, GroupView
from cluster_autoscaler.drainability import Drain, Exists
from cluster_autoscaler.options import Options
from cluster_autoscaler.scale_up import GIB, Resources
from cluster_autoscaler.simulation import Simulator
from machinery.clock import Clock
from scheduler.framework import resources
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.preemption import Budget


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node stays: cluster-autoscaler's word for it, and more in words."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A node that is to go. `empty`: nothing has to be moved first."""

    node: str
    group: str
    utilization: float
    moving: tuple[PodInfo, ...] = ()
    daemons: tuple[PodInfo, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.moving


@dataclass(slots=True)
class ScaleDown:
    """`verdicts`: why nodes stay, by name; `unneeded`: seconds since when, for those that may go one day."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    utilizations: dict[str, float] = field(default_factory=dict)
    unneeded: dict[str, float] = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pass knows. `busy`: nodes that are on their way out by our own hand; `sizes`: by group."""

    view: CloudView
    nodes: Sequence[core_v1.Node]
    budgets: Sequence[Budget]
    exists: Exists
    busy: frozenset[str] = frozenset()
    draining: int = 0
    leaving: Mapping[str, int] = field(default_factory=dict)
    allowed: bool = True
    why_not: str = ""


def utilization(node: core_v1.Node, pods: Sequence[PodInfo], ignore_daemons: bool, ignore_mirrors: bool) -> float:
    """The larger of the requested shares of CPU and memory. What is ignored counts neither as used nor as there."""
    offered = facts.allocatable(node)
    highest = 0.0
    for name in (resources.CPU, resources.MEMORY):
        there, used = offered.get(name, 0), 0
        for pod in pods:
            amount = pod.requests.get(name, 0)
            if (ignore_daemons and pod.owner[0] == "DaemonSet") or (ignore_mirrors and facts.is_mirror(pod.pod)):
                there -= amount
            else:
                used += amount
        if there > 0:
            highest = max(highest, used / there)
        elif used:
            highest = max(highest, 1.0)
    return highest


class ScaleDownPlanner:
    """Remembers since when nodes are unneeded or unready, and which were found unremovable lately."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._unneeded: dict[str, float] = {}
        self._unready: dict[str, float] = {}
        self._unremovable: dict[str, tuple[float, Verdict]] = {}

    def forget(self) -> None:
        """Nothing is known of how long nodes were unneeded any more."""
        self._unneeded.clear()

    def plan(self, now: float, simulator: Simulator, known: Facts) -> ScaleDown:
        """To be called inside a fork: pods of unneeded nodes stay moved in it."""
        result = ScaleDown()
        self._note_unready(now, known.nodes)
        candidates = [node for node in known.nodes if self._eligible(now, node, simulator, known, result)]
        # Those that were unneeded before come first: a plan that changes its mind at every pass never ripens.
        candidates.sort(key=lambda node: (self._unneeded.get(facts.name(node), now), facts.name(node)))
        removals = self._simulate(now, candidates, simulator, known, result)
        self._unneeded = {name: self._unneeded.get(name, now) for name in removals}
        result.unneeded = dict(self._unneeded)
        self._choose(now, removals, known, result)
        return result

    def _note_unready(self, now: float, nodes: Sequence[core_v1.Node]) -> None:
        unready = [facts.name(node) for node in nodes if not facts.is_ready(node)]
        self._unready = {name: self._unready.get(name, now) for name in unready}

    def _eligible(self, now: float, node: core_v1.Node, simulator: Simulator, known: Facts, result: ScaleDown) -> bool:
        name = facts.name(node)
        record = simulator.snapshot.record(name)
        group = known.view.groups.get(known.view.group_of.get(name, ""))
        verdict: Verdict | None = None
        lately = self._unremovable.get(name)
        if group is None:
            verdict = Verdict("NotAutoscaled", "the node belongs to no node group")
        elif name in known.busy or facts.is_being_deleted(node):
            verdict = Verdict("CurrentlyBeingDeleted")
        elif record is None:
            verdict = Verdict("NoNodeInfo")
        elif group.target - known.leaving.get(group.id, 0) <= group.group.min_size:
            verdict = self._smallest(group, group.target - known.leaving.get(group.id, 0))
        elif lately is not None and now < lately[0]:
            verdict = Verdict("RecentlyUnremovable", f"{lately[1].reason}: {lately[1].message}".rstrip(": "))
        elif facts.notes(node).get(facts.SCALE_DOWN_DISABLED) == "true":
            verdict = Verdict("ScaleDownDisabledAnnotation", f"annotated with {facts.SCALE_DOWN_DISABLED}")
        elif name in self._unready and not self._options.scale_down_unready_enabled:
            verdict = Verdict("ScaleDownUnreadyDisabled")
        else:
            used = utilization(
                node,
                [pod for pod in record.pods.values() if not pod.terminating],
                group.options.ignore_daemonsets_utilization,
                self._options.ignore_mirror_pods_utilization,
            )
            result.utilizations[name] = used
            threshold = group.options.utilization_threshold
            if name not in self._unready and used >= threshold:
                verdict = Verdict("NotUnderutilized", f"{used:.1%} is requested, the threshold is {threshold:.0%}")
        if verdict is not None:
            result.verdicts[name] = verdict
        return verdict is None

    def _simulate(
        self, now: float, candidates: Sequence[core_v1.Node], simulator: Simulator, known: Facts, result: ScaleDown
    ) -> dict[str, Removal]:
        """Take one after the other away; what had to move stays moved, onto nodes that stay."""
        removals: dict[str, Removal] = {}
        leaving = {*known.busy, *(facts.name(node) for node in known.nodes if facts.is_being_deleted(node))}
        targets: set[str] = set()
        non_empty = 0
        names = [facts.name(node) for node in known.nodes]
        self._unremovable = {name: each for name, each in self._unremovable.items() if now < each[0]}
        budgets = list(known.budgets)
        for node in candidates:
            name = facts.name(node)
            record = simulator.snapshot.record(name)
            assert record is not None
            if name in targets:
                result.verdicts[name] = Verdict("NotUnneededOtherReason", "pods of other nodes would move here")
                continue
            found = drainability.drain(record.pods.values(), self._options, known.exists, budgets)
            if found.blocking is not None:
                verdict = Verdict("BlockedByPod", f"{found.blocking.reason}: {found.blocking.message}")
                self._refuse(now, name, verdict, result)
                continue
            if found.moving and non_empty >= self._options.non_empty_candidates:
                result.verdicts[name] = Verdict("NotUnneededOtherReason", "enough other candidates are looked at")
                continue
            reached = self._move(found, name, simulator, names, leaving)
            if reached is None:
                self._refuse(now, name, Verdict("NoPlaceToMovePods", "its pods fit nowhere else"), result)
                continue
            non_empty += bool(found.moving)
            targets |= reached
            leaving.add(name)
            group = known.view.group_of[name]
            removals[name] = Removal(name, group, result.utilizations.get(name, 0.0), found.moving, found.daemons)
        return removals

    def _refuse(self, now: float, name: str, verdict: Verdict, result: ScaleDown) -> None:
        result.verdicts[name] = verdict
        self._unremovable[name] = (now + self._options.unremovable_recheck, verdict)

    @staticmethod
    def _move(
        found: Drain, name: str, simulator: Simulator, names: Sequence[str], leaving: set[str]
    ) -> set[str] | None:
        """Where the pods went; None, with nothing changed, when one fits nowhere."""
        snapshot = simulator.snapshot
        snapshot.fork()
        reached: set[str] = set()
        for pod in found.moving:
            snapshot.remove_pod(pod.uid)
        allowed = simulator.columns(names, {*leaving, name})
        for pod in found.moving:
            node = simulator.place(PodInfo(facts.without_node(pod.pod)), allowed)
            if not node:
                snapshot.revert()
                return None
            reached.add(node)
        snapshot.commit()
        return reached

    # --- which may go now ------------------------------------------------------------------------------------------

    def _choose(self, now: float, removals: Mapping[str, Removal], known: Facts, result: ScaleDown) -> None:
        options = self._options
        sizes = {
            name: min(view.target, sum(owner == name for owner in known.view.group_of.values()))
            - known.leaving.get(name, 0)
            for name, view in known.view.groups.items()
        }
        left = Resources.of([facts.allocatable(node) for node in known.nodes if facts.name(node) not in known.busy])
        by_name = {facts.name(node): node for node in known.nodes}
        room, drains = options.max_scale_down_parallelism - len(known.busy), known.draining
        for together in self._units(removals, known):
            group = known.view.groups[together[0].group]
            offered = _added(facts.allocatable(by_name[each.node]) for each in together)
            verdict = next(filter(None, (self._too_early(now, each, group) for each in together)), None)
            verdict = verdict or self._too_few(together, group, sizes[group.id], left, offered)
            if verdict is None and not known.allowed:
                verdict = Verdict("NotUnneededOtherReason", known.why_not)
            full = sum(not each.empty for each in together)
            busy = room <= 0 or (full and drains >= options.max_drain_parallelism)
            if verdict is None and busy and not group.options.zero_or_max:
                verdict = Verdict("NotUnneededOtherReason", "enough other nodes are being removed")
            if verdict is not None:
                result.verdicts.update({each.node: verdict for each in together})
                continue
            result.removals.extend(together)
            room -= len(together)
            drains += full
            sizes[group.id] -= len(together)
            left = Resources(
                left.nodes - len(together),
                left.cores - offered.get(resources.CPU, 0) / 1000,
                left.memory - offered.get(resources.MEMORY, 0),
            )

    def _units(self, removals: Mapping[str, Removal], known: Facts) -> list[list[Removal]]:
        """What goes together, in order: single nodes, and groups that have all nodes or none."""
        units: dict[str, list[Removal]] = {}
        for removal in sorted(removals.values(), key=lambda each: (not each.empty, self._unneeded[each.node])):
            whole = known.view.groups[removal.group].options.zero_or_max
            units.setdefault(f"group {removal.group}" if whole else removal.node, []).append(removal)
        return list(units.values())

    def _too_early(self, now: float, removal: Removal, group: GroupView) -> Verdict | None:
        unready = self._unready.get(removal.node)
        if unready is not None:
            if now - unready >= group.options.unready_time:
                return None
            waited = f"unready for {now - unready:.0f} s of {group.options.unready_time:.0f} s"
            return Verdict("NotUnreadyLongEnough", waited)
        since = now - self._unneeded[removal.node]
        if since >= group.options.unneeded_time:
            return None
        return Verdict("NotUnneededLongEnough", f"unneeded for {since:.0f} s of {group.options.unneeded_time:.0f} s")

    @staticmethod
    def _smallest(group: GroupView, size: int) -> Verdict:
        why = f"group {group.id} has {size} nodes, its minimum is {group.group.min_size}"
        return Verdict("NodeGroupMinSizeReached", why)

    def _too_few(
        self,
        together: Sequence[Removal],
        group: GroupView,
        size: int,
        left: Resources,
        offered: Mapping[str, int],
    ) -> Verdict | None:
        if group.options.zero_or_max and len(together) < max(size, group.target):
            why = f"{len(together)} of {max(size, group.target)} nodes are unneeded, and the group has all or none"
            return Verdict("AtomicScaleDownFailed", why)
        if size - len(together) < group.group.min_size:
            return self._smallest(group, size)
        options = self._options
        if left.cores - offered.get(resources.CPU, 0) / 1000 < options.cores_total[0]:
            return Verdict("MinimalResourceLimitExceeded", "cores of the cluster")
        if left.memory - offered.get(resources.MEMORY, 0) < options.memory_total[0] * GIB:
            return Verdict("MinimalResourceLimitExceeded", "memory of the cluster")
        return None


def _added(offered: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in offered:
        for name, amount in each.items():
            total[name] = total.get(name, 0) + amount
    return total


class Cooldown:
    """When something was last added, taken away or failed: nothing is taken away right after."""

    def __init__(self, options: Options, start: float) -> None:
        self._options = options
        # As upstream: a fresh process takes it that the last of each was an hour ago.
        self.added = self.deleted = self.failed = start - 3600.0

    def check(self, now: float) -> tuple[bool, str]:
        """Whether a node may be taken away now, and why not."""
        for since, delay, what in (
            (self.added, self._options.delay_after_add, "a node was added"),
            (self.failed, self._options.delay_after_failure, "a removal failed"),
            (self.deleted, self._options.delay_after_delete, "a node was removed"),
        ):
            if now < since + delay:
                return False, f"{what} {now - since:.0f} s ago: nothing is removed for {delay:.0f} s"
        return True, ""
