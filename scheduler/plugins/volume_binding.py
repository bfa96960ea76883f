"""VolumeBinding: a pod goes where its claims are, can be bound, or can be provisioned; before it is bound, they are.

Filter, Reserve and PreBind. What Reserve promises is assumed in the snapshot's catalog at once; PreBind tells the API
server and waits, boundedly, until the volume controllers have done their part.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata and spec; the models call them optional.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from api import volumes as rules
from api.models import core_v1, storage_v1
from api.volumes import Claim, Volume, annotations_of
from machinery.clock import Clock
from machinery.errors import Conflict
from scheduler.framework import node_facts
from scheduler.framework.columns import BoolArray, IntArray
from scheduler.framework.events import Action, EventResource, Registration
from scheduler.framework.interface import PreFilterResult, Reads, Refusal
from scheduler.framework.pod_info import PodInfo
from scheduler.framework.pod_volumes import (
    UNBOUND,
    Placement,
    Reach,
    bound_volume,
    limit,
    place,
    selected_claim,
    sort_claims,
)
from scheduler.framework.snapshot import ClusterSnapshot
from scheduler.framework.volume_catalog import VolumeCatalog

BIND_TIMEOUT: Final = 600.0  # cluster seconds


class VolumeWriter(Protocol):
    """How PreBind tells the API server. Both raise StatusError; the version is that of the object decided on."""

    @property
    def clock(self) -> Clock: ...

    def set_aside(self, volume: Volume) -> Awaitable[Volume]:
        """Write the volume's claimRef."""

    def select_node(self, claim: Claim) -> Awaitable[Claim]:
        """Write the claim's selected node."""


@dataclass(slots=True)
class Assumed:
    """What was promised to a pod."""

    node: str
    volumes: list[tuple[Claim, Volume]]
    claims: list[Claim]


def _key(claim: Claim) -> tuple[str, str]:
    return claim.metadata.namespace or "", claim.metadata.name or ""


def claim_named(pod: PodInfo, volume: core_v1.Volume) -> str:
    return rules.claim_name(pod.name, volume)


def problem(pod: PodInfo, catalog: VolumeCatalog) -> str:
    """Why the pod cannot be tried at all; "" when it can."""
    for volume in pod.spec.volumes or ():
        name = claim_named(pod, volume)
        if not name:
            continue
        claim = catalog.claim((pod.namespace, name))
        ephemeral = volume.ephemeral is not None
        if claim is None and ephemeral:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if claim.status is not None and claim.status.phase == "Lost":
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volumeName}"'
        if claim.metadata.deletionTimestamp is not None:
            return f'persistentvolumeclaim "{name}" is being deleted'
        if ephemeral and not rules.is_for_pod(pod.pod, claim):
            return rules.not_for_pod(pod.pod, claim)
    return ""


class VolumeBinding:
    """Filter, Reserve, PreBind."""

    name = "VolumeBinding"
    reads = Reads.NODE

    def __init__(self, writer: VolumeWriter | None = None, *, timeout: float = BIND_TIMEOUT) -> None:
        self.writer = writer  # a simulation has none and never comes to PreBind
        self.timeout = timeout
        self._reach = Reach()
        self._assumed: dict[str, Assumed] = {}

    # --- hints ---------------------------------------------------------------------------------------------------

    def registrations(self) -> Sequence[Registration]:
        changes = Action.ADD | Action.UPDATE
        return (
            Registration(EventResource.STORAGE_CLASS, changes, self._after_class),
            Registration(EventResource.CLAIM, changes, self._after_claim),
            Registration(EventResource.VOLUME, changes),
            Registration(EventResource.NODE, Action.ADD | Action.UPDATE_NODE_LABEL),
            Registration(EventResource.CSI_DRIVER, Action.UPDATE, self._after_driver),
            Registration(EventResource.CSI_CAPACITY, changes, self._after_capacity),
        )

    @staticmethod
    def _after_class(pod: PodInfo, old: storage_v1.StorageClass | None, new: storage_v1.StorageClass) -> bool:
        return old is None or old.allowedTopologies != new.allowedTopologies

    @staticmethod
    def _after_claim(pod: PodInfo, old: Claim | None, new: Claim) -> bool:
        return new.metadata.namespace == pod.namespace and (new.metadata.name or "") in pod.claims

    @staticmethod
    def _after_driver(pod: PodInfo, old: storage_v1.CSIDriver, new: storage_v1.CSIDriver) -> bool:
        return bool(old.spec.storageCapacity) and not new.spec.storageCapacity

    @staticmethod
    def _after_capacity(
        pod: PodInfo, old: storage_v1.CSIStorageCapacity | None, new: storage_v1.CSIStorageCapacity
    ) -> bool:
        before, after = limit(old) if old is not None else None, limit(new)
        return old is None or (after is not None and (before is None or after > before))

    # --- filter --------------------------------------------------------------------------------------------------

    def sign(self, pod: PodInfo) -> Any:
        return (pod.namespace, pod.claims) if pod.claims else None

    def pre_filter(self, pod: PodInfo, snapshot: ClusterSnapshot) -> PreFilterResult | None:
        if not pod.claims:
            return None
        catalog = snapshot.volumes
        why_not = problem(pod, catalog)
        if why_not:
            return PreFilterResult(rejection=why_not)
        found = (catalog.claim((pod.namespace, name)) for name in pod.claims)
        claims = sort_claims(catalog, [claim for claim in found if claim is not None])
        if claims is None:
            return PreFilterResult(rejection=UNBOUND)
        return PreFilterResult(place(claims, snapshot, self._reach))

    def filter(self, state: Placement, snapshot: ClusterSnapshot) -> BoolArray:
        return state.fits()

    def filter_at(self, state: Placement, snapshot: ClusterSnapshot, column: int) -> bool:
        return not state.reasons_at(column)

    def refusals(self, state: Placement, snapshot: ClusterSnapshot, columns: IntArray) -> Iterable[Refusal]:
        by_reasons: dict[tuple[str, ...], list[int]] = {}
        for column in columns:
            by_reasons.setdefault(state.reasons_at(int(column)), []).append(int(column))
        for reasons, listed in by_reasons.items():
            yield Refusal(np.array(listed), reasons, resolvable=False)

    # --- reserve -------------------------------------------------------------------------------------------------

    def reserve(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> str:
        if not pod.claims:
            return ""
        result = self.pre_filter(pod, snapshot)
        column = snapshot.column(node)
        if result is None or result.rejection or column is None:
            return result.rejection if result is not None else ""
        bindings, provisions = result.state.at(column)
        if not bindings and not provisions:
            return ""
        catalog = snapshot.volumes
        assumed = self._assumed[pod.uid] = Assumed(node, [], [])
        for claim, volume in bindings:
            bound = bound_volume(volume, claim)
            catalog.assume_volume(bound)
            assumed.volumes.append((claim, bound))
        for claim in provisions:
            selected = selected_claim(claim, node)
            catalog.assume_claim(_key(claim), selected)
            assumed.claims.append(selected)
        return ""

    def unreserve(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> None:
        assumed = self._assumed.pop(pod.uid, None)
        if assumed is None:
            return
        for _, volume in assumed.volumes:
            snapshot.volumes.restore_volume(volume.metadata.name or "")
        for claim in assumed.claims:
            snapshot.volumes.restore_claim(_key(claim))

    # --- pre-bind ------------------------------------------------------------------------------------------------

    def pre_bind_pre_flight(self, pod: PodInfo, node: str) -> bool:
        return pod.uid in self._assumed

    async def pre_bind(self, pod: PodInfo, node: str, snapshot: ClusterSnapshot) -> None:
        assumed, writer = self._assumed.get(pod.uid), self.writer
        if assumed is None or writer is None:
            return
        for index, (claim, volume) in enumerate(assumed.volumes):
            assumed.volumes[index] = (claim, await writer.set_aside(volume))
        for index, claim in enumerate(assumed.claims):
            real = snapshot.volumes.real_claim(_key(claim))
            if real is None or annotations_of(real).get(rules.SELECTED_NODE) != node:
                assumed.claims[index] = await writer.select_node(claim)
        await self._settled(assumed, node, snapshot, writer.clock)
        self._assumed.pop(pod.uid, None)

    async def _settled(self, assumed: Assumed, node: str, snapshot: ClusterSnapshot, clock: Clock) -> None:
        """Wait until every claim is bound. Raises Conflict when that is not to be expected any more."""
        catalog, news = snapshot.volumes, asyncio.Event()
        timer = clock.call_later(self.timeout, news.set)
        deadline = clock.monotonic() + self.timeout
        catalog.listeners.add(news.set)
        try:
            while not self._check(assumed, node, snapshot):
                if clock.monotonic() >= deadline:
                    raise Conflict("binding volumes: context deadline exceeded")
                await news.wait()
                news.clear()
        finally:
            timer.cancel()
            catalog.listeners.discard(news.set)

    def _check(self, assumed: Assumed, node: str, snapshot: ClusterSnapshot) -> bool:
        record, catalog = snapshot.record(node), snapshot.volumes
        if record is None:
            raise Conflict(f'binding volumes: failed to get node "{node}": node "{node}" not found')
        labels = node_facts.labels(record.node)
        done = True
        for claim, volume in assumed.volumes:
            done = self._is_bound(claim, volume, labels, node, catalog) and done
        for claim in assumed.claims:
            done = self._is_provisioned(claim, labels, node, catalog) and done
        return done

    @staticmethod
    def _is_bound(claim: Claim, volume: Volume, labels: Any, node: str, catalog: VolumeCatalog) -> bool:
        name = volume.metadata.name or ""
        live, real = catalog.real_volume(name), catalog.real_claim(_key(claim))
        if live is None:
            raise Conflict(f'binding volumes: failed to check binding: could not find pv "{name}"')
        if real is None:
            raise Conflict(f'binding volumes: failed to check binding: could not find pvc "{"/".join(_key(claim))}"')
        if _version(live) < _version(volume):
            return False  # our own write has not come back yet
        if not rules.reachable(live, labels):
            raise Conflict(_elsewhere(name, node))
        if live.spec.claimRef is None or not live.spec.claimRef.uid:
            raise Conflict(f'binding volumes: ClaimRef got reset for pv "{name}"')
        return rules.is_fully_bound(real)

    @staticmethod
    def _is_provisioned(claim: Claim, labels: Any, node: str, catalog: VolumeCatalog) -> bool:
        real = catalog.real_claim(_key(claim))
        name = claim.metadata.name
        if real is None:
            text = f'failed to check provisioning pvc: could not find pvc "{"/".join(_key(claim))}"'
            raise Conflict(f"binding volumes: {text}")
        if _version(real) < _version(claim):
            return False
        if annotations_of(real).get(rules.SELECTED_NODE) != node:
            raise Conflict(f'binding volumes: provisioning failed for PVC "{name}"')
        volume = catalog.real_volume(real.spec.volumeName) if real.spec.volumeName else None
        if volume is not None and not rules.reachable(volume, labels):
            raise Conflict(_elsewhere(volume.metadata.name or "", node))
        return volume is not None and rules.is_fully_bound(real)


def _elsewhere(volume: str, node: str) -> str:
    return f'binding volumes: pv "{volume}" node affinity doesn\'t match node "{node}": no matching NodeSelectorTerms'


def _version(obj: Claim | Volume) -> int:
    """Versions of objects that came from the API server are numbers that rise."""
    text = obj.metadata.resourceVersion or "0"
    return int(text) if text.isdigit() else 0
