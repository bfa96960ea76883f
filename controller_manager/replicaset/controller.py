"""Acts on the plans of plan.py: creates, adopts, releases and deletes pods, reports status.

Owns: the loops of ReplicaSets and ReplicationControllers (the same reconciler over two kinds). Never: decides how many
or which. Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api import resources
from api.models import apps_v1, core_v1, meta_v1
from client.client import key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import Informer
from client.listers import BY_OWNER, copied, owner_uids
from controller_manager import adoption
from controller_manager.environment import Environment
from controller_manager.objects import (
    ORPHANS,
    controller_of,
    controller_reference,
    is_active,
    orphan_namespace,
    plan_claims,
    status_patch,
    wall_seconds,
)
from controller_manager.replicaset.plan import Counts, observe, plan_batches, plan_replicas, related_owner
from machinery.errors import Conflict, NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

BY_SIBLINGS: Final = "siblings"
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"


@dataclass(frozen=True)
class ReplicaKind:
    """What differs between the two kinds that keep replicas."""

    model: Any
    component: str
    selector: Callable[[Any], LabelSelector]
    status_model: Any
    condition_model: Any
    reports_terminating: bool


REPLICA_SET: Final = ReplicaKind(
    apps_v1.ReplicaSet,
    "replicaset-controller",
    lambda rs: LabelSelector.from_object(rs.spec.selector),
    apps_v1.ReplicaSetStatus,
    apps_v1.ReplicaSetCondition,
    True,
)
REPLICATION_CONTROLLER: Final = ReplicaKind(
    core_v1.ReplicationController,
    "replication-controller",
    lambda rc: LabelSelector.from_labels(rc.spec.selector),
    core_v1.ReplicationControllerStatus,
    core_v1.ReplicationControllerCondition,
    False,
)


class ReplicaSetController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment, kind: ReplicaKind) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(kind.component)
        self._kind = kind
        self._resource = resources.of(kind.model)
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace}
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers=indexers)
        self._sets: Informer[Any] = env.informers.informer(kind.model, indexers={BY_SIBLINGS: owner_uids})
        self.controller = Controller(
            self._resource.singular,
            self.reconcile,
            clock=env.clock,
            informers=[self._sets, self._pods],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._sets)
        self.controller.watches(self._pods, self.sets_of)

    def sets_of(self, pod: core_v1.Pod) -> Iterable[ObjectKey]:
        """The set that owns the pod, or those that might adopt it."""
        owner = controller_of(pod)
        if owner is not None:
            key = ObjectKey(pod.metadata.namespace or "", owner.name)
            found = self._sets.lister.get(key) if owner.kind == self._resource.kind else None
            return (key,) if found is not None and found.metadata.uid == owner.uid else ()
        if pod.metadata.deletionTimestamp is not None or not pod.metadata.labels:
            return ()
        candidates = self._sets.lister.list(pod.metadata.namespace)
        return [key_of(rs) for rs in candidates if self._kind.selector(rs).matches(pod.metadata.labels)]

    async def reconcile(self, key: ObjectKey) -> Result:
        rs = self._sets.lister.get(key)
        if rs is None:
            return DONE  # its pods belong to the garbage collector
        owned = await self._claim(rs)
        failure: tuple[str, StatusError] | None = None
        if rs.metadata.deletionTimestamp is None:
            failure = await self._manage(rs, owned)
        labels = rs.spec.template.metadata.labels if rs.spec.template and rs.spec.template.metadata else None
        counts = observe(owned, labels, rs.spec.minReadySeconds or 0, self._clock)
        await self._report(rs, counts, failure)
        if failure is not None:
            raise failure[1]
        return Result(requeue_after=counts.recheck)

    async def _claim(self, rs: Any) -> list[core_v1.Pod]:
        pods = self._pods.lister
        candidates = [*pods.by_index(BY_OWNER, rs.metadata.uid), *pods.by_index(ORPHANS, rs.metadata.namespace)]
        claims = plan_claims(rs, self._kind.selector(rs), candidates)
        return await adoption.settle(self._client, rs, claims._replace(adopt=list(filter(is_active, claims.adopt))))

    async def _manage(self, rs: Any, owned: Sequence[core_v1.Pod]) -> tuple[str, StatusError] | None:
        """Create or delete what is missing or too much; returns the reason and the first error of a failure."""
        replicas = rs.spec.replicas if rs.spec.replicas is not None else 1
        related = self._related(rs) if len(owned) > replicas else owned
        plan = plan_replicas(replicas, owned, related, self._clock.now())
        if plan.create:
            error = await self._create(rs, plan.create)
            return None if error is None else ("FailedCreate", error)
        if plan.delete:
            error = await self._delete(rs, plan.delete)
            return None if error is None else ("FailedDelete", error)
        return None

    def _related(self, rs: Any) -> list[core_v1.Pod]:
        """The pods of all sets with the same owner (a Deployment): deletion spreads over nodes among them."""
        uid = related_owner(rs)
        siblings = self._sets.lister.by_index(BY_SIBLINGS, uid) if uid else [rs]
        return [pod for sibling in siblings for pod in self._pods.lister.by_index(BY_OWNER, sibling.metadata.uid)]

    async def _create(self, rs: Any, count: int) -> StatusError | None:
        for batch in plan_batches(count):
            errors = [error for error in await _gather([self._create_pod(rs) for _ in range(batch)]) if error]
            if errors:
                return errors[0]
        return None

    async def _create_pod(self, rs: Any) -> StatusError | None:
        try:
            pod = await self._client.create(pod_from_template(rs))
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return None  # every further try would fail too, and the set is about to go
            self._events.event(rs, WARNING, "FailedCreate", f"Error creating: {error.message}")
            return error
        self._events.event(rs, NORMAL, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
        return None

    async def _delete(self, rs: Any, victims: Sequence[core_v1.Pod]) -> StatusError | None:
        errors = await _gather([self._delete_pod(rs, pod) for pod in victims])
        return next((error for error in errors if error), None)

    async def _delete_pod(self, rs: Any, pod: core_v1.Pod) -> StatusError | None:
        key = key_of(pod)
        try:
            await self._client.delete(core_v1.Pod, key.name, key.namespace, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return None  # gone already, or another pod of that name by now
        except StatusError as error:
            self._events.event(rs, WARNING, "FailedDelete", f"Error deleting: {error.message}")
            return error
        self._events.event(rs, NORMAL, "SuccessfulDelete", f"Deleted pod: {key.name}")
        return None

    async def _report(self, rs: Any, counts: Counts, failure: tuple[str, StatusError] | None) -> None:
        status = self._kind.status_model(
            replicas=counts.replicas,
            fullyLabeledReplicas=counts.fully_labeled or None,
            readyReplicas=counts.ready or None,
            availableReplicas=counts.available or None,
            observedGeneration=rs.metadata.generation,
            conditions=self._conditions(rs, failure),
        )
        if self._kind.reports_terminating:
            status.terminatingReplicas = counts.terminating
        patch = status_patch(rs.status, status)
        if patch is None:
            return
        key = key_of(rs)
        await self._client.patch(
            self._kind.model,
            key.name,
            patch,
            key.namespace,
            subresource="status",
            resource_version=rs.metadata.resourceVersion,
        )

    def _conditions(self, rs: Any, failure: tuple[str, StatusError] | None) -> list[Any] | None:
        kept = list(rs.status.conditions or ()) if rs.status is not None else []
        others = [each for each in kept if each.type != "ReplicaFailure"]
        if failure is not None:
            reason, error = failure
            if len(others) < len(kept):
                return kept  # told already; its transition time must stay
            others.append(
                self._kind.condition_model(
                    type="ReplicaFailure",
                    status="True",
                    lastTransitionTime=wall_seconds(self._clock),
                    reason=reason,
                    message=error.message,
                )
            )
        return others or None


def pod_from_template(rs: Any) -> core_v1.Pod:
    """A pod as the set's template describes it, owned by the set."""
    template = rs.spec.template
    metadata = template.metadata or meta_v1.ObjectMeta()
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            generateName=f"{rs.metadata.name}-",
            namespace=rs.metadata.namespace,
            labels=dict(metadata.labels or {}) or None,
            annotations=dict(metadata.annotations or {}) or None,
            finalizers=list(metadata.finalizers or ()) or None,
            ownerReferences=[controller_reference(rs)],
        ),
        spec=copied(template.spec) if template.spec is not None else None,
    )


async def _gather(coroutines: Sequence[Any]) -> list[StatusError | None]:
    if len(coroutines) == 1:
        return [await coroutines[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
    return [task.result() for task in tasks]


def build_replicaset(env: Environment) -> list[Controller]:
    return [ReplicaSetController(env, REPLICA_SET).controller]


def build_replication_controller(env: Environment) -> list[Controller]:
    return [ReplicaSetController(env, REPLICATION_CONTROLLER).controller]
