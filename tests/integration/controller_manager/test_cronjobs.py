"""CronJobs and expiring Jobs against a real API server (in process, memory store)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from api import resources
from api.models import batch_v1, core_v1
from machinery.clock import VirtualClock
from machinery.cron import parse, times
from machinery.meta import rfc3339
from tests.integration.controller_manager.hollow import Cluster, eventually, running_cluster
from tests.integration.controller_manager.test_jobs import end, running

CRONS = resources.of(batch_v1.CronJob)
JOBS = resources.of(batch_v1.Job)
EVENTS = resources.of(core_v1.Event)
NS = "default"
CRON = "[sig-apps] CronJob should "

Obj = dict[str, Any]


def cron(schedule: str = "", **spec: Any) -> Obj:
    """By default one run an hour, the last of which came up within the last two minutes."""
    if not schedule:
        schedule = f"{(datetime.now(UTC) - timedelta(minutes=1)).minute} * * * *"
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": NS},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}, **spec},
    }


async def jobs_of(cluster: Cluster) -> list[Obj]:
    found: list[Obj] = (await cluster.client.list(JOBS, NS)).items
    return sorted(found, key=lambda job: str(job["metadata"]["name"]))


async def came_up(cluster: Cluster, minutes: float = 2) -> None:
    """Make a run due now: its last one was some minutes ago."""
    last = rfc3339(cluster.clock.now() - timedelta(minutes=minutes, seconds=1))
    await cluster.client.patch(CRONS, "tick", {"status": {"lastScheduleTime": last}}, NS, subresource="status")


async def started(cluster: Cluster, count: int) -> list[Obj]:
    async def probe() -> list[Obj]:
        found = await jobs_of(cluster)
        live = await cluster.client.get(CRONS, "tick", NS)
        assert len(found) == len((live.get("status") or {}).get("active", ())) == count, (found, live.get("status"))
        return found or [{}]

    found: list[Obj] = await eventually(probe, f"{count} jobs")
    return found


async def told(cluster: Cluster, reason: str) -> None:
    async def probe() -> bool:
        return reason in {each["reason"] for each in (await cluster.client.list(EVENTS, NS)).items}

    await eventually(probe, f"event {reason}")


async def test_a_run_is_started_once_and_followed_to_its_end() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(cron())
        await came_up(cluster)
        (job,) = await started(cluster, 1)
        live = await cluster.client.get(CRONS, "tick", NS)
        name, (reference,) = job["metadata"]["name"], live["status"]["active"]
        assert (reference["kind"], reference["name"], reference["uid"]) == ("Job", name, job["metadata"]["uid"])
        assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].endswith(":00Z")
        assert job["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
        (pod,) = await running(cluster, 1, name)
        await end(cluster, pod)

        async def ended() -> bool:
            status = (await cluster.client.get(CRONS, "tick", NS))["status"]
            return "active" not in status and "lastSuccessfulTime" in status

        await eventually(ended, "the run's end noted")
        await told(cluster, "SawCompletedJob")


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        pytest.param(
            "Allow", 2, marks=pytest.mark.conformance(CRON + "schedule multiple jobs concurrently [Conformance]")
        ),
        pytest.param(
            "Forbid",
            1,
            marks=pytest.mark.conformance(CRON + "not schedule new jobs when ForbidConcurrent [Slow] [Conformance]"),
        ),
        pytest.param(
            "Replace", 1, marks=pytest.mark.conformance(CRON + "replace jobs when ReplaceConcurrent [Conformance]")
        ),
    ],
)
async def test_concurrency(policy: str, left: int) -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(cron(concurrencyPolicy=policy))
        stale: Obj = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "tick-1", "namespace": NS},
            "spec": cron()["spec"]["jobTemplate"]["spec"],
        }
        owner = await cluster.client.get(CRONS, "tick", NS)
        stale["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": "tick",
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
        made = await cluster.client.create(stale)
        await told(cluster, "UnexpectedJob")
        assert not ((await cluster.client.get(CRONS, "tick", NS)).get("status") or {}).get("active")
        reference = {"kind": "Job", "apiVersion": "batch/v1", "namespace": NS, "name": "tick-1"}
        active = {"status": {"active": [{**reference, "uid": made["metadata"]["uid"]}]}}
        await cluster.client.patch(CRONS, "tick", active, NS, subresource="status")
        await started(cluster, 1)
        await came_up(cluster)
        if policy == "Forbid":
            await told(cluster, "JobAlreadyActive")
        elif policy == "Replace":

            async def replaced() -> bool:
                return [each["metadata"]["name"] for each in await jobs_of(cluster)] not in ([], ["tick-1"])

            await eventually(replaced, "the old job replaced")
        found = await started(cluster, left)
        assert ("tick-1" in [each["metadata"]["name"] for each in found]) == (policy != "Replace")


@pytest.mark.conformance(CRON + "not schedule jobs when suspended [Slow] [Conformance]")
async def test_what_does_not_start_and_what_is_told() -> None:
    async with running_cluster() as cluster:
        await cluster.client.create(cron(suspend=True, concurrencyPolicy="Forbid"))
        await came_up(cluster)
        await started(cluster, 0)
        await cluster.client.patch(CRONS, "tick", {"spec": {"suspend": False, "schedule": "0 0 1 1 *"}}, NS)
        await came_up(cluster, minutes=1)
        await started(cluster, 0)
        await cluster.client.patch(CRONS, "tick", {"spec": {"schedule": "* * * * *"}}, NS)
        await came_up(cluster, minutes=500)
        await told(cluster, "TooManyMissedTimes")
        await started(cluster, 1)
        await cluster.client.patch(CRONS, "tick", {"spec": {"schedule": "59 23 31 2 *"}}, NS)
        await told(cluster, "InvalidSchedule")


async def test_a_job_that_somebody_else_made_for_it_holds_up_nothing() -> None:
    async with running_cluster(nodes=1) as cluster:
        owner = await cluster.client.create(cron(concurrencyPolicy="Forbid"))
        reference = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": owner["metadata"]["uid"]}
        manual: Obj = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": "by-hand",
                "namespace": NS,
                "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
                "ownerReferences": [{**reference, "controller": True}],
            },
            "spec": cron()["spec"]["jobTemplate"]["spec"],
        }
        await cluster.client.create(manual)
        await told(cluster, "UnexpectedJob")
        await came_up(cluster)

        async def probe() -> Obj:
            live: Obj = await cluster.client.get(CRONS, "tick", NS)
            (active,) = live["status"]["active"]
            return dict(active)

        assert (await eventually(probe, "a run beside it"))["name"].startswith("tick-")


async def test_old_jobs_are_cleaned_up() -> None:
    async with running_cluster(nodes=1) as cluster:
        await cluster.client.create(cron(successfulJobsHistoryLimit=0))
        await came_up(cluster)
        (job,) = await started(cluster, 1)
        (pod,) = await running(cluster, 1, job["metadata"]["name"])
        await end(cluster, pod)
        await started(cluster, 0)


async def test_a_month_of_runs_on_the_virtual_clock() -> None:
    """Three runs a day in a zone with summer time, each started once, in its minute, replacing the one before."""
    start = datetime.now(UTC).replace(microsecond=0)
    clock = VirtualClock(start)
    async with running_cluster(clock=clock, controllers=["cronjob-controller"]) as cluster:
        await cluster.client.create(cron("0 */8 * * *", concurrencyPolicy="Replace", timeZone="Europe/Berlin"))
        names = set()
        for expected in times(parse("0 */8 * * *"), ZoneInfo("Europe/Berlin"), start, start + timedelta(days=31)):
            await clock.advance((expected - clock.now()).total_seconds() + 1, settle=1)

            async def ran(moment: str = rfc3339(expected)) -> Obj:
                status: Obj = (await cluster.client.get(CRONS, "tick", NS)).get("status") or {}
                assert status.get("lastScheduleTime") == moment, status
                found = await jobs_of(cluster)
                assert len(found) == 1, found
                return found[0]

            job = await eventually(ran, f"the run of {expected}")
            minute = int(expected.timestamp()) // 60
            assert job["metadata"]["name"] == f"tick-{minute}"
            names.add(minute)
        assert 92 <= len(names) <= 94
