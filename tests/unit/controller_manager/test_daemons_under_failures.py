"""DaemonSets while nodes come, go and are tainted, pods fail and hang, and the template changes.

Promises of the documentation are checked at every pass: a node has no second pod but during a surge, a rolling update
takes no more than maxUnavailable serving pods (none at all with maxSurge), and makes no more than maxSurge extra ones.
When everything calms down each eligible node has one pod of the present template, no other has any.
"""
# mypy: disable-error-code="union-attr, index"

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.models import core_v1
from controller_manager.daemonset.eligibility import HASH, node_of
from controller_manager.daemonset.plan import limits, observe, place, plan
from controller_manager.objects import is_finished, is_ready, is_terminating
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at
from tests.unit.controller_manager.test_daemonset_plan import agent, node, pod

LONG_ENOUGH = 60
NODES = st.sampled_from([f"n{number}" for number in range(6)])
UPDATES = st.sampled_from(
    [
        {"maxUnavailable": 1},
        {"maxUnavailable": 2},
        {"maxUnavailable": "50%"},
        {"maxSurge": 1, "maxUnavailable": 0},
        {"maxSurge": "50%", "maxUnavailable": 0},
    ]
)


def serves(each: core_v1.Pod) -> bool:
    return is_ready(each) and not is_terminating(each) and not is_finished(each)


class DaemonSet(RuleBasedStateMachine):
    """The controller, the scheduler, kubelets and the pod garbage collector in turn, in any order."""

    @initialize(update=UPDATES)
    def begin(self, update: dict[str, Any]) -> None:
        self.clock = VirtualClock(at(0))
        self.update = update
        self.rolling = True
        self.revision = "r0"
        self.revisions = self.made = 0
        self.nodes: dict[str, core_v1.Node] = {f"n{number}": node(f"n{number}") for number in range(4)}
        self.pods = [pod(f"first-{name}", name, "ready", self.revision) for name in self.nodes]

    def daemon_set(self) -> Any:
        return agent(self.update, "RollingUpdate" if self.rolling else "OnDelete")

    def serving(self) -> dict[str, list[core_v1.Pod]]:
        found: dict[str, list[core_v1.Pod]] = {}
        for each in self.pods:
            if serves(each):
                found.setdefault(node_of(each), []).append(each)
        return found

    def surging(self) -> set[str]:
        """Nodes where a new pod starts beside a serving old one."""
        serving = self.serving()
        return {
            node_of(each)
            for each in self.pods
            if node_of(each) in serving and not (serves(each) or is_terminating(each) or is_finished(each))
            if (each.metadata.labels or {})[HASH] == self.revision and node_of(each) in self.nodes
        }

    @rule()
    def reconcile(self) -> None:
        ds = self.daemon_set()
        placement = place(ds, self.nodes.values(), self.pods)
        step = plan(ds, placement, self.revision, self.clock)
        surge, unavailable = limits(ds, placement.desired)
        eligible = {name for name, each in placement.eligible.items() if each.run}
        may_stay = {name for name, each in placement.eligible.items() if each.stay}
        before = self.serving()
        going = {id(each) for each in step.delete}
        assert len(going) == len(step.delete), "nothing is deleted twice"
        assert not any(map(is_terminating, step.delete))
        assert set(step.create) <= eligible, "made only where it belongs"
        for name in step.create:
            there = [e for e in self.pods if node_of(e) == name and not (is_terminating(e) and is_finished(e))]
            staying = [each for each in there if not is_terminating(each) and not is_finished(each)]
            assert not there or (self.rolling and surge), "a second pod on a node only as a surge"
            assert len(staying) <= 1, "never a third one that stays"
        after = {name: [each for each in found if id(each) not in going] for name, found in before.items()}
        lost = [name for name in eligible & before.keys() if not after[name]]
        if not self.rolling or surge:
            assert not lost, "what serves a node goes only once its successor serves"
        else:
            down = len(eligible) - sum(name in before for name in eligible)
            assert len(lost) <= max(0, unavailable - down), "never more than maxUnavailable down by the update's doing"
        extra = [name for name in step.create if name in before]
        assert not extra or len(extra) + len(self.surging()) <= surge, "never more than maxSurge extra pods"
        for each in step.delete:
            name = node_of(each)
            others = [o for o in self.pods if node_of(o) == name and o is not each and not is_terminating(o)]
            if name in may_stay and not is_finished(each) and not others:
                assert self.rolling and not surge, "the only pod of a node goes only for an update"
        for each in step.delete:
            each.metadata.deletionTimestamp = at(0)
        for name in step.create:
            self.made += 1
            self.pods.append(pod(f"p{self.made}", name, "unready", self.revision))

    @rule(passes=st.integers(1, 4))
    def kubelets_keep_up(self, passes: int) -> None:
        """Pods start and end, the controller looks, again and again."""
        for _ in range(passes):
            self.pods = [each for each in self.pods if not is_terminating(each)]
            self.pods_become_ready(1, 0)
            self.reconcile()

    @rule(share=st.integers(1, 4), which=st.integers(0, 3))
    def pods_become_ready(self, share: int, which: int) -> None:
        for number, each in enumerate(self.pods):
            if number % share == which % share and not is_finished(each) and not is_terminating(each):
                each.status.conditions[0].status = "True"

    @rule(which=st.integers(0, 20))
    def a_pod_hangs(self, which: int) -> None:
        if self.pods:
            self.pods[which % len(self.pods)].status.conditions[0].status = "False"

    @rule(which=st.integers(0, 20), phase=st.sampled_from(["Failed", "Succeeded"]))
    def a_pod_ends(self, which: int, phase: str) -> None:
        if self.pods:
            chosen = self.pods[which % len(self.pods)]
            chosen.status.phase, chosen.status.conditions[0].status = phase, "False"

    @rule(which=st.integers(0, 20))
    def a_terminating_pod_goes(self, which: int) -> None:
        gone = [each for each in self.pods if is_terminating(each)]
        if gone:
            self.pods.remove(gone[which % len(gone)])

    @rule(name=NODES)
    def a_node_comes(self, name: str) -> None:
        self.nodes.setdefault(name, node(name))

    @rule(name=NODES)
    def a_node_goes(self, name: str) -> None:
        self.nodes.pop(name, None)

    @rule()
    def pods_of_lost_nodes_are_collected(self) -> None:
        self.pods = [each for each in self.pods if node_of(each) in self.nodes]

    @rule(name=NODES, effect=st.sampled_from(["NoSchedule", "NoExecute", "PreferNoSchedule", ""]))
    def a_node_is_tainted(self, name: str, effect: str) -> None:
        if name in self.nodes:
            self.nodes[name] = node(name, None, **({"hostile": effect} if effect else {}))

    @rule(name=NODES)
    def a_node_dies(self, name: str) -> None:
        for each in self.pods:
            if node_of(each) == name and not is_finished(each):
                each.status.conditions[0].status = "False"
        self.reconcile()

    @rule()
    def edit(self) -> None:
        self.revisions += 1
        self.revision = f"r{self.revisions}"
        self.reconcile()

    @rule(number=st.integers(0, 5))
    def undo(self, number: int) -> None:
        self.revision = f"r{number % (self.revisions + 1)}"

    @rule(update=UPDATES, rolling=st.booleans())
    def change_strategy(self, update: dict[str, Any], rolling: bool) -> None:
        self.update, self.rolling = update, rolling

    @invariant()
    def the_status_adds_up(self) -> None:
        if not hasattr(self, "nodes"):
            return
        ds = self.daemon_set()
        status, _ = observe(ds, place(ds, self.nodes.values(), self.pods), self.revision, None, self.clock)
        desired, available = status.desiredNumberScheduled, status.numberAvailable or 0
        assert available <= status.numberReady <= status.currentNumberScheduled <= desired
        assert (status.updatedNumberScheduled or 0) <= desired
        assert desired - available == (status.numberUnavailable or 0)

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        self.rolling = True
        for _ in range(LONG_ENOUGH):
            self.pods_of_lost_nodes_are_collected()
            self.reconcile()
            self.pods = [each for each in self.pods if not is_terminating(each)]
            self.pods_become_ready(1, 0)
        wanted = [name for name, each in self.nodes.items() if not _hostile(each, "NoSchedule", "NoExecute")]
        kept = [name for name, each in self.nodes.items() if _hostile(each, "NoSchedule")]
        found = sorted(node_of(each) for each in self.pods)
        assert [name for name in found if name not in kept] == sorted(wanted)
        assert len(set(found)) == len(found)
        assert {(each.metadata.labels or {})[HASH] for each in self.pods if node_of(each) in wanted} <= {self.revision}
        assert all(map(serves, [each for each in self.pods if node_of(each) in wanted]))


def _hostile(each: core_v1.Node, *effects: str) -> bool:
    return any(taint.effect in effects for taint in each.spec.taints or ())


TestDaemonSet = DaemonSet.TestCase
TestDaemonSet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
