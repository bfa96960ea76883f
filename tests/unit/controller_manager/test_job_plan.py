from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import batch_v1, core_v1, meta_v1
from controller_manager.job import indexes, status
from controller_manager.job.failures import INDEX, INDEX_FAILURES, Action, backoff_left, judge
from controller_manager.job.plan import is_complete, matched_success_rule, plan_outcome, plan_pods
from controller_manager.job.pods import pod_for
from controller_manager.job.tally import FINALIZER, count
from controller_manager.objects import is_active
from machinery.clock import VirtualClock
from tests.unit.controller_manager.builders import at

CLOCK = VirtualClock(at(0))


def job(status_: dict[str, Any] | None = None, **spec: Any) -> batch_v1.Job:
    template = core_v1.PodTemplateSpec(
        metadata=meta_v1.ObjectMeta(labels={"app": "web"}),
        spec=core_v1.PodSpec(
            containers=[core_v1.Container(name="main", image="x")], restartPolicy=spec.pop("restarts", "Never")
        ),
    )
    return batch_v1.Job(
        metadata=meta_v1.ObjectMeta(name="work", namespace="default", uid="uid-job"),
        spec=batch_v1.JobSpec(template=template, **spec),
        status=batch_v1.JobStatus(**(status_ or {})),
    )


def pod(
    name: str,
    phase: str = "Running",
    *,
    index: int | None = None,
    failures: int | None = None,
    deleted: bool = False,
    tracked: bool = True,
    code: int = 1,
    node: str | None = "n1",
    ended: float = -10_000,
    conditions: list[core_v1.PodCondition] | None = None,
) -> core_v1.Pod:
    annotations = {} if index is None else {INDEX: str(index)}
    if failures is not None:
        annotations[INDEX_FAILURES] = str(failures)
    state = core_v1.ContainerState(
        terminated=core_v1.ContainerStateTerminated(exitCode=code, finishedAt=at(ended))
        if phase in ("Failed", "Succeeded")
        else None
    )
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=name,
            namespace="default",
            uid=f"uid-{name}",
            creationTimestamp=at(0),
            deletionTimestamp=at(0) if deleted else None,
            annotations=annotations,
            finalizers=[FINALIZER] if tracked else None,
        ),
        spec=core_v1.PodSpec(containers=[], nodeName=node),
        status=core_v1.PodStatus(
            phase=phase,
            conditions=conditions,
            containerStatuses=[
                core_v1.ContainerStatus(name="main", image="x", imageID="", ready=False, restartCount=0, state=state)
            ],
        ),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("3", [3], id="one"),
        pytest.param("0,1", [0, 1], id="two in a row stay apart"),
        pytest.param("0-2,5,7,8,10-13", [0, 1, 2, 5, 7, 8, 10, 11, 12, 13], id="series"),
    ],
)
def test_indexes_as_text(text: str, found: list[int]) -> None:
    assert indexes.render(found) == text
    assert indexes.parse(text) == frozenset(found)


@given(st.frozensets(st.integers(0, 300)))
def test_indexes_survive_the_way_through_text(found: frozenset[int]) -> None:
    assert indexes.parse(indexes.render(found)) == found


def test_unreadable_indexes_are_none() -> None:
    assert indexes.parse("a,1-x,-3,5") == {5}


pods = st.lists(
    st.tuples(
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        st.one_of(st.none(), st.integers(0, 12)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=25,
).map(lambda rows: [pod(f"p{n}", phase, index=i, deleted=d, tracked=t) for n, (phase, i, d, t) in enumerate(rows)])


@given(
    pods,
    st.integers(0, 12),
    st.one_of(st.none(), st.integers(0, 12)),
    st.sampled_from(["NonIndexed", "Indexed"]),
    st.sampled_from(["TerminatingOrFailed", "Failed"]),
    st.one_of(st.none(), st.integers(0, 2)),
)
def test_never_more_than_parallelism_runs(
    found: list[core_v1.Pod],
    parallelism: int,
    completions: int | None,
    mode: str,
    replacement: str,
    per_index: int | None,
) -> None:
    if mode == "Indexed" and completions is None:
        completions = 5
    wanted = job(
        parallelism=parallelism,
        completions=completions,
        completionMode=mode,
        podReplacementPolicy=replacement,
        backoffLimitPerIndex=per_index if mode == "Indexed" else None,
    )
    tally = count(wanted, found)
    plan = plan_pods(wanted, tally, CLOCK)
    assert not (plan.create and plan.delete)
    assert all(is_active(each) for each in plan.delete)
    after = len(tally.active) + len(plan.create) - len(plan.delete)
    assert after <= max(parallelism, 0) or plan.delete == ()
    if plan.create:
        assert after <= parallelism
        if replacement == "Failed":
            assert after + tally.terminating <= parallelism
        if completions is not None:
            assert after <= completions - tally.succeeded
    if len(tally.active) > parallelism:
        assert after <= parallelism
    if mode == "Indexed":
        assert completions is not None
        taken = {int((each.metadata.annotations or {}).get(INDEX, -1)) for each in tally.active if each.metadata}
        fresh = [index for index in plan.create if index is not None]
        assert len(set(fresh)) == len(fresh) == len(plan.create)
        assert not set(fresh) & (taken | tally.completed | (tally.failed_indexes or frozenset()))
        assert all(index < completions for index in fresh)


@given(pods, st.sampled_from(["NonIndexed", "Indexed"]), st.integers(0, 25))
def test_every_pod_is_counted_once_whatever_step_was_lost(found: list[core_v1.Pod], mode: str, lost: int) -> None:
    """Run the bookkeeping, lose the second write after `lost` finalizers were removed, run it again."""
    spec: dict[str, Any] = {"parallelism": 5, "completions": 13, "completionMode": mode}
    wanted = job(**spec)
    before = count(wanted, found)
    work = status.begin(wanted, CLOCK)
    status.settle_uncounted(work, found)
    done = status.list_uncounted(wanted, work, before, None)
    wanted.status = work  # step 1 is written
    removed = {each.metadata.uid for each in done[:lost] if each.metadata}
    for each in found:
        if each.metadata and each.metadata.uid in removed:
            each.metadata.finalizers = None
    again = count(wanted, found)
    assert (again.succeeded, again.failed) == (before.succeeded, before.failed)
    work = status.begin(wanted, CLOCK)
    status.settle_uncounted(work, found)
    rest = status.list_uncounted(wanted, work, again, None)
    assert {each.metadata.uid for each in rest if each.metadata}.isdisjoint(removed)
    status.settle_uncounted(work, [])
    assert (work.succeeded or 0, work.failed or 0) == (before.succeeded, before.failed)
    assert work.uncountedTerminatedPods == batch_v1.UncountedTerminatedPods()


@pytest.mark.parametrize(
    ("failures", "ago", "left"),
    [
        pytest.param(0, 0, 0, id="none"),
        pytest.param(1, 0, 10, id="first"),
        pytest.param(1, 4, 6, id="partly over"),
        pytest.param(3, 0, 40, id="doubles"),
        pytest.param(7, 0, 600, id="at most ten minutes"),
        pytest.param(500, 0, 600, id="many"),
        pytest.param(2, 21, 0, id="over"),
        pytest.param(1, -500, 10, id="a clock that jumped does not wait for ever"),
    ],
)
def test_backoff(failures: int, ago: float, left: float) -> None:
    assert backoff_left(failures, at(-ago), CLOCK) == left


def rule(action: str, **fields: Any) -> batch_v1.PodFailurePolicyRule:
    return batch_v1.PodFailurePolicyRule(action=action, **fields)


def codes(operator: str, values: list[int], container: str | None = None) -> Any:
    return batch_v1.PodFailurePolicyOnExitCodesRequirement(operator=operator, values=values, containerName=container)


def disrupted(value: str) -> list[core_v1.PodCondition]:
    return [core_v1.PodCondition(type="DisruptionTarget", status=value)]


TARGET = [batch_v1.PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget")]


@pytest.mark.parametrize(
    ("rules", "failed", "action"),
    [
        pytest.param([rule("FailJob", onExitCodes=codes("In", [1]))], pod("a", "Failed"), Action.FAIL_JOB, id="in"),
        pytest.param([rule("FailJob", onExitCodes=codes("In", [2]))], pod("a", "Failed"), Action.COUNT, id="not in"),
        pytest.param([rule("Ignore", onExitCodes=codes("NotIn", [2]))], pod("a", "Failed"), Action.IGNORE, id="NotIn"),
        pytest.param(
            [rule("Ignore", onExitCodes=codes("NotIn", [2]))], pod("a", "Failed", code=0), Action.COUNT, id="zero"
        ),
        pytest.param(
            [rule("Ignore", onExitCodes=codes("In", [1], "other"))], pod("a", "Failed"), Action.COUNT, id="container"
        ),
        pytest.param(
            [rule("Ignore", onPodConditions=TARGET)],
            pod("a", "Failed", conditions=disrupted("True")),
            Action.IGNORE,
            id="condition",
        ),
        pytest.param(
            [rule("Ignore", onPodConditions=TARGET)],
            pod("a", "Failed", conditions=disrupted("False")),
            Action.COUNT,
            id="condition not met",
        ),
        pytest.param(
            [rule("Count", onExitCodes=codes("In", [1])), rule("FailJob", onExitCodes=codes("In", [1]))],
            pod("a", "Failed"),
            Action.COUNT,
            id="the first rule wins",
        ),
    ],
)
def test_failure_policy(rules: list[Any], failed: core_v1.Pod, action: Action) -> None:
    assert judge(job(podFailurePolicy=batch_v1.PodFailurePolicy(rules=rules)), failed).action is action


@pytest.mark.parametrize(
    ("spec", "before", "found", "reason"),
    [
        pytest.param({"backoffLimit": 1}, {"failed": 1}, [pod("a", "Failed")], "BackoffLimitExceeded", id="limit"),
        pytest.param({"backoffLimit": 2}, {"failed": 1}, [pod("a", "Failed")], None, id="within the limit"),
        pytest.param({"activeDeadlineSeconds": 5}, {"startTime": at(-5)}, [], "DeadlineExceeded", id="deadline"),
        pytest.param({"activeDeadlineSeconds": 5}, {"startTime": at(-4)}, [], None, id="in time"),
        pytest.param({"activeDeadlineSeconds": 5, "suspend": True}, {"startTime": at(-9)}, [], None, id="suspended"),
        pytest.param(
            {"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0},
            {},
            [pod("a", "Failed", index=0, failures=0)],
            "MaxFailedIndexesExceeded",
            id="too many indexes",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 1, "backoffLimitPerIndex": 0},
            {},
            [pod("a", "Failed", index=0, failures=0)],
            "FailedIndexes",
            id="all indexes over",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 1, "backoffLimitPerIndex": 1},
            {},
            [pod("a", "Failed", index=0, failures=0)],
            None,
            id="the index may try again",
        ),
    ],
)
def test_outcome(spec: dict[str, Any], before: dict[str, Any], found: list[core_v1.Pod], reason: str | None) -> None:
    wanted = job(before, **spec)
    outcome = plan_outcome(wanted, count(wanted, found), CLOCK)
    assert (outcome.reason if outcome else None) == reason


@pytest.mark.parametrize(
    ("rules", "completed", "matched"),
    [
        pytest.param([{"succeededIndexes": "0,2"}], {0, 1}, None, id="not all"),
        pytest.param([{"succeededIndexes": "0,2"}], {0, 1, 2}, 0, id="all"),
        pytest.param([{"succeededCount": 2}], {1, 4}, 0, id="count"),
        pytest.param([{"succeededIndexes": "0-3", "succeededCount": 2}], {1, 4}, None, id="count among indexes"),
        pytest.param([{"succeededCount": 9}, {"succeededIndexes": "4"}], {4}, 1, id="second rule"),
    ],
)
def test_success_policy(rules: list[dict[str, Any]], completed: set[int], matched: int | None) -> None:
    policy = batch_v1.SuccessPolicy(rules=[batch_v1.SuccessPolicyRule(**each) for each in rules])
    wanted = job(completionMode="Indexed", completions=5, successPolicy=policy)
    assert matched_success_rule(wanted, frozenset(completed)) == matched


def test_restarts_in_place_count_against_the_limit() -> None:
    wanted = job(backoffLimit=3, restarts="OnFailure")
    runs = pod("a")
    assert runs.status is not None
    assert runs.status.containerStatuses is not None
    for restarts, reason in ((2, None), (3, "BackoffLimitExceeded")):
        runs.status.containerStatuses[0].restartCount = restarts
        outcome = plan_outcome(wanted, count(wanted, [runs]), CLOCK)
        assert (outcome.reason if outcome else None) == reason


def test_an_ignored_failure_is_inherited_but_not_counted() -> None:
    policy = batch_v1.PodFailurePolicy(rules=[rule("Ignore", onExitCodes=codes("In", [7]))])
    wanted = job(completionMode="Indexed", completions=1, backoffLimitPerIndex=3, podFailurePolicy=policy)
    successor = pod_for(wanted, 0, pod("a", "Failed", index=0, failures=2, code=7))
    assert successor.metadata is not None
    assert successor.metadata.annotations is not None
    assert successor.metadata.annotations[INDEX_FAILURES] == "2"
    assert successor.metadata.annotations["batch.kubernetes.io/job-index-ignored-failure-count"] == "1"


def test_long_names_leave_room_for_the_index() -> None:
    wanted = job(completionMode="Indexed", completions=9)
    assert wanted.metadata is not None
    wanted.metadata.name = "n" * 63
    made = pod_for(wanted, 7)
    assert made.metadata is not None
    assert made.metadata.generateName == "n" * 55 + "-7-"


def test_a_work_queue_is_complete_when_nothing_runs() -> None:
    wanted = job({"succeeded": 1}, parallelism=3)
    assert not is_complete(wanted, count(wanted, [pod("a")]), 1)
    assert is_complete(wanted, count(wanted, []), 0)
