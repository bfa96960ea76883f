"""Node IPAM: gives each node a range of pod addresses out of the cluster's.

Owns: spec.podCIDR and podCIDRs of nodes. Which ranges are taken is read from the nodes themselves at every pass, so
nothing is kept that a restart could lose. One worker: two passes at once could give the same range away.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from api.models import core_v1
from client.controller import DONE, Controller, Result, TerminalError
from client.events import NORMAL
from client.informer import Informer
from controller_manager.environment import Environment
from machinery.meta import ObjectKey

COMPONENT: Final = "cidrAllocator"
HOLLOW: Final = "nanokube.io/hollow"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plan_range(cluster: Network, mask_size: int, taken: Iterable[str]) -> str | None:
    """The first free range of that mask size, or None when all are taken."""
    used = set()
    for text in taken:
        try:
            used.add(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue  # unreadable ranges cannot overlap ours
    for candidate in cluster.subnets(new_prefix=mask_size):
        if not any(candidate.version == each.version and candidate.overlaps(each) for each in used):
            return str(candidate)
    return None


class NodeIpamController:
    """Reads nodes, writes their ranges."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._events = env.recorder(COMPONENT)
        self._cluster: Network = ipaddress.ip_network(env.options.cluster_cidr)
        self._mask_size = env.options.node_cidr_mask_size
        self._nodes: Informer[core_v1.Node] = env.informers.informer(core_v1.Node)
        self.controller = Controller("node-ipam", self.reconcile, clock=env.clock, informers=[self._nodes], workers=1)
        self.controller.watches(self._nodes)
        self._given: dict[str, str] = {}

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._nodes.lister.get(key)
        if node is None:
            self._given.pop(key.name, None)
            return DONE
        if HOLLOW in (node.metadata.labels or {}):
            return DONE  # its pods exist nowhere; a cluster has more of these nodes than ranges
        if node.spec is not None and node.spec.podCIDR:
            self._given.pop(key.name, None)  # the cache shows it: no need to remember
            return DONE
        taken = {each.spec.podCIDR for each in self._nodes.lister.list() if each.spec is not None and each.spec.podCIDR}
        chosen = self._given.get(key.name) or plan_range(
            self._cluster, self._mask_size, [*taken, *self._given.values()]
        )
        if chosen is None:
            self._events.event(
                core_v1.ObjectReference(kind="Node", name=key.name, uid=node.metadata.uid, apiVersion="v1"),
                NORMAL,
                "CIDRNotAvailable",
                f"Node {key.name} status is now: CIDRNotAvailable",
            )
            raise TerminalError(f"no range left in {self._cluster}")
        self._given[key.name] = chosen
        await self._client.patch(
            core_v1.Node,
            key.name,
            {"spec": {"podCIDR": chosen, "podCIDRs": [chosen]}},
            resource_version=node.metadata.resourceVersion,
        )
        return DONE


def build(env: Environment) -> list[Controller]:
    if not env.options.allocate_node_cidrs or not env.options.cluster_cidr:
        return []
    return [NodeIpamController(env).controller]
