"""The scheduler proper: informer events into snapshot and queue, one pod after another out of the queue.

Owns the snapshot and the queue. A decided pod is counted on its node at once (assumed) while its binding is under way;
a failed binding takes that back and the pod returns to the queue. The loop is sequential: each decision sees all
earlier ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from api.models import core_v1
from client.client import Client, PatchType
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import EventHandler, Informer, Informers
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, ServiceUnavailable, StatusError
from machinery.log import kv
from scheduler import changes, extended
from scheduler.binder import Binding, BindPipeline, ConditionWriter
from scheduler.decisions import DecisionLog, DecisionRecord
from scheduler.evictor import Eviction, Evictor
from scheduler.explanations import Explainer
from scheduler.extended import ExtenderBinder
from scheduler.extenders import ExtenderError, Extenders
from scheduler.framework import node_facts
from scheduler.framework.decision import Decision, FitError
from scheduler.framework.events import Action, ClusterEvent, EventResource
from scheduler.framework.framework import Framework
from scheduler.framework.interface import Refusal
from scheduler.framework.nominations import Nominations
from scheduler.framework.pod_info import PodInfo, is_assigned, is_terminal
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.waiting import NotReserved, Rejected, WaitingPods
from scheduler.plugins.default_preemption import DefaultPreemption
from scheduler.plugins.volume_binding import VolumeBinding
from scheduler.queue import INITIAL_BACKOFF, MAX_BACKOFF, QueuedPod, SchedulingQueue
from scheduler.relations import Relations
from scheduler.volume_writer import ApiVolumeWriter

UNSCHEDULABLE: Final = "Unschedulable"
SCHEDULER_ERROR: Final = "SchedulerError"
FAILED: Final = "FailedScheduling"
SCHEDULED: Final = "Scheduled"
PODS: Final = "status.phase!=Succeeded,status.phase!=Failed"
_TURN: Final = 0.005  # real seconds of deciding before other tasks get the loop
_log = log.get(__name__)


class Scheduler:
    """One process' worth of scheduling, for all profiles."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        informers: Informers,
        recorder: EventRecorder,
        profiles: Mapping[str, Framework],
        *,
        pipeline: BindPipeline | None = None,
        backoff: tuple[float, float] = (INITIAL_BACKOFF, MAX_BACKOFF),
        extenders: Extenders | None = None,
    ) -> None:
        self._extenders = extenders if extenders is not None else Extenders()
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._profiles = profiles
        self._any = next(iter(profiles.values()))
        self._pipeline = pipeline or BindPipeline(clock)
        self._conditions = ConditionWriter(clock, self._patch_status)
        self.snapshot = ClusterSnapshot()
        self.queue = SchedulingQueue(clock, self.framework_of, *backoff)
        self.decisions = DecisionLog()
        self.scheduled = 0
        self.unschedulable = 0
        self.errors = 0
        self._pods = informers.informer(core_v1.Pod, field_selector=PODS)
        self._pods.add_handler(EventHandler(self._pod_added, self._pod_updated, self._pod_deleted))
        nodes = informers.informer(core_v1.Node)
        nodes.add_handler(EventHandler(self._node_added, self._node_updated, self._node_deleted))
        self.relations = Relations(informers, self.snapshot, self.queue.on_event)
        self._synced: tuple[Informer[Any], ...] = (nodes, self._pods, *self.relations.informers())
        # A promise made by one profile is kept by all.
        self.nominations = Nominations()
        self.waiting = WaitingPods()
        volumes = ApiVolumeWriter(client, clock)
        for framework in profiles.values():
            framework.nominations = self.nominations
            framework.waiting = self.waiting
            for binding in framework.reserve:
                if isinstance(binding, VolumeBinding):
                    binding.writer = volumes
            for plugin in framework.post_filters:
                if isinstance(plugin, DefaultPreemption):
                    plugin.budgets = self.relations.budgets
        explainer = Explainer(self.snapshot, self.decisions, self.queue, self._pods.lister, profiles, self.framework_of)
        self.explain = explainer.explain
        self.evictor = Evictor(client, clock, recorder, self.nominations, self._not_evicted)

    @property
    def has_synced(self) -> bool:
        """Whether all that decisions depend on is known."""
        return all(informer.has_synced for informer in self._synced)

    def framework_of(self, info: PodInfo) -> Framework:
        return self._profiles.get(info.scheduler_name, self._any)

    async def run(self) -> None:
        """Schedule until cancelled; starts when the caches are complete."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipeline.run())
            group.create_task(self._conditions.run())
            group.create_task(self.evictor.run())
            group.create_task(self.queue.run())
            # Deciding before all nodes and assigned pods are known would place pods badly.
            for informer in self._synced:
                await informer.wait_synced()
            group.create_task(self._loop())

    async def _loop(self) -> None:
        turn_ends = 0.0
        while True:
            queued = await self.queue.pop()
            if len(self._extenders) and self._extenders.for_pod(queued.info):
                binding = await self._attempt_extended(queued)
            else:
                binding = self._attempt(queued)
            if binding is not None:
                if self._pipeline.has_room():
                    self._pipeline.submit_nowait(binding)
                else:
                    await self._pipeline.submit(binding)
            if time.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN

    # --- one attempt ---------------------------------------------------------------------------------------------

    async def _attempt_extended(self, queued: QueuedPod) -> Binding | None:
        """The same with the extenders' say."""
        info = queued.info

        def ignored(text: str) -> None:
            _log.warning("Went on without an extender", extra=kv(pod=info.key, error=text))

        try:
            framework = self.framework_of(info)
            decision = await extended.decide(framework, self._extenders, info, self.snapshot, ignored)
        except ExtenderError as error:
            self._retry(queued, str(error))
            return None
        return self._attempt(queued, decision)

    def _attempt(self, queued: QueuedPod, made: Decision | None = None) -> Binding | None:
        """Decide about one pod, if that is not done; returns the binding to carry out."""
        info = queued.info
        if self.snapshot.home_of(info.uid) is not None:
            self.queue.done(info.uid)
            return None
        if info.pod.metadata is not None and info.pod.metadata.deletionTimestamp is not None:
            self._recorder.event(info.pod, WARNING, FAILED, f"skip schedule deleting pod: {info.key}")
            self.queue.done(info.uid)
            return None
        framework = self.framework_of(info)
        try:
            decision = made if made is not None else framework.schedule(info, self.snapshot)
            self._record(framework, queued, decision)
            if decision.error is not None:
                self._refuse(queued, decision.error)
                return None
            held = framework.claim(info, decision.node, self.snapshot)
        except Rejected as rejected:
            self._reject(queued, rejected)
            return None
        except NotReserved as failure:
            self._retry(queued, str(failure))
            return None
        except Exception as error:  # noqa: BLE001
            # A pod that a plugin cannot handle must not stop all others; it backs off as after any error.
            _log.exception("Deciding failed", extra=kv(pod=info.key))
            self._retry(queued, f"{type(error).__name__}: {error}")
            return None
        self.snapshot.add_pod(info, decision.node)
        self.nominations.remove(info.uid)
        return Binding(
            info,
            decision.node,
            self.snapshot,
            held,
            [plugin for plugin in framework.pre_bind if plugin.pre_bind_pre_flight(info, decision.node)],
            partial(self._conditions.settle, info.uid),
            [ExtenderBinder(binder)] if (binder := self._extenders.binder(info)) is not None else framework.bind,
            lambda: self._bound(framework, queued, decision.node),
            lambda error, stage: self._not_bound(framework, queued, decision.node, error, stage),
        )

    def _record(self, framework: Framework, queued: QueuedPod, decision: Decision) -> None:
        error, info = decision.error, queued.info
        record = DecisionRecord(
            info.key,
            info.uid,
            self._clock.now(),
            queued.attempts,
            self.snapshot.node_count,
            decision.node,
            decision.feasible,
            decision.score,
            error.message if error is not None else "",
            error.reasons if error is not None else {},
            (error.post.nominated_node or "") if error is not None else "",
        )
        self.decisions.add(record, partial(framework.table, info, self.snapshot))

    def _refuse(self, queued: QueuedPod, error: FitError) -> None:
        info = queued.info
        self.unschedulable += 1
        message, post = error.message, error.post
        if post.nominated_node is not None:
            self.nominations.set(info, post.nominated_node)
        self.queue.park(queued, error.plugins)
        self._recorder.event(info.pod, WARNING, FAILED, message)
        self._conditions.failed(info, UNSCHEDULABLE, message, post.nominated_node)
        for victim in post.victims:
            self.evictor.submit(Eviction(victim, info, post.nominated_node or ""))
        for other in post.displaced:
            self.nominations.remove(other.uid)
            self._conditions.displaced(other)
            self.queue.resume(other.uid)
        _log.debug("Found no node for pod", extra=kv(pod=info.key, message=message))

    def _reject(self, queued: QueuedPod, rejected: Rejected) -> None:
        """A plugin that was asked after the decision said no: told as if there were only that node."""
        refusal = Refusal(np.zeros(1, dtype=np.int64), (rejected.message,), plugin=rejected.plugin)
        self._refuse(queued, FitError(1, (refusal,), frozenset((rejected.plugin,))))

    def _not_evicted(self, preemptor: PodInfo) -> None:
        """A victim stays: the preemptor looks again."""
        self.nominations.remove(preemptor.uid)
        self.queue.resume(preemptor.uid)

    def _retry(self, queued: QueuedPod, message: str) -> None:
        self.errors += 1
        self.queue.retry(queued)
        self._recorder.event(queued.info.pod, WARNING, FAILED, message)
        self._conditions.failed(queued.info, SCHEDULER_ERROR, message)

    def _bound(self, framework: Framework, queued: QueuedPod, node: str) -> None:
        info = queued.info
        framework.waiting.remove(info.uid)
        self.scheduled += 1
        self.queue.done(info.uid)
        self._conditions.forget(info.uid)
        self._recorder.event(info.pod, NORMAL, SCHEDULED, f"Successfully assigned {info.key} to {node}")
        for plugin in framework.post_bind:
            plugin.post_bind(info, node)
        _log.debug("Bound pod", extra=kv(pod=info.key, node=node))

    def _not_bound(
        self, framework: Framework, queued: QueuedPod, node: str, error: StatusError | Rejected, stage: str
    ) -> None:
        info = queued.info
        framework.release(info, node, self.snapshot)
        known = self._pods.lister.get(info.object_key)
        if known is not None and known.metadata is not None and known.metadata.uid == info.uid and is_assigned(known):
            # It is assigned after all: the answer of an earlier binding got lost. The snapshot has it from the watch.
            self.queue.done(info.uid)
            return
        if self.snapshot.remove_pod(info.uid) is not None:
            # What was assumed is free again, which may help a pod that was refused meanwhile.
            self.queue.on_event(ClusterEvent(EventResource.ASSIGNED_POD, Action.DELETE, info, None))
        if isinstance(error, Rejected):
            self._reject(queued, error)
            return
        if isinstance(error, NotFound) and known is None:
            _log.debug("Pod was deleted before it was bound", extra=kv(pod=info.key))
            self.queue.done(info.uid)
            return
        _log.warning("Binding failed", extra=kv(pod=info.key, node=node, error=error.message))
        message = f"{stage}: {error.message}"
        if isinstance(error, ServiceUnavailable):
            # The binding may have been carried out: nothing is said in the pod's status before that is known.
            self.errors += 1
            self.queue.retry(queued)
            self._recorder.event(info.pod, WARNING, FAILED, message)
            return
        self._retry(queued, message)

    async def _patch_status(self, info: PodInfo, patch: dict[str, Any]) -> None:
        await self._client.patch(
            core_v1.Pod, info.name, patch, info.namespace, type=PatchType.STRATEGIC, subresource="status"
        )

    # --- informer events -----------------------------------------------------------------------------------------

    def _pod_added(self, pod: core_v1.Pod) -> None:
        if is_terminal(pod):
            return
        info = PodInfo(pod)
        if info.node_name:
            self.queue.delete(info.uid)
            self.nominations.remove(info.uid)
            self._conditions.forget(info.uid)
            self.snapshot.add_pod(info, info.node_name)
            self.queue.on_event(ClusterEvent(EventResource.ASSIGNED_POD, Action.ADD, None, info))
        elif info.scheduler_name in self._profiles:
            if info.nominated_node:
                self.nominations.set(info, info.nominated_node)  # promised before this process was started
            self.queue.add(info)

    def _pod_updated(self, old: core_v1.Pod, new: core_v1.Pod) -> None:
        old_uid = old.metadata.uid if old.metadata is not None else None
        if is_terminal(new) or (new.metadata is not None and new.metadata.uid != old_uid):
            self._pod_deleted(old)
            self._pod_added(new)
            return
        info = PodInfo(new)
        if not info.node_name:
            if info.scheduler_name in self._profiles and self.snapshot.home_of(info.uid) is None:
                if info.nominated_node != PodInfo.nominated_in(old):
                    self.nominations.set(info, info.nominated_node)
                self.queue.update(info)
            return
        known = self.snapshot.pod(info.uid)
        if known is None or not is_assigned(old):
            self._pod_added(new)
            return
        self.snapshot.add_pod(info, info.node_name)
        if info.terminating and info.leaves_by_preemption:
            self.evictor.gone(info.uid)
        action = changes.pod_change(known, info)
        if action:
            self.queue.on_event(ClusterEvent(EventResource.ASSIGNED_POD, action, known, info))

    def _pod_deleted(self, pod: core_v1.Pod) -> None:
        uid = PodInfo.uid_of(pod)
        self.queue.delete(uid)
        self._conditions.forget(uid)
        self.nominations.remove(uid)
        self.evictor.gone(uid)
        self._pipeline.abandon(uid)
        removed = self.snapshot.remove_pod(uid)
        if removed is not None:
            self.queue.on_event(ClusterEvent(EventResource.ASSIGNED_POD, Action.DELETE, removed, None))

    def _node_added(self, node: core_v1.Node) -> None:
        self.snapshot.set_node(node)
        self.queue.on_event(ClusterEvent(EventResource.NODE, Action.ADD, None, node))

    def _node_updated(self, old: core_v1.Node, new: core_v1.Node) -> None:
        self.snapshot.set_node(new)
        action = changes.node_change(old, new)
        if action:
            self.queue.on_event(ClusterEvent(EventResource.NODE, action, old, new))

    def _node_deleted(self, node: core_v1.Node) -> None:
        self.snapshot.remove_node(node_facts.name(node))
        self.queue.on_event(ClusterEvent(EventResource.NODE, Action.DELETE, node, None))
