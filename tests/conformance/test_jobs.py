"""sig-apps: Jobs, with containers that really end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.objects import STAY, condition, container, job, wait_condition
from tests.harness.api import Api, Collection, Obj, until
from tests.harness.nanokube import eventually, is_ready

JOB = "[sig-apps] Job "
INDEX = "batch.kubernetes.io/job-completion-index"


def jobs_of(api: Api, namespace: str) -> Collection:
    return api.of("batch/v1", "jobs", namespace)


def staying(name: str, **spec: Any) -> Obj:
    """A Job whose pods run until they are told to end."""
    made = job(name, "true", **spec)
    made["spec"]["template"]["spec"]["containers"] = [container(STAY)]
    return made


def pods_of(api: Api, namespace: str, name: str) -> list[Obj]:
    return api.of("v1", "pods", namespace).list(labelSelector=f"job-name={name}")


def running(api: Api, namespace: str, name: str, count: int) -> list[Obj]:
    return (
        eventually(
            lambda: (
                (found := [each for each in pods_of(api, namespace, name) if is_ready(each)])
                and len(found) == count
                and found
            ),
            f"{count} running pods of {name}",
        )
        or []
    )


@pytest.mark.conformance(
    JOB + "should run a job to completion when tasks sometimes fail and are locally restarted [Conformance]"
)
def test_local_restarts(api: Api, namespace: str) -> None:
    """The container fails the first time and finds what it left in its volume the second time."""
    made = job(
        "restarts", "test -e /data/foo && exit 0", "touch /data/foo", "exit 1", restart="OnFailure", completions=2
    )
    spec = made["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "data", "emptyDir": {}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    jobs_of(api, namespace).create(made)
    wait_condition(jobs_of(api, namespace), "restarts", "Complete")
    pods = pods_of(api, namespace, "restarts")
    assert [each["status"]["containerStatuses"][0]["restartCount"] for each in pods] == [1, 1]
    assert jobs_of(api, namespace).get("restarts")["status"].get("failed", 0) == 0


@pytest.mark.conformance(
    JOB + "should create pods for an Indexed job with completion indexes and specified hostname [Conformance]"
)
def test_indexed(api: Api, namespace: str) -> None:
    made = job("indexed", "true", completions=3, parallelism=2, completionMode="Indexed")
    jobs_of(api, namespace).create(made)
    wait_condition(jobs_of(api, namespace), "indexed", "Complete")
    pods = sorted(pods_of(api, namespace, "indexed"), key=lambda each: str(each["metadata"]["annotations"][INDEX]))
    assert [each["metadata"]["annotations"][INDEX] for each in pods] == ["0", "1", "2"]
    assert [each["metadata"]["labels"][INDEX] for each in pods] == ["0", "1", "2"]
    assert [each["spec"]["hostname"] for each in pods] == ["indexed-0", "indexed-1", "indexed-2"]
    assert jobs_of(api, namespace).get("indexed")["status"]["completedIndexes"] == "0-2"


@pytest.mark.conformance(
    JOB + "should allow to use the pod failure policy on exit code to fail the job early [Conformance]"
)
def test_failure_policy_by_exit_code(api: Api, namespace: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
    jobs_of(api, namespace).create(job("early", "exit 1", backoffLimit=6, podFailurePolicy={"rules": [rule]}))
    failed = wait_condition(jobs_of(api, namespace), "early", "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    assert jobs_of(api, namespace).get("early")["status"]["failed"] == 1


@pytest.mark.conformance(
    JOB
    + "should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition [Conformance]"
)
def test_failure_policy_ignores_disruptions(api: Api, namespace: str) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    made = job(
        "disrupted", "trap 'exit 1' TERM", "sleep 3600 & wait", backoffLimit=0, podFailurePolicy={"rules": [rule]}
    )
    jobs_of(api, namespace).create(made)
    (victim,) = running(api, namespace, "disrupted", 1)
    name = victim["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    api.of("v1", "pods", namespace).create(body, name, "eviction")

    def replaced() -> bool:
        return [each for each in pods_of(api, namespace, "disrupted") if is_ready(each)] != [] and not api.of(
            "v1", "pods", namespace
        ).exists(name)

    eventually(replaced, "another pod")
    status = jobs_of(api, namespace).get("disrupted")["status"]
    assert condition({"status": status}, "Failed") == {} and status.get("failed", 0) == 0


@pytest.mark.conformance(
    JOB + "should execute all indexes despite some failing when using backoffLimitPerIndex [Conformance]"
)
def test_backoff_limit_per_index(api: Api, namespace: str) -> None:
    script = 'test "$((JOB_COMPLETION_INDEX % 2))" = 1'
    jobs_of(api, namespace).create(
        job("halves", script, completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=0)
    )
    failed = wait_condition(jobs_of(api, namespace), "halves", "Failed")
    status = jobs_of(api, namespace).get("halves")["status"]
    assert failed["reason"] == "FailedIndexes"
    assert (status["completedIndexes"], status["failedIndexes"]) == ("1,3", "0,2")
    assert (status["succeeded"], status["failed"]) == (2, 2)


@pytest.mark.conformance(
    JOB + "should terminate job execution when the number of failed indexes exceeds maxFailedIndexes [Conformance]"
)
def test_max_failed_indexes(api: Api, namespace: str) -> None:
    script = 'test "$JOB_COMPLETION_INDEX" -ge 2 && sleep 3600; exit 1'
    made = job(
        "few",
        script,
        completions=4,
        parallelism=4,
        completionMode="Indexed",
        backoffLimitPerIndex=0,
        maxFailedIndexes=1,
    )
    jobs_of(api, namespace).create(made)
    failed = wait_condition(jobs_of(api, namespace), "few", "Failed")
    assert failed["reason"] == "MaxFailedIndexesExceeded"
    assert jobs_of(api, namespace).get("few")["status"].get("active", 0) == 0


@pytest.mark.conformance(
    JOB + "should mark indexes as failed when the FailIndex action is matched in podFailurePolicy [Conformance]"
)
def test_fail_index(api: Api, namespace: str) -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    made = job(
        "marked",
        'test "$JOB_COMPLETION_INDEX" = 0 && exit 42',
        "exit 0",
        completions=2,
        parallelism=2,
        completionMode="Indexed",
        backoffLimitPerIndex=3,
        podFailurePolicy={"rules": [rule]},
    )
    jobs_of(api, namespace).create(made)
    wait_condition(jobs_of(api, namespace), "marked", "Failed")
    status = jobs_of(api, namespace).get("marked")["status"]
    assert (status["completedIndexes"], status["failedIndexes"], status["failed"]) == ("1", "0", 1)


POLICY = JOB + "with successPolicy "
PENDING = "should succeeded even when some indexes remain pending [Conformance]"
SUCCESS = [
    pytest.param(
        None, 'true', "0-2",
        marks=pytest.mark.conformance(POLICY + "should succeeded when all indexes succeeded [Conformance]"),
        id="no rule needed",
    ),
    pytest.param(
        {"succeededIndexes": "0"}, 'test "$JOB_COMPLETION_INDEX" = 0 || sleep 3600', "0",
        marks=pytest.mark.conformance(POLICY + "succeededIndexes rule " + PENDING),
        id="indexes",
    ),
    pytest.param(
        {"succeededCount": 1}, 'test "$JOB_COMPLETION_INDEX" = 0 || sleep 3600', "0",
        marks=pytest.mark.conformance(POLICY + "succeededCount rule " + PENDING),
        id="count",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "script", "completed"), SUCCESS)
def test_success_policy(api: Api, namespace: str, rule: Obj | None, script: str, completed: str) -> None:
    policy = {"rules": [rule or {"succeededIndexes": "0-2"}]}
    jobs_of(api, namespace).create(
        job("won", script, completions=3, parallelism=3, completionMode="Indexed", successPolicy=policy)
    )
    met = wait_condition(jobs_of(api, namespace), "won", "SuccessCriteriaMet")
    wait_condition(jobs_of(api, namespace), "won", "Complete")
    status = jobs_of(api, namespace).get("won")["status"]
    assert status["completedIndexes"] == completed
    assert met["reason"] == "SuccessPolicy"
    assert status.get("active", 0) == 0


@pytest.mark.conformance(JOB + "should delete a job [Conformance]")
def test_delete(api: Api, namespace: str) -> None:
    jobs_of(api, namespace).create(staying("foo", parallelism=2, completions=4))
    running(api, namespace, "foo", 2)
    jobs_of(api, namespace).delete("foo", propagationPolicy="Foreground")
    eventually(lambda: not jobs_of(api, namespace).exists("foo"), "the job to go")
    assert pods_of(api, namespace, "foo") == [], "in the foreground its pods go first"


@pytest.mark.conformance(JOB + "should adopt matching orphans and release non-matching pods [Conformance]")
def test_adoption(api: Api, namespace: str) -> None:
    pods = api.of("v1", "pods", namespace)
    made = jobs_of(api, namespace).create(staying("adopt-release", parallelism=2, completions=4))
    one = running(api, namespace, "adopt-release", 2)[0]["metadata"]["name"]

    def owner() -> str:
        references = pods.get(one)["metadata"].get("ownerReferences") or [{}]
        return str(references[0].get("uid", ""))

    assert owner() == made["metadata"]["uid"]
    pods.patch(one, {"metadata": {"ownerReferences": None}})
    eventually(lambda: owner() == made["metadata"]["uid"], "the orphan's adoption")
    labels = pods.get(one)["metadata"]["labels"]
    pods.patch(one, {"metadata": {"labels": dict.fromkeys(labels)}})
    eventually(lambda: owner() == "", "its release")
    jobs_of(api, namespace).delete("adopt-release", propagationPolicy="Background")


@pytest.mark.conformance(JOB + "should apply changes to a job status [Conformance]")
def test_status_endpoints(api: Api, namespace: str) -> None:
    jobs = jobs_of(api, namespace)
    made = jobs.create(staying("told", parallelism=2, completions=4))
    running(api, namespace, "told", 2)
    now = jobs.get("told")["status"]["startTime"]
    said = {"type": "CustomConditionType", "status": "True", "lastTransitionTime": now}
    patched = jobs.patch(
        "told",
        {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [said]}},
        subresource="status",
    )
    assert condition(patched, "CustomConditionType")["lastTransitionTime"] == now
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    with jobs.watch(resourceVersion=made["metadata"]["resourceVersion"]) as events:
        jobs.modify("told", lambda obj: obj["status"]["conditions"].append({**said, "type": "Another"}), "status")
        until(events, "MODIFIED", lambda obj: condition(obj, "Another").get("status") == "True")
    assert jobs.get("told", "status")["status"]["startTime"] == now


@pytest.mark.conformance(JOB + "should manage the lifecycle of a job [Conformance]")
def test_lifecycle(api: Api, namespace: str) -> None:
    jobs, everywhere = jobs_of(api, namespace), api.of("batch/v1", "jobs")
    made = staying("life", parallelism=2, completions=4, suspend=True)
    version = jobs.create(made)["metadata"]["resourceVersion"]
    label = f"e2e-{namespace}"
    with jobs.watch(resourceVersion=version) as events:
        jobs.patch("life", {"metadata": {"labels": {label: "patched"}}}, "strategic")

        def suspended(obj: Obj) -> bool:
            told = condition(obj, "Suspended").get("status") == "True"
            return told and obj["metadata"]["labels"].get(label) == "patched"

        assert until(events, "MODIFIED", suspended)["spec"]["suspend"] is True

        def resume(obj: Obj) -> None:
            obj["spec"]["suspend"] = False
            obj["metadata"].setdefault("annotations", {})["updated"] = "true"

        jobs.modify("life", resume)
        until(events, "MODIFIED", lambda obj: obj["metadata"].get("annotations", {}).get("updated") == "true")
        running(api, namespace, "life", 2)
        assert everywhere.names(labelSelector=f"{label}=patched") == ["life"]
        jobs.delete_all({"propagationPolicy": "Background"}, labelSelector=f"{label}=patched")
        until(events, "DELETED")
    assert everywhere.names(labelSelector=f"{label}=patched") == []
