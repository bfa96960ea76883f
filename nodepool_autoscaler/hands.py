"""What is written about claims and nodes apart from their lives: new claims, marks of disruption, conditions, events.

Implements `disruption.ports.Hands` over the API server. Owns the form of a NodeClaim that is made from a plan.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from api import codec
from api.models import core_v1
from client.client import Client
from client.events import NORMAL, WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.log import kv
from machinery.meta import ObjectKey, rfc3339
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.conditions import Conditions
from nodepool_autoscaler.disruption.drift import hash_annotations
from nodepool_autoscaler.disruption.pods import DISRUPTED_TAINT
from nodepool_autoscaler.model import Claim, DisruptionReason, NodeState, PlannedClaim
from nodepool_autoscaler.objects import CLAIMS, NODE_CLAIMS, NodeClaim, NodePool, reference_to
from nodepool_autoscaler.simulation import quantities
from scheduler.framework import node_facts
from scheduler.framework.pod_info import PodInfo

NEEDED: Final = (names.LAUNCHED, names.REGISTERED_CONDITION, names.INITIALIZED_CONDITION)
NOMINATED: Final = "Nominated"
_log = log.get(__name__)


def claim_object(planned: PlannedClaim, pool: NodePool, annotations: Mapping[str, str]) -> dict[str, Any]:
    """The NodeClaim to be created. `annotations`: what is known of the node class."""
    template = pool.spec.template
    reference = {
        "apiVersion": pool.apiVersion,
        "kind": pool.kind,
        "name": planned.pool.name,
        "uid": planned.pool.uid,
        "blockOwnerDeletion": True,
    }
    hashes = hash_annotations(planned.pool.hash)
    spec: dict[str, Any] = {
        "nodeClassRef": msgspec.to_builtins(template.spec.nodeClassRef),
        "requirements": [told for each in planned.requirements for told in each.told()],
        "resources": {"requests": quantities(planned.requests)},
    }
    for field in ("taints", "startupTaints"):
        listed = getattr(template.spec, field)
        if listed:
            spec[field] = msgspec.to_builtins(listed)
    for field in ("expireAfter", "terminationGracePeriod"):
        if getattr(template.spec, field) is not None:
            spec[field] = getattr(template.spec, field)
    return {
        "apiVersion": NODE_CLAIMS.group_version,
        "kind": NODE_CLAIMS.kind,
        "metadata": {
            "generateName": f"{planned.pool.name}-",
            "labels": {**planned.labels, names.NODE_POOL: planned.pool.name},
            "annotations": {**template.metadata.annotations, **hashes, **annotations},
            "finalizers": [names.FINALIZER],
            "ownerReferences": [reference],
        },
        "spec": spec,
    }


class Hands:
    """Over one client; what was written counts in the cluster's next look."""

    def __init__(self, client: Client, cluster: Cluster, events: EventRecorder, clock: Clock) -> None:
        self._client = client
        self._cluster = cluster
        self._events = events
        self._clock = clock
        self._told: dict[str, str] = {}

    # --- claims ------------------------------------------------------------------------------------------------------

    async def create(self, planned: PlannedClaim, reason: str) -> NodeClaim:
        """Make the claim. Raises StatusError; NotFound when its pool is gone."""
        pool = self._cluster.pools.lister.get(ObjectKey("", planned.pool.name))
        if pool is None or pool.metadata.uid != planned.pool.uid or pool.metadata.deletionTimestamp is not None:
            raise NotFound(f'nodepools.karpenter.sh "{planned.pool.name}" not found')
        node_class = self._cluster.node_class(planned.pool.node_class)
        known = (node_class.metadata.annotations or {}) if node_class is not None else {}
        kept = {names.CLASS_HASH: known[names.CLASS_HASH]} if names.CLASS_HASH in known else {}
        made = await self._client.create(claim_object(planned, pool, kept), resource=NODE_CLAIMS)
        claim = CLAIMS.decode(codec.encode(made))
        self._cluster.created(claim)
        extra = kv(
            claim=claim.name,
            pool=planned.pool.name,
            reason=reason,
            pods=len(planned.pods),
            types=", ".join(planned.instance_types[:5]),
        )
        _log.info("Created claim", extra=extra)
        return claim

    async def launch(self, planned: PlannedClaim, reason: DisruptionReason) -> str:
        """The same for what replaces a disrupted node; its name."""
        return (await self.create(planned, reason.lower())).name

    async def delete_claim(self, claim: Claim) -> None:
        try:
            await self._client.delete(CLAIMS, claim.name, uid=claim.uid or None)
        except NotFound:
            return

    async def set_status(
        self, claim: Claim, conditions: Mapping[str, str | None], last_pod_event: datetime | None = None
    ) -> None:
        """Set conditions to True with such a reason, or remove those that are None."""
        found = self._cluster.claims.lister.get(ObjectKey("", claim.name))
        if found is None:
            return
        changed = Conditions(found.status.conditions, NEEDED, self._clock.now(), found.metadata.generation)
        for kind, reason in conditions.items():
            if reason is None:
                changed.drop(kind)
            else:
                changed.set(kind, True, reason, reason)
        status: dict[str, Any] = {}
        told = changed.finish()
        if told is not None:
            status["conditions"] = told
        if last_pod_event is not None:
            status["lastPodEventTime"] = rfc3339(last_pod_event)
        if status:
            version = found.metadata.resourceVersion
            try:
                await self._client.patch(
                    CLAIMS, claim.name, {"status": status}, subresource="status", resource_version=version
                )
            except NotFound:
                return

    # --- marks -------------------------------------------------------------------------------------------------------

    async def mark(self, state: NodeState, reason: DisruptionReason) -> None:
        """Taint the node karpenter.sh/disrupted:NoSchedule and set its claim's condition DisruptionReason."""
        await self._taint(state.name, wanted=True)
        if state.claim is not None:
            await self.set_status(state.claim, {names.DISRUPTION_REASON: reason})

    async def unmark(self, state: NodeState) -> None:
        """Undo `mark`; a node or claim that is gone or being deleted is left alone."""
        await self._taint(state.name, wanted=False)
        if state.claim is not None:
            found = self._cluster.claim(state.claim.name)
            if found is not None and not found.deleting and names.DISRUPTION_REASON in found.conditions:
                await self.set_status(found, {names.DISRUPTION_REASON: None})

    async def _taint(self, name: str, *, wanted: bool) -> None:
        node = self._cluster.nodes.lister.get(ObjectKey("", name))
        if node is None or node.metadata.deletionTimestamp is not None:
            return
        if (DISRUPTED_TAINT in node_facts.taints(node)) != wanted:
            await set_taints(self._client, node, add=(DISRUPTED_TAINT,) if wanted else (), remove=(names.DISRUPTED,))

    # --- words -------------------------------------------------------------------------------------------------------

    def nominate(self, placed: Mapping[str, str], launched: Mapping[str, Sequence[PodInfo]]) -> None:
        """Tell where pods are expected: names of NodeStates by uid; pods by the names of new claims."""
        for name in {*placed.values(), *launched}:
            self._cluster.nominate(name)

    def tell_nominated(self, info: PodInfo, claim: str, node: str = "") -> None:
        """Once for each pod and place."""
        where = ", ".join([*([f"nodeclaim/{claim}"] if claim else []), *([f"node/{node}"] if node else [])])
        if self._told.get(info.uid) != where:
            self._told[info.uid] = where
            self._events.event(info.pod, NORMAL, NOMINATED, f"Pod should schedule on: {where}")

    def forget_pods(self, waiting: Sequence[PodInfo]) -> None:
        """Only these still wait."""
        left = {each.uid for each in waiting}
        self._told = {uid: where for uid, where in self._told.items() if uid in left}

    def node_event(self, node: str, reason: str, message: str, *, warning: bool = False) -> None:
        found = self._cluster.nodes.lister.get(ObjectKey("", node))
        if found is not None:
            self._events.event(found, WARNING if warning else NORMAL, reason, message)

    def claim_event(self, claim: str, reason: str, message: str, *, warning: bool = False) -> None:
        found = next((each for each in self._cluster.all_claims() if each.name == claim), None)
        if found is not None:
            self._events.event(reference_to(found), WARNING if warning else NORMAL, reason, message)

    def pool_event(self, pool: str, reason: str, message: str) -> None:
        found = self._cluster.pools.lister.get(ObjectKey("", pool))
        if found is not None:
            self._events.event(reference_to(found), WARNING if reason.startswith("Fail") else NORMAL, reason, message)


async def set_taints(
    client: Client,
    node: core_v1.Node,
    *,
    add: Sequence[tuple[str, str, str]] = (),
    remove: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Change a Node's taints at the version that was seen, and `more` of its metadata. Raises Conflict when somebody
    was faster."""
    kept = [each for each in (node.spec.taints if node.spec is not None else None) or () if each.key not in remove]
    there = {(each.key, each.effect) for each in kept}
    kept += [
        core_v1.Taint(key=key, value=value or None, effect=effect)
        for key, value, effect in add
        if (key, effect) not in there
    ]
    patch = {"metadata": dict(more or {}), "spec": {"taints": msgspec.to_builtins(kept)}}
    await client.patch(core_v1.Node, node_facts.name(node), patch, resource_version=node.metadata.resourceVersion)
