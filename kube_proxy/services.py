"""Services and EndpointSlices → service ports; the reconciler that keeps the dataplane equal to them.

Source of the rules: the documentation of virtual IPs. Which endpoints get traffic is said in topology.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from client.informer import EventHandler, Informer
from kube_proxy.dataplane import Dataplane, DataplaneError
from kube_proxy.health_checks import Answer, HealthChecks
from kube_proxy.objects import Conditions, EndpointSlice, Hints, Node, Port, Service, SliceEndpoint
from kube_proxy.rules import Endpoint, ServicePort, TableConfig, stale_udp, transaction, without_conflicts
from kube_proxy.topology import ZONE, Candidate, Place, local, usable
from machinery import log
from machinery.clock import Clock
from machinery.log import kv
from machinery.meta import ObjectKey

SERVICE_NAME = "kubernetes.io/service-name"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
BY_SERVICE = "service"
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 30.0
_log = log.get(__name__)


def by_service(found: EndpointSlice) -> Iterable[str]:
    """Index of EndpointSlices: the Service they belong to."""
    name = (found.metadata.labels or {}).get(SERVICE_NAME)
    return [f"{found.metadata.namespace}/{name}"] if name else []


def _is_ipv4(text: str) -> bool:
    """One foreign address in a transaction, and the kernel refuses all of it."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_proxied(service: Service) -> bool:
    """Headless, external and foreign Services are not ours."""
    spec, labels = service.spec, service.metadata.labels or {}
    if spec is None or spec.type == "ExternalName" or not _is_ipv4(spec.clusterIP):
        return False
    return PROXY_NAME not in labels


def candidates_of(slices: Iterable[EndpointSlice], port: Port, node: str) -> Iterator[Candidate]:
    """The endpoints that serve `port`, as their slices tell of them; pure."""
    for found in slices:
        if found.addressType != "IPv4":
            continue
        number = next(
            (
                each.port
                for each in found.ports or ()
                if (each.name or "") == port.name and (each.protocol or "TCP") == port.protocol
            ),
            None,
        )
        if number is None:
            continue
        for each in found.endpoints or ():
            if each.addresses and _is_ipv4(each.addresses[0]):
                yield _candidate(each, Endpoint(each.addresses[0], number, bool(node) and each.nodeName == node))


def _candidate(told: SliceEndpoint, endpoint: Endpoint) -> Candidate:
    condition, hints = told.conditions or Conditions(), told.hints or Hints()
    return Candidate(
        endpoint,
        ready=condition.ready is not False,
        draining=bool(condition.serving and condition.terminating),
        nodes=frozenset(each.name for each in hints.forNodes or ()),
        zones=frozenset(each.name for each in hints.forZones or ()),
    )


def sources_of(ranges: Iterable[str]) -> tuple[str, ...]:
    """Ranges that do not overlap, as the kernel wants them; those of the other family say nothing here; pure."""
    found = []
    for text in ranges:
        with contextlib.suppress(ValueError):
            found.append(ipaddress.IPv4Network(text.strip(), strict=False))
    return tuple(map(str, ipaddress.collapse_addresses(found)))


def ports_of(service: Service, slices: Sequence[EndpointSlice], place: Place) -> dict[str, ServicePort]:
    """The service ports of one Service by name; pure."""
    spec = service.spec
    if spec is None or not is_proxied(service):
        return {}
    affinity = 0
    if spec.sessionAffinity == "ClientIP":
        configured = spec.sessionAffinityConfig and spec.sessionAffinityConfig.clientIP
        affinity = configured.timeoutSeconds if configured else 10800
    balancer = service.status.loadBalancer if service.status else None
    ingress = (balancer.ingress if balancer else None) or ()
    # In mode Proxy the balancer sends to node ports itself, and must not be passed by.
    balanced = [each.ip for each in ingress if each.ipMode != "Proxy" and _is_ipv4(each.ip)]
    external = [*(spec.externalIPs or ()), *balanced]
    found = {}
    # The host is no node: as a balancer in front of the machines it may send connections to any of them.
    internal = spec.internalTrafficPolicy == "Local" and bool(place.node)
    outer = spec.externalTrafficPolicy == "Local" and bool(place.node)
    for port in spec.ports or ():
        candidates = list(candidates_of(slices, port, place.node))
        name = f"{service.metadata.namespace}/{service.metadata.name}:{port.name or port.port}/{port.protocol}"
        found[name] = ServicePort(
            name=name,
            cluster_ip=spec.clusterIP,
            protocol=port.protocol.lower(),
            port=port.port,
            endpoints=usable(candidates, place),
            node_port=port.nodePort,
            external_ips=tuple(dict.fromkeys(ip for ip in external if _is_ipv4(ip))),
            affinity_seconds=affinity,
            restricted_ips=tuple(balanced) if spec.loadBalancerSourceRanges else (),
            sources=sources_of(spec.loadBalancerSourceRanges or ()),
            internal_local=internal,
            external_local=outer,
            local_endpoints=local(candidates) if internal or outer else (),
        )
    return found


def health_check_of(service: Service, slices: Sequence[EndpointSlice], place: Place) -> dict[int, Answer]:
    """By port, what a load balancer is told that asks whether this machine has ready endpoints; pure."""
    spec = service.spec
    if spec is None or not spec.healthCheckNodePort or spec.externalTrafficPolicy != "Local" or not place.node:
        return {}
    found = [each for port in spec.ports or () for each in candidates_of(slices, port, place.node)]
    ready = {each.endpoint.ip for each in found if each.ready and each.endpoint.local}
    return {spec.healthCheckNodePort: Answer(service.metadata.namespace, service.metadata.name, len(ready))}


class ServiceReconciler:
    """Collects changed Services and applies them together: whatever changes while `nft` runs goes into the next run."""

    def __init__(
        self,
        config: TableConfig,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        nodes: Informer[Node],
        dataplane: Dataplane,
        clock: Clock,
        node: str = "",
        health_checks: HealthChecks | None = None,
    ) -> None:
        self._config = config
        self._services = services
        self._slices = slices
        self._dataplane = dataplane
        self._clock = clock
        self._nodes = nodes
        self._place = Place(node)
        self._health_checks = health_checks or HealthChecks()
        self._checks: dict[ObjectKey, dict[int, Answer]] = {}
        self._dirty: set[ObjectKey] = set()
        self._changed = asyncio.Event()
        self._wanted: dict[str, ServicePort] = {}
        self._applied: dict[str, ServicePort] = {}
        self._names: dict[ObjectKey, tuple[str, ...]] = {}
        self._fresh = True
        self.syncs = 0
        services.add_handler(
            EventHandler(
                on_add=self._mark_service,
                on_update=lambda _, new: self._mark_service(new),
                on_delete=self._mark_service,
            )
        )
        slices.add_handler(
            EventHandler(on_add=self._mark_slice, on_update=self._mark_slices, on_delete=self._mark_slice)
        )

        if node:
            nodes.add_handler(
                EventHandler(on_add=self._locate, on_update=lambda _, new: self._locate(new), on_delete=self._locate)
            )

    def _locate(self, changed: Node) -> None:
        """This machine may have come to lie in another zone: every Service may have hints for it."""
        if changed.metadata.name != self._place.node:
            return
        known = self._nodes.lister.get(ObjectKey("", self._place.node))
        place = Place(self._place.node, ((known.metadata.labels if known else None) or {}).get(ZONE, ""))
        if place != self._place:
            self._place = place
            for service in self._services.lister.list():
                self._mark_service(service)

    def _mark(self, key: ObjectKey) -> None:
        self._dirty.add(key)
        self._changed.set()

    def _mark_service(self, service: Service) -> None:
        self._mark(ObjectKey(service.metadata.namespace, service.metadata.name))

    def _mark_slice(self, found: EndpointSlice) -> None:
        for name in by_service(found):
            self._mark(ObjectKey.parse(name))

    def _mark_slices(self, old: EndpointSlice, new: EndpointSlice) -> None:
        self._mark_slice(old)
        self._mark_slice(new)

    def _collect(self) -> None:
        """Bring `_wanted` up to date with the caches for every dirty Service."""
        for key in self._dirty:
            for name in self._names.pop(key, ()):
                self._wanted.pop(name, None)
            self._checks.pop(key, None)
            service = self._services.lister.get(key)
            if service is not None:
                slices = self._slices.lister.by_index(BY_SERVICE, str(key))
                if checks := health_check_of(service, slices, self._place):
                    self._checks[key] = checks
                ports = ports_of(service, slices, self._place)
                self._names[key] = tuple(ports)
                self._wanted.update(ports)
        self._dirty.clear()

    async def run(self, synced: asyncio.Event) -> None:
        """Reconcile forever; `synced` is set when the first full state stands."""
        await self._services.wait_synced()
        await self._slices.wait_synced()
        await self._nodes.wait_synced()
        self._changed.set()
        backoff = FIRST_BACKOFF
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._collect()
            try:
                await self._sync()
            except DataplaneError as error:
                _log.error("Failed to apply rules", extra=kv(error=error, retry=backoff))
                self._fresh = True  # the kernel's state is unknown: load the whole table next time
                self._changed.set()
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF)
                continue
            backoff = FIRST_BACKOFF
            await self._health_checks.set(
                {port: each for found in self._checks.values() for port, each in found.items()}
            )
            synced.set()

    async def _sync(self) -> None:
        wanted: Mapping[str, ServicePort] = without_conflicts(self._wanted)
        text = transaction(self._config, self._applied, wanted, fresh=self._fresh)
        if text:
            await self._dataplane.apply(text)
            self.syncs += 1
        stale = stale_udp(self._applied, wanted)
        self._applied, self._fresh = dict(wanted), False
        if stale:
            await self._dataplane.forget_udp(stale)
