"""Acts on the plans of this folder: starts Jobs in time, reports which run, cleans up after old ones.

Owns: the CronJob loop. Never: counts pods (the Job controller does), nor catches up: of all runs that were missed, only
the latest is started. Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Final

from api import resources
from api.models import batch_v1, core_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import Informer
from client.listers import BY_OWNER, owner_uids
from controller_manager.cronjob import plan
from controller_manager.environment import Environment
from controller_manager.job.status import COMPLETE, finished_condition
from controller_manager.objects import controller_of, status_patch
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from machinery.cron import ScheduleError, zone_of
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.meta import ObjectKey

COMPONENT: Final = "cronjob-controller"
LONGEST_SLEEP: Final = 600.0
"""Real seconds after which the calendar is looked at again at the latest: the machine's clock may have been set."""
_SLACK: Final = 0.1

CronJob = batch_v1.CronJob
Job = batch_v1.Job


class CronJobController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._crons: Informer[CronJob] = env.informers.informer(CronJob)
        self._jobs: Informer[Job] = env.informers.informer(Job, indexers={BY_OWNER: owner_uids})
        self.controller = Controller(
            "cronjob",
            self.reconcile,
            clock=env.clock,
            informers=[self._crons, self._jobs],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._crons)
        self.controller.watches(self._jobs, self.crons_of)

    def crons_of(self, job: Job) -> Iterable[ObjectKey]:
        owner = controller_of(job)
        return (ObjectKey(job.metadata.namespace or "", owner.name),) if owner and owner.kind == "CronJob" else ()

    async def reconcile(self, key: ObjectKey) -> Result:
        cron = self._crons.lister.get(key)
        if cron is None:
            return DONE
        jobs = self._jobs.lister.by_index(BY_OWNER, cron.metadata.uid or "")
        for job in plan.plan_history(cron, jobs):
            await self._delete(cron, job)
        status = await self._observe(cron, jobs)
        try:
            return await self._start_due(cron, jobs, status)
        finally:
            await self._report(cron, status)

    async def _observe(self, cron: CronJob, jobs: Sequence[Job]) -> batch_v1.CronJobStatus:
        """Which of the Jobs that it has started run, and when one last succeeded; tells about the others.

        A Job that somebody else made for it (`kubectl create job --from`) counts neither as active nor as a run.
        """
        before = cron.status or batch_v1.CronJobStatus()
        active = {each.uid: each for each in before.active or ()}  # as they were: they carry a version
        for job in sorted(jobs, key=lambda job: str(key_of(job))):
            condition, uid = finished_condition(job), job.metadata.uid
            if condition is None and uid not in active:
                message = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                self._events.event(cron, WARNING, "UnexpectedJob", message)
            elif condition is not None and active.pop(uid, None) is not None:
                message = f"Saw completed job: {job.metadata.name}, condition: {condition.type}"
                self._events.event(cron, NORMAL, "SawCompletedJob", message)
        for uid in active.keys() - {job.metadata.uid for job in jobs}:
            if not await self._exists(active[uid]):
                self._events.event(cron, NORMAL, "MissingJob", f"Active job went missing: {active.pop(uid).name}")
        ends = [before.lastSuccessfulTime, *(job.status.completionTime for job in jobs if _succeeded(job))]
        return batch_v1.CronJobStatus(
            active=list(active.values()) or None,
            lastScheduleTime=before.lastScheduleTime,
            lastSuccessfulTime=max((end for end in ends if end is not None), default=None),
        )

    async def _exists(self, reference: core_v1.ObjectReference) -> bool:
        """Asked of the server: the cache may not show a new Job yet."""
        try:
            await self._client.get(Job, reference.name or "", reference.namespace or "")
        except NotFound:
            return False
        return True

    async def _start_due(self, cron: CronJob, jobs: Sequence[Job], status: batch_v1.CronJobStatus) -> Result:
        if cron.metadata.deletionTimestamp is not None:
            return DONE
        now = self._clock.now()
        try:
            zone_of(cron.spec.timeZone)
        except ScheduleError as error:
            message = f'invalid timeZone: "{cron.spec.timeZone}": {error}'
            self._events.event(cron, WARNING, "UnknownTimeZone", message)
            return DONE  # it works again when the spec has changed
        if cron.spec.suspend:
            return DONE
        try:
            due = plan.plan_due(cron, now)
        except plan.NeverDue as error:
            message = f"invalid schedule: {cron.spec.schedule} : {error}"
            self._events.event(cron, WARNING, "InvalidSchedule", message)
            return DONE
        except ScheduleError as error:
            message = f'unparseable schedule: "{cron.spec.schedule}" : {error}'
            self._events.event(cron, WARNING, "UnparseableSchedule", message)
            return DONE
        wait = self._until(due.next, now)
        if due.run is None:
            return wait
        if due.too_many:
            message = (
                f"too many missed start times: {due.missed}. Set or decrease .spec.startingDeadlineSeconds "
                "or check clock skew"
            )
            self._events.event(cron, WARNING, "TooManyMissedTimes", message)
        if plan.is_late(cron, due.run, now):
            message = f"Missed scheduled time to start a job: {format_datetime(due.run)}"
            self._events.event(cron, WARNING, "MissSchedule", message)
            return wait
        if status.active and cron.spec.concurrencyPolicy == "Forbid":
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._events.event(cron, NORMAL, "JobAlreadyActive", message)
            return wait  # tried again when that Job ends, too
        if cron.spec.concurrencyPolicy == "Replace":
            replaced = {each.uid for each in status.active or ()}
            for job in jobs:
                if job.metadata.uid in replaced:
                    await self._delete(cron, job)
            status.active = None
        started = await self._start(cron, due.run)
        if started is not None:
            if finished_condition(started) is None:
                references = [each for each in status.active or () if each.uid != started.metadata.uid]
                status.active = [*references, _reference(started)]
            status.lastScheduleTime = due.run
        return wait

    def _until(self, moment: datetime | None, now: datetime) -> Result:
        if moment is None:
            return DONE
        seconds = min((moment - now).total_seconds() + _SLACK, LONGEST_SLEEP)
        return Result(requeue_after=max(seconds, _SLACK) * self._clock.scale)

    async def _start(self, cron: CronJob, run: datetime) -> Job | None:
        job = plan.job_for(cron, run)
        try:
            made = await self._client.create(job)
        except AlreadyExists:
            live = await self._client.get(Job, job.metadata.name or "", job.metadata.namespace)
            owner = controller_of(live)
            if owner is None or owner.uid != cron.metadata.uid:
                return None  # whoever made it does as he likes
            return live  # an earlier pass made it, but could not note it
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return None
            self._events.event(cron, WARNING, "FailedCreate", f"Error creating job: {error.message}")
            raise
        self._events.event(cron, NORMAL, "SuccessfulCreate", f"Created job {made.metadata.name}")
        return made

    async def _delete(self, cron: CronJob, job: Job) -> None:
        key = key_of(job)
        if job.metadata.deletionTimestamp is not None:
            return
        try:
            await self._client.delete(
                Job, key.name, key.namespace, uid=job.metadata.uid, propagation_policy="Background"
            )
        except (NotFound, Conflict):
            return
        except StatusError as error:
            self._events.event(cron, WARNING, "FailedDelete", f"Deleted job: {error.message}")
            raise
        self._events.event(cron, NORMAL, "SuccessfulDelete", f"Deleted job {key.name}")

    async def _report(self, cron: CronJob, status: batch_v1.CronJobStatus) -> None:
        patch = status_patch(cron.status, status)
        if patch is None:
            return
        key, version = key_of(cron), cron.metadata.resourceVersion
        await self._client.patch(
            CronJob, key.name, patch, key.namespace, subresource="status", resource_version=version
        )


def _succeeded(job: Job) -> bool:
    condition = finished_condition(job)
    return condition is not None and condition.type == COMPLETE


def _reference(job: Job) -> Any:
    return core_v1.ObjectReference(
        kind="Job",
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        uid=job.metadata.uid,
        apiVersion=resources.of(Job).group_version,
        resourceVersion=job.metadata.resourceVersion,
    )


def build(env: Environment) -> list[Controller]:
    return [CronJobController(env).controller]
