"""Jobs against a real API server (in process, memory store): pods end when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api import resources
from api.models import batch_v1, core_v1
from client.client import PatchType
from machinery.clock import RealClock
from machinery.errors import NotFound
from machinery.meta import rfc3339
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster

JOBS = resources.of(batch_v1.Job)
PODS = resources.of(core_v1.Pod)
EVENTS = resources.of(core_v1.Event)
NS = "default"
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"

Obj = dict[str, Any]


def job(name: str = "work", **spec: Any) -> Obj:
    container = {"name": "main", "image": "busybox"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NS},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}, **spec},
    }


async def pods_of(cluster: Cluster, name: str = "work") -> list[Obj]:
    found: list[Obj] = (await cluster.client.list(PODS, NS, label_selector=f"job-name={name}")).items
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def runs(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Pending", "Running") and not pod["metadata"].get(
        "deletionTimestamp"
    )


async def running(cluster: Cluster, count: int, name: str = "work") -> list[Obj]:
    async def probe() -> list[Obj]:
        found = [pod for pod in await pods_of(cluster, name) if runs(pod)]
        assert len(found) == count, [pod["metadata"]["name"] for pod in found]
        assert all(pod["status"]["phase"] == "Running" for pod in found)
        return found or [{}]

    found: list[Obj] = await eventually(probe, f"{count} running pods")
    return found


async def end(cluster: Cluster, pod: Obj, code: int = 0) -> None:
    terminated = {"exitCode": code, "finishedAt": rfc3339(cluster.clock.now())}
    state = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    status = {
        "phase": "Failed" if code else "Succeeded",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(cluster.clock.now())}],
        "containerStatuses": [{**state, "state": {"terminated": terminated}}],
    }
    await cluster.client.patch(
        PODS, pod["metadata"]["name"], {"status": status}, NS, type=PatchType.STRATEGIC, subresource="status"
    )


async def status_when(cluster: Cluster, met: Callable[[Obj], Any], what: str, name: str = "work") -> Obj:
    async def probe() -> Obj | None:
        status: Obj = (await cluster.client.get(JOBS, name, NS)).get("status", {})
        assert met(status), status
        return status

    found: Obj = await eventually(probe, what)
    return found


def conditions(status: Obj) -> dict[str, str]:
    return {each["type"]: each.get("reason", "") for each in status.get("conditions", ()) if each["status"] == "True"}


async def test_a_job_runs_to_completion_and_counts_each_pod_once() -> None:
    async with running_cluster(nodes=2) as cluster:
        await cluster.client.create(job(completions=5, parallelism=2))
        for done in range(5):
            found = await running(cluster, min(2, 5 - done))
            await end(cluster, found[0])
            await status_when(cluster, lambda status, n=done + 1: status.get("succeeded") == n, f"{done + 1} succeeded")  # type: ignore[misc]
        status = await status_when(cluster, lambda status: "Complete" in conditions(status), "complete")
        assert conditions(status) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
        assert status["ready"] == status["terminating"] == 0
        assert status["uncountedTerminatedPods"] == {}
        assert "active" not in status
        assert status["completionTime"] >= status["startTime"]
        pods = await pods_of(cluster)
        assert len(pods) == 5
        assert all("finalizers" not in pod["metadata"] for pod in pods)

        async def told() -> bool:
            events = (await cluster.client.list(EVENTS, NS)).items
            return {"SuccessfulCreate", "Completed"} <= {each["reason"] for each in events}

        await eventually(told, "events")


async def test_an_indexed_job_names_its_pods_and_replaces_a_failed_index() -> None:
    async with running_cluster(nodes=1, clock=RealClock(50)) as cluster:
        await cluster.client.create(job(completions=3, parallelism=3, completionMode="Indexed"))
        found = await running(cluster, 3)
        for index, pod in enumerate(found):
            meta, spec = pod["metadata"], pod["spec"]
            assert meta["generateName"] == f"work-{index}-"
            assert meta["labels"][INDEX] == meta["annotations"][INDEX] == str(index)
            assert spec["hostname"] == f"work-{index}"
            variable = spec["containers"][0]["env"][0]
            assert variable["name"] == "JOB_COMPLETION_INDEX"
            assert variable["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{INDEX}']"
        await end(cluster, found[0])
        await end(cluster, found[1], code=1)
        await end(cluster, found[2])
        status = await status_when(cluster, lambda status: status.get("failed") == 1, "a counted failure")
        (again,) = await running(cluster, 1)
        assert again["metadata"]["labels"][INDEX] == "1"
        status = await status_when(cluster, lambda status: status.get("succeeded") == 2, "two")
        assert status["completedIndexes"] == "0,2"
        await end(cluster, again)
        status = await status_when(cluster, lambda status: "Complete" in conditions(status), "complete")
        assert (status["completedIndexes"], status["succeeded"], status["failed"]) == ("0-2", 3, 1)


async def test_failures_wait_for_the_backoff_and_end_at_the_limit() -> None:
    clock = RealClock(4)
    async with running_cluster(nodes=1, clock=clock) as cluster:
        await cluster.client.create(job(backoffLimit=1))
        (first,) = await running(cluster, 1)
        failed_at = clock.monotonic()
        await end(cluster, first, code=1)
        await status_when(cluster, lambda status: status.get("failed") == 1, "counted")
        (second,) = await running(cluster, 1)
        waited = clock.monotonic() - failed_at
        # Timestamps in objects have whole seconds, which are 4 cluster seconds here: that much may be missing.
        assert waited > 5, waited
        await end(cluster, second, code=1)
        status = await status_when(cluster, lambda status: "Failed" in conditions(status), "failed")
        assert conditions(status) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
        assert status["failed"] == 2
        assert "completionTime" not in status


async def test_a_limit_per_index_fails_one_index_and_finishes_the_others() -> None:
    async with running_cluster(nodes=1, clock=RealClock(50)) as cluster:
        wanted = job(completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=1)
        await cluster.client.create(wanted)
        found = await running(cluster, 2)
        await end(cluster, found[0], code=1)
        again = (await running(cluster, 2))[0]
        assert again["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "1"
        await end(cluster, again, code=1)
        status = await status_when(cluster, lambda status: status.get("failedIndexes") == "0", "a failed index")
        assert "Failed" not in conditions(status)
        await end(cluster, found[1])
        status = await status_when(cluster, lambda status: "Failed" in conditions(status), "failed")
        assert conditions(status)["Failed"] == "FailedIndexes"
        assert (status["completedIndexes"], status["failed"], status["succeeded"]) == ("1", 2, 1)


@pytest.mark.parametrize(
    ("action", "code", "met"),
    [
        pytest.param("FailJob", 42, lambda s: conditions(s).get("Failed") == "PodFailurePolicy", id="FailJob"),
        pytest.param("Ignore", 42, lambda s: s.get("active") == 1 and not s.get("failed"), id="Ignore"),
        pytest.param("Count", 42, lambda s: s.get("failed") == 1, id="Count"),
        pytest.param("FailJob", 1, lambda s: conditions(s).get("Failed") == "BackoffLimitExceeded", id="no match"),
    ],
)
async def test_the_failure_policy_decides(action: str, code: int, met: Callable[[Obj], bool]) -> None:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    async with running_cluster(nodes=1, clock=RealClock(50)) as cluster:
        await cluster.client.create(job(backoffLimit=0, podFailurePolicy={"rules": [rule]}))
        (first,) = await running(cluster, 1)
        await end(cluster, first, code=code)
        if action == "Ignore":
            (second,) = await running(cluster, 1)
            assert second["metadata"]["uid"] != first["metadata"]["uid"]
        status = await status_when(cluster, met, action)
        if action == "FailJob" and code == 42:
            message = next(each["message"] for each in status["conditions"] if each["type"] == "Failed")
            name = first["metadata"]["name"]
            assert message == (
                f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
            )


async def test_suspend_stops_the_pods_without_counting_them_and_resume_starts_again() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(job(parallelism=2, completions=4, suspend=True))
        status = await status_when(cluster, lambda status: "Suspended" in conditions(status), "suspended")
        assert "startTime" not in status
        assert await pods_of(cluster) == []
        await cluster.client.patch(JOBS, "work", {"spec": {"suspend": False}}, NS)
        await running(cluster, 2)
        status = await status_when(cluster, lambda status: status.get("active") == 2, "active")
        assert conditions(status) == {}
        assert status["conditions"][0]["reason"] == "JobResumed"
        assert "startTime" in status
        await cluster.client.patch(JOBS, "work", {"spec": {"suspend": True}}, NS)
        status = await status_when(cluster, lambda s: "Suspended" in conditions(s) and not s.get("active"), "again")
        assert "failed" not in status

        async def gone() -> bool:
            return not await pods_of(cluster)

        await eventually(gone, "pods gone")


async def test_the_deadline_stops_a_job() -> None:
    async with running_cluster(nodes=1, clock=RealClock(10)) as cluster:
        await cluster.client.create(job(activeDeadlineSeconds=15, parallelism=2, completions=2))
        await running(cluster, 2)
        status = await status_when(cluster, lambda status: "Failed" in conditions(status), "failed")
        assert conditions(status)["Failed"] == "DeadlineExceeded"
        assert status["failed"] == 2

        async def gone() -> bool:
            return not await pods_of(cluster)

        await eventually(gone, "pods gone")


async def test_the_success_policy_ends_a_job_early() -> None:
    rules = [{"succeededIndexes": "0,2", "succeededCount": 1}]
    wanted = job(completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules": rules})
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(wanted)
        found = await running(cluster, 3)
        await end(cluster, found[2])
        status = await status_when(cluster, lambda status: "Complete" in conditions(status), "complete")
        assert conditions(status) == {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"}
        assert (status["succeeded"], status["completedIndexes"]) == (1, "2")
        assert "failed" not in status

        async def alone() -> bool:
            return len(await pods_of(cluster)) == 1

        await eventually(alone, "the others deleted")


async def test_a_work_queue_is_done_when_one_pod_succeeded_and_all_ended() -> None:
    async with running_cluster(nodes=1) as cluster:
        wanted = job(parallelism=3)
        wanted["spec"]["completions"] = None
        await cluster.client.create(wanted)
        found = await running(cluster, 3)
        await end(cluster, found[0])
        await status_when(cluster, lambda status: status.get("succeeded") == 1, "one succeeded")
        assert len(await running(cluster, 2)) == 2
        await end(cluster, found[1])
        await end(cluster, found[2])
        status = await status_when(cluster, lambda status: "Complete" in conditions(status), "complete")
        assert status["succeeded"] == 3


async def test_scaling_parallelism_deletes_without_counting() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(job(parallelism=4, completions=4))
        await running(cluster, 4)
        await cluster.client.patch(JOBS, "work", {"spec": {"parallelism": 1}}, NS)
        await running(cluster, 1)
        status = await status_when(cluster, lambda status: status.get("active") == 1, "one active")
        assert "failed" not in status


async def test_deleting_a_job_frees_its_pods() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(job(parallelism=2, completions=2))
        await running(cluster, 2)
        await cluster.client.delete(JOBS, "work", NS, propagation_policy="Background")

        async def gone() -> bool:
            try:
                await cluster.client.get(JOBS, "work", NS)
            except NotFound:
                return not await pods_of(cluster)
            return False

        await eventually(gone, "job and pods gone")


async def test_orphaned_pods_lose_the_finalizer() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(job())
        await running(cluster, 1)
        await cluster.client.delete(JOBS, "work", NS, propagation_policy="Orphan")

        async def free() -> bool:
            (pod,) = await pods_of(cluster)
            return FINALIZER not in pod["metadata"].get("finalizers", ()) and not pod["metadata"].get("ownerReferences")

        await eventually(free, "pod without finalizer and owner")
