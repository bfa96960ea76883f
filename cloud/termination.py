"""Draining a node that is about to lose its machine: evictions, which disruption budgets may refuse.

Owns nothing; leaves pods of DaemonSets and mirror pods alone, as `kubectl drain` does.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from api import resources
from api.models import core_v1, meta_v1, policy_v1
from client.client import Client
from client.kinds import View
from machinery.errors import StatusError

MIRROR: Final = "kubernetes.io/config.mirror"
FINISHED: Final = frozenset({"Succeeded", "Failed"})
AT_ONCE: Final = 16


class _Owner(msgspec.Struct):
    kind: str = ""
    controller: bool = False


class _Metadata(msgspec.Struct):
    name: str
    namespace: str
    annotations: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None
    deletionTimestamp: str | None = None


class _Status(msgspec.Struct):
    phase: str = ""


class Pod(msgspec.Struct):
    """core/v1 Pod as far as a drain reads it."""

    metadata: _Metadata
    status: _Status | None = None


PODS = View(resources.of(core_v1.Pod), Pod)


def must_go(pod: Pod) -> bool:
    """Whether a drain has to move it; pure."""
    meta = pod.metadata
    daemon = any(each.controller and each.kind == "DaemonSet" for each in meta.ownerReferences or ())
    finished = pod.status is not None and pod.status.phase in FINISHED
    return not daemon and not finished and MIRROR not in (meta.annotations or {})


class Drain:
    """`evict` until it returns True."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def evict(self, node: str) -> bool:
        """Ask every pod of a node to leave; whether none is left that should. Raises StatusError."""
        found = await self._client.list(PODS, field_selector=f"spec.nodeName={node}")
        pods = [pod for pod in found.items if must_go(pod)]
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                if pod.metadata.deletionTimestamp is None:
                    group.create_task(self._evict(pod))
        return not pods

    async def _evict(self, pod: Pod) -> None:
        name, namespace = pod.metadata.name, pod.metadata.namespace
        eviction = policy_v1.Eviction(metadata=meta_v1.ObjectMeta(name=name, namespace=namespace))
        async with self._slots:
            try:
                await self._client.create_subresource(core_v1.Pod, name, namespace, "eviction", eviction)
            except StatusError:  # gone, or a budget that does not allow it now: asked again until the machine is gone
                return
