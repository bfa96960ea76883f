"""Jobs with failure policies, back-off limits per index and success policies, suspended and resumed amidst failures.

The promises of the documentation, at every pass: an ignored failure costs nothing, FailJob ends the Job, an index fails
by itself once its limit is used up and is never tried again, a Job is declared over only when none of its pods is left,
by the interim condition first, and is one of complete and failed, for ever.
"""
# mypy: disable-error-code="union-attr, operator"

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.models import batch_v1, core_v1
from controller_manager.job import indexes, status
from controller_manager.job.failures import INDEX_FAILURES, INDEX_IGNORED, completion_index
from controller_manager.job.plan import (
    COMPLETIONS_REACHED,
    FAILURE_TARGET,
    SUCCESS_CRITERIA_MET,
    Outcome,
    is_complete,
    plan_outcome,
    plan_pods,
)
from controller_manager.job.pods import pod_for
from controller_manager.job.tally import count
from controller_manager.objects import is_finished, is_terminating
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at
from tests.unit.controller_manager.test_job_plan import codes, job
from tests.unit.controller_manager.test_job_plan import rule as policy_rule

COUNTED, FATAL, LAST = 1, 42, 43
LONG_ENOUGH = 60


def policies(per_index: bool) -> batch_v1.PodFailurePolicy:
    pattern = batch_v1.PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    rules = [
        policy_rule("Ignore", onPodConditions=[pattern]),
        policy_rule("FailJob", onExitCodes=codes("In", [FATAL])),
    ]
    if per_index:
        rules.append(policy_rule("FailIndex", onExitCodes=codes("In", [LAST])))
    return batch_v1.PodFailurePolicy(rules=rules)


class PolicyJob(RuleBasedStateMachine):
    """The controller's passes with everything that pods and users do in between."""

    @initialize(
        limit=st.integers(0, 3),
        per_index=st.booleans(),
        indexed=st.booleans(),
        most=st.one_of(st.none(), st.integers(0, 2)),
        success=st.sampled_from([None, {"succeededIndexes": "0-1"}, {"succeededCount": 2}]),
    )
    def begin(self, limit: int, per_index: bool, indexed: bool, most: int | None, success: Any) -> None:
        self.seconds = 0
        self.indexed = indexed or per_index
        self.per_index, self.limit = per_index, limit
        spec: dict[str, Any] = {"parallelism": 2, "completions": 4, "podReplacementPolicy": "Failed", "suspend": False}
        spec["completionMode"] = "Indexed" if self.indexed else "NonIndexed"
        spec |= (
            {"backoffLimitPerIndex": limit, "maxFailedIndexes": most, "backoffLimit": 1000}
            if per_index
            else {"backoffLimit": limit}
        )
        if self.indexed and success is not None:
            spec["successPolicy"] = batch_v1.SuccessPolicy(rules=[batch_v1.SuccessPolicyRule(**success)])
        self.job = job(podFailurePolicy=policies(per_index), **spec)
        self.pods: dict[str, core_v1.Pod] = {}
        self.made = 0
        self.counted: Counter[int | None] = Counter()  # failures by index that count
        self.carried: Counter[int | None] = Counter()  # those that the index's next pod inherits
        self.ended: set[int] = set()  # indexes that failed by FailIndex
        self.fatal = False
        self.stopped: set[str] = set()  # pods that the controller deleted

    @property
    def clock(self) -> VirtualClock:
        return VirtualClock(at(self.seconds))

    def over(self) -> bool:
        return status.finished_condition(self.job) is not None

    def find(self, type_: str) -> Any:
        return next((each for each in self.job.status.conditions or () if each.type == type_), None)

    def running(self) -> list[core_v1.Pod]:
        return [each for each in self.pods.values() if not is_finished(each)]

    @rule()
    def reconcile(self) -> None:
        """What JobController.reconcile does, step by step."""
        if self.over():
            return
        found = list(self.pods.values())
        tally = count(self.job, found)
        work = status.begin(self.job, self.clock)
        outcome = plan_outcome(self.job, tally, self.clock)
        active, terminating = len(tally.active), tally.terminating
        if outcome is not None:
            if outcome.reason == "BackoffLimitExceeded":
                assert sum(self.counted.values()) > self.limit, "ignored failures cost nothing"
            self.stop(tally.active)
            active, terminating = 0, terminating + len(tally.active)
        else:
            assert not self.fatal, "FailJob ends the Job"
            planned = plan_pods(self.job, tally, self.clock)
            for each in planned.delete:
                each.metadata.finalizers = None
                self.carried[completion_index(each)] = 0  # as upstream: the count goes with the pod that carried it
            self.stop(list(planned.delete))
            for index in planned.create:
                self.create(index, tally.delayed.get(index) if index is not None else None)
            active += len(planned.create) - len(planned.delete)
            terminating += len(planned.delete)
            if is_complete(self.job, tally, active):
                outcome = Outcome(SUCCESS_CRITERIA_MET, COMPLETIONS_REACHED, "")
            elif self.job.spec.suspend:
                status.with_condition(work, self.clock, status.SUSPENDED, "True", "JobSuspended", "")
            elif status.with_condition(work, self.clock, status.SUSPENDED, "False", "JobResumed", ""):
                work.startTime = self.clock.now()
        status.set_counts(work, active, 0, terminating)
        status.settle_uncounted(work, found)
        done = status.list_uncounted(self.job, work, tally, outcome)
        if outcome is not None:
            status.with_condition(work, self.clock, outcome.type, "True", outcome.reason, outcome.message)
        for each in done:
            each.metadata.finalizers = None
        status.settle_uncounted(work, list(self.pods.values()))
        if outcome is not None:
            status.finish(work, outcome, self.clock)
        self.job.status = work

    def stop(self, pods: list[core_v1.Pod]) -> None:
        for each in pods:
            each.metadata.deletionTimestamp = at(self.seconds)
            self.stopped.add(each.metadata.name or "")

    def create(self, index: int | None, before: core_v1.Pod | None) -> None:
        assert not self.job.spec.suspend, "nothing starts while suspended"
        assert len(self.running()) < (self.job.spec.parallelism or 0), "with what still terminates, never too many"
        if index is not None:
            living = [each for each in self.running() if completion_index(each) == index]
            assert not living, "one pod per index, also while the last one terminates"
            assert index not in indexes.parse(self.job.status.completedIndexes), "a completed index is left alone"
        if self.per_index:
            assert index not in self.ended
            assert self.carried[index] <= self.limit, "an index is tried backoffLimitPerIndex times more"
        else:
            assert sum(self.counted.values()) <= self.limit, "and a Job backoffLimit times"
        self.made += 1
        made = pod_for(self.job, index, before)
        made.metadata.name, made.metadata.uid = f"p{self.made}", f"u{self.made}"
        made.metadata.creationTimestamp = at(self.seconds)
        made.spec.nodeName = "n1"
        made.status = core_v1.PodStatus(phase="Running")
        if self.per_index:
            notes = made.metadata.annotations or {}
            assert int(notes[INDEX_FAILURES]) == self.carried[index], "the successor inherits the count"
            assert int(notes.get(INDEX_IGNORED, "0")) <= self.made
        self.pods[f"p{self.made}"] = made

    @rule(
        which=st.integers(0, 5),
        how=st.sampled_from(["Succeeded", "Succeeded", COUNTED, COUNTED, LAST, FATAL, "disrupted"]),
    )
    def a_pod_ends(self, which: int, how: Any) -> None:
        living = sorted(self.running(), key=lambda each: each.metadata.name or "")
        if living:
            self.end(living[which % len(living)], how)

    def end(self, each: core_v1.Pod, how: Any) -> None:
        succeeded, disrupted = how == "Succeeded", how == "disrupted"
        code = 0 if succeeded else 137 if disrupted else how
        terminated = core_v1.ContainerStateTerminated(exitCode=code, finishedAt=at(self.seconds))
        each.status = core_v1.PodStatus(
            phase="Succeeded" if succeeded else "Failed",
            conditions=[core_v1.PodCondition(type="DisruptionTarget", status="True")] if disrupted else None,
            containerStatuses=[
                core_v1.ContainerStatus(
                    name="main",
                    image="x",
                    imageID="",
                    ready=False,
                    restartCount=0,
                    state=core_v1.ContainerState(terminated=terminated),
                )
            ],
        )
        if succeeded or disrupted or (not each.metadata.finalizers):
            return  # one whose finalizer is gone is counted already, or was never to count
        index = completion_index(each)
        self.counted[index] += 1
        self.carried[index] += 1
        if self.per_index and how == LAST:
            self.ended.add(index or 0)
        decided = self.find(FAILURE_TARGET) or self.find(SUCCESS_CRITERIA_MET)
        self.fatal = self.fatal or (how == FATAL and decided is None)

    @rule()
    def ended_pods_are_deleted(self) -> None:
        self.pods = {
            name: each
            for name, each in self.pods.items()
            if each.metadata.finalizers or not (is_finished(each) and is_terminating(each))
        }

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.job.spec.suspend = suspend

    @rule(parallelism=st.integers(0, 4))
    def resize(self, parallelism: int) -> None:
        self.job.spec.parallelism = parallelism

    @rule(seconds=st.sampled_from([1, 20, 700]))
    def time_passes(self, seconds: int) -> None:
        self.seconds += seconds

    @rule(passes=st.integers(1, 5))
    def time_passes_with_the_controller(self, passes: int) -> None:
        for _ in range(passes):
            self.seconds += 700
            self.reconcile()

    @invariant()
    def conditions_tell_one_story(self) -> None:
        if not hasattr(self, "job") or self.job.status is None:
            return
        failing, met = self.find(FAILURE_TARGET), self.find(SUCCESS_CRITERIA_MET)
        failed, complete = self.find(status.FAILED), self.find(status.COMPLETE)
        assert not (failing and met) and not (failed and complete)
        assert failing or not failed
        assert met or not complete
        if failed or complete:
            assert not self.running(), "over when no pod is left"
            assert not any(each.metadata.finalizers for each in self.pods.values()), "and every pod is counted"
            interim = failing or met
            last = failed or complete
            assert (interim.reason, interim.message) == (last.reason, last.message)
            assert (self.job.status.completionTime is not None) == bool(complete)
        completed = indexes.parse(self.job.status.completedIndexes)
        assert not completed & indexes.parse(self.job.status.failedIndexes)
        if self.indexed:
            assert (self.job.status.succeeded or 0) == len(completed)

    @invariant()
    def what_is_counted_is_true(self) -> None:
        if not hasattr(self, "job") or self.job.status is None or self.find(FAILURE_TARGET):
            return
        assert (self.job.status.failed or 0) <= sum(self.counted.values()), "ignored failures cost nothing"

    def teardown(self) -> None:
        if not hasattr(self, "job"):
            return
        self.job.spec.suspend, self.job.spec.parallelism = False, 2
        for _ in range(LONG_ENOUGH):
            self.time_passes(700)
            self.reconcile()
            for each in self.running():
                self.end(each, COUNTED if is_terminating(each) else "Succeeded")
            self.ended_pods_are_deleted()
        assert self.over()
        if self.find(status.COMPLETE) and self.find(SUCCESS_CRITERIA_MET).reason == COMPLETIONS_REACHED:
            assert (self.job.status.succeeded or 0) >= 4
        if self.fatal:
            assert self.find(status.FAILED).reason == "PodFailurePolicy"
        if self.per_index and self.find(status.FAILED) and not self.fatal:
            assert self.find(status.FAILED).reason in ("FailedIndexes", "MaxFailedIndexesExceeded")
            wrong = indexes.parse(self.job.status.failedIndexes)
            assert wrong == {i for i in range(4) if self.carried[i] > self.limit or i in self.ended} - indexes.parse(
                self.job.status.completedIndexes
            )


TestPolicyJob = PolicyJob.TestCase
TestPolicyJob.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
