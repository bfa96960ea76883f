"""Load balancers: an address of the cloud's range for every Service of type LoadBalancer.

Owns status.loadBalancer and the finalizer of such Services; traffic itself is carried by kube-proxy, on every machine
and on the host. Rules, names and messages as upstream's service controller: a Service with a loadBalancerClass is
somebody else's; the finalizer keeps a Service until its address is given back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from api import resources
from api.models import core_v1
from client.client import Client
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING, EventRecorder
from client.informer import Informers
from client.kinds import View
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.meta import ObjectKey
from proto.cloud.v1 import cloud_pb2 as pb

FINALIZER: Final = "service.kubernetes.io/load-balancer-cleanup"
RETRY: Final = 30.0


class _Metadata(msgspec.Struct):
    name: str
    namespace: str
    uid: str = ""
    resourceVersion: str = ""
    finalizers: list[str] | None = None
    deletionTimestamp: str | None = None


class _Port(msgspec.Struct):
    port: int
    protocol: str = "TCP"


class _Spec(msgspec.Struct):
    type: str = "ClusterIP"
    loadBalancerClass: str | None = None
    loadBalancerIP: str = ""
    loadBalancerSourceRanges: list[str] | None = None
    ports: list[_Port] | None = None


class _Ingress(msgspec.Struct):
    ip: str = ""


class _Balancer(msgspec.Struct):
    ingress: list[_Ingress] | None = None


class _Status(msgspec.Struct):
    loadBalancer: _Balancer | None = None


class Service(msgspec.Struct):
    """core/v1 Service as far as a load balancer needs it."""

    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None

    @property
    def wants_address(self) -> bool:
        spec = self.spec
        foreign = spec is None or spec.type != "LoadBalancer" or spec.loadBalancerClass is not None
        return not foreign and self.metadata.deletionTimestamp is None

    @property
    def has_finalizer(self) -> bool:
        return FINALIZER in (self.metadata.finalizers or ())

    @property
    def addresses(self) -> list[str]:
        balancer = self.status.loadBalancer if self.status else None
        return [each.ip for each in (balancer.ingress if balancer else None) or () if each.ip]


SERVICES = View(resources.of(core_v1.Service), Service)


class NoAddress(Exception):
    """No address can be given; the message says why."""


def choose_address(network: ipaddress.IPv4Network, taken: Collection[str], wanted: str = "") -> str:
    """The wanted address, or else the lowest free one. Raises NoAddress. Pure."""
    if wanted:
        try:
            if ipaddress.IPv4Address(wanted) not in network:
                raise NoAddress(f"address {wanted} is not of the range {network}")
        except ValueError as error:
            raise NoAddress(f"invalid loadBalancerIP {wanted!r}") from error
        if wanted in taken:
            raise NoAddress(f"address {wanted} is in use by another load balancer")
        return wanted
    free = next((str(each) for each in network.hosts() if str(each) not in taken), None)
    if free is None:
        raise NoAddress(f"no address of the range {network} is free")
    return free


class BalancerController:
    """One key per Service; one worker, because addresses are given out one after the other."""

    def __init__(
        self, client: Client, informers: Informers, clock: Clock, events: EventRecorder, network: ipaddress.IPv4Network
    ) -> None:
        self._client = client
        self._events = events
        self._network = network
        self._services = informers.informer(SERVICES)
        self._given: dict[ObjectKey, str] = {}
        self.controller = Controller("service", self.reconcile, clock=clock, informers=[self._services])
        self.controller.watches(self._services)

    def listing(self) -> Iterable[pb.LoadBalancer]:
        """Every load balancer, for people."""
        for service in self._services.lister.list():
            if service.wants_address and service.spec is not None:
                yield pb.LoadBalancer(
                    namespace=service.metadata.namespace,
                    name=service.metadata.name,
                    address=",".join(service.addresses),
                    ports=[f"{each.port}/{each.protocol}" for each in service.spec.ports or ()],
                    source_ranges=service.spec.loadBalancerSourceRanges or (),
                )

    async def reconcile(self, key: ObjectKey) -> Result:
        service = self._services.lister.get(key)
        if service is None:
            self._given.pop(key, None)
            return DONE
        if service.wants_address:
            return await self._ensure(key, service)
        if service.has_finalizer:
            await self._give_back(key, service)
        return DONE

    async def _ensure(self, key: ObjectKey, service: Service) -> Result:
        wanted = service.spec.loadBalancerIP if service.spec else ""
        settled = service.addresses and (not wanted or wanted in service.addresses)
        if settled and service.has_finalizer:
            self._given[key] = service.addresses[0]
            return DONE
        self._tell(service, NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer")
        if not service.has_finalizer:
            finalizers = [*(service.metadata.finalizers or ()), FINALIZER]
            await self._finalizers(service, finalizers, service.metadata.resourceVersion)
        try:
            # What it has is kept while nobody wants another one: a process that starts anew must not move addresses.
            address = service.addresses[0] if settled else choose_address(self._network, self._taken(key), wanted)
        except NoAddress as error:
            message = f"Error syncing load balancer: failed to ensure load balancer: {error}"
            self._tell(service, WARNING, "SyncLoadBalancerFailed", message)
            return Result(requeue_after=RETRY)
        self._given[key] = address
        await self._status(service, [{"ip": address, "ipMode": "VIP"}])
        self._tell(service, NORMAL, "EnsuredLoadBalancer", "Ensured load balancer")
        return DONE

    def _taken(self, key: ObjectKey) -> set[str]:
        """Addresses of others: as the cache shows them, and as given out since."""
        found = {address for other, address in self._given.items() if other != key}
        for service in self._services.lister.list():
            if ObjectKey(service.metadata.namespace, service.metadata.name) != key and service.has_finalizer:
                found.update(service.addresses)
        return found

    async def _give_back(self, key: ObjectKey, service: Service) -> None:
        """Deleted, or no load balancer any more."""
        self._tell(service, NORMAL, "DeletingLoadBalancer", "Deleting load balancer")
        try:
            version = service.metadata.resourceVersion
            if service.addresses:
                version = await self._status(service, None)
            self._tell(service, NORMAL, "DeletedLoadBalancer", "Deleted load balancer")
            kept = [each for each in service.metadata.finalizers or () if each != FINALIZER]
            await self._finalizers(service, kept, version)
        except NotFound:
            pass
        self._given.pop(key, None)

    async def _finalizers(self, service: Service, finalizers: list[str], version: str) -> None:
        meta = service.metadata
        patch: dict[str, Any] = {"metadata": {"finalizers": finalizers, "uid": meta.uid}}
        await self._client.patch(SERVICES, meta.name, patch, meta.namespace, resource_version=version)

    async def _status(self, service: Service, ingress: list[dict[str, str]] | None) -> str:
        meta = service.metadata
        patch = {"status": {"loadBalancer": {"ingress": ingress}}}
        answer = await self._client.patch(SERVICES, meta.name, patch, meta.namespace, subresource="status")
        return answer.metadata.resourceVersion

    def _tell(self, service: Service, type: str, reason: str, message: str) -> None:
        meta = service.metadata
        about = core_v1.ObjectReference(
            apiVersion="v1", kind="Service", namespace=meta.namespace, name=meta.name, uid=meta.uid
        )
        self._events.event(about, type, reason, message)
