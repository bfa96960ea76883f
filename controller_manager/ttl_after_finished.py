"""TTL after finished: deletes Jobs that have been over for spec.ttlSecondsAfterFinished.

Owns: that deletion; pods go with their Job. The time is counted from the condition that ended the Job, in cluster
seconds. Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from api.models import batch_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import EventHandler, Informer
from controller_manager.environment import Environment
from controller_manager.job.status import finished_condition
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound
from machinery.log import kv
from machinery.meta import ObjectKey

_log = log.get(__name__)


def time_left(job: batch_v1.Job, clock: Clock) -> float | None:
    """Cluster seconds until the Job expires, 0 if it has; None if it does not expire or is not over."""
    ttl, finished = job.spec.ttlSecondsAfterFinished, finished_condition(job)
    if ttl is None or finished is None or job.metadata.deletionTimestamp is not None:
        return None
    if finished.lastTransitionTime is None:
        return None
    return max(0.0, ttl - clock.elapsed(finished.lastTransitionTime))


class TtlController:
    """Reads a lister, deletes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._jobs: Informer[batch_v1.Job] = env.informers.informer(batch_v1.Job)
        self.controller = Controller(
            "ttl-after-finished",
            self.reconcile,
            clock=env.clock,
            informers=[self._jobs],
            workers=env.options.concurrent_syncs,
        )
        self._jobs.add_handler(EventHandler(self._changed, lambda _, new: self._changed(new)))

    def _changed(self, job: batch_v1.Job) -> None:
        if time_left(job, self._clock) is not None:
            self.controller.enqueue(key_of(job))

    async def reconcile(self, key: ObjectKey) -> Result:
        job = self._jobs.lister.get(key)
        left = time_left(job, self._clock) if job is not None else None
        if left is None:
            return DONE
        if left > 0:
            return Result(requeue_after=left)
        try:
            # The cache may not know yet that somebody has just prolonged the Job's life.
            live = await self._client.get(batch_v1.Job, key.name, key.namespace)
            left = time_left(live, self._clock)
            if left != 0:
                return Result(requeue_after=left)
            await self._client.delete(
                batch_v1.Job,
                key.name,
                key.namespace,
                uid=live.metadata.uid,
                resource_version=live.metadata.resourceVersion,
                propagation_policy="Foreground",
            )
        except NotFound:
            return DONE
        except Conflict:
            return Result(requeue_after=1.0)
        _log.info("Deleted expired job", extra=kv(job=key))
        return DONE


def build(env: Environment) -> list[Controller]:
    return [TtlController(env).controller]
