"""Acts on the plans of this folder: makes, deletes and counts a Job's pods, reports the Job's status.

Owns: the Job loop, and the tracking finalizer of every Job's pods (also when their Job is gone). Never: deletes
finished Jobs (ttl_after_finished.py does). Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.models import batch_v1, core_v1
from client.client import PatchType, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import Informer
from client.listers import BY_OWNER, owner_uids
from controller_manager import adoption
from controller_manager.environment import Environment
from controller_manager.job import plan, status, tally
from controller_manager.job.plan import COMPLETIONS_REACHED, SUCCESS_CRITERIA_MET, Outcome
from controller_manager.job.pods import pod_for
from controller_manager.job.tally import FINALIZER, Tally, is_suspended, is_tracked
from controller_manager.objects import (
    ORPHANS,
    controller_of,
    is_ready,
    orphan_namespace,
    plan_claims,
    status_patch,
)
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from controller_manager.replicaset.plan import plan_batches
from controller_manager.side_by_side import side_by_side
from machinery.errors import Conflict, NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

COMPONENT: Final = "job-controller"
MANAGER: Final = "kubernetes.io/job-controller"
BY_JOB: Final = "tracked-by-job"


def tracked_by(pod: core_v1.Pod) -> Iterable[str]:
    """Indexer for BY_JOB: namespace/name of the Job that a pod with the tracking finalizer names as its owner."""
    owner = controller_of(pod) if is_tracked(pod) else None
    return () if owner is None or owner.kind != "Job" else (f"{pod.metadata.namespace}/{owner.name}",)


class JobController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace, BY_JOB: tracked_by}
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers=indexers)
        self._jobs: Informer[batch_v1.Job] = env.informers.informer(batch_v1.Job)
        self.controller = Controller(
            "job",
            self.reconcile,
            clock=env.clock,
            informers=[self._jobs, self._pods],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._jobs)
        self.controller.watches(self._pods, self.jobs_of)

    def jobs_of(self, pod: core_v1.Pod) -> Iterable[ObjectKey]:
        """The Job that owns the pod (even a Job that is gone: finalizers must go too), or those that might adopt it."""
        owner = controller_of(pod)
        if owner is not None:
            return (ObjectKey(pod.metadata.namespace or "", owner.name),) if owner.kind == "Job" else ()
        if not pod.metadata.labels:
            return ()
        return [
            key_of(job)
            for job in self._jobs.lister.list(pod.metadata.namespace)
            if LabelSelector.from_object(job.spec.selector).matches(pod.metadata.labels)
        ]

    async def reconcile(self, key: ObjectKey) -> Result:
        job = self._jobs.lister.get(key)
        if job is not None and job.spec.managedBy not in (None, MANAGER):
            return DONE
        if job is None or status.finished_condition(job) is not None:
            await self._release_strays(key, None)
            return DONE
        await self._release_strays(key, job.metadata.uid)
        pods = await self._claim(job)
        counted = tally.count(job, pods)
        work = status.begin(job, self._clock)
        outcome = plan.plan_outcome(job, counted, self._clock)
        failure: StatusError | None = None
        wait: float | None = None
        active, ready, terminating = len(counted.active), counted.ready, counted.terminating
        if outcome is not None:
            gone = await self._delete(job, counted.active, keep_finalizer=True)
            active, ready, terminating = active - len(gone), ready - sum(map(is_ready, gone)), terminating + len(gone)
        else:
            if job.metadata.deletionTimestamp is None:
                planned = plan.plan_pods(job, counted, self._clock)
                gone = await self._delete(job, planned.delete, keep_finalizer=False)
                created, failure = await self._create(job, counted, planned.create)
                active, ready, terminating = (
                    active + created - len(gone),
                    ready - sum(map(is_ready, gone)),
                    terminating + len(gone),
                )
                wait = planned.wait
            if plan.is_complete(job, counted, active):
                message = "Reached expected number of succeeded pods"
                outcome = Outcome(SUCCESS_CRITERIA_MET, COMPLETIONS_REACHED, message)
            elif job.metadata.deletionTimestamp is None:
                self._note_suspension(job, work)
        status.set_counts(work, active, ready, terminating)
        await self._account(job, work, counted, outcome)
        if failure is not None:
            raise failure
        return Result(requeue_after=self._next_look(job, work, wait))

    def _next_look(self, job: batch_v1.Job, work: batch_v1.JobStatus, wait: float | None) -> float | None:
        left = None
        if job.spec.activeDeadlineSeconds is not None and work.startTime is not None and not is_suspended(job):
            left = max(0.0, job.spec.activeDeadlineSeconds - self._clock.elapsed(work.startTime))
        return min((each for each in (wait, left) if each is not None), default=None)

    def _note_suspension(self, job: batch_v1.Job, work: batch_v1.JobStatus) -> None:
        if is_suspended(job):
            if status.with_condition(work, self._clock, status.SUSPENDED, "True", "JobSuspended", "Job suspended"):
                self._events.event(job, NORMAL, "Suspended", "Job suspended")
        elif status.with_condition(work, self._clock, status.SUSPENDED, "False", "JobResumed", "Job resumed"):
            self._events.event(job, NORMAL, "Resumed", "Job resumed")
            work.startTime = self._clock.now().replace(microsecond=0)  # the deadline counts time of work only

    # Pods

    async def _claim(self, job: batch_v1.Job) -> list[core_v1.Pod]:
        pods, namespace = self._pods.lister, job.metadata.namespace or ""
        candidates = [*pods.by_index(BY_OWNER, job.metadata.uid or ""), *pods.by_index(ORPHANS, namespace)]
        claims = plan_claims(job, LabelSelector.from_object(job.spec.selector), candidates)
        return await adoption.settle(
            self._client,
            job,
            claims,
            adopted=lambda _: {"finalizers": [FINALIZER]},
            released=lambda _: _without_finalizer(),
        )

    async def _patch(self, pod: core_v1.Pod, patch: dict[str, Any]) -> core_v1.Pod:
        key = key_of(pod)
        return await self._client.patch(core_v1.Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC)

    async def _release_strays(self, key: ObjectKey, uid: str | None) -> None:
        """Take the finalizer from pods of Jobs that are over or gone: nobody will count them any more."""
        strays = [
            pod
            for pod in self._pods.lister.by_index(BY_JOB, str(key))
            if uid is None or (owner := controller_of(pod)) is None or owner.uid != uid
        ]
        await self._untrack(strays)

    async def _untrack(self, pods: Sequence[core_v1.Pod]) -> set[str]:
        """Remove the tracking finalizer; returns the uids of pods that do not have it any more."""

        async def one(pod: core_v1.Pod) -> str:
            with contextlib.suppress(NotFound, Conflict):  # gone, or another pod of that name by now
                await self._patch(pod, {"metadata": {"uid": pod.metadata.uid, **_without_finalizer()}})
            return pod.metadata.uid or ""

        return set(await side_by_side([one(pod) for pod in pods]))

    async def _create(
        self, job: batch_v1.Job, counted: Tally, wanted: Sequence[int | None]
    ) -> tuple[int, StatusError | None]:
        """Create the pods in growing batches; returns how many there are now, and the first error."""

        async def one(index: int | None) -> tuple[bool, StatusError | None]:
            try:
                pod = await self._client.create(
                    pod_for(job, index, counted.delayed.get(index) if index is not None else None)
                )
            except StatusError as error:
                if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                    return False, None  # every further try would fail too, and the Job is about to go
                self._events.event(job, WARNING, "FailedCreate", f"Error creating: {error.message}")
                return False, error
            self._events.event(job, NORMAL, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
            return True, None

        made, rest = 0, list(wanted)
        for size in plan_batches(len(rest)):
            batch, rest = rest[:size], rest[size:]
            results = await side_by_side([one(index) for index in batch])
            made += sum(created for created, _ in results)
            error = next((error for _, error in results if error is not None), None)
            if error is not None:
                return made, error
        return made, None

    async def _delete(
        self, job: batch_v1.Job, pods: Sequence[core_v1.Pod], *, keep_finalizer: bool
    ) -> list[core_v1.Pod]:
        """Delete active pods. Those that are merely too many lose the finalizer first, not to count as failed."""
        if not keep_finalizer:
            await self._untrack([pod for pod in pods if is_tracked(pod)])

        async def one(pod: core_v1.Pod) -> core_v1.Pod:
            key = key_of(pod)
            try:
                await self._client.delete(core_v1.Pod, key.name, key.namespace, uid=pod.metadata.uid)
            except (NotFound, Conflict):
                return pod
            except StatusError as error:
                self._events.event(job, WARNING, "FailedDelete", f"Error deleting: {error.message}")
                raise
            self._events.event(job, NORMAL, "SuccessfulDelete", f"Deleted pod: {key.name}")
            return pod

        return await side_by_side([one(pod) for pod in pods])

    # Status

    async def _account(
        self, job: batch_v1.Job, work: batch_v1.JobStatus, counted: Tally, outcome: Outcome | None
    ) -> None:
        """Count finished pods (the steps are told in status.py) and declare the Job over when it is."""
        status.settle_uncounted(work, counted.pods)
        done = status.list_uncounted(job, work, counted, outcome)
        if outcome is not None:
            status.with_condition(work, self._clock, outcome.type, "True", outcome.reason, outcome.message)
        if done:
            job = await self._write(job, work)
            work = status.begin(job, self._clock)
            untracked = await self._untrack(done)
            status.settle_uncounted(work, [pod for pod in counted.pods if (pod.metadata.uid or "") not in untracked])
        all_counted = not any(is_tracked(pod) for pod in counted.pods) or len(done) < status.MAX_UNCOUNTED
        over = outcome is not None and all_counted and status.finish(work, outcome, self._clock)
        await self._write(job, work)
        if over and outcome is not None:
            self._tell_end(job, outcome, work)

    def _tell_end(self, job: batch_v1.Job, outcome: Outcome, work: batch_v1.JobStatus) -> None:
        if outcome.type != SUCCESS_CRITERIA_MET:
            self._events.event(job, WARNING, outcome.reason, outcome.message)
            return
        if job.spec.completions is not None and (work.succeeded or 0) > job.spec.completions:
            message = "Too many succeeded pods running after completion count reached"
            self._events.event(job, WARNING, "TooManySucceededPods", message)
        self._events.event(job, NORMAL, "Completed", "Job completed")

    async def _write(self, job: batch_v1.Job, work: batch_v1.JobStatus) -> batch_v1.Job:
        patch = status_patch(job.status, work)
        if patch is None:
            return job
        key, version = key_of(job), job.metadata.resourceVersion
        return await self._client.patch(
            batch_v1.Job, key.name, patch, key.namespace, subresource="status", resource_version=version
        )


def _without_finalizer() -> dict[str, Any]:
    return {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}


def build(env: Environment) -> list[Controller]:
    return [JobController(env).controller]
