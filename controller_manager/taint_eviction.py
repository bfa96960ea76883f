"""Taint eviction: deletes pods that do not tolerate a NoExecute taint of their node, when their time is up.

Owns: the deadline of each pod and the deletion. Level-based: the deadline is computed anew from taints and tolerations
at every pass, so a taint that goes or a toleration that changes cancels by itself. Never: taints nodes (node_lifecycle
does).
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from api.models import core_v1
from client.client import Client, PatchType, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL
from client.informer import EventHandler, Informer
from client.listers import BY_NODE, pod_node
from controller_manager.environment import Environment
from controller_manager.objects import is_finished, wall_seconds
from machinery.clock import Clock
from machinery.errors import Conflict, NotFound
from machinery.meta import ObjectKey, rfc3339

COMPONENT: Final = "taint-eviction-controller"
NO_EXECUTE: Final = "NoExecute"
_FRESH: Final = 1.5
"""Real seconds: a taint younger than this was added now. timeAdded has whole seconds, too coarse for a scaled clock."""

Taint = core_v1.Taint
Toleration = core_v1.Toleration


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether the toleration covers the taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    operator = toleration.operator or "Equal"
    if operator == "Exists":
        return True
    return operator == "Equal" and bool(toleration.key) and (toleration.value or "") == (taint.value or "")


def plan_eviction(taints: Sequence[Taint], tolerations: Iterable[Toleration]) -> float | None:
    """Seconds that a pod may stay once these NoExecute taints are there: None is for ever, 0 is not at all.

    The shortest tolerationSeconds among the tolerations used counts.
    """
    available = list(tolerations)
    shortest: float | None = None
    for taint in taints:
        used = [each for each in available if tolerates(each, taint)]
        if not used:
            return 0.0
        for each in used:
            if each.tolerationSeconds is not None:
                seconds = max(0.0, float(each.tolerationSeconds))
                shortest = seconds if shortest is None else min(shortest, seconds)
    return shortest


def no_execute_taints(node: core_v1.Node) -> list[Taint]:
    return [t for t in (node.spec.taints if node.spec is not None else None) or () if t.effect == NO_EXECUTE]


class TaintEvictionController:
    """Reads nodes and pods; remembers since when each node has been tainted."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_NODE: pod_node})
        self._since: dict[str, float] = {}
        self._waiting: set[ObjectKey] = set()  # pods whose time runs
        self.controller = Controller(
            "taint-eviction",
            self.reconcile,
            clock=env.clock,
            informers=[self._nodes, self._pods],
            workers=env.options.concurrent_syncs,
        )
        self._nodes.add_handler(
            EventHandler(
                on_add=lambda node: self._node_changed(None, node),
                on_update=self._node_changed,
                on_delete=self._node_gone,
            )
        )
        self._pods.add_handler(EventHandler(on_add=self._pod_changed, on_update=lambda _, pod: self._pod_changed(pod)))

    def _node_changed(self, old: core_v1.Node | None, node: core_v1.Node) -> None:
        before = {t.key for t in no_execute_taints(old)} if old is not None else set()
        present = no_execute_taints(node)
        name = node.metadata.name or ""
        if present:
            # One taint that replaces another (not-ready, unreachable) does not grant a new delay.
            oldest = max(taint_age(taint, self._clock) for taint in present)
            self._since.setdefault(name, self._clock.monotonic() - oldest)
        else:
            self._since.pop(name, None)
        if before != {taint.key for taint in present}:
            for pod in self._pods.lister.by_index(BY_NODE, name):
                self.controller.enqueue(key_of(pod))

    def _node_gone(self, node: core_v1.Node) -> None:
        self._since.pop(node.metadata.name or "", None)

    def _pod_changed(self, pod: core_v1.Pod) -> None:
        node = self._nodes.lister.get(ObjectKey("", pod.spec.nodeName or ""))
        if node is not None and pod.metadata.deletionTimestamp is None and no_execute_taints(node):
            self.controller.enqueue(key_of(pod))

    async def reconcile(self, key: ObjectKey) -> Result:
        pod = self._pods.lister.get(key)
        if pod is None or pod.metadata.deletionTimestamp is not None or is_finished(pod):
            return self._called_off(key, None)
        node = self._nodes.lister.get(ObjectKey("", pod.spec.nodeName or ""))
        taints = no_execute_taints(node) if node is not None else []
        allowed = plan_eviction(taints, pod.spec.tolerations or ())
        if node is None or allowed is None:
            return self._called_off(key, pod)
        now = self._clock.monotonic()
        tainted = self._since.get(node.metadata.name or "", now)
        made = now - self._clock.elapsed(pod.metadata.creationTimestamp) if pod.metadata.creationTimestamp else now
        left = max(tainted, made) + allowed - now
        if allowed > 0 and left > 0:
            self._waiting.add(key)
            return Result(requeue_after=left)
        self._events.event(pod, NORMAL, "TaintManagerEviction", f"Marking for deletion Pod {key}")
        self._waiting.discard(key)
        await evict(self._client, self._clock, pod)
        return DONE

    def _called_off(self, key: ObjectKey, pod: core_v1.Pod | None) -> Result:
        """The pod stays after all; whoever was told nothing needs to hear nothing."""
        if key in self._waiting:
            self._waiting.discard(key)
            if pod is not None and pod.metadata.deletionTimestamp is None:
                self._events.event(pod, NORMAL, "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
        return DONE


def taint_age(taint: Taint, clock: Clock) -> float:
    """Cluster seconds since the taint was added, as far as its whole-second timestamp can tell."""
    if taint.timeAdded is None:
        return 0.0
    age = clock.elapsed(taint.timeAdded)
    return age if clock.real(age) > _FRESH else 0.0


def disruption_target(pod: core_v1.Pod, clock: Clock, reason: str, message: str) -> dict[str, object]:
    """The condition that tells why a pod is about to go."""
    condition: dict[str, object] = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(wall_seconds(clock)),
    }
    if pod.metadata.generation is not None:
        condition["observedGeneration"] = pod.metadata.generation
    return condition


async def evict(client: Client, clock: Clock, pod: core_v1.Pod) -> None:
    """Say on the pod why it goes, then delete it; no-op if it is gone."""
    key = key_of(pod)
    why = disruption_target(pod, clock, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [why]}}
    try:
        await client.patch(core_v1.Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC, subresource="status")
        await client.delete(core_v1.Pod, key.name, key.namespace, uid=pod.metadata.uid)
    except (NotFound, Conflict):
        return


def build(env: Environment) -> list[Controller]:
    return [TaintEvictionController(env).controller]
