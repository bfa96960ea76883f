"""Acts on the plans of this folder: makes and deletes a DaemonSet's pods, reports its status.

Owns: the DaemonSet loop, and the memory of which nodes' pods failed lately (a restart only forgets their back-off).
Never: binds pods to nodes (the scheduler does). Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.models import apps_v1, core_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from client.listers import BY_OWNER, owner_uids
from controller_manager import adoption
from controller_manager.daemonset import plan
from controller_manager.daemonset.eligibility import HASH, node_of, pod_for
from controller_manager.environment import Environment
from controller_manager.failure_memory import FailureMemory
from controller_manager.history import History
from controller_manager.objects import (
    FAILED,
    ORPHANS,
    controller_of,
    orphan_namespace,
    plan_claims,
    status_patch,
)
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from controller_manager.replicaset.plan import BURST_REPLICAS, plan_batches
from controller_manager.side_by_side import side_by_side
from machinery.errors import Conflict, NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

COMPONENT: Final = "daemonset-controller"

DaemonSet = apps_v1.DaemonSet
Pod = core_v1.Pod


class DaemonSetController:
    """Reads listers, writes through the client."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._failures = FailureMemory(env.clock)
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace}
        self._pods: Informer[Pod] = env.informers.informer(Pod, indexers=indexers)
        self._sets: Informer[DaemonSet] = env.informers.informer(DaemonSet)
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._history = History(env.client, env.informers, DaemonSet, HASH)
        self.controller = Controller(
            "daemonset",
            self.reconcile,
            clock=env.clock,
            informers=[self._sets, self._pods, self._nodes, self._history.informer],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._sets)
        self.controller.watches(self._pods, self.sets_of)
        self._nodes.add_handler(EventHandler(self._node_changed, self._node_updated, self._node_changed))

    def _node_updated(self, old: core_v1.Node, new: core_v1.Node) -> None:
        if old.metadata.labels != new.metadata.labels or _taints(old) != _taints(new):
            self._node_changed(new)

    def _node_changed(self, _node: core_v1.Node) -> None:
        for each in self._sets.lister.keys():  # noqa: SIM118  # a Lister is no mapping
            self.controller.enqueue(each)

    def sets_of(self, pod: Pod) -> Iterable[ObjectKey]:
        """The set that owns the pod, or those that might adopt it."""
        owner = controller_of(pod)
        if owner is not None:
            return (ObjectKey(pod.metadata.namespace or "", owner.name),) if owner.kind == "DaemonSet" else ()
        if pod.metadata.deletionTimestamp is not None or not pod.metadata.labels:
            return ()
        return [
            key_of(each)
            for each in self._sets.lister.list(pod.metadata.namespace)
            if LabelSelector.from_object(each.spec.selector).matches(pod.metadata.labels)
        ]

    async def reconcile(self, key: ObjectKey) -> Result:
        ds = self._sets.lister.get(key)
        if ds is None or ds.metadata.deletionTimestamp is not None:
            return DONE
        if LabelSelector.from_object(ds.spec.selector).empty:
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self._events.event(ds, WARNING, "SelectingAll", message)
            return DONE
        collisions = ds.status.collisionCount if ds.status is not None else None

        def collided() -> int:
            nonlocal collisions
            collisions = (collisions or 0) + 1
            return collisions

        revisions = await self._history.claim(ds)
        pods = await self._claim(ds)
        revision, revisions = await self._history.present(ds, revisions, collided)
        digest = (revision.metadata.labels or {}).get(HASH, "")
        placement = plan.place(ds, self._nodes.lister.list(), pods)
        planned = plan.plan(ds, placement, digest, self._clock)
        failure: StatusError | None = None
        wait: float | None = None
        try:
            wait = await self._delete_all(ds, planned)
            await self._create_all(ds, planned.create[:BURST_REPLICAS], digest)
        except StatusError as error:
            failure = error
        status, recheck = plan.observe(ds, placement, digest, collisions, self._clock)
        await self._report(ds, status)
        if failure is not None:
            raise failure
        live = {revision.metadata.name or ""}
        hashes = {(pod.metadata.labels or {}).get(HASH) for pod in pods}
        live |= {each.metadata.name or "" for each in revisions if (each.metadata.labels or {}).get(HASH) in hashes}
        await self._history.truncate(revisions, live, ds.spec.revisionHistoryLimit)
        return Result(requeue_after=min((each for each in (wait, recheck) if each is not None), default=None))

    async def _report(self, ds: DaemonSet, status: apps_v1.DaemonSetStatus) -> None:
        patch = status_patch(ds.status, status)
        if patch is None:
            return
        key, version = key_of(ds), ds.metadata.resourceVersion
        await self._client.patch(
            DaemonSet, key.name, patch, key.namespace, subresource="status", resource_version=version
        )

    async def _claim(self, ds: DaemonSet) -> list[Pod]:
        pods, namespace = self._pods.lister, ds.metadata.namespace or ""
        candidates = [*pods.by_index(BY_OWNER, ds.metadata.uid or ""), *pods.by_index(ORPHANS, namespace)]
        claims = plan_claims(ds, LabelSelector.from_object(ds.spec.selector), candidates)
        return await adoption.settle(self._client, ds, claims)

    async def _create_all(self, ds: DaemonSet, nodes: Sequence[str], digest: str) -> None:
        rest = list(nodes)
        for size in plan_batches(len(rest)):
            batch, rest = rest[:size], rest[size:]
            await side_by_side([self._create(ds, node, digest) for node in batch])

    async def _create(self, ds: DaemonSet, node: str, digest: str) -> None:
        try:
            pod = await self._client.create(pod_for(ds, node, digest))
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return
            self._events.event(ds, WARNING, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.event(ds, NORMAL, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

    async def _delete_all(self, ds: DaemonSet, planned: plan.Plan) -> float | None:
        """Delete what the plan says; failed pods only after their back-off. Returns how long the next has to wait."""
        waits: list[float] = []
        victims: list[Pod] = []
        ended = {pod.metadata.uid for pod in planned.ended}
        for pod in planned.delete:
            if pod.metadata.uid in ended:
                node = node_of(pod)
                failed = pod.status is not None and pod.status.phase == FAILED
                wait = self._failures.wait(ds.metadata.uid or "", node) if failed else 0.0
                if wait > 0:
                    waits.append(wait)
                    continue
                word, type_, end = ("failed", WARNING, "kill") if failed else ("succeeded", NORMAL, "delete")
                message = f"Found {word} daemon pod {key_of(pod)} on node {node}, will try to {end} it"
                self._events.event(ds, type_, f"{word.capitalize()}DaemonPod", message)
            victims.append(pod)
        await side_by_side([self._delete(ds, pod) for pod in victims[:BURST_REPLICAS]])
        return min(waits, default=None)

    async def _delete(self, ds: DaemonSet, pod: Pod) -> None:
        key = key_of(pod)
        try:
            await self._client.delete(Pod, key.name, key.namespace, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return
        except StatusError as error:
            self._events.event(ds, WARNING, "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._events.event(ds, NORMAL, "SuccessfulDelete", f"Deleted pod: {key.name}")


def _taints(node: core_v1.Node) -> list[tuple[Any, ...]]:
    return [(each.key, each.value, each.effect) for each in (node.spec.taints if node.spec is not None else None) or ()]


def build(env: Environment) -> list[Controller]:
    return [DaemonSetController(env).controller]
