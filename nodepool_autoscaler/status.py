"""What NodePools and node classes tell of themselves: resources, conditions, hashes.

Owns their status and annotations, one object at a time, level-based.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any, Final

import msgspec

from client.client import Client
from client.controller import DONE, Controller, Result
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.meta import ObjectKey
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.conditions import Conditions
from nodepool_autoscaler.disruption.drift import hash_annotations
from nodepool_autoscaler.model import NODES
from nodepool_autoscaler.objects import CLASS_KIND, CLASSES, POOLS, NodeClass, NodePool, demands_of, hash_of
from nodepool_autoscaler.refusals import listed_amounts
from scheduler.framework import resources

HEALTH_WINDOW: Final = 4
"""So many of the last launches tell whether nodes of a pool register; half of them failing is unhealthy."""
CLASS_RETRY: Final = 10.0
_encode = msgspec.json.Encoder(order="deterministic").encode


def class_hash(node_class: NodeClass) -> str:
    """Of what decides how a machine is launched."""
    spec = {"machines": node_class.spec.machines}
    return str(int.from_bytes(hashlib.sha256(_encode(spec)).digest()[:8]))


class PoolStatus:
    """One key per NodePool; claims and classes lead to theirs."""

    def __init__(self, client: Client, cluster: Cluster, clock: Clock) -> None:
        self._client = client
        self._cluster = cluster
        self._clock = clock
        self._launches: dict[str, deque[tuple[bool, str]]] = {}
        self.controller = Controller(
            "nodepool-status", self.reconcile, clock=clock, informers=[cluster.pools], workers=2
        )
        self.controller.watches(cluster.pools)
        self.controller.watches(cluster.claims, lambda claim: [ObjectKey("", claim.pool)] if claim.pool else [])
        self.controller.watches(cluster.classes, self._pools_of)

    def _pools_of(self, node_class: NodeClass) -> list[ObjectKey]:
        return [
            ObjectKey("", each.metadata.name or "")
            for each in self._cluster.pools.lister.list()
            if each.spec.template.spec.nodeClassRef.name == node_class.metadata.name
        ]

    def launched(self, pool: str, registered: bool, why: str) -> None:
        """How a launch of a pool has ended."""
        self._launches.setdefault(pool, deque(maxlen=HEALTH_WINDOW)).append((registered, why))
        self.controller.enqueue(ObjectKey("", pool))

    async def reconcile(self, key: ObjectKey) -> Result:
        pool = self._cluster.pools.lister.get(key)
        if pool is None:
            self._launches.pop(key.name, None)
            return DONE
        if pool.spec.template.spec.nodeClassRef.kind != CLASS_KIND:
            return DONE
        await self._annotate(pool)
        status: dict[str, Any] = {}
        needed = (names.VALIDATION_SUCCEEDED, names.NODE_CLASS_READY)
        changed = Conditions(pool.status.conditions, needed, self._clock.now(), pool.metadata.generation)
        self._judge(pool, changed)
        told = changed.finish()
        if told is not None:
            status["conditions"] = told
        counted = self._resources(pool.metadata.name or "")
        if counted != {name: str(value) for name, value in pool.status.resources.items()}:
            # A merge patch must say which ones are gone.
            status["resources"] = dict.fromkeys(pool.status.resources) | counted
        generation = self._class_generation(pool)
        if generation != pool.status.nodeClassObservedGeneration:
            status["nodeClassObservedGeneration"] = generation
        if status:
            try:
                await self._client.patch(POOLS, key.name, {"status": status}, subresource="status")
            except NotFound:
                return DONE
        return DONE

    def _class_generation(self, pool: NodePool) -> int | None:
        found = self._cluster.node_class(pool.spec.template.spec.nodeClassRef.name)
        return found.metadata.generation if found is not None else None

    def _judge(self, pool: NodePool, changed: Conditions) -> None:
        try:
            demands_of(pool.spec.template.spec.requirements)
        except ValueError as error:
            changed.set(names.VALIDATION_SUCCEEDED, False, "NodePoolValidationFailed", f"requirements: {error}")
        else:
            changed.set(names.VALIDATION_SUCCEEDED, True)
        why = self._cluster.pool_ready(pool)
        if not why:
            changed.set(names.NODE_CLASS_READY, True)
        elif "not found" in why:
            changed.set(names.NODE_CLASS_READY, False, "NodeClassNotFound", "NodeClass not found on cluster")
        else:
            changed.set(names.NODE_CLASS_READY, False, "NodeClassNotReady", why)
        launches = self._launches.get(pool.metadata.name or "", ())
        failed = [why for registered, why in launches if not registered]
        if len(failed) * 2 >= HEALTH_WINDOW:
            changed.set(names.NODE_REGISTRATION_HEALTHY, False, "RegistrationFailed", failed[-1])
        elif launches:
            changed.set(names.NODE_REGISTRATION_HEALTHY, True)

    def _resources(self, pool: str) -> dict[str, str]:
        total: dict[str, int] = {}
        count = 0
        for claim in self._cluster.claims.lister.list():
            if claim.pool == pool and claim.status.capacity:
                count += 1
                for name, amount in resources.amounts(claim.status.capacity).items():
                    total[name] = total.get(name, 0) + amount
        base = {resources.CPU: 0, resources.MEMORY: 0, resources.PODS: 0, resources.EPHEMERAL_STORAGE: 0}
        return listed_amounts({**base, **total, NODES: count})

    async def _annotate(self, pool: NodePool) -> None:
        wanted = hash_annotations(hash_of(pool))
        known = pool.metadata.annotations or {}
        if any(known.get(key) != value for key, value in wanted.items()):
            try:
                await self._client.patch(POOLS, pool.metadata.name or "", {"metadata": {"annotations": wanted}})
            except NotFound:
                return


class ClassStatus:
    """One key per node class."""

    def __init__(self, client: Client, cluster: Cluster, clock: Clock) -> None:
        self._client = client
        self._cluster = cluster
        self._clock = clock
        self.controller = Controller("nodeclass-status", self.reconcile, clock=clock, informers=[cluster.classes])
        self.controller.watches(cluster.classes)

    async def reconcile(self, key: ObjectKey) -> Result:
        found = self._cluster.classes.lister.get(key)
        if found is None:
            return DONE
        wanted = {names.CLASS_HASH: class_hash(found)}
        known = found.metadata.annotations or {}
        changed = Conditions(
            found.status.conditions, (names.VALIDATION_SUCCEEDED,), self._clock.now(), found.metadata.generation
        )
        trouble, again = self._trouble(found)
        if trouble:
            changed.set(names.VALIDATION_SUCCEEDED, False, "ValidationFailed", trouble)
        elif not again:
            changed.set(names.VALIDATION_SUCCEEDED, True)
        told = changed.finish()
        try:
            if known.get(names.CLASS_HASH) != wanted[names.CLASS_HASH]:
                await self._client.patch(CLASSES, key.name, {"metadata": {"annotations": wanted}})
            if told is not None:
                patch = {"status": {"conditions": told}}
                await self._client.patch(CLASSES, key.name, patch, subresource="status")
        except NotFound:
            return DONE
        return Result(requeue_after=CLASS_RETRY) if again or trouble else DONE

    def _trouble(self, node_class: NodeClass) -> tuple[str, bool]:
        """What of it the cloud does not have; and whether that cannot be told yet."""
        types, zones = self._cluster.catalog.names()
        if not types:
            return "", True
        odd = [f'instance type "{each}"' for each in node_class.spec.instanceTypes if each not in types]
        odd += [f'zone "{each}"' for each in node_class.spec.zones if each not in zones]
        return (f"the cloud has no {', '.join(odd)}" if odd else ""), False
