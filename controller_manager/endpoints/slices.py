"""Carries out the plan of slice_plan.py: watches Services, pods and nodes, writes EndpointSlices.

Owns: slices labelled as managed by this controller. Never: touches slices made by others (mirrored or hand-written).
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from api.models import core_v1
from client.client import Client, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from client.listers import BY_NODE, pod_node
from controller_manager.endpoints.hints import CannotShare, by_cpu, capacity, hint_shares, zone_ratios
from controller_manager.endpoints.pods import ZONE, counts, follow_pods, has_endpoints, selected, selects, service_key
from controller_manager.endpoints.slice_plan import (
    MANAGED_BY,
    MANAGER,
    SLICES,
    Changes,
    Endpoint,
    Hint,
    Slice,
    plan_slices,
)
from controller_manager.endpoints.trigger_times import TriggerTimes, annotate
from controller_manager.environment import Environment
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from machinery.errors import Conflict, NotFound, ServiceUnavailable, StatusError
from machinery.meta import ObjectKey

COMPONENT: Final = "endpoint-slice-controller"
BY_SERVICE: Final = "service"


async def carry_out(client: Client, changes: Changes) -> None:
    """Write the slices; what is to be deleted may be gone already."""
    for each in changes.create:
        await client.create(each)
    for each in changes.update:
        await client.update(each)
    for each in changes.delete:
        key = key_of(each)
        with contextlib.suppress(NotFound):
            await client.delete(SLICES, key.name, key.namespace, uid=each["metadata"].get("uid"))


class EndpointSliceController:
    """Reads Services, pods, nodes and slices; writes slices."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._events = env.recorder(COMPONENT)
        self._times = TriggerTimes()
        self._services: Informer[core_v1.Service] = env.informers.informer(core_v1.Service)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers={BY_NODE: pod_node})
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._slices = env.informers.informer(SLICES, indexers={BY_SERVICE: _service_index})
        self.controller = Controller(
            "endpointslice",
            self.reconcile,
            clock=env.clock,
            informers=[self._services, self._pods, self._nodes, self._slices],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._services)
        self.controller.watches(self._slices, _service_keys)
        follow_pods(self.controller, self._pods, self._services)
        self._nodes.add_handler(
            EventHandler(
                lambda node: self._node_changed(None, node),
                self._node_changed,
                lambda node: self._node_changed(node, None),
            )
        )

    def _node_changed(self, old: core_v1.Node | None, new: core_v1.Node | None) -> None:
        """Zones are part of endpoints, and CPUs decide how they are shared out."""
        before, after = (capacity(each) if each is not None else None for each in (old, new))
        if before != after:
            for service in self._services.lister.list():
                if by_cpu(service):
                    self.controller.enqueue(key_of(service))
        if new is None or (old is not None and _zone(old) == _zone(new)):
            return
        for pod in self._pods.lister.by_index(BY_NODE, new.metadata.name or ""):
            for service in self._services.lister.list(pod.metadata.namespace):
                if selects(service, pod.metadata.labels):
                    self.controller.enqueue(key_of(service))

    async def reconcile(self, key: ObjectKey) -> Result:
        service = self._services.lister.get(key)
        existing = self._slices.lister.by_index(BY_SERVICE, str(key))
        if service is None:
            self._times.forget(key)
            await carry_out(self._client, Changes([], [], existing))  # the collector would, too, but later
            return DONE
        if not has_endpoints(service) or service.metadata.deletionTimestamp is not None:
            return DONE
        pods = selected(service, self._pods.lister.list(key.namespace))
        moment = self._times.of(key, service, pods)
        hint = self._sharing(service, existing) if by_cpu(service) else None
        changes = plan_slices(service, self._on_known_nodes(service, pods), self._node, existing, hint=hint)
        for each in (*changes.create, *changes.update):
            annotate(each["metadata"], moment)
        try:
            await carry_out(self._client, changes)
        except (Conflict, ServiceUnavailable):
            raise
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return DONE
            message = f"Error updating Endpoint Slices for Service {key}: {error.message}"
            self._events.event(service, WARNING, "FailedToUpdateEndpointSlices", message)
            raise
        return DONE

    def _on_known_nodes(self, service: core_v1.Service, pods: Sequence[core_v1.Pod]) -> Sequence[core_v1.Pod]:
        """Without pods whose node is gone (or not seen yet: its coming queues the Service). Upstream's rule."""
        if service.spec.publishNotReadyAddresses:
            return pods
        known = []
        for pod in pods:
            name = pod.spec.nodeName
            if not name or self._node(name) is not None:
                known.append(pod)
            elif any(counts(pod, family, with_terminating=True) for family in service.spec.ipFamilies or ["IPv4"]):
                key = key_of(service)
                why = f"skipping Pod {pod.metadata.name} for Service {key}: Node {name} Not Found"
                message = f"Error updating Endpoint Slices for Service {key}: {why}"
                self._events.event(service, WARNING, "FailedToUpdateEndpointSlices", message)
        return known

    def _sharing(self, service: core_v1.Service, existing: Sequence[Slice]) -> Hint:
        hinted = any(endpoint.get("hints") for each in existing for endpoint in each.get("endpoints") or ())

        def hint(family: str, endpoints: Sequence[Endpoint]) -> None:
            try:
                hint_shares(endpoints, zone_ratios(self._nodes.lister.list()))
            except CannotShare as error:
                self._events.event(service, WARNING, "TopologyAwareHintsDisabled", f"{error}, addressType: {family}")
            else:
                if not hinted:
                    message = f"Topology Aware Hints has been enabled, addressType: {family}"
                    self._events.event(service, NORMAL, "TopologyAwareHintsEnabled", message)

        return hint

    def _node(self, name: str) -> core_v1.Node | None:
        return self._nodes.lister.get(ObjectKey("", name))


def _zone(node: core_v1.Node | None) -> str:
    return str((node.metadata.labels or {}).get(ZONE, "")) if node is not None else ""


def _ours(obj: Slice) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)


def _service_index(obj: Slice) -> Iterable[str]:
    key = service_key(obj) if _ours(obj) else None
    return () if key is None else (str(key),)


def _service_keys(obj: Slice) -> Iterable[ObjectKey]:
    key = service_key(obj) if _ours(obj) else None
    return () if key is None else (key,)


def build(env: Environment) -> list[Controller]:
    return [EndpointSliceController(env).controller]
