"""What every cluster starts with: namespaces, roles, priority classes, APIServices, the `kubernetes` Service.

Owns: these objects (`initial_objects`) and their creation at start if missing. Never changes what a user has changed.
Where the `kubernetes` Service leads is kept by `master_leases`, what aggregated servers are told is kept by
`aggregation.trust`. Called by `apiserver.app` before the server is ready.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from apiserver import joining
from apiserver.aggregation.identity import FrontProxy
from apiserver.aggregation.model import API_SERVICES
from apiserver.aggregation.registration import built_in
from apiserver.auth.policy import RBAC, default_objects
from apiserver.auth.reconcile import AUTOUPDATE
from apiserver.auth.reconcile import plan as plan_role
from apiserver.auth.user import SYSTEM_API_SERVER
from apiserver.registry.context import DeleteOptions
from apiserver.registry.store import Registry, RequestContext, ResourceStore
from machinery.clock import Clock
from machinery.errors import AlreadyExists, NotFound, ServiceUnavailable, StatusError, Timeout
from machinery.log import kv
from machinery.meta import rfc3339

NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "default")
KUBERNETES = "kubernetes"
SERVICE_CIDRS = ("networking.k8s.io", "v1", "servicecidrs")

log = logging.getLogger("apiserver.bootstrap")

Key = tuple[str, str, str]


def first_service_ip(service_range: str) -> str:
    """The address of the `kubernetes` Service: the first of the range."""
    network = ipaddress.ip_network(service_range)
    return str(network[1])


def initial_objects(service_range: str, port: int) -> Iterator[tuple[Key, str, dict[str, Any]]]:
    """(resource key, namespace, object), in the order of creation."""
    for name in NAMESPACES:
        yield ("", "v1", "namespaces"), "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    for plural, namespace, obj in default_objects():
        yield (RBAC, "v1", plural), namespace, obj
    for name, value, text in (
        (
            "system-cluster-critical",
            2000000000,
            "Used for system critical pods that must run in the cluster, but can be ",
        ),
        (
            "system-node-critical",
            2000001000,
            "Used for system critical pods that must not be moved from their current ",
        ),
    ):
        tail = "moved to another node if necessary." if "cluster" in name else "node."
        yield (
            ("scheduling.k8s.io", "v1", "priorityclasses"),
            "",
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
                "description": text + tail,
            },
        )
    yield (
        SERVICE_CIDRS,
        "",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": KUBERNETES},
            "spec": {"cidrs": [service_range]},
        },
    )
    address = first_service_ip(service_range)
    yield (
        ("", "v1", "services"),
        "default",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": KUBERNETES,
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ipFamilyPolicy": "SingleStack",
                "ipFamilies": ["IPv6" if ":" in address else "IPv4"],
                "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        },
    )


def endpoints(addresses: Sequence[str], port: int) -> Iterator[tuple[Key, str, dict[str, Any]]]:
    """Where the `kubernetes` Service leads: to all API servers."""
    meta = {"name": KUBERNETES, "namespace": "default"}
    yield (
        ("", "v1", "endpoints"),
        "default",
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {**meta, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [
                {
                    "addresses": [{"ip": address} for address in addresses],
                    "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                }
            ],
        },
    )
    yield (
        ("discovery.k8s.io", "v1", "endpointslices"),
        "default",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": {"kubernetes.io/service-name": KUBERNETES}},
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        },
    )


def legacy_token_tracking(clock: Clock) -> dict[str, Any]:
    """Since when the use of legacy service account tokens is noted on their Secrets."""
    name = "kube-apiserver-legacy-service-account-token-tracking"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": {"since": f"{clock.now():%Y-%m-%d}"},
    }


def is_reachable(address: str) -> bool:
    """An address that only this machine can use is no place to send pods to."""
    return bool(address) and not ipaddress.ip_address(address).is_loopback


class Bootstrap:
    """Creates what is missing, retrying while the store is away."""

    def __init__(
        self,
        registry: Registry,
        *,
        service_range: str,
        advertise: str,
        port: int,
        front: FrontProxy | None = None,
        ca: Path | None = None,
    ) -> None:
        """`ca`: the authority of the serving certificate, for machines that want to join."""
        self._registry = registry
        self._front = front
        self._service_range = service_range
        self._advertise = advertise
        self._port = port
        self._ca = ca

    async def run(self) -> None:
        """Until everything is there. Objects that cannot be made are logged and left out."""
        # Namespaces come first, as others lie in them; all others go to the store side by side.
        rest = []
        for key, namespace, obj in initial_objects(self._service_range, self._port):
            if obj["kind"] == "Namespace":
                await self._ensure(key, namespace, obj)
            else:
                rest.append(self._ensure(key, namespace, obj))
        for obj in built_in():
            rest.append(self._ensure(API_SERVICES, "", obj))
        rest.append(self._ensure(("", "v1", "configmaps"), "kube-system", legacy_token_tracking(self._registry.clock)))
        if self._front is not None:
            rest.append(self._ensure(("", "v1", "configmaps"), "kube-system", self._front.config_map()))
        if is_reachable(self._advertise) and self._ca is not None:
            for key, namespace, obj in joining.objects(self._advertise, self._port, self._ca):
                rest.append(self._ensure(key, namespace, obj))
        async with asyncio.TaskGroup() as group:
            for work in rest:
                group.create_task(work)
        await self._tell_ready()

    async def _tell_ready(self) -> None:
        """Of the range of cluster IPs, unless somebody has judged it already or it is not ours."""
        store = self._registry.resource(*SERVICE_CIDRS)
        context = RequestContext(SYSTEM_API_SERVER, field_manager="kubernetes-service-cidr-controller")
        try:
            found = msgspec.json.decode(await store.get(context, "", KUBERNETES))
            told = (found.get("status") or {}).get("conditions")
            if told or found["metadata"].get("deletionTimestamp") or found["spec"]["cidrs"] != [self._service_range]:
                return
            now = rfc3339(self._registry.clock.now())
            message = "Kubernetes default Service CIDR is ready"
            ready = {"type": "Ready", "status": "True", "reason": "", "message": message, "lastTransitionTime": now}
            await store.update(
                context, "", KUBERNETES, {**found, "status": {"conditions": [ready]}}, subresource="status"
            )
        except StatusError as error:
            log.warning("Could not tell that the range of cluster IPs is ready", extra=kv(error=error.message))

    async def _reconcile(
        self, store: ResourceStore, context: RequestContext, namespace: str, obj: dict[str, Any], found: dict[str, Any]
    ) -> None:
        """Give a default role or binding back what it has lost."""
        name = obj["metadata"]["name"]
        wanted, anew = plan_role(obj, found)
        if wanted is None:
            return
        if anew:
            await store.delete(context, namespace, name, DeleteOptions(uid=found["metadata"]["uid"]))
            await store.create(context, namespace, wanted)
        else:
            await store.update(context, namespace, name, wanted)
        log.info("Restored a default", extra=kv(kind=obj["kind"], name=name))

    async def _ensure(
        self,
        key: Key,
        namespace: str,
        obj: dict[str, Any],
        *,
        replace: bool = False,
    ) -> None:
        store = self._registry.resource(*key)
        name = obj["metadata"]["name"]
        for attempt in range(60):
            context = RequestContext(SYSTEM_API_SERVER, field_manager="kube-apiserver")
            try:
                try:
                    found = msgspec.json.decode(await store.get(context, namespace, name))
                except NotFound:
                    await store.create(context, namespace, obj)
                    return
                if key[0] == RBAC and AUTOUPDATE in (obj["metadata"].get("annotations") or {}):
                    await self._reconcile(store, context, namespace, obj, found)
                    return
                if replace and any(found.get(part) != obj[part] for part in obj if part not in ("metadata", "kind")):
                    found.update({part: obj[part] for part in obj if part != "metadata"})
                    await store.update(context, namespace, name, found)
                return
            except AlreadyExists:
                return
            except (ServiceUnavailable, Timeout):
                await asyncio.sleep(min(0.05 * 2**attempt, 1.0))  # real seconds: the store's own start
            except StatusError as error:
                log.warning("Could not create", extra=kv(kind=obj["kind"], name=name, error=error.message))
                return
