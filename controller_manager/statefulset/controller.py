"""Acts on the plans of this folder: makes and deletes a StatefulSet's pods and claims, reports its status.

Owns: the StatefulSet loop. Never: deletes a pod by force (on a dead node it stays until the node is back or somebody
who knows forces it), nor a claim (the garbage collector does, by the owners set here). Called by app.py.
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
from controller_manager.environment import Environment
from controller_manager.failure_memory import FailureMemory
from controller_manager.history import History, Revision, template_of
from controller_manager.objects import (
    ORPHANS,
    controller_of,
    is_terminating,
    orphan_namespace,
    plan_claims,
    status_patch,
)
from controller_manager.replicaset.controller import NAMESPACE_TERMINATING
from controller_manager.replicaset.plan import plan_batches
from controller_manager.side_by_side import side_by_side
from controller_manager.statefulset import identity, plan
from controller_manager.statefulset.plan import Creation, Step
from machinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from machinery.meta import ObjectKey
from machinery.selectors import LabelSelector

COMPONENT: Final = "statefulset-controller"
HASH_LABEL: Final = "controller.kubernetes.io/hash"

Set = apps_v1.StatefulSet
Pod = core_v1.Pod


class StatefulSetController:
    """Reads listers, writes through the client."""

    def __init__(self, env: Environment) -> None:
        self._client = env.client
        self._clock = env.clock
        self._events = env.recorder(COMPONENT)
        self._failures = FailureMemory(env.clock)
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace}
        self._pods: Informer[Pod] = env.informers.informer(Pod, indexers=indexers)
        self._sets: Informer[Set] = env.informers.informer(Set)
        self._claims: Informer[Any] = env.informers.informer(core_v1.PersistentVolumeClaim)
        self._history = History(env.client, env.informers, Set, HASH_LABEL)
        self.controller = Controller(
            "statefulset",
            self.reconcile,
            clock=env.clock,
            informers=[self._sets, self._pods, self._claims, self._history.informer],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._sets)
        self.controller.watches(self._pods, self.sets_of)
        self._claims.add_handler(EventHandler(on_delete=self._claim_gone))

    def sets_of(self, pod: Pod) -> Iterable[ObjectKey]:
        """The set that owns the pod, or those that might adopt it."""
        owner = controller_of(pod)
        if owner is not None:
            return (ObjectKey(pod.metadata.namespace or "", owner.name),) if owner.kind == "StatefulSet" else ()
        if pod.metadata.deletionTimestamp is not None or not pod.metadata.labels:
            return ()
        return [
            key_of(each)
            for each in self._sets.lister.list(pod.metadata.namespace)
            if LabelSelector.from_object(each.spec.selector).matches(pod.metadata.labels)
            and identity.ordinal_of(each, pod) is not None
        ]

    def _claim_gone(self, claim: Any) -> None:
        """A pod may have waited for that."""
        for each in self._sets.lister.list(claim.metadata.namespace):
            prefixes = (f"{template.metadata.name}-{each.metadata.name}-" for template in identity.templates(each))
            if any(claim.metadata.name.startswith(prefix) for prefix in prefixes):
                self.controller.enqueue(key_of(each))

    async def reconcile(self, key: ObjectKey) -> Result:
        set_ = self._sets.lister.get(key)
        if set_ is None:
            return DONE
        collisions = (set_.status.collisionCount or 0) if set_.status is not None else 0

        def collided() -> int:
            nonlocal collisions
            collisions += 1
            return collisions

        revisions = await self._history.claim(set_)
        pods = await self._claim(set_)
        if set_.metadata.deletionTimestamp is not None:
            return DONE
        update, revisions = await self._history.present(set_, revisions, collided)
        named = set_.status.currentRevision if set_.status is not None else None
        current = next((each for each in revisions if each.metadata.name == named), update)
        current_name, update_name = current.metadata.name or "", update.metadata.name or ""
        step = plan.plan_step(set_, pods, update_name, self._clock)
        failure: StatusError | None = None
        wait: float | None = None
        try:
            await self._keep_identity(set_, pods)
            await self._keep_claims(set_, pods)  # first: a pod that goes for good must own its claim while it lives
            wait = await self._act(set_, step, current, update)
        except StatusError as error:
            failure = error
        status, recheck = plan.observe(set_, pods, current_name, update_name, collisions, self._clock)
        await self._report(set_, status)
        if failure is not None:
            raise failure
        live = {current_name, update_name, status.currentRevision or "", *map(identity.revision_of, pods)}
        await self._history.truncate(revisions, live, set_.spec.revisionHistoryLimit)
        waits = [each for each in (step.wait, wait, recheck) if each is not None]
        return Result(requeue_after=min(waits, default=None))

    async def _report(self, set_: Set, status: apps_v1.StatefulSetStatus) -> None:
        patch = status_patch(set_.status, status)
        if patch is None:
            return
        key, version = key_of(set_), set_.metadata.resourceVersion
        await self._client.patch(Set, key.name, patch, key.namespace, subresource="status", resource_version=version)

    async def _claim(self, set_: Set) -> list[Pod]:
        pods, namespace = self._pods.lister, set_.metadata.namespace or ""
        orphans = [pod for pod in pods.by_index(ORPHANS, namespace) if identity.ordinal_of(set_, pod) is not None]
        candidates = [*pods.by_index(BY_OWNER, set_.metadata.uid or ""), *orphans]
        claims = plan_claims(set_, LabelSelector.from_object(set_.spec.selector), candidates)

        def named(pod: Pod) -> dict[str, Any]:
            return {"labels": identity.labels_of(set_, identity.ordinal_of(set_, pod) or 0)}

        return await adoption.settle(self._client, set_, claims, adopted=named)

    # Steps

    async def _act(self, set_: Set, step: Step, current: Revision, update: Revision) -> float | None:
        """Carry out the step; returns how long to wait before a pod that fails again and again is made once more."""
        rest = list(step.create)
        for size in plan_batches(len(rest)):
            batch, rest = rest[:size], rest[size:]
            await side_by_side([self._create(set_, each, current, update) for each in batch])
        waits: list[float] = []
        recreate: list[Pod] = []
        for pod in step.recreate:
            failed = pod.status is not None and pod.status.phase == "Failed"
            wait = self._failures.wait(set_.metadata.uid or "", pod.metadata.name or "") if failed else 0.0
            if wait > 0:
                waits.append(wait)
                continue
            recreate.append(pod)
            reason, word = ("RecreatingFailedPod", "failed") if failed else ("RecreatingTerminatedPod", "terminated")
            message = f"StatefulSet {key_of(set_)} is recreating {word} Pod {pod.metadata.name}"
            self._events.event(set_, WARNING if failed else NORMAL, reason, message)
        await side_by_side([self._delete(set_, pod) for pod in [*recreate, *step.delete]])
        return min(waits, default=None)

    async def _create(self, set_: Set, wanted: Creation, current: Revision, update: Revision) -> None:
        self._refuse_condemned_claims(set_, wanted.ordinal)
        await self._create_claims(set_, wanted.ordinal)
        revision = update if wanted.updated else current
        template = set_.spec.template if wanted.updated else template_of(revision)
        pod = identity.pod_for(set_, wanted.ordinal, template, revision.metadata.name or "")
        subject = f"Pod {pod.metadata.name} in StatefulSet {set_.metadata.name}"
        try:
            await self._client.create(pod)
        except AlreadyExists as error:
            # Either our cache is behind, or the name is another owner's: in both cases look again later.
            raise Conflict(error.message) from error
        except StatusError as error:
            if any(cause.get("reason") == NAMESPACE_TERMINATING for cause in error.causes):
                return
            self._events.event(set_, WARNING, "FailedCreate", f"create {subject} failed error: {error.message}")
            raise
        self._events.event(set_, NORMAL, "SuccessfulCreate", f"create {subject} successful")

    async def _delete(self, set_: Set, pod: Pod) -> None:
        key = key_of(pod)
        subject = f"Pod {key.name} in StatefulSet {set_.metadata.name}"
        try:
            await self._client.delete(Pod, key.name, key.namespace, uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return
        except StatusError as error:
            self._events.event(set_, WARNING, "FailedDelete", f"delete {subject} failed error: {error.message}")
            raise
        self._events.event(set_, NORMAL, "SuccessfulDelete", f"delete {subject} successful")

    async def _keep_identity(self, set_: Set, pods: Sequence[Pod]) -> None:
        """Give pods back the labels that tell which they are, should somebody have taken them."""
        for ordinal, pod in plan.sort_out(set_, pods).wanted.items():
            wanted = identity.labels_of(set_, ordinal)
            if is_terminating(pod) or wanted.items() <= (pod.metadata.labels or {}).items():
                continue
            key, patch = key_of(pod), {"metadata": {"uid": pod.metadata.uid, "labels": wanted}}
            subject = f"Pod {key.name} in StatefulSet {set_.metadata.name}"
            try:
                await self._client.patch(Pod, key.name, patch, key.namespace, type=PatchType.STRATEGIC)
            except (NotFound, Conflict):
                continue
            except StatusError as error:
                self._events.event(set_, WARNING, "FailedUpdate", f"update {subject} failed error: {error.message}")
                raise
            self._events.event(set_, NORMAL, "SuccessfulUpdate", f"update {subject} successful")

    # Claims

    def _refuse_condemned_claims(self, set_: Set, ordinal: int) -> None:
        """A pod on a claim that is about to go would be stuck with it: wait until it is gone. Raises Conflict."""
        for wanted in identity.claims_for(set_, ordinal):
            claim = self._claims.lister.get(key_of(wanted))
            if claim is not None and identity.is_condemned(set_, claim, ordinal):
                raise Conflict(f"claim {key_of(claim)} is being deleted")

    async def _create_claims(self, set_: Set, ordinal: int) -> None:
        for claim in identity.claims_for(set_, ordinal):
            if self._claims.lister.get(key_of(claim)) is not None:
                continue
            pod = identity.pod_name(set_, ordinal)
            try:
                await self._client.create(claim)
            except AlreadyExists:
                continue
            except StatusError as error:
                subject = f"Claim {claim.metadata.name} for Pod {pod} in StatefulSet {set_.metadata.name}"
                self._events.event(set_, WARNING, "FailedCreate", f"create {subject} failed error: {error.message}")
                raise
            message = f"create Claim {claim.metadata.name} Pod {pod} in StatefulSet {set_.metadata.name} success"
            self._events.event(set_, NORMAL, "SuccessfulCreate", message)

    async def _keep_claims(self, set_: Set, pods: Sequence[Pod]) -> None:
        """Bring the owners of the pods' claims in line with the retention policy; make claims that were deleted."""
        if not identity.templates(set_):
            return
        members = plan.sort_out(set_, pods)
        condemned = dict(members.condemned)
        namespace = set_.metadata.namespace or ""
        for ordinal, pod in {**members.wanted, **condemned}.items():
            if ordinal not in condemned and pod.status is not None and pod.status.phase == "Pending":
                await self._create_claims(set_, ordinal)
            for template in identity.templates(set_):
                name = identity.claim_name(set_, template, ordinal)
                claim = self._claims.lister.get(ObjectKey(namespace, name))
                if claim is None:
                    continue
                owners = identity.plan_claim_owners(set_, claim, pod, condemned=ordinal in condemned)
                if owners is not None:
                    patch = {"metadata": {"ownerReferences": owners}}
                    version = claim.metadata.resourceVersion
                    await self._client.patch(
                        core_v1.PersistentVolumeClaim, name, patch, namespace, resource_version=version
                    )


def build(env: Environment) -> list[Controller]:
    return [StatefulSetController(env).controller]
