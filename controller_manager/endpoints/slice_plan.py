"""The plan of a Service's EndpointSlices: changes as few slices as possible.

Slices are plain dicts here: `endpoints: null` is what an empty one carries, and the typed model has no word for it.
Pure. Called by slices.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api import resources
from api.models import core_v1, discovery_v1
from controller_manager.endpoints.hints import hint_closeness
from controller_manager.endpoints.ordering import slice_port_order
from controller_manager.endpoints.pods import (
    HEADLESS,
    SERVICE_NAME,
    ZONE,
    addresses,
    counts,
    hostname_of,
    is_headless,
    ports_of,
    selected,
    target_of,
)
from controller_manager.objects import controller_reference, is_ready, is_terminating

MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS: Final = 100
SLICES: Final = resources.of(discovery_v1.EndpointSlice)

Slice = dict[str, Any]
Endpoint = dict[str, Any]
NodeLookup = Callable[[str], core_v1.Node | None]
Groups = dict[bytes, tuple[list[dict[str, Any]], dict[str, Endpoint]]]
"""By ports (encoded): the ports, and the endpoints that serve them by their pods' uids."""
Hint = Callable[[str, Sequence[Endpoint]], None]
"""Gives endpoints of one address family their hints."""


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
    hint: Hint | None = None,
) -> Changes:
    """Bring the Service's slices to what its pods are. Endpoints stay in the slice they are in.

    Without `hint` they are hinted as spec.trafficDistribution says.
    """
    changes = Changes([], [], [])
    labels = labels_for(service)
    families = service.spec.ipFamilies or ["IPv4"]
    leftover = [each for each in existing if each.get("addressType") not in families]
    changes.delete.extend(leftover)
    for family in families:
        of_family = [each for each in existing if each.get("addressType") == family]
        groups = _group(service, family, pods, nodes)
        endpoints = [endpoint for _, group in groups.values() for endpoint in group.values()]
        if hint is None:
            hint_closeness(service, endpoints)
        else:
            hint(family, endpoints)
        _plan_family(service, family, groups, of_family, labels, limit, changes)
    return changes


def _group(service: core_v1.Service, family: str, pods: Sequence[core_v1.Pod], nodes: NodeLookup) -> Groups:
    """Pods that serve a named port under different numbers need slices of their own."""
    groups: Groups = {}
    for pod in selected(service, pods):
        if not counts(pod, family, with_terminating=True):
            continue
        ports = sorted(ports_of(service, pod), key=slice_port_order)
        group = groups.setdefault(_port_key(ports), (ports, {}))
        node = nodes(pod.spec.nodeName or "")
        group[1][pod.metadata.uid or ""] = endpoint_of(pod, service, node, family)
    return groups


def _plan_family(
    service: core_v1.Service,
    family: str,
    groups: Groups,
    existing: Sequence[Slice],
    labels: Mapping[str, str],
    limit: int,
    changes: Changes,
) -> None:
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
        "apiVersion": SLICES.group_version,
        "kind": SLICES.kind,
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
