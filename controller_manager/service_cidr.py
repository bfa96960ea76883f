"""ServiceCIDRs: told ready, and kept while a Service has its cluster IP from them alone.

Owns the finalizer and the condition `Ready`; addresses are given out by the API server, from what is ready. Rules:
KEP-1880. Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.models import networking_v1
from client.client import PatchType, key_of
from client.controller import DONE, Controller, Result
from client.informer import Informer
from controller_manager.environment import Environment
from machinery import log
from machinery.errors import NotFound
from machinery.log import kv
from machinery.meta import ObjectKey, rfc3339

FINALIZER: Final = "networking.k8s.io/service-cidr-finalizer"
GRACE: Final = 10.0
"""Cluster seconds in which every API server learns that a range gives out no more addresses."""
MANAGED_BY: Final = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io")
READY: Final = "Kubernetes Service CIDR is ready"
HELD: Final = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
Range = networking_v1.ServiceCIDR
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_log = log.get(__name__)


def networks(found: Range) -> list[Network]:
    """The ranges of a ServiceCIDR."""
    return [ipaddress.ip_network(cidr, strict=False) for cidr in found.spec.cidrs or ()]


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def is_orphaning(found: Range, all_ranges: Sequence[Range], addresses: Iterable[str]) -> bool:
    """Whether an address that is given out would lie in no range without this one."""
    others = [network for each in all_ranges if key_of(each) != key_of(found) for network in networks(each)]
    alone = [own for own in networks(found) if not any(_holds(other, own) for other in others)]
    if not alone:
        return False
    taken = [ipaddress.ip_network(address) for address in addresses]
    return any(
        any(_holds(own, each) for own in alone) and not any(_holds(other, each) for other in others) for each in taken
    )


class ServiceCIDRController:
    """Reads listers, patches through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._ranges: Informer[Range] = env.informers.informer(Range)
        self._addresses: Informer[networking_v1.IPAddress] = env.informers.informer(networking_v1.IPAddress)
        self.controller = Controller(
            "service-cidr",
            self.reconcile,
            clock=env.clock,
            informers=[self._ranges, self._addresses],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._ranges, lambda _: self._ranges.lister.keys())  # one may hold another up
        self.controller.watches(self._addresses, self._leaving_ranges_of)

    def _leaving_ranges_of(self, address: networking_v1.IPAddress) -> list[ObjectKey]:
        name = ipaddress.ip_network(key_of(address).name)
        return [
            key_of(each)
            for each in self._ranges.lister.list()
            if each.metadata.deletionTimestamp is not None and any(_holds(own, name) for own in networks(each))
        ]

    def _given_out(self) -> list[str]:
        label, value = MANAGED_BY
        return [
            key_of(each).name
            for each in self._addresses.lister.list()
            if (each.metadata.labels or {}).get(label) == value
        ]

    async def reconcile(self, key: ObjectKey) -> Result:
        found = self._ranges.lister.get(key)
        if found is None:
            return DONE
        try:
            if found.metadata.deletionTimestamp is None:
                await self._welcome(found)
                return DONE
            return await self._part(found)
        except NotFound:
            return DONE

    async def _welcome(self, found: Range) -> None:
        if FINALIZER not in (found.metadata.finalizers or ()):
            await self._patch(found, {"metadata": {"finalizers": [FINALIZER]}})
        await self._tell(found, "True", "", READY)

    async def _part(self, found: Range) -> Result:
        if FINALIZER not in (found.metadata.finalizers or ()):
            return DONE
        if is_orphaning(found, self._ranges.lister.list(), self._given_out()):
            await self._tell(found, "False", "Terminating", HELD)
            return DONE
        since = found.metadata.deletionTimestamp
        left = GRACE - self._clock.elapsed(since) if since is not None else 0.0
        if left > 0:
            return Result(requeue_after=left)
        await self._patch(found, {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})
        _log.info("Released a range of cluster IPs", extra=kv(name=found.metadata.name, cidrs=found.spec.cidrs))
        return DONE

    async def _tell(self, found: Range, status: str, reason: str, message: str) -> None:
        conditions = (found.status.conditions if found.status is not None else None) or ()
        known = next((each for each in conditions if each.type == "Ready"), None)
        if known is not None and (known.status, known.reason, known.message) == (status, reason, message):
            return
        if known is not None and known.status == status == "True":
            return  # the API server has told so, in its own words
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        await self._patch(found, {"status": {"conditions": [condition]}}, "status")

    async def _patch(self, found: Range, patch: dict[str, Any], subresource: str = "") -> None:
        patch.setdefault("metadata", {})["uid"] = found.metadata.uid
        await self._client.patch(Range, key_of(found).name, patch, type=PatchType.STRATEGIC, subresource=subresource)


def build(env: Environment) -> list[Controller]:
    return [ServiceCIDRController(env).controller]
