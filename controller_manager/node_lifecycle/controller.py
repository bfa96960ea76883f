"""The monitor loop over all nodes, and the reconciler of one node's taints.

Owns: writing Unknown conditions, our taints, and Ready=False on the pods of a lost node. Never: deletes pods. Called by
app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from api.models import coordination_v1, core_v1
from client.backoff import Backoff, wait_for_server
from client.client import PatchType, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import Informer
from client.listers import BY_NODE, pod_node
from controller_manager.environment import Environment, Runnable
from controller_manager.node_lifecycle import taints
from controller_manager.node_lifecycle.health import HealthRecords, Verdict
from controller_manager.node_lifecycle.zones import EvictionLimiter, ZoneState, plan_rates, zone_of, zone_state
from controller_manager.objects import condition, is_ready, wall_seconds
from controller_manager.side_by_side import side_by_side
from machinery import log
from machinery.errors import Conflict, NotFound, ServiceUnavailable, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey, rfc3339

COMPONENT: Final = "node-controller"
LEASE_NAMESPACE: Final = "kube-node-lease"
UPDATE_WORKERS: Final = 8
"""Nodes that are written at once, as upstream: a thousand lost ones are not told of one after the other."""
T = TypeVar("T")
R = TypeVar("R")
_log = log.get(__name__)


class NodeLifecycleController:
    """Watches nodes and their leases; remembers only when it last saw a sign of life."""

    name = "node-lifecycle"

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._options = env.options
        self._events = env.recorder(COMPONENT)
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_NODE: pod_node})
        self._leases: Informer[coordination_v1.Lease] = env.informers.informer(
            coordination_v1.Lease, namespace=LEASE_NAMESPACE
        )
        self._health = HealthRecords(
            env.clock, env.options.node_monitor_grace_period, env.options.node_startup_grace_period
        )
        self._limiter = EvictionLimiter(env.clock)
        self._all_disrupted = False
        self._known: set[str] = set()
        self._disconnects = 0
        self.controller = Controller(
            "node-taints",
            self.reconcile,
            clock=env.clock,
            informers=[self._nodes],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._nodes)

    # One node: taints that follow from what it says itself, at once

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._nodes.lister.get(key)
        if node is None:
            return DONE
        # NoExecute taints only go here; they come through the monitor, at the rate its zone allows.
        wanted = taints.no_execute_key(node)
        kept = taints.present_no_execute(node)
        if wanted is None:
            kept = set()
        elif kept:
            kept = {wanted}
        await self._write_taints(node, kept)
        return DONE

    async def _write_taints(self, node: core_v1.Node, no_execute: Iterable[str]) -> None:
        planned = taints.plan_taints(
            node,
            wall_seconds(self._clock),
            no_schedule=taints.no_schedule_keys(node),
            no_execute=no_execute,
        )
        if planned is None:
            return
        await self._client.patch(
            core_v1.Node,
            node.metadata.name or "",
            {"spec": {"taints": planned or None}},
            resource_version=node.metadata.resourceVersion,
        )

    # All nodes: who fell silent

    async def run(self) -> None:
        """Judge all nodes every monitor period until cancelled."""
        for informer in (self._nodes, self._pods, self._leases):
            await informer.wait_synced()
        backoff = Backoff()
        while True:
            try:
                await self.monitor()
                backoff.reset()
            except StatusError as error:
                _log.debug("Failed to monitor nodes", extra=kv(error=error.message))
                await wait_for_server(self._clock, backoff.next())
                continue
            await self._clock.sleep(self._options.node_monitor_period)

    async def monitor(self) -> None:
        """One pass: judge, tell, taint."""
        if self._was_blind():
            self._health.restart_grace()
        nodes = self._nodes.lister.list()
        self._greet({node.metadata.name or "": node for node in nodes})
        readiness: dict[str, list[bool]] = {}
        verdicts: list[tuple[core_v1.Node, Verdict]] = []
        for node in nodes:
            lease = self._leases.lister.get(ObjectKey(LEASE_NAMESPACE, node.metadata.name or ""))
            verdict = self._health.judge(node, lease)
            readiness.setdefault(zone_of(node), []).append(verdict.after == "True")
            if verdict.changes or verdict.after != "True":
                verdicts.append((node, verdict))
        found = await _few_at_once(self._note, verdicts)
        self._note_disruption(readiness)
        wanted = [(node, self._no_execute(node)) for node in found if node is not None]
        await _few_at_once(self._taint_lost, [(node, keys) for node, keys in wanted if keys is not None])

    async def _note(self, node: core_v1.Node, verdict: Verdict) -> core_v1.Node | None:
        """Write down what is known of a node, and of its pods if it is lost; returns it then, as it is now."""
        if verdict.changes:
            try:
                node = await self._write_conditions(node, verdict.changes)
            except (Conflict, NotFound):
                return None  # the node spoke or went meanwhile: judge it afresh next time
            except ServiceUnavailable:
                raise
            except StatusError as error:  # this node's trouble: the others must not wait for it
                _log.warning("Failed to mark node", extra=kv(node=node.metadata.name, error=error.message))
                return None
        if verdict.after == "True":
            return None
        if verdict.before == "True":
            message = f"Node {node.metadata.name} status is now: NodeNotReady"
            self._events.event(_reference(node), NORMAL, "NodeNotReady", message)
            _log.info("Lost node", extra=kv(node=node.metadata.name))
        await self._mark_pods(node)
        return node

    def _was_blind(self) -> bool:
        """Whether our own watches broke since the last pass: then silence says nothing about the nodes."""
        before, self._disconnects = self._disconnects, self._nodes.disconnects + self._leases.disconnects
        return self._disconnects != before

    def _greet(self, nodes: dict[str, core_v1.Node]) -> None:
        """Tell about nodes that came or went since the last pass."""
        for name in nodes.keys() - self._known:
            message = f"Node {name} event: Registered Node {name} in Controller"
            self._events.event(_reference(nodes[name]), NORMAL, "RegisteredNode", message)
        for name in self._known - nodes.keys():
            gone = core_v1.ObjectReference(kind="Node", name=name, apiVersion="v1", namespace="")
            message = f"Node {name} event: Removing Node {name} from Controller"
            self._events.event(gone, NORMAL, "RemovingNode", message)
        self._known = set(nodes)
        self._health.keep_only(self._known)

    async def _write_conditions(self, node: core_v1.Node, changes: list[dict[str, Any]]) -> core_v1.Node:
        return await self._client.patch(
            core_v1.Node,
            node.metadata.name or "",
            {"status": {"conditions": changes}},
            type=PatchType.STRATEGIC,
            subresource="status",
            resource_version=node.metadata.resourceVersion,
        )

    def _note_disruption(self, readiness: dict[str, list[bool]]) -> None:
        threshold = self._options.unhealthy_zone_threshold
        states = {zone: zone_state(ready, threshold) for zone, ready in readiness.items()}
        sizes = {zone: len(ready) for zone, ready in readiness.items()}
        self._limiter.set_rates(plan_rates(states, sizes, self._options))
        all_disrupted = bool(states) and all(state is ZoneState.FULL for state in states.values())
        if all_disrupted != self._all_disrupted:
            self._all_disrupted = all_disrupted
            if all_disrupted:
                _log.info("Stopped giving up nodes: none is ready")
            else:
                _log.info("Resumed giving up nodes")
                self._health.restart_grace()

    def _no_execute(self, node: core_v1.Node) -> set[str] | None:
        """The NoExecute taints that a lost node is to have, None if they are as they should be (or not its turn)."""
        key = taints.no_execute_key(node)
        if key is None:
            return None
        present = taints.present_no_execute(node)
        # With no node ready anywhere the fault is likelier ours: nobody is to be evicted, what was begun is called off.
        wanted = set[str]() if self._all_disrupted else {key}
        if present == wanted or (wanted and not present and not self._limiter.try_take(zone_of(node))):
            return None
        return wanted

    async def _taint_lost(self, node: core_v1.Node, wanted: set[str]) -> None:
        try:
            await self._write_taints(node, wanted)
        except (Conflict, NotFound):
            return

    async def _mark_pods(self, node: core_v1.Node) -> None:
        """Nobody vouches for the readiness of these pods any more: take them out of service."""
        ready = [pod for pod in self._pods.lister.by_index(BY_NODE, node.metadata.name or "") if is_ready(pod)]
        await side_by_side([self._mark_pod(pod) for pod in ready])

    async def _mark_pod(self, pod: core_v1.Pod) -> None:
        if condition(pod, "Ready") is None:
            return
        key = key_of(pod)
        change = {
            "type": "Ready",
            "status": "False",
            "lastTransitionTime": rfc3339(wall_seconds(self._clock)),
        }
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [change]}}
        try:
            await self._client.patch(
                core_v1.Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC, subresource="status"
            )
        except StatusError as error:
            # Gone, replaced, or the server is away: the next pass looks again.
            _log.debug("Failed to mark pod", extra=kv(pod=key, error=error.message))
            return
        self._events.event(pod, WARNING, "NodeNotReady", "Node is not ready")


async def _few_at_once(
    work: Callable[[core_v1.Node, T], Coroutine[Any, Any, R]], items: Sequence[tuple[core_v1.Node, T]]
) -> list[R]:
    """Results in order; after a failure nothing more is begun."""
    results: list[R] = []
    for start in range(0, len(items), UPDATE_WORKERS):
        results += await side_by_side([work(*each) for each in items[start : start + UPDATE_WORKERS]])
    return results


def _reference(node: core_v1.Node) -> core_v1.ObjectReference:
    """A node as events name it."""
    return core_v1.ObjectReference(
        kind="Node", name=node.metadata.name, uid=node.metadata.uid, apiVersion="v1", namespace=""
    )


def build(env: Environment) -> list[Runnable]:
    lifecycle = NodeLifecycleController(env)
    return [lifecycle, lifecycle.controller]
