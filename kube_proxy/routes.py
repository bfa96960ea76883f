"""Routes to the pod networks of other machines, as a VPC's route table has them.

`plan_routes` is pure; the reconciler keeps the kernel equal to it and removes only what it added itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from client.informer import EventHandler, Informer
from kube_proxy.objects import Node
from linux.netlink import Netlink
from machinery import log
from machinery.clock import Clock
from machinery.log import kv

FIRST_BACKOFF, LAST_BACKOFF = 0.1, 30.0
_log = log.get(__name__)


def plan_routes(nodes: Iterable[Node], own: str) -> dict[str, str]:
    """Destination → gateway, for every machine but this one, whose own pods the runtime routes."""
    planned: dict[str, str] = {}
    for node in nodes:
        cidr = node.spec.podCIDR if node.spec else ""
        addresses = (node.status.addresses if node.status else None) or ()
        gateway = next((each.address for each in addresses if each.type == "InternalIP"), "")
        try:
            ipaddress.IPv4Network(cidr)
            if gateway and node.metadata.name != own:
                planned[cidr] = str(ipaddress.IPv4Address(gateway))
        except ValueError:  # no network yet, or not one of ours
            continue
    return planned


class RouteReconciler:
    """Keeps the routes of this network namespace."""

    def __init__(self, nodes: Informer[Node], clock: Clock, node: str = "") -> None:
        self._nodes = nodes
        self._clock = clock
        self._node = node
        self._changed = asyncio.Event()
        self._applied: dict[str, str] = {}
        nodes.add_handler(
            EventHandler(on_add=self._mark, on_update=lambda *_: self._changed.set(), on_delete=self._mark)
        )

    def _mark(self, _: Node) -> None:
        self._changed.set()

    async def run(self, synced: asyncio.Event) -> None:
        """Reconcile forever; `synced` is set when the first full state stands."""
        await self._nodes.wait_synced()
        self._changed.set()
        backoff = FIRST_BACKOFF
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._sync(plan_routes(self._nodes.lister.list(), self._node))
            except OSError as error:
                _log.error("Failed to set routes", extra=kv(error=error))
                self._changed.set()
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF)
                continue
            backoff = FIRST_BACKOFF
            synced.set()

    def _sync(self, wanted: dict[str, str]) -> None:
        failure: OSError | None = None
        with Netlink() as nl:
            for destination, gateway in wanted.items():
                if self._applied.get(destination) == gateway:
                    continue
                try:
                    nl.add_route(destination, via=gateway)
                except OSError as error:  # one Node with an address out of reach must not cut off the others
                    failure = failure or error
                    continue
                self._applied[destination] = gateway
            for destination in [each for each in self._applied if each not in wanted]:
                nl.delete_route(destination, via=self._applied.pop(destination), missing_ok=True)
        if failure is not None:
            raise failure
