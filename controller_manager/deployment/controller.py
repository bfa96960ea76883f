"""Acts on the plans of this folder: makes, resizes and removes ReplicaSets, reports the rollout.

Owns: the Deployment loop. Never: touches pods (the ReplicaSet controller does). Called by app.py through `build`.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.models import apps_v1, core_v1
from client.client import PatchType, key_of
from client.controller import DONE, Controller, Result
from client.events import NORMAL, WARNING
from client.informer import EventHandler, Informer
from client.listers import BY_OWNER, owner_uids
from controller_manager import adoption
from controller_manager.deployment import revisions, rolling, status, template
from controller_manager.deployment.rolling import Limits, SetSize
from controller_manager.environment import Environment
from controller_manager.objects import (
    ORPHANS,
    controller_of,
    is_finished,
    orphan_namespace,
    plan_claims,
    spec_replicas,
    status_patch,
)
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

COMPONENT: Final = "deployment-controller"
ROLLING: Final = "RollingUpdate"
RECREATE: Final = "Recreate"
_LEAST_RECHECK: Final = 1.0


class _Rollout:
    """One pass over one Deployment: what was read, kept up to date with what was written."""

    def __init__(self, deployment: apps_v1.Deployment, sets: Sequence[apps_v1.ReplicaSet]) -> None:
        self.deployment = deployment
        self.new, self.old = template.find_new(deployment, sets)

    @property
    def rolling(self) -> bool:
        strategy = self.deployment.spec.strategy
        return strategy is None or strategy.type != RECREATE

    @property
    def desired(self) -> int:
        replicas = self.deployment.spec.replicas
        return 1 if replicas is None else replicas

    @property
    def limits(self) -> Limits:
        if not self.rolling:
            return Limits(self.desired)
        strategy = self.deployment.spec.strategy
        update = strategy.rollingUpdate if strategy is not None else None
        surge, unavailable = rolling.resolve_fenceposts(
            update.maxSurge if update is not None else None,
            update.maxUnavailable if update is not None else None,
            self.desired,
        )
        return Limits(self.desired, surge, unavailable)

    @property
    def sets(self) -> list[apps_v1.ReplicaSet]:
        return [*self.old, *([self.new] if self.new is not None else [])]

    def replaced(self, rs: apps_v1.ReplicaSet) -> None:
        """Take over the answer to a write."""
        if self.new is not None and rs.metadata.uid == self.new.metadata.uid:
            self.new = rs
        else:
            self.old = [rs if rs.metadata.uid == each.metadata.uid else each for each in self.old]


def size_of(rs: apps_v1.ReplicaSet) -> SetSize:
    replicas = rs.spec.replicas or 0
    available = (rs.status.availableReplicas or 0) if rs.status is not None else 0
    return SetSize(
        rs.metadata.name or "",
        replicas,
        min(available, replicas),
        rs.metadata.creationTimestamp,  # type: ignore[arg-type]  # what the server sends has one
        revisions.int_annotation(rs, revisions.MAX),
        revisions.int_annotation(rs, revisions.DESIRED),
    )


class DeploymentController:
    """Reads listers, writes through the client; keeps no state of its own."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._deployments: Informer[apps_v1.Deployment] = env.informers.informer(apps_v1.Deployment)
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace}
        self._sets: Informer[apps_v1.ReplicaSet] = env.informers.informer(apps_v1.ReplicaSet, indexers=indexers)
        self._pods: Informer[core_v1.Pod] = env.informers.informer(core_v1.Pod, indexers=indexers)
        self.controller = Controller(
            "deployment",
            self.reconcile,
            clock=env.clock,
            informers=[self._deployments, self._sets, self._pods],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._deployments)
        self.controller.watches(self._sets, self.deployments_of)
        self._pods.add_handler(EventHandler(on_delete=self._pod_deleted))

    def deployments_of(self, rs: apps_v1.ReplicaSet) -> Iterable[ObjectKey]:
        """The Deployment that owns the set, or those that might adopt it."""
        owner = controller_of(rs)
        if owner is not None:
            return (ObjectKey(rs.metadata.namespace or "", owner.name),) if owner.kind == "Deployment" else ()
        if not rs.metadata.labels:
            return ()
        return [
            key_of(each)
            for each in self._deployments.lister.list(rs.metadata.namespace)
            if LabelSelector.from_object(each.spec.selector).matches(rs.metadata.labels)
        ]

    def _pod_deleted(self, pod: core_v1.Pod) -> None:
        """Recreate waits for the last old pod to be gone; the set's status may not change by then."""
        owner = controller_of(pod)
        if owner is None or owner.kind != "ReplicaSet":
            return
        rs = self._sets.lister.get(ObjectKey(pod.metadata.namespace or "", owner.name))
        for key in self.deployments_of(rs) if rs is not None else ():
            deployment = self._deployments.lister.get(key)
            if deployment is not None and deployment.spec.strategy and deployment.spec.strategy.type == RECREATE:
                self.controller.enqueue(key)

    async def reconcile(self, key: ObjectKey) -> Result:
        deployment = self._deployments.lister.get(key)
        if deployment is None:
            return DONE
        selector = LabelSelector.from_object(deployment.spec.selector)
        if selector.empty:
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._events.event(deployment, WARNING, "SelectingAll", message)
            return DONE
        rollout = _Rollout(deployment, await self._claim(deployment, selector))
        if deployment.metadata.deletionTimestamp is not None:
            return await self._report(rollout, progress=False)
        await self._mark_paused(rollout)
        if deployment.spec.paused or self._is_scaling_event(rollout):
            await self._adopt_new(rollout, create=False)
            await self._scale(rollout)
            if deployment.spec.paused:
                await self._cleanup(rollout)
            return await self._report(rollout, progress=False)
        return await (self._roll(rollout) if rollout.rolling else self._recreate(rollout))

    async def _claim(self, deployment: apps_v1.Deployment, selector: LabelSelector) -> list[apps_v1.ReplicaSet]:
        sets, namespace = self._sets.lister, deployment.metadata.namespace or ""
        candidates = [*sets.by_index(BY_OWNER, deployment.metadata.uid or ""), *sets.by_index(ORPHANS, namespace)]
        return await adoption.settle(self._client, deployment, plan_claims(deployment, selector, candidates))

    async def _patch(
        self, rs: apps_v1.ReplicaSet, patch: dict[str, Any], type_: PatchType = PatchType.MERGE
    ) -> apps_v1.ReplicaSet:
        key = key_of(rs)
        version = rs.metadata.resourceVersion if type_ is PatchType.MERGE else None
        return await self._client.patch(
            apps_v1.ReplicaSet, key.name, patch, key.namespace, type=type_, resource_version=version
        )

    @staticmethod
    def _is_scaling_event(rollout: _Rollout) -> bool:
        """Whether spec.replicas changed since the active sets were sized."""
        return any(
            size.annotated_desired is not None and size.annotated_desired != rollout.desired
            for size in map(size_of, rollout.sets)
            if size.replicas > 0
        )

    # Rollouts

    async def _roll(self, rollout: _Rollout) -> Result:
        await self._adopt_new(rollout, create=True)
        if rollout.new is None:
            return DONE  # its namespace is terminating
        targets = rolling.plan_rolling(rollout.limits, size_of(rollout.new), [size_of(rs) for rs in rollout.old])
        await self._resize(rollout, targets)
        if not targets and self._is_complete(rollout):
            await self._cleanup(rollout)
        return await self._report(rollout, progress=True)

    async def _recreate(self, rollout: _Rollout) -> Result:
        await self._adopt_new(rollout, create=False)
        targets = {rs.metadata.name or "": 0 for rs in rollout.old if rs.spec.replicas}
        if targets:
            await self._resize(rollout, targets)
            return await self._report(rollout, progress=True)
        if self._old_pods_run(rollout):
            return await self._report(rollout, progress=True)
        if rollout.new is None:
            await self._adopt_new(rollout, create=True)
        if rollout.new is not None:
            await self._resize(rollout, {rollout.new.metadata.name or "": rollout.desired})
        if self._is_complete(rollout):
            await self._cleanup(rollout)
        return await self._report(rollout, progress=True)

    def _old_pods_run(self, rollout: _Rollout) -> bool:
        if any(rs.status is not None and rs.status.replicas for rs in rollout.old):
            return True
        pods = (pod for rs in rollout.old for pod in self._pods.lister.by_index(BY_OWNER, rs.metadata.uid or ""))
        return any(not is_finished(pod) for pod in pods)

    def _is_complete(self, rollout: _Rollout) -> bool:
        return rollout.deployment.status is not None and status.is_complete(
            rollout.deployment, rollout.deployment.status
        )

    async def _scale(self, rollout: _Rollout) -> None:
        new = size_of(rollout.new) if rollout.new is not None else None
        old = [size_of(rs) for rs in rollout.old]
        targets = rolling.plan_scale(rollout.limits, rollout.rolling, new, old)
        await self._resize(rollout, targets)
        # Sets that keep their size must still learn the new desired count, or this counts as a scaling event for ever.
        for rs in rollout.sets:
            if rs.spec.replicas and (rs.metadata.name or "") not in targets:
                await self._resize(rollout, {rs.metadata.name or "": spec_replicas(rs)})

    async def _resize(self, rollout: _Rollout, targets: rolling.Targets) -> None:
        limits = rollout.limits
        for rs in rollout.sets:
            target = targets.get(rs.metadata.name or "")
            if target is None:
                continue
            before = spec_replicas(rs)
            wanted: dict[str, str] = revisions.size_annotations(limits.desired, limits.max_surge)
            if target == before and not wanted.items() - revisions.annotations_of(rs).items():
                continue
            patch = {"metadata": {"annotations": wanted}, "spec": {"replicas": target}}
            rollout.replaced(await self._patch(rs, patch))
            if target != before:
                direction = "up" if target > before else "down"
                message = f"Scaled {direction} replica set {rs.metadata.name} from {before} to {target}"
                self._events.event(rollout.deployment, NORMAL, "ScalingReplicaSet", message)

    async def _cleanup(self, rollout: _Rollout) -> None:
        for rs in revisions.plan_cleanup(rollout.deployment.spec.revisionHistoryLimit, rollout.old):
            key = key_of(rs)
            try:
                await self._client.delete(apps_v1.ReplicaSet, key.name, key.namespace, uid=rs.metadata.uid)
            except NotFound:
                continue

    # The new set

    async def _adopt_new(self, rollout: _Rollout, *, create: bool) -> None:
        """Number the new set and the Deployment alike; make the set if it is wanted and missing."""
        revision = max((revisions.revision_of(rs) for rs in rollout.old), default=0) + 1
        if rollout.new is None:
            if create:
                await self._create(rollout, revision)
            return
        rs, spec = rollout.new, rollout.deployment.spec
        existing = revisions.annotations_of(rs)
        annotations = revisions.plan_annotations(rollout.deployment, existing, revision)
        if annotations != existing or (rs.spec.minReadySeconds or 0) != (spec.minReadySeconds or 0):
            patch = {"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": spec.minReadySeconds}}
            rollout.new = await self._patch(rs, patch)
        conditions = status.conditions_of(rollout.deployment)
        if status.has_deadline(rollout.deployment) and status.find(conditions, status.PROGRESSING) is None:
            message = f'Found new replica set "{rs.metadata.name}"'
            found = status.make(self._clock, status.PROGRESSING, "True", status.NEW_SET_FOUND, message)
            await self._write_conditions(rollout, status.put(conditions, found))
        await self._write_revision(rollout, annotations.get(revisions.REVISION, str(revision)))

    async def _create(self, rollout: _Rollout, revision: int) -> None:
        deployment, limits = rollout.deployment, rollout.limits
        total = sum(map(spec_replicas, rollout.old))
        replicas = rolling.new_set_replicas(limits, rollout.rolling, total, 0)
        annotations = revisions.plan_annotations(deployment, {}, revision)
        annotations |= revisions.size_annotations(limits.desired, limits.max_surge)
        wanted = template.new_replica_set(deployment, annotations, replicas)
        created_now = True
        try:
            rollout.new = await self._client.create(wanted)
        except AlreadyExists:
            rollout.new = await self._existing_or_collision(rollout, wanted)
            created_now = False
        except StatusError as error:
            if any(cause.get("reason") == "NamespaceTerminating" for cause in error.causes):
                return
            await self._tell_create_error(rollout, wanted, error)
            raise
        name = rollout.new.metadata.name
        if created_now and replicas > 0:
            message = f"Scaled up replica set {name} from 0 to {replicas}"
            self._events.event(deployment, NORMAL, "ScalingReplicaSet", message)
        if created_now and status.has_deadline(deployment):
            message = f'Created new replica set "{name}"'
            created = status.make(self._clock, status.PROGRESSING, "True", status.NEW_SET_CREATED, message)
            await self._write_conditions(rollout, status.put(status.conditions_of(deployment), created))
        await self._write_revision(rollout, str(revision))

    async def _existing_or_collision(self, rollout: _Rollout, wanted: apps_v1.ReplicaSet) -> apps_v1.ReplicaSet:
        """The set of that name if it is ours (an earlier answer got lost); else count a collision and start over."""
        key, deployment = key_of(wanted), rollout.deployment
        found = await self._client.get(apps_v1.ReplicaSet, key.name, key.namespace)
        owner = controller_of(found)
        ours = owner is not None and owner.uid == deployment.metadata.uid
        if ours and template.same_template(found.spec.template, deployment.spec.template):
            return found
        collisions = (deployment.status.collisionCount or 0) if deployment.status is not None else 0
        await self._write_status(rollout, {"collisionCount": collisions + 1})
        raise Conflict(f"ReplicaSet {key} belongs to something else: trying another hash")

    async def _tell_create_error(self, rollout: _Rollout, wanted: apps_v1.ReplicaSet, error: StatusError) -> None:
        message = f'Failed to create new replica set "{wanted.metadata.name}": {error.message}'
        deployment = rollout.deployment
        if status.has_deadline(deployment):
            failed = status.make(self._clock, status.PROGRESSING, "False", status.SET_CREATE_ERROR, message)
            await self._write_conditions(rollout, status.put(status.conditions_of(deployment), failed))
        self._events.event(deployment, WARNING, status.SET_CREATE_ERROR, message)

    # Writes to the Deployment itself

    async def _mark_paused(self, rollout: _Rollout) -> None:
        """Time spent paused must not count towards the progress deadline."""
        deployment = rollout.deployment
        if not status.has_deadline(deployment):
            return
        conditions = status.conditions_of(deployment)
        current = status.find(conditions, status.PROGRESSING)
        if current is not None and current.reason == status.TIMED_OUT:
            return
        marked = current is not None and current.reason == status.PAUSED
        if bool(deployment.spec.paused) == marked:
            return
        reason, text = (
            (status.PAUSED, "Deployment is paused")
            if deployment.spec.paused
            else (status.RESUMED, "Deployment is resumed")
        )
        mark = status.make(self._clock, status.PROGRESSING, "Unknown", reason, text)
        await self._write_conditions(rollout, status.put(conditions, mark))

    async def _report(self, rollout: _Rollout, *, progress: bool) -> Result:
        deployment = rollout.deployment
        planned = status.count(deployment, rollout.sets, rollout.new, rollout.limits, self._clock)
        if progress:
            planned = status.with_progress(deployment, planned, rollout.sets, rollout.new, self._clock)
        patch = status_patch(deployment.status, planned)
        if patch is not None:
            await self._write_status(rollout, patch["status"])
        current = status.find(status.conditions_of(rollout.deployment), status.PROGRESSING)
        if not progress or current is None or not status.has_deadline(deployment):
            return DONE
        if status.is_complete(deployment, planned) or current.reason == status.TIMED_OUT:
            return DONE
        left = status.deadline_left(rollout.deployment, current, self._clock)
        return Result(requeue_after=max(left, 0.0) + _LEAST_RECHECK)

    async def _write_revision(self, rollout: _Rollout, revision: str) -> None:
        deployment = rollout.deployment
        if revisions.annotations_of(deployment).get(revisions.REVISION) == revision:
            return
        patch = {"metadata": {"annotations": {revisions.REVISION: revision}}}
        # Through the status, as upstream: annotations of a deployment count as a change of its desired state otherwise.
        rollout.deployment = await self._patch_deployment(deployment, patch)

    async def _write_conditions(self, rollout: _Rollout, conditions: Sequence[Any]) -> None:
        planned = apps_v1.DeploymentStatus(conditions=list(conditions))
        patch = status_patch(None, planned)
        if patch is not None:
            await self._write_status(rollout, patch["status"])

    async def _write_status(self, rollout: _Rollout, fields: dict[str, Any]) -> None:
        rollout.deployment = await self._patch_deployment(rollout.deployment, {"status": fields})

    async def _patch_deployment(self, deployment: apps_v1.Deployment, patch: dict[str, Any]) -> apps_v1.Deployment:
        key = key_of(deployment)
        return await self._client.patch(
            apps_v1.Deployment,
            key.name,
            patch,
            key.namespace,
            subresource="status",
            resource_version=deployment.metadata.resourceVersion,
        )


def build(env: Environment) -> list[Controller]:
    return [DeploymentController(env).controller]
