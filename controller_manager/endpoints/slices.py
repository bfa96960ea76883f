"""EndpointSlices: the plan that changes as few slices as possible, and the controller that carries it out.

Owns: slices labelled as managed by this controller. Never: touches slices made by others (mirrored or hand-written).
Slices are plain dicts here: `endpoints: null` is what an empty one carries, and the typed model has no word for it.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api import resources
from api.models import core_v1, discovery_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.endpoints.ordering import slice_port_order
from controller_manager.endpoints.pods import (
    HEADLESS,
    SERVICE_NAME,
    ZONE,
    addresses,
    counts,
    follow_pods,
    has_endpoints,
    hostname_of,
    is_headless,
    ports_of,
    selected,
    service_key,
    target_of,
)
from controller_manager.environment import Environment
from controller_manager.objects import controller_reference, is_ready, is_terminating
from machinery.errors import NotFound
from machinery.meta import ObjectKey

MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS: Final = 100
BY_SERVICE: Final = "service"
_SLICES: Final = resources.of(discovery_v1.EndpointSlice)

Slice = dict[str, Any]
Endpoint = dict[str, Any]
NodeLookup = Callable[[str], core_v1.Node | None]


class Changes(NamedTuple):
    """Slices to write."""

    create: list[Slice]
    update: list[Slice]
    delete: list[Slice]


def endpoint_of(pod: core_v1.Pod, service: core_v1.Service, node: core_v1.Node | None, family: str) -> Endpoint:
    """A pod as an endpoint. Serving is what its readiness says; ready is serving and not on its way out."""
    serving, terminating = is_ready(pod), is_terminating(pod)
    ready = bool(service.spec.publishNotReadyAddresses) or (serving and not terminating)
    endpoint: Endpoint = {
        "addresses": [addresses(pod, family)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target_of(pod),
    }
    hostname = hostname_of(pod, service)
    if hostname is not None:
        endpoint["hostname"] = hostname
    if pod.spec.nodeName:
        endpoint["nodeName"] = pod.spec.nodeName
        zone = (node.metadata.labels or {}).get(ZONE) if node is not None else None
        if zone:
            endpoint["zone"] = zone
    return endpoint


def plan_slices(
    service: core_v1.Service,
    pods: Sequence[core_v1.Pod],
    nodes: NodeLookup,
    existing: Sequence[Slice],
    *,
    limit: int = MAX_ENDPOINTS,
) -> Changes:
    """Bring the Service's slices to what its pods are. Endpoints stay in the slice they are in."""
    changes = Changes([], [], [])
    labels = labels_for(service)
    families = service.spec.ipFamilies or ["IPv4"]
    leftover = [each for each in existing if each.get("addressType") not in families]
    changes.delete.extend(leftover)
    for family in families:
        of_family = [each for each in existing if each.get("addressType") == family]
        _plan_family(service, family, pods, nodes, of_family, labels, limit, changes)
    return changes


def _plan_family(
    service: core_v1.Service,
    family: str,
    pods: Sequence[core_v1.Pod],
    nodes: NodeLookup,
    existing: Sequence[Slice],
    labels: Mapping[str, str],
    limit: int,
    changes: Changes,
) -> None:
    # Pods that serve a named port under different numbers need slices of their own.
    groups: dict[bytes, tuple[list[dict[str, Any]], dict[str, Endpoint]]] = {}
    for pod in selected(service, pods):
        if not counts(pod, family, with_terminating=True):
            continue
        ports = sorted(ports_of(service, pod), key=slice_port_order)
        group = groups.setdefault(_port_key(ports), (ports, {}))
        node = nodes(pod.spec.nodeName or "")
        group[1][pod.metadata.uid or ""] = endpoint_of(pod, service, node, family)
    spare: list[Slice] = []
    by_ports: dict[bytes, list[Slice]] = {}
    for each in existing:
        by_ports.setdefault(_port_key(each.get("ports") or ()), []).append(each)
    for key in by_ports.keys() - groups.keys():
        spare.extend(by_ports[key])
    for key, (ports, endpoints) in groups.items():
        slices = by_ports.get(key, [])
        if not slices and spare:
            slices = [spare.pop()]  # an empty slice, or one with the ports of before: use it again
        _fill(service, family, ports, endpoints, slices, labels, limit, changes)
    if not groups and not changes.create:
        _keep_placeholder(service, family, spare, labels, changes)
    else:
        changes.delete.extend(spare)


def _fill(
    service: core_v1.Service,
    family: str,
    ports: list[dict[str, Any]],
    endpoints: dict[str, Endpoint],
    slices: Sequence[Slice],
    labels: Mapping[str, str],
    limit: int,
    changes: Changes,
) -> None:
    missing = dict(endpoints)
    kept: list[tuple[Slice, list[Endpoint]]] = []
    for each in slices:
        uids = [(old.get("targetRef") or {}).get("uid") for old in each.get("endpoints") or ()]
        kept.append((each, [missing.pop(uid) for uid in uids if uid in missing]))
    pending = list(missing.values())
    # Slices that change anyway first, then the fullest that still has room.
    for each, held in sorted(kept, key=lambda pair: (not _differs(pair, ports, labels), -len(pair[1]))):
        room = limit - len(held)
        held.extend(pending[:room])
        del pending[: max(room, 0)]
        if not held and (pending or len(slices) > 1 or not endpoints):
            changes.delete.append(each)
        elif _differs((each, held), ports, labels):
            changes.update.append(_rewritten(each, ports, held, labels))
    while pending:
        changes.create.append(_new(service, family, ports, pending[:limit], labels))
        del pending[:limit]


def _keep_placeholder(
    service: core_v1.Service, family: str, spare: list[Slice], labels: Mapping[str, str], changes: Changes
) -> None:
    """A Service without endpoints still has one, empty, slice: it says that somebody has looked."""
    if not spare:
        changes.create.append(_new(service, family, [], [], labels))
        return
    first, *rest = spare
    changes.delete.extend(rest)
    if first.get("endpoints") or first.get("ports") or first["metadata"].get("labels") != labels:
        changes.update.append(_rewritten(first, [], [], labels))


def _differs(pair: tuple[Slice, list[Endpoint]], ports: list[dict[str, Any]], labels: Mapping[str, str]) -> bool:
    each, held = pair
    return (
        (each.get("endpoints") or []) != held
        or (each.get("ports") or []) != ports
        or (each["metadata"].get("labels") or {}) != labels
    )


def _port_key(ports: Iterable[Mapping[str, Any]]) -> bytes:
    return msgspec.json.encode(sorted(ports, key=lambda port: (port.get("name") or "", port.get("port") or 0)))


def labels_for(service: core_v1.Service) -> dict[str, str]:
    labels = {name: value for name, value in (service.metadata.labels or {}).items() if name != HEADLESS}
    labels |= {SERVICE_NAME: service.metadata.name or "", MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    return labels


def _new(
    service: core_v1.Service,
    family: str,
    ports: list[dict[str, Any]],
    endpoints: list[Endpoint],
    labels: Mapping[str, str],
) -> Slice:
    reference = msgspec.to_builtins(controller_reference(service))
    return {
        "apiVersion": _SLICES.group_version,
        "kind": _SLICES.kind,
        "metadata": {
            "generateName": f"{service.metadata.name}-",
            "namespace": service.metadata.namespace,
            "labels": dict(labels),
            "ownerReferences": [reference],
        },
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": ports or None,
    }


def _rewritten(old: Slice, ports: list[dict[str, Any]], endpoints: list[Endpoint], labels: Mapping[str, str]) -> Slice:
    metadata = {**old["metadata"], "labels": dict(labels)}
    return {**old, "metadata": metadata, "endpoints": endpoints or None, "ports": ports or None}


class EndpointSliceController:
    """Reads Services, pods, nodes and slices; writes slices."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._services: Informer[core_v1.Service] = env.informers.informer(core_v1.Service)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod)
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self._slices = env.informers.informer(_SLICES, indexers={BY_SERVICE: _service_index})
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

    async def reconcile(self, key: ObjectKey) -> Result:
        service = self._services.lister.get(key)
        existing = self._slices.lister.by_index(BY_SERVICE, str(key))
        if service is None:
            await self._carry_out(Changes([], [], existing))  # the collector would, too, but later
            return DONE
        if not has_endpoints(service) or service.metadata.deletionTimestamp is not None:
            return DONE
        pods = self._pods.lister.list(key.namespace)
        await self._carry_out(plan_slices(service, pods, self._node, existing))
        return DONE

    def _node(self, name: str) -> core_v1.Node | None:
        return self._nodes.lister.get(ObjectKey("", name))

    async def _carry_out(self, changes: Changes) -> None:
        writes = [self._client.create(each) for each in changes.create]
        writes += [self._client.update(each) for each in changes.update]
        for write in [*writes, *(self._delete(each) for each in changes.delete)]:
            await write

    async def _delete(self, each: Slice) -> None:
        key = key_of(each)
        try:
            await self._client.delete(_SLICES, key.name, key.namespace, uid=each["metadata"].get("uid"))
        except NotFound:
            return


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
