"""Mirrors Endpoints that somebody writes by hand into EndpointSlices, which is what proxies and DNS read.

Owns: the slices labelled as managed by this controller. Mirrored is what belongs to a Service without a selector,
unless it is labelled to be skipped or records a leader election. Never: writes Endpoints, touches other slices.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api import resources
from api.models import core_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import WARNING
from client.informer import Informer
from controller_manager.endpoints.pods import SERVICE_NAME, service_key
from controller_manager.endpoints.slice_plan import MANAGED_BY, SLICES, Changes, Endpoint, Slice
from controller_manager.endpoints.slices import carry_out
from controller_manager.environment import Environment
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from machinery.errors import StatusError
from machinery.meta import ObjectKey

COMPONENT: Final = "endpoint-slice-mirroring-controller"
MANAGER: Final = "endpointslicemirroring-controller.k8s.io"
SKIP: Final = "endpointslice.kubernetes.io/skip-mirror"
LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
MAX_PER_SUBSET: Final = 1000
BY_ENDPOINTS: Final = "mirrored"
_NOT_COPIED: Final = (
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
)
_ENDPOINTS: Final = resources.of(core_v1.Endpoints)


class Mirror(NamedTuple):
    """Slices to write, and how many addresses were left out: those that are none, and those beyond the limit."""

    changes: Changes
    invalid: int
    excess: int


def should_mirror(endpoints: Mapping[str, Any], service: core_v1.Service | None) -> bool:
    """Whether the Endpoints are somebody's own word about a Service. An empty selector is a selector all the same."""
    metadata = endpoints["metadata"]
    if (metadata.get("labels") or {}).get(SKIP) == "true" or LEADER in (metadata.get("annotations") or {}):
        return False
    return service is not None and service.spec.selector is None


def plan_mirror(endpoints: Mapping[str, Any], existing: Sequence[Slice]) -> Mirror:
    """One slice for every address family and set of ports."""
    wanted, invalid, excess = _desired(endpoints)
    changes = Changes([], [], [])
    spare: list[Slice] = []
    by_key: dict[tuple[str, bytes], Slice] = {}
    for each in existing:
        if by_key.setdefault(_key(each["addressType"], each.get("ports") or []), each) is not each:
            spare.append(each)
    spare.extend(each for key, each in by_key.items() if key not in wanted)
    for key, fields in wanted.items():
        kept = by_key.get(key)
        made = _slice(endpoints, fields)
        if kept is None:
            # A family cannot change: only a slice of the same one can be used again.
            kept = next((each for each in spare if each["addressType"] == key[0]), None)
            if kept is None:
                changes.create.append(made)
                continue
            spare.remove(kept)
        if _differs(kept, made):
            changes.update.append(made | {"metadata": {**kept["metadata"], **_texts(made["metadata"])}})
    changes.delete.extend(spare)
    return Mirror(changes, invalid, excess)


def _desired(endpoints: Mapping[str, Any]) -> tuple[dict[tuple[str, bytes], dict[str, Any]], int, int]:
    wanted: dict[tuple[str, bytes], dict[str, Any]] = {}
    invalid = excess = 0
    for subset in endpoints.get("subsets") or ():
        ports = [_port(each) for each in subset.get("ports") or ()]
        addresses = [(each, True) for each in subset.get("addresses") or ()]
        addresses += [(each, False) for each in subset.get("notReadyAddresses") or ()]
        added = 0
        for address, ready in addresses:
            if added >= MAX_PER_SUBSET:
                excess += 1
                continue
            family, endpoint = _endpoint(address, ready)
            if endpoint is None:
                invalid += 1
                continue
            added += 1
            group = wanted.setdefault(
                _key(family, ports), {"addressType": family, "ports": ports or None, "endpoints": []}
            )
            group["endpoints"].append(endpoint)
    for group in wanted.values():
        group["endpoints"] = _distinct(group["endpoints"])
    return wanted, invalid, excess


def _distinct(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Subsets with the same ports may name an address twice; a slice must not. What is ready somewhere is ready."""
    found: dict[bytes, Endpoint] = {}
    for each in sorted(endpoints, key=lambda each: not each["conditions"]["ready"]):
        found.setdefault(msgspec.json.encode({**each, "conditions": None}), each)
    return list(found.values())


def _endpoint(address: Mapping[str, Any], ready: bool) -> tuple[str, Endpoint | None]:
    try:
        ip = ipaddress.ip_address(address.get("ip") or "")
    except ValueError:
        return "", None
    endpoint: Endpoint = {"addresses": [str(ip)], "conditions": {"ready": ready}}
    for name in ("hostname", "nodeName", "targetRef"):
        if address.get(name):
            endpoint[name] = address[name]
    return ("IPv4" if ip.version == 4 else "IPv6"), endpoint


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    made = {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
    return made | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})


def _key(family: str, ports: Iterable[Mapping[str, Any]]) -> tuple[str, bytes]:
    return family, msgspec.json.encode(sorted(ports, key=lambda port: (port.get("name") or "", port.get("port") or 0)))


def _slice(endpoints: Mapping[str, Any], fields: Mapping[str, Any]) -> Slice:
    metadata = endpoints["metadata"]
    labels = {**(metadata.get("labels") or {}), SERVICE_NAME: metadata["name"], MANAGED_BY: MANAGER}
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in _NOT_COPIED}
    owner = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": SLICES.group_version,
        "kind": SLICES.kind,
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata.get("namespace"),
            "labels": labels,
            "annotations": annotations or None,
            "ownerReferences": [owner],
        },
        **fields,
    }


def _texts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in ("labels", "annotations", "ownerReferences")}


def _differs(old: Slice, new: Slice) -> bool:
    return any((old.get(name) or None) != (new.get(name) or None) for name in ("ports", "endpoints")) or any(
        (old["metadata"].get(name) or None) != value for name, value in _texts(new["metadata"]).items()
    )


class EndpointSliceMirroringController:
    """Reads Services, Endpoints and slices; writes slices."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._events = env.recorder(COMPONENT)
        self._services: Informer[core_v1.Service] = env.informers.informer(core_v1.Service)
        self._endpoints = env.informers.informer(_ENDPOINTS)
        self._slices = env.informers.informer(SLICES, indexers={BY_ENDPOINTS: _mirrored})
        self.controller = Controller(
            "endpointslicemirroring",
            self.reconcile,
            clock=env.clock,
            informers=[self._services, self._endpoints, self._slices],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._endpoints)
        self.controller.watches(self._services, lambda each: [key_of(each)] if each.spec.selector is None else [])
        self.controller.watches(self._slices, _keys)

    async def reconcile(self, key: ObjectKey) -> Result:
        endpoints = self._endpoints.lister.get(key)
        existing = self._slices.lister.by_index(BY_ENDPOINTS, str(key))
        if endpoints is None or not should_mirror(endpoints, self._services.lister.get(key)):
            await carry_out(self._client, Changes([], [], existing))
            return DONE
        if endpoints["metadata"].get("deletionTimestamp"):
            return DONE
        mirror = plan_mirror(endpoints, existing)
        self._tell(endpoints, mirror)
        try:
            await carry_out(self._client, mirror.changes)
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return DONE
            raise
        return DONE

    def _tell(self, endpoints: Mapping[str, Any], mirror: Mirror) -> None:
        if mirror.invalid:
            message = f"Skipped {mirror.invalid} invalid IP addresses when mirroring to EndpointSlices"
            self._events.event(endpoints, WARNING, "InvalidIPAddress", message)
        if mirror.excess:
            message = (
                f"A max of {MAX_PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{mirror.excess + mirror.invalid} addresses were skipped"
            )
            self._events.event(endpoints, WARNING, "TooManyAddressesToMirror", message)


def _ours(obj: Slice) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)


def _keys(obj: Slice) -> Iterable[ObjectKey]:
    key = service_key(obj) if _ours(obj) else None
    return () if key is None else (key,)


def _mirrored(obj: Slice) -> Iterable[str]:
    return [str(key) for key in _keys(obj)]


def build(env: Environment) -> list[Controller]:
    return [EndpointSliceMirroringController(env).controller]
