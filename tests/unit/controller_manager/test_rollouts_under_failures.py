"""Plans of Deployments, StatefulSets and Jobs, carried out while pods fail and users change their minds.

Promises are checked at every step; when the failures stop, everything must arrive at what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.models import core_v1
from controller_manager.deployment.rolling import Limits, SetSize, Targets, plan_rolling, plan_scale, resolve_fenceposts
from controller_manager.job import plan as job_plan
from controller_manager.job import status as job_status
from controller_manager.job.failures import INDEX
from controller_manager.job.tally import FINALIZER, count
from controller_manager.statefulset import identity
from controller_manager.statefulset.plan import observe, plan_step
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at
from tests.unit.controller_manager.test_job_plan import job
from tests.unit.controller_manager.test_statefulset_plan import pod as set_pod
from tests.unit.controller_manager.test_statefulset_plan import web

BOUNDED = settings(max_examples=40, stateful_step_count=40, deadline=None)
LONG_ENOUGH = 400


@dataclass
class Pods:
    """A ReplicaSet: what it is told to have, and its pods by readiness (True: available)."""

    created: int
    replicas: int = 0
    told_max: int | None = None
    told_desired: int | None = None
    ready: list[bool] = field(default_factory=list)

    def follow(self) -> None:
        """The ReplicaSet controller: unready pods are the first to go."""
        self.ready.sort()
        del self.ready[: max(0, len(self.ready) - self.replicas)]
        self.ready += [False] * (self.replicas - len(self.ready))


class Deployment(RuleBasedStateMachine):
    """Edits, undos, scaling and pauses amidst rollouts whose pods come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.sets: dict[str, Pods] = {"v0": Pods(0)}
        self.template = "v0"
        self.desired = 3
        self.paused = False
        self.wish: tuple[int | str, int | str] = (1, 0)
        self.revisions = 1

    @property
    def limits(self) -> Limits:
        return Limits(self.desired, *resolve_fenceposts(*self.wish, self.desired))

    def size(self, name: str) -> SetSize:
        each = self.sets[name]
        available = min(sum(each.ready), each.replicas)
        return SetSize(name, each.replicas, available, at(each.created), each.told_max, each.told_desired)

    def available(self) -> int:
        return sum(sum(each.ready) for each in self.sets.values())

    @rule()
    def reconcile(self) -> None:
        """One pass of the Deployment controller, and the ReplicaSets follow."""
        limits = self.limits
        old = [self.size(name) for name in self.sets if name != self.template]
        total = sum(each.replicas for each in self.sets.values())
        available = self.available()
        sizes = [self.size(name) for name in self.sets]
        scaling = any(each.replicas and each.annotated_desired not in (None, self.desired) for each in sizes)
        present = self.template in self.sets
        if self.paused or scaling:
            targets = plan_scale(limits, True, self.size(self.template) if present else None, old)
        else:
            self.sets.setdefault(self.template, Pods(self.revisions))
            targets = plan_rolling(limits, self.size(self.template), old)
        self.apply(targets, everywhere=self.paused or scaling)
        after = sum(each.replicas for each in self.sets.values())
        if after > total:
            assert after <= limits.desired + limits.max_surge, "never grown beyond desired + maxSurge"
        if not self.paused and not scaling and total <= limits.desired + limits.max_surge:
            least = limits.desired - limits.max_unavailable
            assert self.available() >= min(available, least), "never taken below the minimum that is available"

    def apply(self, targets: Targets, *, everywhere: bool) -> None:
        for name, each in self.sets.items():
            if name in targets or (everywhere and each.replicas):
                each.replicas = targets.get(name, each.replicas)
                each.told_desired = self.desired
                each.told_max = self.desired + self.limits.max_surge
            each.follow()

    @rule(share=st.integers(0, 5))
    def pods_become_ready(self, share: int) -> None:
        for each in self.sets.values():
            each.ready = [ready or number % (share + 1) == 0 for number, ready in enumerate(each.ready)]

    @rule(which=st.integers(0, 50))
    def a_pod_fails(self, which: int) -> None:
        chosen = list(self.sets.values())[which % len(self.sets)]
        chosen.ready = [ready and number != which % len(chosen.ready) for number, ready in enumerate(chosen.ready)]

    @rule(which=st.integers(0, 3))
    def a_node_dies(self, which: int) -> None:
        for each in self.sets.values():
            each.ready = [ready and number % 4 != which for number, ready in enumerate(each.ready)]

    @rule(desired=st.integers(0, 12))
    def scale(self, desired: int) -> None:
        self.desired = desired

    @rule(surge=st.sampled_from([0, 1, 3, "25%"]), unavailable=st.sampled_from([0, 1, "25%", "100%"]))
    def change_limits(self, surge: int | str, unavailable: int | str) -> None:
        self.wish = (surge, unavailable)

    @precondition(lambda self: len(self.sets) < 5)
    @rule()
    def edit(self) -> None:
        self.template = f"v{self.revisions}"
        self.revisions += 1

    @rule(which=st.integers(0, 9))
    def undo(self, which: int) -> None:
        self.template = sorted(self.sets)[which % len(self.sets)]

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.paused = paused

    @invariant()
    def nothing_is_negative(self) -> None:
        assert all(each.replicas >= 0 for each in self.sets.values())

    def teardown(self) -> None:
        self.paused = False
        for _ in range(LONG_ENOUGH):
            self.reconcile()
            self.pods_become_ready(0)
        found = {name: sum(each.ready) for name, each in self.sets.items() if each.ready}
        assert found == ({self.template: self.desired} if self.desired else {}), "the rollout ends"


class StatefulSet(RuleBasedStateMachine):
    """A set that is scaled, edited and moved while its pods fail, hang and end."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(at(0))
        self.replicas, self.start, self.policy = 3, 0, "OrderedReady"
        self.update: dict[str, Any] = {}
        self.pods = {f"web-{n}": set_pod(n, "ready", "r0") for n in range(3)}
        self.current = self.revision = "r0"

    def set(self) -> Any:
        return web(self.replicas, start=self.start, podManagementPolicy=self.policy, update=self.update)

    def ordinal(self, name: str) -> int:
        return int(name.rpartition("-")[2])

    def good(self) -> dict[int, bool]:
        return {
            self.ordinal(name): bool(
                each.status
                and each.status.phase == "Running"
                and each.status.conditions
                and each.status.conditions[0].status == "True"
                and each.metadata
                and each.metadata.deletionTimestamp is None
            )
            for name, each in self.pods.items()
        }

    @rule()
    def reconcile(self) -> None:
        set_ = self.set()
        step = plan_step(set_, list(self.pods.values()), self.revision, self.clock)
        ordered, good = self.policy != "Parallel", self.good()
        if ordered:
            assert len(step.create) + len(step.recreate) <= 1
            for made in step.create:
                assert all(good.get(n) for n in range(self.start, made.ordinal)), (
                    "made only after all before it are ready"
                )
        wanted = range(self.start, self.start + self.replicas)
        victims = {self.ordinal(each.metadata.name or ""): each for each in step.delete if each.metadata}
        scaled = [ordinal for ordinal in victims if ordinal not in wanted]
        if ordered and scaled:
            beyond = [n for n in good if n not in wanted]
            assert scaled == [max(beyond)], "taken from the end, one by one"
        most = max(1, self.update.get("maxUnavailable") or 1)
        replaced = [ordinal for ordinal in victims if ordinal in wanted and good[ordinal]]
        if replaced:
            down = sum(not good.get(n, False) for n in wanted) + len(replaced)
            assert down <= most, "the update takes no more than maxUnavailable"
            lowest = self.start + (self.update.get("partition") or 0)
            assert min(replaced) >= lowest
        for made in step.create:
            name = f"web-{made.ordinal}"
            assert name not in self.pods, "two pods never have one name"
            self.pods[name] = set_pod(made.ordinal, "pending", self.revision if made.updated else self.current)
        for victim in [*step.delete, *step.recreate]:
            assert victim.metadata
            victim.metadata.deletionTimestamp = at(0)
        status, _ = observe(set_, list(self.pods.values()), self.current, self.revision, 0, self.clock)
        self.current = status.currentRevision or self.current

    def move(self, name: str, state: str) -> None:
        each = self.pods[name]
        if each.metadata and each.metadata.deletionTimestamp is None:
            self.pods[name] = set_pod(self.ordinal(name), state, identity.revision_of(each))

    @rule(which=st.integers(0, 9), state=st.sampled_from(["ready", "ready", "pending", "failed"]))
    def a_pod_changes(self, which: int, state: str) -> None:
        if self.pods:
            self.move(sorted(self.pods)[which % len(self.pods)], state)

    @rule()
    def all_pods_become_ready(self) -> None:
        for name in list(self.pods):
            self.move(name, "ready")

    @rule(which=st.integers(0, 9))
    def a_terminating_pod_goes(self, which: int) -> None:
        gone = [name for name, each in sorted(self.pods.items()) if each.metadata and each.metadata.deletionTimestamp]
        if gone:
            del self.pods[gone[which % len(gone)]]

    @rule(replicas=st.integers(0, 6))
    def scale(self, replicas: int) -> None:
        self.replicas = replicas

    @rule(start=st.integers(0, 3))
    def renumber(self, start: int) -> None:
        self.start = start

    @rule(number=st.integers(0, 3))
    def edit(self, number: int) -> None:
        self.revision = f"r{number}"

    @rule(partition=st.integers(0, 3), most=st.one_of(st.none(), st.integers(1, 3)))
    def steer(self, partition: int, most: int | None) -> None:
        self.update = {"partition": partition, **({"maxUnavailable": most} if most else {})}

    @rule(parallel=st.booleans())
    def renew_with_other_policy(self, parallel: bool) -> None:
        self.policy = "Parallel" if parallel else "OrderedReady"

    def teardown(self) -> None:
        self.update = {**self.update, "partition": 0}
        for _ in range(LONG_ENOUGH):
            self.reconcile()
            for name, each in list(self.pods.items()):
                if each.metadata and each.metadata.deletionTimestamp:
                    del self.pods[name]
                elif not (each.status and each.status.phase == "Failed"):
                    self.move(name, "ready")
        wanted = range(self.start, self.start + self.replicas)
        assert sorted(self.pods) == sorted(f"web-{n}" for n in wanted)
        assert {identity.revision_of(each) for each in self.pods.values()} <= {self.revision}
        assert all(self.good().values())


class Job(RuleBasedStateMachine):
    """A Job that is suspended and resized while its pods end as they like, counted as the controller counts."""

    indexed = False

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0
        self.clock = VirtualClock(at(0))
        mode = "Indexed" if self.indexed else "NonIndexed"
        self.parallelism, self.completions = 2, 4
        self.job = job(parallelism=2, completions=4, completionMode=mode, backoffLimit=1000, suspend=False)
        self.pods: dict[str, core_v1.Pod] = {}
        self.made = 0
        self.over = False
        self.succeeded = 0

    def living(self) -> list[core_v1.Pod]:
        return [e for e in self.pods.values() if e.status and e.status.phase in ("Pending", "Running")]

    @rule()
    def reconcile(self) -> None:
        if self.over:
            return
        found = list(self.pods.values())
        counted = count(self.job, found)
        work = job_status.begin(self.job, self.clock)
        planned = job_plan.plan_pods(self.job, counted, self.clock)
        assert not (planned.create and planned.delete)
        going = {each.metadata.uid for each in planned.delete if each.metadata}
        kept = [each for each in counted.active if each.metadata and each.metadata.uid not in going]
        if planned.create:
            running = len(kept) + len(planned.create)
            assert running <= self.parallelism, "never more than parallelism"
            assert counted.succeeded + running <= self.completions, "never more than are wanted"
        if self.indexed:
            held = [index for e in kept if (index := (e.metadata.annotations or {}).get(INDEX))]  # type: ignore[union-attr]
            assert not {str(each) for each in planned.create} & set(held), "an index has one pod"
        for uid in going:
            self.pods = {name: each for name, each in self.pods.items() if each.metadata and each.metadata.uid != uid}
        for index in planned.create:
            self.create(index)
        if job_plan.is_complete(self.job, counted, len(kept) + len(planned.create)):
            self.over = True
            self.succeeded = counted.succeeded
            return
        job_status.settle_uncounted(work, found)
        done = job_status.list_uncounted(self.job, work, counted, None)
        for each in done:
            assert each.metadata
            each.metadata.finalizers = None
        job_status.settle_uncounted(work, found)
        self.job.status = work

    def create(self, index: int | None) -> None:
        self.made += 1
        made = set_pod(0, "pending", "", name=f"p{self.made}")
        assert made.metadata
        made.metadata.uid, made.metadata.finalizers = f"u{self.made}", [FINALIZER]
        made.metadata.annotations = {INDEX: str(index)} if index is not None else None
        self.pods[f"p{self.made}"] = made

    @rule(which=st.integers(0, 9), end=st.sampled_from(["Running", "Succeeded", "Failed"]))
    def a_pod_moves(self, which: int, end: str) -> None:
        living = self.living()
        if living:
            chosen = living[which % len(living)]
            assert chosen.status
            chosen.status.phase = end

    @rule(seconds=st.sampled_from([1, 30, 700]))
    def time_passes(self, seconds: int) -> None:
        self.seconds += seconds
        self.clock = VirtualClock(at(self.seconds))

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        assert self.job.spec
        self.job.spec.suspend = suspend

    @precondition(lambda self: not self.over)
    @rule(parallelism=st.integers(0, 6))
    def resize(self, parallelism: int) -> None:
        assert self.job.spec
        self.parallelism = self.job.spec.parallelism = parallelism
        if self.indexed and parallelism:
            self.completions = self.job.spec.completions = parallelism  # elastic: both move together

    @invariant()
    def nothing_runs_while_suspended_for_long(self) -> None:
        assert self.job.spec
        if self.job.spec.suspend and not self.over:
            self.reconcile()
            assert not count(self.job, list(self.pods.values())).active

    def teardown(self) -> None:
        assert self.job.spec
        self.parallelism = max(1, self.parallelism)
        self.job.spec.suspend, self.job.spec.parallelism = False, self.parallelism
        for _ in range(LONG_ENOUGH):
            self.time_passes(700)
            self.reconcile()
            for each in self.living():
                assert each.status
                each.status.phase = "Succeeded"
        assert self.over
        assert self.succeeded >= self.completions


class IndexedJob(Job):
    indexed = True


def bounded(machine: type[RuleBasedStateMachine]) -> Any:
    case = machine.TestCase
    case.settings = BOUNDED
    return case


TestDeployment = bounded(Deployment)
TestStatefulSet = bounded(StatefulSet)
TestJob = bounded(Job)
TestIndexedJob = bounded(IndexedJob)
