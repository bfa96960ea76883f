"""ControllerRevisions: the past templates of a StatefulSet or DaemonSet, as `kubectl rollout history` reads them.

plan_revision and plan_truncation decide, History acts. Called by the StatefulSet and the DaemonSet controller.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from api.models import apps_v1, core_v1, meta_v1
from client.client import Client, PatchType, key_of
from client.informer import Informer, Informers
from client.listers import BY_OWNER, owner_uids
from controller_manager.deployment.template import template_hash
from controller_manager.objects import ORPHANS, adoption_patch, controller_reference, orphan_namespace, plan_claims
from machinery.errors import AlreadyExists, Conflict, NotFound
from machinery.selectors import LabelSelector

Revision = apps_v1.ControllerRevision


def data_of(template: core_v1.PodTemplateSpec) -> dict[str, Any]:
    """What a revision stores: the strategic merge patch that brings the template back."""
    plain: dict[str, Any] = msgspec.to_builtins(template)
    return {"spec": {"template": {**plain, "$patch": "replace"}}}


def template_of(revision: Revision) -> core_v1.PodTemplateSpec:
    """The template that a revision stores."""
    plain = dict(((revision.data or {}).get("spec") or {}).get("template") or {})
    plain.pop("$patch", None)
    return msgspec.convert(plain, core_v1.PodTemplateSpec)


def same_data(revision: Revision, data: dict[str, Any]) -> bool:
    """Whether the revision stores this template (fields that the models do not know are not compared)."""
    if revision.data == data:
        return True
    try:
        return data_of(template_of(revision)) == data
    except msgspec.ValidationError:
        return False


def by_number(revisions: Iterable[Revision]) -> list[Revision]:
    """Oldest first."""
    return sorted(revisions, key=lambda each: (each.revision, each.metadata.creationTimestamp, each.metadata.name))


class RevisionPlan(NamedTuple):
    """The revision of the present template (None: make one) and the number it should have."""

    found: Revision | None
    number: int


def plan_revision(revisions: Sequence[Revision], data: dict[str, Any]) -> RevisionPlan:
    """Reuse the revision with this template, as the newest; numbers only grow."""
    ordered = by_number(revisions)
    highest = ordered[-1].revision if ordered else 0
    equal = [each for each in ordered if same_data(each, data)]
    if not equal:
        return RevisionPlan(None, highest + 1)
    return RevisionPlan(equal[-1], highest if equal[-1] is ordered[-1] else highest + 1)


def plan_truncation(revisions: Sequence[Revision], live: Collection[str], limit: int) -> list[Revision]:
    """The oldest revisions beyond the limit that no pod and no status names."""
    idle = [each for each in by_number(revisions) if (each.metadata.name or "") not in live]
    return idle[: max(0, len(idle) - limit)]


class History:
    """Reads and writes the revisions of one kind of owner."""

    def __init__(self, client: Client, informers: Informers, model: Any, hash_label: str) -> None:
        self._client = client
        self._model = model
        self._hash_label = hash_label
        indexers = {BY_OWNER: owner_uids, ORPHANS: orphan_namespace}
        self.informer: Informer[Revision] = informers.informer(Revision, indexers=indexers)

    async def claim(self, owner: Any) -> list[Revision]:
        """The owner's revisions; matching orphans are adopted."""
        lister = self.informer.lister
        candidates = [
            *lister.by_index(BY_OWNER, owner.metadata.uid or ""),
            *lister.by_index(ORPHANS, owner.metadata.namespace or ""),
        ]
        claims = plan_claims(owner, LabelSelector.from_object(owner.spec.selector), candidates)
        owned: list[Revision] = [*claims.owned, *claims.release]  # its template's labels may have changed since
        if claims.adopt:
            live = await self._client.get(self._model, owner.metadata.name or "", owner.metadata.namespace)
            if live.metadata.uid != owner.metadata.uid or live.metadata.deletionTimestamp is not None:
                raise Conflict(f"{key_of(owner)} was replaced or is being deleted: it adopts nothing")
        for each in claims.adopt:
            owned.append(await self._patch(each, adoption_patch(owner, each), PatchType.STRATEGIC))
        return owned

    async def _patch(self, revision: Revision, patch: dict[str, Any], type_: PatchType) -> Revision:
        key = key_of(revision)
        return await self._client.patch(Revision, key.name, patch, key.namespace, type=type_)

    async def present(
        self, owner: Any, revisions: list[Revision], collided: Callable[[], int]
    ) -> tuple[Revision, list[Revision]]:
        """The revision of the owner's present template, made or renumbered if need be, and all revisions with it.

        `collided` is called when a revision's name is taken by another template; it returns the count of collisions.
        """
        data = data_of(owner.spec.template)
        plan = plan_revision(revisions, data)
        if plan.found is not None:
            if plan.found.revision == plan.number:
                return plan.found, revisions
            patched = await self._patch(plan.found, {"revision": plan.number}, PatchType.MERGE)
            return patched, [patched if each is plan.found else each for each in revisions]
        collisions = (owner.status.collisionCount or 0) if owner.status is not None else 0
        while True:
            wanted = self._new(owner, data, plan.number, collisions)
            try:
                made = await self._client.create(wanted)
            except AlreadyExists:
                name, namespace = wanted.metadata.name or "", owner.metadata.namespace
                existing = await self._client.get(Revision, name, namespace)
                owners = existing.metadata.ownerReferences or ()
                if same_data(existing, data) and any(each.uid == owner.metadata.uid for each in owners):
                    return existing, [*revisions, existing]
                collisions = collided()
                continue
            return made, [*revisions, made]

    def _new(self, owner: Any, data: dict[str, Any], number: int, collisions: int) -> Revision:
        digest = template_hash(owner.spec.template, collisions)
        labels = dict((owner.spec.template.metadata.labels if owner.spec.template.metadata else None) or {})
        return Revision(
            metadata=meta_v1.ObjectMeta(
                name=f"{owner.metadata.name}-{digest}",
                namespace=owner.metadata.namespace,
                labels={**labels, self._hash_label: digest},
                annotations=dict(owner.metadata.annotations or {}) or None,
                ownerReferences=[controller_reference(owner)],
            ),
            data=data,
            revision=number,
        )

    async def truncate(self, revisions: Sequence[Revision], live: Collection[str], limit: int | None) -> None:
        """Delete what the history limit does not cover."""
        for each in plan_truncation(revisions, live, 10 if limit is None else limit):
            key = key_of(each)
            try:
                await self._client.delete(Revision, key.name, key.namespace, uid=each.metadata.uid)
            except NotFound:
                continue
