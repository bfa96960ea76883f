"""How a node ends: marked, drained in order, its volumes let go, its machine terminated, its Node let go.

Owns Nodes that bear our finalizer and are being deleted, one at a time, level-based. Whoever deletes the Node or its
claim starts it. Source: karpenter.sh, "Termination Controller"; reasons and messages are upstream's.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from api.models import core_v1, meta_v1, policy_v1
from client.client import Client
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound, StatusError, TooManyRequests
from machinery.log import kv
from machinery.meta import ObjectKey, parse_time
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster
from nodepool_autoscaler.conditions import Conditions
from nodepool_autoscaler.disruption.pods import DISRUPTED_TAINT, owned_by, protected, tolerates_disruption
from nodepool_autoscaler.hands import NEEDED, set_taints
from nodepool_autoscaler.objects import CLAIMS, NodeClaim
from nodepool_autoscaler.provider import MachineNotFound, Provider, ProviderError
from scheduler.framework import node_facts
from scheduler.framework.pod_info import PodInfo, is_terminal

LOOK: Final = 1.0
SLOW: Final = 5.0
STUCK_AFTER: Final = 60.0
"""A pod that is there so long after its grace period will not go: its kubelet is dead."""
TOLD_EVERY: Final = 120.0
EVICTION_RETRY: Final = (1.0, 10.0)
"""Seconds: at first, and at most."""
CRITICAL: Final = frozenset({"system-cluster-critical", "system-node-critical"})
_log = log.get(__name__)


def rank(info: PodInfo) -> int:
    """Pods of a lower rank leave first: those of DaemonSets after others, critical ones last."""
    critical = info.spec.priorityClassName in CRITICAL
    return 2 * critical + owned_by(info.pod, "DaemonSet")


def drainable(info: PodInfo) -> bool:
    """Whether draining waits for it: not what stays anyway (it tolerates the taint, or is the kubelet's own)."""
    return not is_terminal(info.pod) and not tolerates_disruption(info) and not owned_by(info.pod, "Node")


def next_to_leave(pods: Sequence[PodInfo]) -> list[PodInfo]:
    """The pods of the lowest rank that are left."""
    lowest = min((rank(each) for each in pods), default=0)
    return [each for each in pods if rank(each) == lowest]


class Termination:
    """One key per Node."""

    def __init__(
        self, client: Client, cluster: Cluster, provider: Provider, events: EventRecorder, clock: Clock
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._provider = provider
        self._events = events
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}
        self._again: dict[str, tuple[float, float]] = {}
        self.controller = Controller(
            "node-termination", self.reconcile, clock=clock, informers=[cluster.nodes, cluster.claims], workers=8
        )
        self.controller.watches(cluster.nodes)

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._cluster.nodes.lister.get(key)
        if node is None or node.metadata.deletionTimestamp is None:
            return DONE
        if names.FINALIZER not in (node.metadata.finalizers or ()):
            return DONE
        claim = self._cluster.claim_for(node)
        if claim is None:
            await self._let_go(node)  # a machine that nobody claims is collected
            return DONE
        if claim.metadata.deletionTimestamp is None:
            await self._delete_claim(claim)
        changed = Conditions(claim.status.conditions, NEEDED, self._clock.now(), claim.metadata.generation)
        try:
            result = await self._step(node, claim, changed)
        except ProviderError as error:
            _log.warning("Lost sight of the cloud", extra=kv(node=key.name, error=error))
            return Result(requeue_after=SLOW)
        await self._write(claim, changed)
        return result

    async def _step(self, node: core_v1.Node, claim: NodeClaim, changed: Conditions) -> Result:
        if not await self._exists(claim):
            await self._let_go(node)
            return DONE
        if DISRUPTED_TAINT not in node_facts.taints(node):
            labels = {"labels": {names.EXCLUDE_BALANCERS: "karpenter"}}
            await set_taints(self._client, node, add=(DISRUPTED_TAINT,), remove=(names.DISRUPTED,), more=labels)
            return Result(requeue_after=LOOK)
        ends = _ends(claim)
        left = await self._drain(node, ends) or await self._overlooked(node)
        if left:
            told = f"Failed to drain node, {left} pods are waiting to be evicted"
            self._event(node, WARNING, "FailedDraining", told)
            changed.set(names.DRAINED, None, "Draining", f"{left} pods are waiting to be evicted")
            return Result(requeue_after=LOOK)
        changed.set(names.DRAINED, True)
        volumes = self._attached(node)
        if volumes and not self._over(ends):
            told = f"Awaiting deletion of bound volumeattachments ({', '.join(volumes)})"
            self._event(node, NORMAL, "AwaitingVolumeDetachment", told)
            changed.set(names.VOLUMES_DETACHED, None, "AwaitingVolumeDetachment", told)
            return Result(requeue_after=LOOK)
        if volumes:
            changed.set(names.VOLUMES_DETACHED, False, "TerminationGracePeriodElapsed")
        else:
            changed.set(names.VOLUMES_DETACHED, True)
        await self._terminate(claim)
        changed.set(names.INSTANCE_TERMINATING, True)
        return Result(requeue_after=LOOK)

    def _event(self, node: core_v1.Node, kind: str, reason: str, message: str) -> None:
        """The same kind of trouble only every other minute."""
        now, key = self._clock.monotonic(), (node.metadata.uid or "", reason)
        self._told = {each: until for each, until in self._told.items() if until > now}
        if key not in self._told:
            self._told[key] = now + TOLD_EVERY
            self._events.event(node, kind, reason, message)

    # --- the machine -------------------------------------------------------------------------------------------------

    async def _exists(self, claim: NodeClaim) -> bool:
        return any(each.provider_id == claim.status.providerID for each in await self._provider.machines())

    async def _terminate(self, claim: NodeClaim) -> None:
        for each in await self._provider.machines():
            if each.provider_id == claim.status.providerID and not each.terminating:
                try:
                    await self._provider.terminate(each.name)
                except MachineNotFound:
                    continue

    async def _let_go(self, node: core_v1.Node) -> None:
        left = [each for each in node.metadata.finalizers or () if each != names.FINALIZER]
        patch = {"metadata": {"finalizers": left}}
        name = node_facts.name(node)
        try:
            await self._client.patch(core_v1.Node, name, patch, resource_version=node.metadata.resourceVersion)
        except NotFound:
            return
        _log.info("Let node go", extra=kv(node=name))

    async def _delete_claim(self, claim: NodeClaim) -> None:
        try:
            await self._client.delete(CLAIMS, claim.name, uid=claim.metadata.uid)
        except NotFound:
            return

    async def _write(self, claim: NodeClaim, changed: Conditions) -> None:
        told = changed.finish()
        if told is None:
            return
        try:
            await self._client.patch(CLAIMS, claim.name, {"status": {"conditions": told}}, subresource="status")
        except NotFound:
            return

    # --- draining ----------------------------------------------------------------------------------------------------

    def _over(self, ends: datetime | None) -> bool:
        return ends is not None and self._clock.elapsed(ends) >= 0

    async def _drain(self, node: core_v1.Node, ends: datetime | None) -> int:
        """Ask pods to leave; how many are still awaited."""
        record = self._cluster.snapshot.record(node_facts.name(node))
        pods = [each for each in record.pods.values() if drainable(each)] if record is not None else []
        if ends is not None:
            for info in pods:
                await self._hasten(info, ends)
        awaited = [each for each in pods if not self._stuck(each)]
        for info in next_to_leave(awaited):
            if not info.terminating and not protected(info, self._clock.elapsed):
                await self._evict(info)
        return len(awaited)

    async def _overlooked(self, node: core_v1.Node) -> int:
        """Pods that the cache does not show yet: the server is asked once more before a machine goes."""
        found = await self._client.list(core_v1.Pod, field_selector=f"spec.nodeName={node_facts.name(node)}")
        pods = [PodInfo(each) for each in found.items]
        return len([each for each in pods if drainable(each) and not self._stuck(each)])

    def _stuck(self, info: PodInfo) -> bool:
        deleted = info.pod.metadata.deletionTimestamp  # already at the end of the grace period
        return deleted is not None and self._clock.elapsed(deleted) > STUCK_AFTER

    async def _hasten(self, info: PodInfo, ends: datetime) -> None:
        """Delete a pod early enough for its whole grace period, and in any case when the node's time is over."""
        wanted = info.spec.terminationGracePeriodSeconds
        grace = 30.0 if wanted is None else float(wanted)
        left = -self._clock.elapsed(ends)
        if left > grace:
            return
        deleted = info.pod.metadata.deletionTimestamp
        if deleted is not None and self._clock.elapsed(deleted) >= -max(left, 0.0):
            return  # it ends in time
        granted = max(1, int(max(left, 0.0)))
        told = (
            f"Deleting the pod to accommodate the terminationTime {ends.isoformat()} of the node. The pod was granted "
            f"{granted} seconds of grace-period of its {grace:g} terminationGracePeriodSeconds. This bypasses the PDB "
            "of the pod and the do-not-disrupt annotation."
        )
        self._events.event(info.pod, NORMAL, "Disrupted", told)
        try:
            await self._client.delete(
                core_v1.Pod, info.name, info.namespace, uid=info.uid, grace_period_seconds=granted
            )
        except StatusError as error:
            if not isinstance(error, NotFound):
                _log.warning("Did not delete pod", extra=kv(pod=info.key, error=error.message))

    async def _evict(self, info: PodInfo) -> None:
        """What is refused is asked for again ever more slowly."""
        now = self._clock.monotonic()
        due, delay = self._again.get(info.uid, (0.0, EVICTION_RETRY[0]))
        if now < due:
            return
        self._again = {uid: each for uid, each in self._again.items() if each[0] > now - 2 * EVICTION_RETRY[1]}
        self._again[info.uid] = (now + delay, min(2 * delay, EVICTION_RETRY[1]))
        eviction: Any = policy_v1.Eviction(
            apiVersion="policy/v1",
            kind="Eviction",
            metadata=meta_v1.ObjectMeta(name=info.name, namespace=info.namespace),
            deleteOptions=meta_v1.DeleteOptions(preconditions=meta_v1.Preconditions(uid=info.uid)),
        )
        try:
            await self._client.create_subresource(core_v1.Pod, info.name, info.namespace, "eviction", eviction)
        except NotFound:
            return
        except TooManyRequests as error:
            self._events.event(info.pod, WARNING, "FailedDraining", f"Failed to evict pod: {error.message}")
        except StatusError as error:
            _log.warning("Did not evict pod", extra=kv(pod=info.key, error=error.message))
        else:
            self._events.event(info.pod, NORMAL, "Evicted", "Evicted pod")

    # --- volumes -----------------------------------------------------------------------------------------------------

    def _attached(self, node: core_v1.Node) -> list[str]:
        """Volumes that are still attached for pods that have left; those of pods that stay will not be detached."""
        name = node_facts.name(node)
        record = self._cluster.snapshot.record(name)
        staying = [each for each in record.pods.values() if not drainable(each)] if record is not None else []
        claims = {(each.namespace, claim) for each in staying for claim in _claims(each)}
        found = []
        for each in self._cluster.attachments.lister.list():
            volume = each.spec.source.persistentVolumeName
            if each.spec.nodeName == name and volume and not self._used(volume, claims):
                found.append(volume)
        return sorted(found)

    def _used(self, volume: str, claims: set[tuple[str, str]]) -> bool:
        known = (self._cluster.snapshot.volumes.claim(each) for each in claims)
        return any(each is not None and each.spec is not None and each.spec.volumeName == volume for each in known)


def _claims(info: PodInfo) -> list[str]:
    volumes = info.spec.volumes or ()
    return [each.persistentVolumeClaim.claimName for each in volumes if each.persistentVolumeClaim is not None]


def _ends(claim: NodeClaim) -> datetime | None:
    """When its termination grace period is over; None when it has none."""
    text = (claim.metadata.annotations or {}).get(names.TERMINATION_TIME)
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None
