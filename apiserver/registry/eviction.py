"""`pods/{name}/eviction`: a deletion that asks the pod's disruption budget first.

Owns the rules of the Eviction API: which pods need no budget, what a budget allows, the condition that tells why a
pod went. The budget is computed by the disruption controller. Registered with the pods' store by the registry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apiserver.registry import deletion
from apiserver.registry.context import DeleteOptions, RequestContext
from apiserver.storage.form import decode, encode
from machinery.clock import Clock
from machinery.errors import BadRequest, Cause, Conflict, Forbidden, InternalError, TooManyRequests
from machinery.meta import rfc3339
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from apiserver.registry.store import Registry
    from apiserver.registry.writing import ResourceStore

Obj = dict[str, Any]

MOST_DISRUPTED = 2000
RETRY_AFTER = 10
TRIES = 20
PAUSE = 0.1  # cluster seconds between them
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


def needs_no_budget(pod: Obj) -> bool:
    """Pods that are not serving anybody: finished, not started, or already going."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


def needs_no_disruption(pod: Obj, budget: Obj) -> bool:
    """May an unready pod go without using up the budget?"""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions):
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return bool(desired > 0 and (status.get("currentHealthy") or 0) >= desired)


def plan_disruption(budget: Obj, pod_name: str, now: str) -> Obj:
    """The budget's status after this disruption. Raises TooManyRequests or Forbidden."""
    meta, status = budget["metadata"], budget.get("status") or {}
    name, generation = meta["name"], meta.get("generation") or 0
    if (status.get("observedGeneration") or 0) < generation:
        raise _not_now(name)
    allowed = status.get("disruptionsAllowed") or 0
    disrupted = status.get("disruptedPods") or {}
    if allowed < 0:
        raise Forbidden.of("poddisruptionbudgets", name, "policy", "pdb disruptions allowed is negative")
    if len(disrupted) > MOST_DISRUPTED:
        text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise Forbidden.of("poddisruptionbudgets", name, "policy", text)
    if allowed == 0:
        desired, current = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        text = f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        raise TooManyRequests.of(REFUSED, 0, [Cause("DisruptionBudget", text)])
    changed = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": {**disrupted, pod_name: now}}
    if allowed == 1:
        changed["conditions"] = _with_condition(
            status.get("conditions") or [],
            {
                "type": "DisruptionAllowed",
                "status": "False",
                "observedGeneration": generation,
                "lastTransitionTime": now,
                "reason": "InsufficientPods",
                "message": "",
            },
        )
    return changed


def _not_now(budget_name: str) -> TooManyRequests:
    text = f"The disruption budget {budget_name} is still being processed by the server."
    return TooManyRequests.of(REFUSED, RETRY_AFTER, [Cause("DisruptionBudget", text)])


def _with_condition(conditions: list[Obj], condition: Obj) -> list[Obj]:
    """The conditions with one set; its transition time is kept when its status does not change."""
    out = []
    for each in conditions:
        if each.get("type") == condition["type"]:
            if each.get("status") == condition["status"] and each.get("lastTransitionTime"):
                condition = {**condition, "lastTransitionTime": each["lastTransitionTime"]}
        else:
            out.append(each)
    return [*out, condition]


def _version(pod: Obj) -> str:
    return str(pod["metadata"]["resourceVersion"])


class Evictions:
    """Carries an eviction out."""

    def __init__(self, registry: Registry, pods: ResourceStore, clock: Clock) -> None:
        self._registry = registry
        self._pods = pods
        self._clock = clock

    async def create(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> bytes:
        """The answer to `POST …/eviction`."""
        if (body.get("metadata") or {}).get("name") != name:
            raise BadRequest("name in URL does not match name in Eviction object")
        given = body.get("deleteOptions") or {}
        if "All" in (given.get("dryRun") or ()):
            ctx.dry_run = True
        preconditions = given.get("preconditions") or {}
        options = DeleteOptions(
            grace_period_seconds=given.get("gracePeriodSeconds"),
            propagation_policy=given.get("propagationPolicy"),
            uid=preconditions.get("uid") or "",
            resource_version=preconditions.get("resourceVersion") or "",
        )
        pod = decode(await self._pods.get(ctx, namespace, name))
        for _ in range(TRIES):
            try:
                await self._evict(ctx, namespace, pod, options)
                break
            except Conflict:
                latest = decode(await self._pods.get(ctx, namespace, name))
                if not self._may_start(pod, options) or _version(latest) == _version(pod):
                    raise
                pod = latest
            await self._clock.sleep(PAUSE)
        else:
            raise Conflict.of("pods", name)
        return encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    @staticmethod
    def _may_start(pod: Obj, options: DeleteOptions) -> bool:
        """Whether we, not the client, hold on to the version of a pod that needs no budget only for now."""
        pending = (pod.get("status") or {}).get("phase") == "Pending"
        return pending and not pod["metadata"].get("deletionTimestamp") and not options.resource_version

    async def _evict(self, ctx: RequestContext, namespace: str, pod: Obj, asked: DeleteOptions) -> None:
        """One attempt. A pod that goes without its budget goes as it was when that was decided, or not at all."""
        options = replace(asked, uid=asked.uid or pod["metadata"]["uid"])
        unready_under = ""
        if needs_no_budget(pod):
            if self._may_start(pod, asked):
                options = replace(options, resource_version=_version(pod))
        else:
            unready_under = await self._spend(ctx, namespace, pod)
            if unready_under and not asked.resource_version:
                options = replace(options, resource_version=_version(pod))
        name = pod["metadata"]["name"]
        try:
            if not ctx.dry_run:
                told = await self._tell_why(ctx, namespace, name, options)
                if options.resource_version:
                    options = replace(options, resource_version=_version(told))
            await self._pods.delete(ctx, namespace, name, options)
        except Conflict:
            if unready_under and not asked.resource_version:
                raise _not_now(unready_under) from None
            raise

    async def _spend(self, ctx: RequestContext, namespace: str, pod: Obj) -> str:
        """Count the disruption; the name of the budget that lets the pod go uncounted because it is not ready."""
        budgets = self._registry.resource("policy", "v1", "poddisruptionbudgets")
        await budgets.sync()
        labels = pod["metadata"].get("labels") or {}
        found = []
        for entry in budgets.entries(namespace):
            budget = entry.decoded()
            if LabelSelector.from_object((budget.get("spec") or {}).get("selector")).matches(labels):
                found.append(budget)
        if not found:
            return ""
        if len(found) > 1:
            raise InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        name, now = found[0]["metadata"]["name"], rfc3339(self._clock.now())
        if needs_no_disruption(pod, found[0]):
            return str(name)
        pod_name = pod["metadata"]["name"]
        if ctx.dry_run:
            plan_disruption(found[0], pod_name, now)
            return ""
        server = replace(ctx, field_manager="kube-apiserver")

        def spent(budget: Obj) -> Obj:
            return {**budget, "status": plan_disruption(budget, pod_name, now)}

        await budgets.mutate(server, namespace, name, spent, "status", budgets.tracker)
        return ""

    async def _tell_why(self, ctx: RequestContext, namespace: str, name: str, options: DeleteOptions) -> Obj:
        """Raises Conflict when the pod is not the one that is meant (any more)."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(self._clock.now()),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }

        def change(pod: Obj) -> Obj:
            deletion.check_preconditions(pod, options, "Pod", "")
            status = pod.get("status") or {}
            conditions = _with_condition(status.get("conditions") or [], condition)
            return {**pod, "status": {**status, "conditions": conditions}}

        told: Obj = decode(await self._pods.mutate(ctx, namespace, name, change, "status"))
        return told
