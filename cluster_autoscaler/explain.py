"""The last decision in words: why a node stays or goes, what a group may do, who waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster_autoscaler.cloud_view import CloudView
from cluster_autoscaler.expanders import waste
from cluster_autoscaler.options import GroupOptions
from cluster_autoscaler.planner import Plan
from cluster_autoscaler.registry import ClusterStateRegistry, Counts
from cluster_autoscaler.removal import Removals
from machinery.decisions import facts, table
from proto.explain.v1 import explain_pb2 as pb


@dataclass(slots=True)
class LastPass:
    """What is remembered of the last pass. `halted`: why nothing was decided."""

    at: str = ""
    now: float = 0.0
    halted: str = ""
    view: CloudView = field(default_factory=CloudView)
    plan: Plan = field(default_factory=Plan)
    names: tuple[str, ...] = ()


class Explainer:
    """Answers of the DecisionServer."""

    def __init__(self, registry: ClusterStateRegistry, removals: Removals) -> None:
        self._registry = registry
        self._removals = removals
        self.last = LastPass()

    def node(self, namespace: str, name: str) -> pb.Decision | None:
        """Why it stays or goes."""
        last = self.last
        down = last.plan.scale_down
        if name not in last.names:
            return None
        removal = self._removals.active.get(name)
        verdict = down.verdicts.get(name)
        since = down.unneeded.get(name)
        if removal is not None or any(each.node == name for each in down.removals):
            headline = f"Node {name} is being removed."
        elif verdict is not None:
            headline = f"Node {name} stays: {verdict.reason}."
        else:
            headline = f"Node {name} stays: {last.halted or 'nothing was decided about it'}."
        used = down.utilizations.get(name)
        group = last.view.groups.get(last.view.group_of.get(name, ""))
        told = {
            "group": last.view.group_of.get(name, ""),
            "because": verdict.message if verdict is not None else "",
            "requested": f"{used:.1%}" if used is not None else "",
            "may go": _terms(group.options) if group is not None else "",
            "unneeded for": f"{last.now - since:.0f} s" if since is not None else "",
            "pods to move": ", ".join(pod.key for pod in removal.moving) if removal is not None else "",
        }
        return pb.Decision(headline=headline, time=last.at, facts=facts(told))

    def nodegroup(self, namespace: str, name: str) -> pb.Decision | None:
        """Its state, and its part in the last decision."""
        last = self.last
        trouble = last.view.troubles.get(name)
        if trouble is not None:
            return pb.Decision(headline=f"Node group {name} takes no part: {trouble}.", time=last.at)
        group = last.view.groups.get(name)
        if group is None:
            return None
        up = last.plan.scale_up
        counts = self._registry.counts.get(name, Counts())
        backoff = self._registry.backoff_of(last.now, name)
        raised = next((each for each in up.raises if each.group == name), None)
        if raised is not None:
            headline = f"Node group {name} was raised from {raised.old} to {raised.new}."
        elif not up.waiting:
            headline = f"Node group {name} was left at {group.target}: no pod waits for room."
        elif name in up.skipped:
            headline = f"Node group {name} was left at {group.target}: {', '.join(up.skipped[name])}."
        elif any(option.group == name for option in up.options):
            headline = f"Node group {name} was left at {group.target}: {up.chosen} was preferred."
        else:
            headline = f"Node group {name} was left at {group.target}: no waiting pod fits on its nodes."
        told: dict[str, object] = {
            "halted": last.halted,
            "size": f"{group.target} ({group.group.min_size}..{group.group.max_size})",
            "nodes": f"{counts.ready} ready, {counts.unready} unready, {counts.not_started} starting, "
            f"{counts.being_deleted} leaving",
            "machines without node": counts.unregistered + counts.long_unregistered,
            "upcoming": counts.upcoming,
            "nodes may go": _terms(group.options),
        }
        if backoff is not None:
            told["backoff"] = f"{backoff.until - last.now:.0f} s more ({backoff.code}: {backoff.message})"
        made = pb.Decision(headline=headline, time=last.at, facts=facts(told))
        if up.options:
            made.tables.append(self._options())
        refused = [(uid, each[name]) for uid, each in up.refused.items() if name in each]
        keys = {info.uid: info.key for info in up.waiting}
        if refused:
            rows = [[keys.get(uid, uid), ", ".join(reasons)] for uid, reasons in refused[:50]]
            made.tables.append(table("Pods that do not fit:", ("POD", "REASONS"), rows))
        return made

    def _options(self) -> pb.Table:
        up = self.last.plan.scale_up
        rows = [
            [each.group, each.nodes, len(each.pods), f"{waste(each):.2f}", "yes" if each.group == up.chosen else "no"]
            for each in up.options
        ]
        return table("Options of the last pass:", ("GROUP", "NODES", "PODS", "WASTE", "CHOSEN"), rows)

    def scale_up(self, namespace: str, name: str) -> pb.Decision | None:
        """What was done for a waiting pod."""
        up = self.last.plan.scale_up
        info = next((each for each in up.waiting if each.namespace == namespace and each.name == name), None)
        if info is None:
            return self._roomy(f"{namespace}/{name}")
        if any(each.uid == info.uid for each in up.pods):
            raises = " ".join(map(str, up.raises))
            made = pb.Decision(headline=f"Pod {info.key} triggered scale-up: {raises}.", time=self.last.at)
        else:
            made = pb.Decision(headline=f"Pod {info.key}: {up.message(info.uid)}.", time=self.last.at)
        rows = [[group, ", ".join(reasons)] for group, reasons in up.refused.get(info.uid, {}).items()]
        rows += [[group, ", ".join(reasons)] for group, reasons in up.skipped.items()]
        for each in up.options:
            if any(pod.uid == info.uid for pod in each.pods):
                found = f"fits: {each.nodes} nodes for {len(each.pods)} pods, waste {waste(each):.2f}"
                rows.append([each.group, f"{found}, chosen" if each.group == up.chosen else found])
        made.tables.append(table("", ("GROUP", "WHY"), rows))
        return made

    def _roomy(self, key: str) -> pb.Decision | None:
        """A waiting pod that needs no other machine: one has room, or one that is on its way will have."""
        last = self.last
        node = last.plan.room.get(key)
        if node is None:
            return None
        where = f"node {node} has room"
        if node not in last.names:
            counted = ", ".join(f"{count} of {group}" for group, count in last.plan.upcoming.items())
            where = f"a machine that is on its way will have room (upcoming: {counted})"
        return pb.Decision(headline=f"Pod {key} needs no other machine: {where}.", time=last.at)


def _terms(options: GroupOptions) -> str:
    """When a node of a group may be taken away, as the autoscaler's flags or the group itself say."""
    return (
        f"below {options.utilization_threshold:.0%} requested, after {options.unneeded_time:g} s unneeded, "
        f"or {options.unready_time:g} s unready"
    )
