"""Pod garbage collection: deletes pods that nobody else will ever delete.

Owns: finished pods beyond a threshold, pods of nodes that no longer exist (after a quarantine), terminating pods that
never had a node, terminating pods of nodes marked out of service. Never: deletes a pod that a living kubelet looks
after.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from api.models import core_v1
from client.backoff import Backoff, wait_for_server
from client.client import PatchType, key_of
from client.informer import Informer
from client.listers import BY_NODE, pod_node
from controller_manager.environment import Environment, Runnable
from controller_manager.node_lifecycle.taints import OUT_OF_SERVICE
from controller_manager.objects import FAILED, SUCCEEDED, condition, is_finished
from controller_manager.side_by_side import side_by_side
from controller_manager.taint_eviction import disruption_target
from machinery import log
from machinery.errors import Conflict, NotFound, StatusError
from machinery.log import kv

PERIOD: Final = 20.0
QUARANTINE: Final = 40.0
_log = log.get(__name__)


class Garbage(NamedTuple):
    """Pods to delete, by why."""

    finished: list[core_v1.Pod]
    orphaned: list[core_v1.Pod]
    unscheduled: list[core_v1.Pod]
    out_of_service: list[core_v1.Pod]


def plan_garbage(
    pods: Sequence[core_v1.Pod], nodes: Mapping[str, core_v1.Node], gone: Iterable[str], threshold: int
) -> Garbage:
    """Sort out the garbage. `gone` are names of nodes known not to exist."""
    vanished = set(gone)
    finished = [pod for pod in pods if is_finished(pod)]
    garbage = Garbage([], [], [], [])
    excess = len(finished) - threshold if threshold > 0 else 0
    if excess > 0:
        garbage.finished.extend(sorted(finished, key=_rank)[:excess])
    for pod in pods:
        name = pod.spec.nodeName or ""
        if name in vanished and name:
            garbage.orphaned.append(pod)
        elif pod.metadata.deletionTimestamp is not None:
            node = nodes.get(name)
            if not name:
                garbage.unscheduled.append(pod)
            elif node is not None and not _ready(node) and _out_of_service(node):
                garbage.out_of_service.append(pod)
    return garbage


def _rank(pod: core_v1.Pod) -> tuple[Any, ...]:
    """What goes first: pods that the kubelet evicted, which nobody asks for any more, then the oldest."""
    evicted = pod.status is not None and pod.status.phase == FAILED and pod.status.reason == "Evicted"
    return not evicted, pod.metadata.creationTimestamp, pod.metadata.name or ""


def _ready(node: core_v1.Node) -> bool:
    found = condition(node, "Ready")
    return found is not None and found.status == "True"


def _out_of_service(node: core_v1.Node) -> bool:
    return any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints or ())


class PodGarbageCollector:
    """A loop over all pods; remembers since when a node has been missing."""

    name = "pod-garbage-collector"

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._threshold = env.options.terminated_pod_gc_threshold
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_NODE: pod_node})
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._missing: dict[str, float] = {}

    async def run(self) -> None:
        """Collect every period until cancelled."""
        await self._pods.wait_synced()
        await self._nodes.wait_synced()
        backoff = Backoff()
        while True:
            try:
                await self.collect()
                backoff.reset()
            except StatusError as error:
                _log.debug("Failed to collect pods", extra=kv(error=error.message))
                await wait_for_server(self._clock, backoff.next())
                continue
            await self._clock.sleep(PERIOD)

    async def collect(self) -> None:
        """One pass."""
        nodes = {node.metadata.name or "": node for node in self._nodes.lister.list()}
        pods = self._pods.lister.list()
        gone = await self._confirmed_gone({pod.spec.nodeName or "" for pod in pods} - nodes.keys() - {""})
        garbage = plan_garbage(pods, nodes, gone, self._threshold)
        orphaned = [self._delete(pod, "PodGC: node no longer exists") for pod in garbage.orphaned]
        others = [*garbage.out_of_service, *garbage.finished, *garbage.unscheduled]
        await side_by_side([*orphaned, *(self._delete(pod) for pod in others)])

    async def _confirmed_gone(self, missing: set[str]) -> list[str]:
        """Nodes that have been missing for the quarantine and are not there when asked for."""
        now = self._clock.monotonic()
        for name in self._missing.keys() - missing:
            del self._missing[name]
        gone: list[str] = []
        for name in missing:
            if now - self._missing.setdefault(name, now) < QUARANTINE:
                continue
            try:
                await self._client.get(core_v1.Node, name)
            except NotFound:
                gone.append(name)
        return gone

    async def _delete(self, pod: core_v1.Pod, message: str = "") -> None:
        """Force the pod away; one that has not ended failed thereby, and with a message is told why."""
        key = key_of(pod)
        _log.info("Deleting garbage pod", extra=kv(pod=key, why=message or (pod.status.phase if pod.status else "")))
        ended = pod.status is not None and pod.status.phase in (SUCCEEDED, FAILED)
        try:
            if not ended:
                await self._fail(pod, message)
            await self._client.delete(
                core_v1.Pod, key.name, key.namespace, uid=pod.metadata.uid, grace_period_seconds=0
            )
        except (NotFound, Conflict):
            return

    async def _fail(self, pod: core_v1.Pod, message: str) -> None:
        status: dict[str, Any] = {"phase": FAILED}
        if message:
            status["conditions"] = [disruption_target(pod, self._clock, "DeletionByPodGC", message)]
        key, patch = key_of(pod), {"metadata": {"uid": pod.metadata.uid}, "status": status}
        await self._client.patch(
            core_v1.Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC, subresource="status"
        )


def build(env: Environment) -> list[Runnable]:
    return [PodGarbageCollector(env)]
