"""Keeps the status of PodDisruptionBudgets, and takes back announcements of disruptions that did not happen.

Owns: the budget's status. Never: evicts pods (the API server's eviction subresource does, spending the status).
Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from api.models import apps_v1, core_v1, policy_v1
from api.resources import Resource
from client.client import PatchType, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from controller_manager.disruption import plan
from controller_manager.disruption.plan import CannotCount
from controller_manager.environment import Environment
from controller_manager.kinds import Kinds
from controller_manager.objects import condition, controller_of, is_finished, status_patch, wall_seconds
from machinery.errors import Conflict, MethodNotAllowed, NotFound
from machinery.meta import ObjectKey, rfc3339
from machinery.selectors import LabelSelector

COMPONENT: Final = "controllermanager"
TARGET: Final = "DisruptionTarget"
STALE_AFTER: Final = 120.0

Budget = policy_v1.PodDisruptionBudget
Pod = core_v1.Pod


class DisruptionController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        informer = env.informers.informer
        self._kinds = Kinds(env)
        self._pods: Informer[Pod] = informer(Pod)
        self._budgets: Informer[Budget] = informer(Budget)
        self._owners: dict[str, Informer[Any]] = {
            "ReplicaSet": informer(apps_v1.ReplicaSet),
            "ReplicationController": informer(core_v1.ReplicationController),
            "StatefulSet": informer(apps_v1.StatefulSet),
            "Deployment": informer(apps_v1.Deployment),
        }
        self.controller = Controller(
            "disruption",
            self.reconcile,
            clock=env.clock,
            informers=[self._budgets, self._pods, *self._owners.values(), self._kinds.definitions],
        )
        self.stale = Controller("stale-disruption", self.take_back, clock=env.clock, informers=[self._pods])
        self.controller.watches(self._budgets)
        self.controller.watches(self._pods, self.budgets_of)
        self._pods.add_handler(EventHandler(self._announced, lambda _, new: self._announced(new)))

    def budgets_of(self, pod: Pod) -> Iterable[ObjectKey]:
        return [
            key_of(each)
            for each in self._budgets.lister.list(pod.metadata.namespace)
            if LabelSelector.from_object(each.spec.selector).matches(pod.metadata.labels)
        ]

    async def reconcile(self, key: ObjectKey) -> Result:
        budget = self._budgets.lister.get(key)
        if budget is None:
            return DONE
        selector = LabelSelector.from_object(budget.spec.selector)
        pods = [pod for pod in self._pods.lister.list(key.namespace) if selector.matches(pod.metadata.labels)]
        if not pods:
            self._events.event(budget, NORMAL, "NoPods", "No matching pods found")
        disruptions = plan.plan_disruptions(budget, pods, self._clock)
        try:
            others = await self._custom_scales(pods)
            expectation = plan.plan_expectation(
                budget, pods, lambda pod: self.scale(pod) or others.get(_owner_uid(pod))
            )
        except CannotCount as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            self._events.event(budget, WARNING, "CalculateExpectedPodCountFailed", message)
            await self._report(budget, plan.failed_status(budget, str(error), self._clock))
            return DONE
        if expectation.unmanaged:
            self._tell_unmanaged(budget)
        for pod in disruptions.overdue:
            message = f"Pod was expected by PDB {key} to be deleted but it wasn't"
            self._events.event(pod, WARNING, "NotDeleted", message)
        healthy = plan.count_healthy(pods, disruptions.pending)
        await self._report(budget, plan.status_of(budget, expectation, healthy, disruptions.pending, self._clock))
        return Result(requeue_after=disruptions.recheck)

    def scale(self, pod: Pod) -> tuple[str, int] | None:
        """uid and spec.replicas of what manages the pod; a Deployment stands for its ReplicaSets."""
        owner = self._owner(pod, pod.metadata.namespace or "")
        if owner is None:
            return None
        above = self._owner(owner, pod.metadata.namespace or "")
        if above is not None:
            owner = above
        replicas = owner.spec.replicas
        return owner.metadata.uid, 1 if replicas is None else replicas

    async def _custom_scales(self, pods: Iterable[Pod]) -> dict[str, tuple[str, int]]:
        """By uid the scale of what manages pods and is known only by its definition. Raises CannotCount."""
        found: dict[str, tuple[str, int]] = {}
        for pod in pods:
            reference = controller_of(pod)
            if reference is None or reference.kind in self._owners or reference.uid in found:
                continue
            resource = self._kinds.by_kind(reference.apiVersion, reference.kind)
            if resource is None:
                continue
            try:
                scale = await self._client.get(
                    resource, reference.name, pod.metadata.namespace or "", subresource="scale"
                )
            except (NotFound, MethodNotAllowed) as error:
                if await self._exists(resource, reference.name, pod.metadata.namespace or ""):
                    raise CannotCount(f"{resource.qualified} does not implement the scale subresource") from error
                continue
            if scale["metadata"].get("uid") == reference.uid:
                found[reference.uid] = (reference.uid, scale.get("spec", {}).get("replicas") or 0)
        return found

    async def _exists(self, resource: Resource, name: str, namespace: str) -> bool:
        try:
            await self._client.get(resource, name, namespace)
        except (NotFound, MethodNotAllowed):
            return False
        return True

    def _owner(self, obj: Any, namespace: str) -> Any | None:
        reference = controller_of(obj)
        informer = self._owners.get(reference.kind) if reference is not None else None
        if reference is None or informer is None:
            return None
        found = informer.lister.get(ObjectKey(namespace, reference.name))
        return found if found is not None and found.metadata.uid == reference.uid else None

    def _tell_unmanaged(self, budget: Budget) -> None:
        selector = LabelSelector.from_object(budget.spec.selector)
        message = (
            f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result,"
            " the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account "
            'for these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
        )
        self._events.event(budget, WARNING, "UnmanagedPods", message)

    async def _report(self, budget: Budget, status: policy_v1.PodDisruptionBudgetStatus) -> None:
        patch = status_patch(budget.status, status)
        if patch is None:
            return
        key, version = key_of(budget), budget.metadata.resourceVersion
        # Fenced by the version: an eviction granted meanwhile must not be forgotten.
        await self._client.patch(Budget, key.name, patch, key.namespace, subresource="status", resource_version=version)

    # Announcements that came to nothing

    def _announced(self, pod: Pod) -> None:
        if _is_stale_candidate(pod):
            self.stale.enqueue(key_of(pod))

    async def take_back(self, key: ObjectKey) -> Result:
        """A pod that was announced to be disrupted but lives on after two minutes is told so."""
        pod = self._pods.lister.get(key)
        if pod is None or not _is_stale_candidate(pod):
            return DONE
        since = condition(pod, TARGET).lastTransitionTime
        left = STALE_AFTER - self._clock.elapsed(since) if since is not None else 0.0
        if left > 0:
            return Result(requeue_after=left)
        told = {"type": TARGET, "status": "False", "lastTransitionTime": rfc3339(wall_seconds(self._clock))}
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [told]}}
        try:
            await self._client.patch(
                Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC, subresource="status"
            )
        except (NotFound, Conflict):
            return DONE
        return DONE


def _owner_uid(pod: Pod) -> str:
    reference = controller_of(pod)
    return reference.uid if reference is not None else ""


def _is_stale_candidate(pod: Pod) -> bool:
    if pod.metadata.deletionTimestamp is not None or is_finished(pod):
        return False
    found = condition(pod, TARGET)
    return found is not None and found.status == "True"


def build(env: Environment) -> list[Controller]:
    made = DisruptionController(env)
    return [made.controller, made.stale]
