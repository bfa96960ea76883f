"""Namespaces: empties a namespace that is being deleted, kind by kind, and lets it go when nothing is left.

Owns: the contents of terminating namespaces, the conditions that say what remains, the `kubernetes` finalizer. Pods go
first and must be gone before the rest (KEP-5080): they may need the ConfigMaps, Secrets and policies around them.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from api import resources
from api.models import core_v1
from api.resources import Resource
from client.client import Client
from client.controller import DONE, Controller, Result
from client.informer import Informer
from client.kinds import View
from controller_manager.environment import Environment
from controller_manager.kinds import Kinds
from controller_manager.objects import wall_seconds
from machinery.clock import Clock
from machinery.errors import MethodNotAllowed, NotFound, StatusError
from machinery.meta import ObjectKey, rfc3339

FINALIZER: Final = "kubernetes"
FIRST_LOOK, LAST_LOOK = 1.0, 8.0
"""Cluster seconds between looks at what is still there (its finalizers and graces end without telling us): often at
first, then ever more rarely, for what has been held for long is held by somebody who takes his time."""
_SLOWING: Final = 4
_PODS: Final = resources.of(core_v1.Pod)
_NAMESPACES: Final = resources.of(core_v1.Namespace)


class _Metadata(msgspec.Struct, gc=False):
    finalizers: list[str] | None = None


class _Partial(msgspec.Struct, gc=False):
    metadata: _Metadata


class Remains(NamedTuple):
    """What is still there of one kind after it was told to go."""

    resource: Resource
    left: int
    finalizers: tuple[str, ...]


def plan_conditions(
    old: Sequence[Any], remains: Sequence[Remains], failures: Sequence[str], clock: Clock, undiscovered: str = ""
) -> list[dict[str, Any]]:
    """Upstream's five conditions of a terminating namespace; a condition that does not change keeps its time."""
    remaining = [each for each in remains if each.left]
    held: Counter[str] = Counter()
    for each in remaining:
        held.update(each.finalizers)
    shown = sorted(f"{each.resource.plural}.{each.resource.group} has {each.left}" for each in remaining)
    content = ", ".join(f"{text} resource instances" for text in shown)
    finalizers = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
    facts = [
        ("NamespaceDeletionDiscoveryFailure", True, "DiscoveryFailed", undiscovered)
        if undiscovered
        else (
            "NamespaceDeletionDiscoveryFailure",
            False,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            False,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            True,
            "ContentDeletionFailed",
            f"Failed to delete all resource types, {len(failures)} remaining: {', '.join(sorted(failures))}",
        )
        if failures
        else (
            "NamespaceDeletionContentFailure",
            False,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {content}")
        if remaining
        else ("NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed"),
        (
            "NamespaceFinalizersRemaining",
            True,
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {finalizers}",
        )
        if held
        else (
            "NamespaceFinalizersRemaining",
            False,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
    known = {each.type: each for each in old}
    now = rfc3339(wall_seconds(clock))
    planned = []
    for type_, raised, reason, message in facts:
        status = "True" if raised else "False"
        before = known.get(type_)
        since = rfc3339(before.lastTransitionTime) if before is not None and before.status == status else now
        planned.append(
            {"type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
        )
    return planned


class NamespaceController:
    """Reads namespaces; deletes collections of every kind."""

    def __init__(self, env: Environment) -> None:
        self._client: Client = env.client
        self._clock = env.clock
        self._kinds = Kinds(env)
        self._namespaces: Informer[core_v1.Namespace] = env.informers.informer(core_v1.Namespace)
        self._left: dict[str, list[Resource]] = {}
        self.controller = Controller(
            "namespace",
            self.reconcile,
            clock=env.clock,
            informers=[self._namespaces, self._kinds.definitions, self._kinds.aggregated.services],
            workers=env.options.concurrent_syncs,
        )
        self.controller.watches(self._namespaces)

    async def reconcile(self, key: ObjectKey) -> Result:
        namespace = self._namespaces.lister.get(key)
        if namespace is None or namespace.metadata.deletionTimestamp is None:
            self._left.pop(key.name, None)
            return DONE
        if FINALIZER not in ((namespace.spec.finalizers if namespace.spec is not None else None) or ()):
            return DONE
        failures: list[str] = []
        undiscovered = ""
        # Nothing can be created any more: until what was left is gone, the other kinds need no look.
        remains = [await self._empty(key.name, each, failures) for each in self._left.get(key.name, ())]
        if not failures and not any(each.left for each in remains):
            remains, undiscovered = await self._empty_all(key.name, failures)
        self._left[key.name] = [each.resource for each in remains if each.left] if not failures else []
        if failures or undiscovered or self._left[key.name]:
            before = namespace.status.conditions or ()
            await self._tell(namespace, plan_conditions(before, remains, failures, self._clock, undiscovered))
            since = self._clock.elapsed(namespace.metadata.deletionTimestamp)
            return Result(requeue_after=min(max(since / _SLOWING, FIRST_LOOK), LAST_LOOK))
        await self._finalize(key.name)
        return DONE

    async def _empty_all(self, namespace: str, failures: list[str]) -> tuple[list[Remains], str]:
        """Pods first; the others only when it is sure that no pod is left. Also why discovery was not complete."""
        aggregated, undiscovered = await self._discover()
        remains = [await self._empty(namespace, _PODS, failures)]
        if not remains[0].left and not failures:
            others = [each for each in self._kinds.all() if each.namespaced and each != _PODS] + aggregated
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._empty(namespace, each, failures)) for each in others]
            remains += [task.result() for task in tasks]
        return remains, undiscovered

    async def _discover(self) -> tuple[list[Resource], str]:
        """What aggregated servers keep in namespaces, as far as it is known; why it may not be all."""
        try:
            found = await self._kinds.aggregated.discover()
        except StatusError as error:
            return [], error.message
        return [
            each for each in found.resources if each.namespaced and {"list", "delete"} <= set(each.verbs)
        ], found.failure

    async def _empty(self, namespace: str, resource: Resource, failures: list[str]) -> Remains:
        """Delete all objects of the kind in the namespace and count what is still there."""
        client = self._kinds.client(resource)
        try:
            found = await client.list(View(resource, _Partial), namespace)
            if found.items:
                await self._delete_all(client, namespace, resource)
                found = await client.list(View(resource, _Partial), namespace)
        except (NotFound, MethodNotAllowed):
            return Remains(resource, 0, ())  # the kind went meanwhile, or is not served
        except StatusError as error:
            failures.append(error.message)
            return Remains(resource, 0, ())
        finalizers = [name for each in found.items for name in each.metadata.finalizers or ()]
        return Remains(resource, len(found.items), tuple(finalizers))

    async def _delete_all(self, client: Client, namespace: str, resource: Resource) -> None:
        if "deletecollection" in resource.verbs:
            await client.delete_collection(resource, namespace)
            return
        for each in (await client.list(resource, namespace)).items:
            try:
                await client.delete(resource, each["metadata"]["name"], namespace)
            except NotFound:
                continue

    async def _tell(self, namespace: core_v1.Namespace, conditions: list[dict[str, Any]]) -> None:
        if conditions == msgspec.to_builtins(namespace.status.conditions or []):
            return
        await self._client.patch(
            core_v1.Namespace,
            namespace.metadata.name or "",
            {"status": {"conditions": conditions}},
            subresource="status",
        )

    async def _finalize(self, name: str) -> None:
        try:
            live = await self._client.get(_NAMESPACES, name)
            if "deletionTimestamp" not in live["metadata"]:
                return
            spec = live.setdefault("spec", {})
            spec["finalizers"] = [each for each in spec.get("finalizers") or () if each != FINALIZER]
            await self._client.update(live, subresource="finalize")
        except NotFound:
            return


def build(env: Environment) -> list[Controller]:
    return [NamespaceController(env).controller]
