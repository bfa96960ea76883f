"""core/v1 Endpoints: the same facts as EndpointSlices in one object per Service, for those who still read them.

Owns: the Endpoints named like a Service with a selector. Never: touches Endpoints of Services without one.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from api import resources
from api.models import core_v1
from client.controller import DONE, Controller, Result
from client.events import WARNING
from client.informer import Informer
from controller_manager.endpoints.ordering import subset_port_order
from controller_manager.endpoints.pods import (
    HEADLESS,
    addresses,
    counts,
    follow_pods,
    has_endpoints,
    hostname_of,
    is_headless,
    ports_of,
    selected,
    target_of,
)
from controller_manager.endpoints.trigger_times import ANNOTATION, TriggerTimes, annotate
from controller_manager.environment import Environment
from controller_manager.objects import is_ready, is_terminating
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from machinery.errors import Conflict, NotFound, ServiceUnavailable, StatusError
from machinery.meta import ObjectKey

MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
MANAGER: Final = "endpoint-controller"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES: Final = 1000
_ENDPOINTS: Final = resources.of(core_v1.Endpoints)

Subset = dict[str, Any]


def plan_subsets(service: core_v1.Service, pods: Sequence[core_v1.Pod]) -> tuple[list[Subset], bool]:
    """Subsets, and whether addresses had to be left out.

    Ports that the very same addresses serve share a subset, so an address may be in several.
    """
    family = (service.spec.ipFamilies or ["IPv4"])[0]
    all_ready = bool(service.spec.publishNotReadyAddresses)
    entries: dict[str, tuple[bool, dict[str, Any]]] = {}
    by_port: dict[bytes, list[str]] = {}
    truncated = False
    for pod in selected(service, pods):
        if not counts(pod, family, with_terminating=all_ready):
            continue
        ports = ports_of(service, pod)
        if not ports and not (is_headless(service) and not service.spec.ports):
            continue
        if len(entries) >= MAX_ADDRESSES:
            truncated = True
            break
        uid = pod.metadata.uid or ""
        ready = all_ready or (is_ready(pod) and not is_terminating(pod))
        entries[uid] = (ready, _address(service, pod, family))
        for port in ports or [{}]:
            by_port.setdefault(msgspec.json.encode(port), []).append(uid)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for port_key, uids in by_port.items():
        port = msgspec.json.decode(port_key)
        groups.setdefault(tuple(sorted(uids)), []).extend([_subset_port(port)] if port else [])
    subsets = [_subset([entries[uid] for uid in uids], ports) for uids, ports in groups.items()]
    return sorted(subsets, key=lambda subset: [subset_port_order(port) for port in subset.get("ports", ())]), truncated


def _address(service: core_v1.Service, pod: core_v1.Pod, family: str) -> dict[str, Any]:
    address: dict[str, Any] = {"ip": addresses(pod, family), "targetRef": target_of(pod)}
    if pod.spec.nodeName:
        address["nodeName"] = pod.spec.nodeName
    hostname = hostname_of(pod, service)
    if hostname is not None:
        address["hostname"] = hostname
    return address


def _subset(members: Sequence[tuple[bool, dict[str, Any]]], ports: list[dict[str, Any]]) -> Subset:
    ordered = sorted(members, key=lambda member: (member[1]["ip"], member[1]["targetRef"]["uid"]))
    subset = {
        "addresses": [address for ready, address in ordered if ready],
        "notReadyAddresses": [address for ready, address in ordered if not ready],
        "ports": sorted(ports, key=subset_port_order),
    }
    return {name: value for name, value in subset.items() if value}


def _subset_port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in port.items() if name != "name" or value}


def plan_endpoints(
    service: core_v1.Service, pods: Sequence[core_v1.Pod], existing: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The Endpoints object to write, or None if what exists is right."""
    subsets, truncated = plan_subsets(service, pods)
    labels = {name: value for name, value in (service.metadata.labels or {}).items() if name != HEADLESS}
    labels[MANAGED_BY] = MANAGER
    if is_headless(service):
        labels[HEADLESS] = ""
    metadata = dict(existing["metadata"]) if existing is not None else {"name": service.metadata.name}
    noted = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != ANNOTATION}
    annotations = {k: v for k, v in noted.items() if k != OVER_CAPACITY}
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    if existing is not None:
        same = (existing.get("subsets") or []) == subsets and (metadata.get("labels") or {}) == labels
        if same and noted == annotations:
            return None
    metadata |= {"namespace": service.metadata.namespace, "labels": labels, "annotations": annotations or None}
    planned: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
    if subsets:
        planned["subsets"] = subsets
    return planned


class EndpointsController:
    """Reads Services and pods; writes Endpoints."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._events = env.recorder(MANAGER)
        self._times = TriggerTimes()
        self._services: Informer[core_v1.Service] = env.informers.informer(core_v1.Service)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod)
        self._endpoints = env.informers.informer(_ENDPOINTS)
        self.controller = Controller(
            "endpoints",
            self.reconcile,
            clock=env.clock,
            informers=[self._services, self._pods, self._endpoints],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._services)
        self.controller.watches(self._endpoints)
        follow_pods(self.controller, self._pods, self._services)

    async def reconcile(self, key: ObjectKey) -> Result:
        service = self._services.lister.get(key)
        existing = self._endpoints.lister.get(key)
        if service is None:
            self._times.forget(key)
            if existing is not None and self._ours(existing):
                try:
                    await self._client.delete(_ENDPOINTS, key.name, key.namespace, uid=existing["metadata"].get("uid"))
                except NotFound:
                    return DONE
            return DONE
        if not has_endpoints(service) or service.metadata.deletionTimestamp is not None:
            return DONE
        pods = selected(service, self._pods.lister.list(key.namespace))
        moment = self._times.of(key, service, pods)
        planned = plan_endpoints(service, pods, existing)
        if planned is not None:
            annotate(planned["metadata"], moment)
            await self._write(key, planned, existing is None)
        return DONE

    async def _write(self, key: ObjectKey, planned: dict[str, Any], create: bool) -> None:
        try:
            await (self._client.create(planned) if create else self._client.update(planned))
        except (Conflict, ServiceUnavailable):
            raise
        except StatusError as error:
            if create and any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return
            reason, subject = (
                ("FailedToCreateEndpoint", f"create endpoint for service {key}")
                if create
                else ("FailedToUpdateEndpoint", f"update endpoint {key}")
            )
            self._events.event(planned, WARNING, reason, f"Failed to {subject}: {error.message}")
            raise

    @staticmethod
    def _ours(obj: Mapping[str, Any]) -> bool:
        return bool((obj["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)


def build(env: Environment) -> list[Controller]:
    return [EndpointsController(env).controller]
