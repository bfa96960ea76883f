"""What each group has, is about to have, and failed to get; whether the cluster is well enough to be changed.

Owns memory across passes: since when machines are known, raises that are under way, back-off. No I/O; `now` is cluster
seconds. The rules are cluster-autoscaler's clusterstate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from api.models import core_v1
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.cloud_view import CloudView, GroupView
from cluster_autoscaler.options import Options
from cluster_autoscaler.provider import OUT_OF_RESOURCES, Instance
from machinery.clock import Clock

TIMEOUT: Final = "timeout"


@dataclass(slots=True)
class Counts:
    """Nodes of a group, or of all: each is one of ready, unready, not started, being deleted; machines without a node
    are unregistered, after the provision time long so. `upcoming` will be there by what the cloud promised."""

    registered: int = 0
    ready: int = 0
    unready: int = 0
    not_started: int = 0
    being_deleted: int = 0
    unregistered: int = 0
    long_unregistered: int = 0
    upcoming: int = 0

    def add(self, other: Counts) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Request:
    """A raise that is under way: the group shall reach `size`. `seen`: the cloud's own target has said so since."""

    size: int
    asked: float
    seen: bool = False


@dataclass(slots=True)
class Backoff:
    """After a failure the group is not raised for `duration`."""

    until: float
    duration: float
    failed: float
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A raise that came to nothing."""

    group: str
    code: str
    message: str


@dataclass(slots=True)
class Findings:
    """What one update found out: failures to tell, machines to give back by group, targets to lower by group."""

    failures: list[Failure] = field(default_factory=list)
    broken: dict[str, list[Instance]] = field(default_factory=dict)
    never_came: dict[str, list[Instance]] = field(default_factory=dict)
    too_high: dict[str, int] = field(default_factory=dict)


class ClusterStateRegistry:
    """One for the life of the process; `update` at every pass."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self.counts: dict[str, Counts] = {}
        self.total = Counts()
        self.requests: dict[str, Request] = {}
        self.backoffs: dict[str, Backoff] = {}
        self._unregistered: dict[tuple[str, str], float] = {}
        self._missing: dict[str, tuple[int, float]] = {}

    # --- what is ---------------------------------------------------------------------------------------------------

    def update(self, now: float, view: CloudView, nodes: Sequence[core_v1.Node]) -> Findings:
        """Count anew, and see what became of raises."""
        found = Findings()
        self.counts = {}
        self.total = Counts()
        ours: dict[str, list[core_v1.Node]] = {name: [] for name in view.groups}
        for node in nodes:
            owner = view.group_of.get(facts.name(node))
            if owner in ours:
                ours[owner].append(node)
            else:
                self.total.add(self._count_nodes([node], self._options.group.max_node_startup_time))
        known: set[tuple[str, str]] = set()
        for name, group in view.groups.items():
            request = self.requests.get(name)
            if request is not None and group.target >= request.size:
                self.requests[name] = replace(request, seen=True)
            counts = self._count_nodes(ours[name], group.options.max_node_startup_time)
            self._count_machines(now, group, ours[name], counts, known, found)
            self._upcoming(group, ours[name], counts, found)
            self.counts[name] = counts
            self.total.add(counts)
            self._judge_request(now, group, counts, found)
            self._judge_target(now, group, counts, found)
        self._unregistered = {key: since for key, since in self._unregistered.items() if key in known}
        gone = [name for name in self.requests if name not in view.groups and name not in view.troubles]
        for name in gone:
            del self.requests[name]
        return found

    def _count_nodes(self, nodes: Collection[core_v1.Node], startup: float) -> Counts:
        counts = Counts(registered=len(nodes))
        for node in nodes:
            created = facts.created(node)
            if facts.is_being_deleted(node):
                counts.being_deleted += 1
            elif facts.is_ready(node):
                counts.ready += 1
            elif created is not None and self._clock.elapsed(created) < startup:
                counts.not_started += 1
            else:
                counts.unready += 1
        return counts

    def _count_machines(
        self,
        now: float,
        group: GroupView,
        nodes: Sequence[core_v1.Node],
        counts: Counts,
        known: set[tuple[str, str]],
        found: Findings,
    ) -> None:
        joined = {facts.provider_id(node) for node in nodes} | {facts.name(node) for node in nodes}
        for instance in group.instances:
            if instance.id in joined or instance.state == "deleting":
                continue
            if instance.error_code:
                found.broken.setdefault(group.id, []).append(instance)
                continue
            key = (group.id, instance.id)
            known.add(key)
            since = self._unregistered.setdefault(key, now)
            if now - since > group.options.max_node_provision_time:
                counts.long_unregistered += 1
                found.never_came.setdefault(group.id, []).append(instance)
            else:
                counts.unregistered += 1

    def _upcoming(self, group: GroupView, nodes: Sequence[core_v1.Node], counts: Counts, found: Findings) -> None:
        """Nodes on their way out count as long as the cloud still counts their machines."""
        staying = {each.id for each in group.instances if each.state != "deleting"}
        leaving = sum(facts.is_being_deleted(node) and facts.provider_id(node) in staying for node in nodes)
        broken = len(found.broken.get(group.id, ()))
        there = counts.ready + counts.unready + leaving + counts.long_unregistered + broken
        # A size beyond all bounds is not believed: so many nodes are neither counted on nor simulated.
        believed = min(self.expected(group), max(group.group.max_size, there))
        counts.upcoming = min(max(0, believed - there), self._options.max_nodes_per_scale_up)

    def expected(self, group: GroupView) -> int:
        """What the group will have: its target, or what was asked for while the cloud has not said so yet."""
        request = self.requests.get(group.id)
        if request is None or request.seen:
            return group.target
        return max(group.target, min(request.size, group.group.max_size))

    # --- raises ----------------------------------------------------------------------------------------------------

    def raised(self, now: float, group: str, size: int) -> None:
        """The cloud accepted a raise."""
        self.requests[group] = Request(size, now)

    def failed(self, now: float, group: str, code: str, message: str) -> Failure:
        """The group is left alone for a while, longer each time in a row."""
        old = self.backoffs.get(group)
        options = self._options
        duration = options.backoff_initial
        if old is not None and now - old.failed < options.backoff_reset:
            duration = min(old.duration * 2, options.backoff_max) if now >= old.until else old.duration
        self.backoffs[group] = Backoff(now + duration, duration, now, code, message)
        self.requests.pop(group, None)
        return Failure(group, code, message)

    def backoff_of(self, now: float, group: str) -> Backoff | None:
        """The back-off that holds the group now."""
        found = self.backoffs.get(group)
        return found if found is not None and now < found.until else None

    def _judge_request(self, now: float, group: GroupView, counts: Counts, found: Findings) -> None:
        broken = found.broken.get(group.id)
        if broken:
            first = broken[0]
            code = first.error_code or ("OUT_OF_RESOURCES" if first.error_class == OUT_OF_RESOURCES else "OTHER")
            if self.backoff_of(now, group.id) is None:
                found.failures.append(self.failed(now, group.id, code, first.error_message or code))
            return
        request = self.requests.get(group.id)
        if request is None:
            return
        if not counts.upcoming and counts.ready + counts.unready >= request.size:
            del self.requests[group.id]
            self.backoffs.pop(group.id, None)
        elif request.seen and group.target < request.size:
            del self.requests[group.id]  # somebody else lowered the group meanwhile
        elif now - request.asked > group.options.max_node_provision_time:
            why = f"Scale-up timed out for node group {group.id} after {now - request.asked:.0f}s"
            found.failures.append(self.failed(now, group.id, TIMEOUT, why))

    def _judge_target(self, now: float, group: GroupView, counts: Counts, found: Findings) -> None:
        """A target above what the cloud has machines for, for too long, is lowered to what there is."""
        machines = sum(each.state != "deleting" for each in group.instances)
        there = max(machines, counts.registered - counts.being_deleted, group.group.min_size)
        lacking = group.target - there
        if lacking <= 0:
            self._missing.pop(group.id, None)
            return
        size, since = self._missing.get(group.id, (lacking, now))
        if size != lacking:
            since = now
        self._missing[group.id] = (lacking, since)
        if now - since > group.options.max_node_provision_time:
            found.too_high[group.id] = lacking

    # --- health ----------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Too many unready nodes mean that something larger is wrong: then nothing is changed."""
        return self._is_well(self.total.unready, self.total.registered)

    def group_healthy(self, group: str) -> bool:
        counts = self.counts.get(group)
        if counts is None:
            return False
        return self._is_well(counts.unready + counts.long_unregistered, counts.registered + counts.long_unregistered)

    def _is_well(self, unready: int, of: int) -> bool:
        if unready <= self._options.ok_total_unready:
            return True
        return unready <= self._options.max_total_unready_percentage / 100 * of

    def blocked(self, now: float, groups: Mapping[str, GroupView], backoff: str, unwell: str) -> dict[str, str]:
        """Groups that must not grow now, with `backoff` or `unwell` for why."""
        made: dict[str, str] = {}
        for name in groups:
            if self.backoff_of(now, name) is not None:
                made[name] = backoff
            elif not self.group_healthy(name):
                made[name] = unwell
        return made
