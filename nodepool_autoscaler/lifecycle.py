"""A NodeClaim's life: launch, registration, initialisation, and its end.

Owns one claim at a time, level-based: what is true is read from the claim, its Node and the cloud, and the next step is
taken. Draining the node is `termination`'s. Source: karpenter.sh, "NodeClaims"; reasons and messages are upstream's.
"""
# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from api.models import core_v1
from client.client import Client
from client.controller import DONE, Controller, Result
from client.events import WARNING, EventRecorder
from machinery import log
from machinery.clock import Clock
from machinery.errors import NotFound
from machinery.log import kv
from machinery.meta import ObjectKey, rfc3339
from nodepool_autoscaler import names
from nodepool_autoscaler.cluster import Cluster, is_ours, matching
from nodepool_autoscaler.conditions import Conditions
from nodepool_autoscaler.hands import NEEDED
from nodepool_autoscaler.model import Offering
from nodepool_autoscaler.objects import CLAIMS, NodeClaim, demands_of, reference_to, seconds
from nodepool_autoscaler.provider import Machine, MachineNotFound, NoCapacity, Order, Provider, ProviderError
from nodepool_autoscaler.simulation import quantities
from scheduler.framework import node_facts, resources

LAUNCH_TTL: Final = 300.0
REGISTRATION_TTL: Final = 900.0
POLL: Final = 5.0
RETRY: Final = 2.0
RETRY_MOST: Final = 60.0
IMAGE: Final = "nanokube"
_EPHEMERAL: Final = (
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
)
_log = log.get(__name__)


def kubelet_labels(labels: dict[str, str]) -> dict[str, str]:
    """Those that a kubelet may give its own node; the others come with registration."""

    def own(key: str) -> bool:
        domain = key.partition("/")[0] if "/" in key else ""
        return not domain.endswith(("kubernetes.io", "k8s.io")) and key not in (names.REGISTERED, names.INITIALIZED)

    return {key: value for key, value in labels.items() if own(key)}


class Lifecycle:
    """One key per claim. `told(pool, registered)` hears how launches of a pool end."""

    def __init__(
        self, client: Client, cluster: Cluster, provider: Provider, events: EventRecorder, clock: Clock
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._provider = provider
        self._events = events
        self._clock = clock
        self._tries: dict[str, int] = {}
        self.told: Callable[[str, bool, str], None] = lambda pool, registered, why: None
        self.launched: dict[str, int] = {}
        self.controller = Controller(
            "nodeclaim-lifecycle", self.reconcile, clock=clock, informers=[cluster.claims, cluster.nodes], workers=8
        )
        self.controller.watches(cluster.claims)
        self.controller.watches(cluster.nodes, self._claims_of)

    def _claims_of(self, node: core_v1.Node) -> list[ObjectKey]:
        found = self._cluster.claim_for(node)
        return [ObjectKey("", found.name)] if found is not None else []

    async def reconcile(self, key: ObjectKey) -> Result:
        claim = self._cluster.claims.lister.get(key)
        if claim is None or not is_ours(claim):
            self._tries.pop(key.name, None)
            return DONE
        if claim.metadata.deletionTimestamp is not None:
            return await self._finalize(claim)
        if names.FINALIZER not in (claim.metadata.finalizers or ()):
            # Without it a machine could be left behind, so nothing is launched before it is there.
            wanted = [*(claim.metadata.finalizers or ()), names.FINALIZER]
            await self._patch(claim, {"metadata": {"finalizers": wanted}})
            return DONE
        changed = Conditions(claim.status.conditions, NEEDED, self._clock.now(), claim.metadata.generation)
        status: dict[str, Any] = {}
        again: float | None = None
        try:
            if not claim.is_true(names.LAUNCHED):
                again = await self._launch(claim, changed, status)
                if again is not None and again < 0:
                    return DONE  # it is being deleted
            elif not claim.is_true(names.REGISTERED_CONDITION):
                await self._register(claim, changed, status)
            elif not claim.is_true(names.INITIALIZED_CONDITION):
                await self._initialize(claim, changed)
        finally:
            await self._write(claim, changed, status)
        left = await self._lively(claim, changed)
        waits = [each for each in (again, left) if each is not None]
        return Result(requeue_after=min(waits)) if waits else DONE

    async def _write(self, claim: NodeClaim, changed: Conditions, status: dict[str, Any]) -> None:
        told = changed.finish()
        if told is not None:
            status["conditions"] = told
        if not status:
            return
        version = None if "providerID" in status else claim.metadata.resourceVersion
        try:
            await self._client.patch(
                CLAIMS, claim.name, {"status": status}, subresource="status", resource_version=version
            )
        except NotFound:
            return

    async def _patch(self, claim: NodeClaim, patch: dict[str, Any]) -> None:
        try:
            await self._client.patch(CLAIMS, claim.name, patch, resource_version=claim.metadata.resourceVersion)
        except NotFound:
            return

    async def _delete(self, claim: NodeClaim) -> None:
        try:
            await self._client.delete(CLAIMS, claim.name, uid=claim.metadata.uid)
        except NotFound:
            return

    # --- launch ------------------------------------------------------------------------------------------------------

    async def _launch(self, claim: NodeClaim, changed: Conditions, status: dict[str, Any]) -> float | None:
        """Seconds until the next try; negative when there will be none."""
        node_class = self._cluster.node_class(claim.spec.nodeClassRef.name)
        ready = (
            next((each for each in node_class.status.conditions if each.type == names.READY), None)
            if node_class
            else None
        )
        if node_class is None or (ready is not None and ready.status == "False"):
            why = ready.message if ready is not None else f'node class "{claim.spec.nodeClassRef.name}" not found'
            self._event(claim, "NodeClassNotReady", f"NodeClaim {claim.name} event: {_short(why)}")
            await self._delete(claim)
            return -1.0
        hollow = node_class.hollow
        await self._cluster.catalog.refresh()
        able = matching(claim, self._cluster.catalog.available(node_class))
        try:
            if not able:
                everything = matching(claim, self._cluster.catalog.known(node_class))
                if self._cluster.catalog.trouble and not everything:
                    raise ProviderError(self._cluster.catalog.trouble)
                raise NoCapacity("all requested instance types were unavailable during launch")
            machine, refused = await self._provider.launch(self._order(claim, able, hollow, node_class.spec.bootDelay))
            await self._launched(claim, machine, able, changed, status)
        except NoCapacity as error:
            self._cluster.catalog.refuse(hollow, error.refused)
            self._event(claim, "InsufficientCapacityError", f"NodeClaim {claim.name} event: {_short(str(error))}")
            _log.warning("No capacity", extra=kv(claim=claim.name, error=error))
            self.told(claim.pool, False, str(error))
            await self._delete(claim)
            return -1.0
        except ProviderError as error:
            changed.set(names.LAUNCHED, None, "LaunchFailed", _short(str(error)))
            _log.warning("Did not launch", extra=kv(claim=claim.name, error=error))
            tries = self._tries[claim.name] = self._tries.get(claim.name, 0) + 1
            return min(RETRY * 2.0 ** min(tries - 1, 10), RETRY_MOST)
        self._cluster.catalog.refuse(hollow, refused)
        self._tries.pop(claim.name, None)
        return None

    def _order(self, claim: NodeClaim, able: list[Offering], hollow: bool, boot_delay: str) -> Order:
        labels = {**self._single_values(claim), **(claim.metadata.labels or {})}
        unregistered = core_v1.Taint(key=names.UNREGISTERED, effect="NoExecute")
        return Order(
            token=claim.metadata.uid or "",
            offerings=tuple(able),
            hollow=hollow,
            boot_delay=seconds(boot_delay) or 0.0,
            labels=kubelet_labels(labels),
            taints=(*claim.spec.taints, *claim.spec.startupTaints, unregistered),
            tags={names.NODE_POOL: claim.pool, "nodeclaim": claim.name},
        )

    @staticmethod
    def _single_values(claim: NodeClaim) -> dict[str, str]:
        """Labels that the requirements leave no choice about."""
        return {
            each.key: next(iter(each.values))
            for each in demands_of(claim.spec.requirements)
            if not each.complement and len(each.values) == 1
        }

    async def _launched(
        self, claim: NodeClaim, machine: Machine, able: list[Offering], changed: Conditions, status: dict[str, Any]
    ) -> None:
        offering = next((each for each in able if each.key == machine.key), None)
        if offering is None:
            # It was launched before, when something else was the cheapest; or the cloud does not do as it was told.
            everything = self._cluster.catalog.known(self._cluster.node_class(claim.spec.nodeClassRef.name))  # type: ignore[arg-type]
            offering = next((each for each in everything if each.key == machine.key), None)
        if offering is None or not matching(claim, [offering]):
            told = " ".join(machine.key)
            await self._terminate(machine.name)
            raise ProviderError(f"the cloud launched {told}, which was not asked for")
        labels = {**offering.labels, **self._single_values(claim), **(claim.metadata.labels or {})}
        await self._client.patch(CLAIMS, claim.name, {"metadata": {"labels": labels}})
        status |= {
            "providerID": machine.provider_id,
            "imageID": IMAGE,
            "capacity": quantities(offering.capacity),
            "allocatable": quantities(offering.allocatable),
        }
        changed.set(names.LAUNCHED, True)
        changed.set(names.REGISTERED_CONDITION, None, "NodeNotFound", "Node not registered with cluster")
        self.launched[claim.pool] = self.launched.get(claim.pool, 0) + 1
        _log.info("Launched claim", extra=kv(claim=claim.name, machine=machine.name, offering=offering))

    def _event(self, claim: NodeClaim, reason: str, message: str) -> None:
        self._events.event(reference_to(claim), WARNING, reason, message)

    # --- registration and initialisation -----------------------------------------------------------------------------

    async def _register(self, claim: NodeClaim, changed: Conditions, status: dict[str, Any]) -> None:
        nodes = self._cluster.nodes_of(claim)
        if not nodes:
            changed.set(names.REGISTERED_CONDITION, None, "NodeNotFound", "Node not registered with cluster")
            return
        if len(nodes) > 1:
            told = "Invariant violated, matched multiple nodes"
            changed.set(names.REGISTERED_CONDITION, False, "MultipleNodesFound", told)
            return
        (node,) = nodes
        labels = node_facts.labels(node)
        unregistered = any(each[0] == names.UNREGISTERED for each in node_facts.taints(node))
        if names.REGISTERED not in labels and not unregistered:
            told = f"Invariant violated, {names.UNREGISTERED} taint must be present on Karpenter-managed nodes"
            changed.set(names.REGISTERED_CONDITION, False, "UnregisteredTaintNotFound", told)
            return
        await self._sync(claim, node)
        changed.set(names.REGISTERED_CONDITION, True)
        status["nodeName"] = node_facts.name(node)
        self.told(claim.pool, True, "")
        _log.info("Registered claim", extra=kv(claim=claim.name, node=node_facts.name(node)))

    async def _sync(self, claim: NodeClaim, node: core_v1.Node) -> None:
        """Give the Node what its claim says: labels, annotations, taints, owner, finalizer."""
        metadata = node.metadata
        owner = {
            "apiVersion": claim.apiVersion,
            "kind": claim.kind,
            "name": claim.name,
            "uid": claim.metadata.uid,
            "blockOwnerDeletion": True,
        }
        owners = [each for each in msgspec.to_builtins(metadata.ownerReferences or []) if each["uid"] != owner["uid"]]
        finalizers = [*(metadata.finalizers or ())]
        labels = {**(claim.metadata.labels or {}), names.REGISTERED: "true"}
        patch: dict[str, Any] = {
            "metadata": {
                "labels": labels,
                "annotations": dict(claim.metadata.annotations or {}),
                "ownerReferences": [*owners, owner],
                "finalizers": [*finalizers, *([] if names.FINALIZER in finalizers else [names.FINALIZER])],
            }
        }
        taints = [each for each in node.spec.taints or () if each.key != names.UNREGISTERED]
        if names.DO_NOT_SYNC_TAINTS not in node_facts.labels(node):
            known = {(each.key, each.effect) for each in taints}
            wanted = (*claim.spec.taints, *claim.spec.startupTaints)
            taints += [each for each in wanted if (each.key, each.effect) not in known]
        patch["spec"] = {"taints": msgspec.to_builtins(taints)}
        await self._client.patch(core_v1.Node, node_facts.name(node), patch, resource_version=metadata.resourceVersion)

    async def _initialize(self, claim: NodeClaim, changed: Conditions) -> None:
        nodes = self._cluster.nodes_of(claim)
        if len(nodes) != 1:
            changed.set(names.INITIALIZED_CONDITION, None, "NodeNotFound", "Node not registered with cluster")
            return
        (node,) = nodes
        reason, message = uninitialized(claim, node)
        if reason:
            changed.set(names.INITIALIZED_CONDITION, None, reason, message)
            return
        labels = {names.INITIALIZED: "true"}
        await self._client.patch(core_v1.Node, node_facts.name(node), {"metadata": {"labels": labels}})
        changed.set(names.INITIALIZED_CONDITION, True)
        _log.info("Initialized claim", extra=kv(claim=claim.name, node=node_facts.name(node)))

    # --- liveness ----------------------------------------------------------------------------------------------------

    async def _lively(self, claim: NodeClaim, changed: Conditions) -> float | None:
        """Give up what does not come up; seconds until its time is over."""
        if changed.is_true(names.REGISTERED_CONDITION):
            return None
        launched = changed.is_true(names.LAUNCHED)
        limit = REGISTRATION_TTL if launched else LAUNCH_TTL
        since = claim.condition(names.LAUNCHED)
        began = (
            since.lastTransitionTime if since is not None and launched else None
        ) or claim.metadata.creationTimestamp
        left = limit - (self._clock.elapsed(began) if began is not None else 0.0)
        if left > 0:
            return left
        _log.warning("Gave up claim", extra=kv(claim=claim.name, launched=launched, seconds=limit))
        failed = claim.condition(names.LAUNCHED)
        self.told(claim.pool, False, "Failed to register node" if launched or failed is None else failed.message)
        await self._delete(claim)
        return None

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _finalize(self, claim: NodeClaim) -> Result:
        if names.FINALIZER not in (claim.metadata.finalizers or ()):
            return DONE
        grace = seconds(claim.spec.terminationGracePeriod)
        if grace is not None and names.TERMINATION_TIME not in (claim.metadata.annotations or {}):
            passed = self._clock.elapsed(claim.metadata.deletionTimestamp or self._clock.now())
            ends = rfc3339(self._clock.deadline(grace - passed))
            self._event(claim, "TerminationGracePeriodExpiring", f"All pods will be deleted by {ends}")
            await self._patch(claim, {"metadata": {"annotations": {names.TERMINATION_TIME: ends}}})
            return DONE
        nodes = self._cluster.nodes_of(claim)
        if nodes and claim.is_true(names.REGISTERED_CONDITION):
            for node in nodes:
                if node.metadata.deletionTimestamp is None:
                    await self._delete_node(node)
            return DONE  # termination drains them; their end brings us here again
        try:
            gone = await self._end_machine(claim)
        except ProviderError as error:
            _log.warning("Did not terminate", extra=kv(claim=claim.name, error=error))
            tries = self._tries[claim.name] = self._tries.get(claim.name, 0) + 1
            return Result(requeue_after=min(RETRY * 2.0 ** min(tries - 1, 10), RETRY_MOST))
        if not gone:
            return Result(requeue_after=POLL)
        for node in nodes:  # one that never registered with us, and nobody else would take away
            await self._delete_node(node)
        left = [each for each in claim.metadata.finalizers or () if each != names.FINALIZER]
        await self._patch(claim, {"metadata": {"finalizers": left}})
        self._tries.pop(claim.name, None)
        _log.info("Deleted claim", extra=kv(claim=claim.name))
        return DONE

    async def _delete_node(self, node: core_v1.Node) -> None:
        try:
            await self._client.delete(core_v1.Node, node_facts.name(node), uid=node.metadata.uid)
        except NotFound:
            return

    async def _end_machine(self, claim: NodeClaim) -> bool:
        """Whether it is gone. A launch whose answer was lost is found by its token."""
        uid = claim.metadata.uid or ""
        found = [each for each in await self._provider.machines() if each.token == uid]
        for machine in found:
            if not machine.terminating:
                await self._terminate(machine.name)
        if found and not claim.is_true(names.INSTANCE_TERMINATING):
            changed = Conditions(claim.status.conditions, NEEDED, self._clock.now(), claim.metadata.generation)
            changed.set(names.INSTANCE_TERMINATING, True)
            await self._write(claim, changed, {})
        return not found

    async def _terminate(self, name: str) -> None:
        try:
            await self._provider.terminate(name)
        except MachineNotFound:
            return


def uninitialized(claim: NodeClaim, node: core_v1.Node) -> tuple[str, str]:
    """Why a node cannot take pods yet, as (reason, message); two empty texts when it can. Pure."""
    conditions = (node.status.conditions if node.status is not None else None) or ()
    if not any(each.type == "Ready" and each.status == "True" for each in conditions):
        return "NodeNotReady", "Node status is NotReady"
    there = {(key, effect): value for key, value, effect in node_facts.taints(node)}
    for each in claim.spec.startupTaints:
        if (each.key, each.effect) in there:
            told = _taint(each.key, there[each.key, each.effect], each.effect)
            return "StartupTaintsExist", f'StartupTaint "{told}" still exists'
    for key, effect in _EPHEMERAL:
        if (key, effect) in there:
            told = _taint(key, there[key, effect], effect)
            return "KnownEphemeralTaintsExist", f'KnownEphemeralTaint "{told}" still exists'
    offered = node_facts.allocatable(node)
    for name, amount in resources.amounts(claim.spec.resources.requests).items():
        if amount and not offered.get(name):
            return "ResourceNotRegistered", f'Resource "{name}" was requested but not registered'
    return "", ""


def _taint(key: str, value: str, effect: str) -> str:
    return f"{key}={value}:{effect}" if value else f"{key}:{effect}"


def _short(message: str) -> str:
    return message if len(message) < 300 else f"{message[:300]}..."
