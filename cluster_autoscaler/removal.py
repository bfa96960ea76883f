"""How a node is taken away: marked, emptied through the eviction API, handed back to the cloud; or left as it was.

Owns removals that are under way, one task each. A removal that fails leaves the node without our marks.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from api.models import core_v1, meta_v1, policy_v1
from client.backoff import Backoff
from client.client import Client
from client.events import NORMAL, WARNING, EventRecorder
from cluster_autoscaler import node_facts as facts
from cluster_autoscaler.cluster import Cluster
from cluster_autoscaler.options import Options
from cluster_autoscaler.provider import NodeRef, Provider, ProviderError
from cluster_autoscaler.scale_down import Removal
from cluster_autoscaler.taints import Taints
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey
from scheduler.framework.pod_info import PodInfo

EVICTION_RETRY: Final = 10.0
HEADROOM: Final = 30.0  # for a pod to vanish after its grace period
LOOK: Final = 1.0
_log = log.get(__name__)


class RemovalFailed(Exception):
    """The node stays."""


class Removals:
    """Those under way. `done(removal, error)` is told at the end of each, with None for success."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        cluster: Cluster,
        provider: Provider,
        taints: Taints,
        recorder: EventRecorder,
        options: Options,
        done: Callable[[Removal, str], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._cluster = cluster
        self._provider = provider
        self._taints = taints
        self._recorder = recorder
        self._options = options
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()
        self.active: dict[str, Removal] = {}

    def start(self, removal: Removal) -> None:
        """Begin; the outcome is told to `done`."""
        self.active[removal.node] = removal
        task = asyncio.ensure_future(self._remove(removal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is under way; marks are cleaned by whoever starts next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _remove(self, removal: Removal) -> None:
        name = removal.node
        try:
            await self._carry_out(removal)
        except (RemovalFailed, StatusError, ProviderError) as error:
            _log.warning("Removal failed", extra=kv(node=name, error=error))
            await self._give_up(removal, str(error))
        except Exception as error:  # noqa: BLE001  a defect here must not leave the node marked for good
            _log.exception("Removal failed", extra=kv(node=name))
            await self._give_up(removal, f"{type(error).__name__}: {error}")
        else:
            self.active.pop(name, None)
            self._done(removal, "")

    async def _give_up(self, removal: Removal, why: str) -> None:
        node = self._node(removal.node)
        if node is not None:
            what = "delete empty node" if removal.empty else "drain the node"
            self._recorder.event(node, WARNING, "ScaleDownFailed", f"failed to {what}: {why}")
        try:
            await self._taints.unmark_deleted(removal.node)
        except StatusError as error:
            _log.warning("Left a mark on node", extra=kv(node=removal.node, error=error))
        self.active.pop(removal.node, None)
        self._done(removal, why)

    async def _carry_out(self, removal: Removal) -> None:
        await self._taints.mark_deleted(removal.node)
        node = self._node(removal.node)
        if node is None:
            raise RemovalFailed("the node is gone")
        self._recorder.event(node, NORMAL, "ScaleDown", "marked the node as toBeDeleted/unschedulable")
        await self._clock.sleep(self._options.node_delete_delay_after_taint)
        await self._empty(removal)
        await self._provider.delete_nodes(removal.group, [NodeRef.of(node)])
        self._recorder.event(node, NORMAL, "ScaleDown", "node removed by cluster autoscaler")
        _log.info("Removed node", extra=kv(node=removal.node, group=removal.group))

    def _node(self, name: str) -> core_v1.Node | None:
        return self._cluster.nodes.lister.get(ObjectKey("", name))

    # --- emptying --------------------------------------------------------------------------------------------------

    async def _empty(self, removal: Removal) -> None:
        """Everything that is on the node now: pods may have come since it was decided."""
        record = self._cluster.snapshot.record(removal.node)
        pods = list(record.pods.values()) if record is not None else []
        moving = [pod for pod in pods if pod.owner[0] != "DaemonSet" and not facts.is_mirror(pod.pod)]
        fresh = [pod for pod in moving if not pod.terminating]
        known = {pod.uid for pod in removal.moving}
        if any(pod.uid not in known for pod in fresh):
            raise RemovalFailed("pods came to the node meanwhile")
        default = self._options.daemonset_eviction_occupied if moving else self._options.daemonset_eviction_empty
        daemons = [
            pod
            for pod in pods
            if pod.owner[0] == "DaemonSet" and not pod.terminating and facts.evicts_daemon(pod.pod, default)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._evict(pod)) for pod in fresh]
            for pod in daemons:
                group.create_task(self._evict(pod))
        stuck = [why for task in tasks if (why := task.result())]
        if stuck:
            raise RemovalFailed(f"failed to evict: {'; '.join(stuck)}")
        await self._gone(removal.node, [pod.uid for pod in moving], self._patience(moving))

    def _patience(self, pods: Sequence[PodInfo]) -> float:
        return max((self._grace(pod) for pod in pods), default=0.0) + HEADROOM

    def _grace(self, pod: PodInfo) -> float:
        wanted = pod.spec.terminationGracePeriodSeconds
        return min(30.0 if wanted is None else float(wanted), self._options.max_graceful_termination)

    async def _evict(self, pod: PodInfo) -> str:
        """ "" once the eviction was accepted or the pod is gone, else why not."""
        backoff = Backoff(initial=1.0, cap=EVICTION_RETRY)
        ends = self._clock.monotonic() + self._options.max_pod_eviction_time
        eviction = policy_v1.Eviction(
            apiVersion="policy/v1",
            kind="Eviction",
            metadata=meta_v1.ObjectMeta(name=pod.name, namespace=pod.namespace),
            deleteOptions=meta_v1.DeleteOptions(
                gracePeriodSeconds=int(self._grace(pod)), preconditions=meta_v1.Preconditions(uid=pod.uid)
            ),
        )
        self._recorder.event(pod.pod, NORMAL, "ScaleDown", "deleting pod for node scale down")
        while True:
            try:
                body: Any = eviction
                await self._client.create_subresource(core_v1.Pod, pod.name, pod.namespace, "eviction", body)
                return ""
            except NotFound:
                return ""
            except StatusError as error:
                if self._clock.monotonic() >= ends:
                    self._recorder.event(pod.pod, WARNING, "ScaleDownFailed", "failed to delete pod for ScaleDown")
                    return f"{pod.key}: {error.message}"
            await self._clock.sleep(backoff.next())

    async def _gone(self, node: str, uids: Sequence[str], seconds: float) -> None:
        ends = self._clock.monotonic() + seconds
        while left := [uid for uid in uids if self._cluster.snapshot.home_of(uid) == node]:
            if self._clock.monotonic() >= ends:
                raise RemovalFailed(f"{len(left)} pods are still there after {seconds:.0f} s")
            await self._clock.sleep(LOOK)
