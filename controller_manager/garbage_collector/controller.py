"""Watches the metadata of every kind, and carries out plan.py: deletes, orphans, lifts finalizers.

Owns: the graph, the finalizers `foregroundDeletion` and `orphan`. Never: deletes on the word of a cache alone: the
object and any absent owner are looked up first. Called by app.py through `build`.

Keys of the queue are (what to do, uid): "collect" looks at an object's owners, "orphan" lets its dependents go.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from api.resources import Resource
from client.client import PatchType
from client.controller import DONE, Controller, Result
from client.events import WARNING
from client.informer import EventHandler, Informer, Informers
from client.kinds import View
from controller_manager.aggregated import AggregatedResource
from controller_manager.environment import Environment, Runnable
from controller_manager.garbage_collector.graph import (
    FOREGROUND,
    ORPHAN,
    Graph,
    Metadata,
    Node,
    OwnerRef,
    PartialObject,
)
from controller_manager.garbage_collector.plan import Delete, DropOwners, OwnerState, plan_collection
from controller_manager.kinds import Kinds, built_in, is_collectable
from machinery import log
from machinery.errors import Conflict, MethodNotAllowed, NotFound, StatusError
from machinery.log import kv
from machinery.meta import ObjectKey

COLLECT: Final = "collect"
LET_GO: Final = "orphan"
# Seconds until owners are looked up again whose end no watch may tell; doubled each time.
UNSEEN, UNSEEN_MAX = 2.0, 1000.0
REDISCOVERY: Final = 30.0
REDISCOVERY_OF_FAILED: Final = 5.0
"""Seconds between looks at what aggregated servers serve; an APIService that changes is looked at at once."""
_IGNORED: Final = {("", "events"), ("events.k8s.io", "events")}
"""Events have no owners and come by the thousand."""
_log = log.get(__name__)


class GarbageCollector:
    """One graph over all kinds."""

    name = "garbage-collector"

    def __init__(self, env: Environment) -> None:
        # Its informers are its own: they hold metadata only, and must not be taken for caches of whole objects.
        self._informers = Informers(env.client, env.clock)
        self._kinds = Kinds(env)
        aggregated = self._kinds.aggregated.client
        self._others = Informers(aggregated, env.clock) if aggregated is not None else None
        """Those of aggregated resources, which nobody waits for: their servers may be away."""
        self._clock = env.clock
        self._graph = Graph()
        self._watched: dict[Resource, Informer[PartialObject]] = {}
        self._defined: dict[str, Resource] = {}
        """What is watched of each definition."""
        self._unseen: dict[str, float] = {}
        """Seconds that objects wait whose owners no watch has shown, by uid."""
        self._events = env.recorder("garbage-collector-controller")
        self.controller = Controller(
            self.name, self.reconcile, clock=env.clock, workers=env.options.concurrent_gc_syncs
        )

    async def run(self) -> None:
        """Collect until cancelled. Nothing is deleted before every kind has been listed once."""
        for resource in built_in():
            self._watch(resource)
        await self._kinds.definitions.wait_synced()
        async with asyncio.TaskGroup() as group:
            self._kinds.follow(lambda name, resource: self._define(group, name, resource))
            group.create_task(self._informers.run())
            if self._others is not None:
                group.create_task(self._others.run())
                group.create_task(self._follow_aggregated(group, self._others))
            await self._informers.wait_synced()
            group.create_task(self.controller.run())

    async def _follow_aggregated(self, group: asyncio.TaskGroup, informers: Informers) -> None:
        """Watch what aggregated servers serve. One that does not answer keeps its watches: it may be back."""
        changed = asyncio.Event()
        aggregated = self._kinds.aggregated
        await aggregated.services.wait_synced()
        aggregated.on_change(changed.set)
        while True:
            changed.clear()
            pause = REDISCOVERY
            try:
                if (await aggregated.discover()).failed:
                    pause = REDISCOVERY_OF_FAILED
            except StatusError as error:
                _log.debug("Discovery failed", extra=kv(error=error.message))
            wanted = {each for each in aggregated.known if is_collectable(each)}
            for gone in [each for each in self._watched if isinstance(each, AggregatedResource) and each not in wanted]:
                informer = self._watched.pop(gone)
                informers.drop(informer)
                group.create_task(self._forget(gone, informer, None))
            for each in wanted:
                self._watch(each, informers)
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(pause):
                    await changed.wait()

    def _define(self, group: asyncio.TaskGroup, definition: str, resource: Resource | None) -> None:
        """Watch what a definition adds now; a version that is not served any more is let go."""
        before = self._defined.get(definition)
        if before == resource:
            return
        if resource is not None:
            self._defined[definition] = resource
            self._watch(resource)
        else:
            del self._defined[definition]
        if before is not None and (informer := self._watched.pop(before, None)) is not None:
            self._informers.drop(informer)
            group.create_task(self._forget(before, informer, self._watched.get(resource) if resource else None))

    async def _forget(
        self, before: Resource, old: Informer[PartialObject], new: Informer[PartialObject] | None
    ) -> None:
        """Forget what is shown no more, once another version has shown what there is: owners may wait for it."""
        if new is not None:
            await new.wait_synced()
        for obj in old.lister.list():
            self._gone(before, obj.metadata)

    def _watch(self, resource: Resource, informers: Informers | None = None) -> None:
        if resource in self._watched or (resource.group, resource.plural) in _IGNORED:
            return
        informer = (informers or self._informers).informer(View(resource, PartialObject))
        self._watched[resource] = informer
        informer.add_handler(
            EventHandler(
                on_add=lambda obj: self._observed(Node(resource, obj.metadata)),
                on_update=lambda _, obj: self._observed(Node(resource, obj.metadata)),
                on_delete=lambda obj: self._gone(resource, obj.metadata),
            )
        )

    # What the watches show

    def _observed(self, node: Node) -> None:
        old = self._graph.put(node)
        uid = node.metadata.uid
        if old is not None and old.resource != node.resource:
            old = None  # what was tried in a version that has gone meanwhile may have failed
        if node.owners and (old is None or old.owners != node.owners):
            self._enqueue(COLLECT, uid)
        if old is not None and old.owners != node.owners:
            # An owner that waits for this dependent may be free now.
            for reference in old.owners:
                self._wake_owner(reference.uid)
        if node.orphans_dependents:
            self._enqueue(LET_GO, uid)
        elif node.waits_for_dependents and (old is None or not old.waits_for_dependents):
            for dependent in self._graph.dependents(uid):
                self._enqueue(COLLECT, dependent.metadata.uid)
            self._enqueue(COLLECT, uid)

    def _gone(self, resource: Resource, metadata: Metadata) -> None:
        known = self._graph.get(metadata.uid)
        if known is not None and known.resource != resource:
            return  # another version of its kind still shows it
        old = self._graph.remove(metadata.uid)
        self._unseen.pop(metadata.uid, None)
        for dependent in self._graph.dependents(metadata.uid):
            self._enqueue(COLLECT, dependent.metadata.uid)
        for reference in old.owners if old is not None else ():
            self._wake_owner(reference.uid)

    def _wake_owner(self, uid: str) -> None:
        owner = self._graph.get(uid)
        if owner is not None and owner.waits_for_dependents:
            self._enqueue(COLLECT, uid)

    def _enqueue(self, what: str, uid: str) -> None:
        self.controller.enqueue(ObjectKey(what, uid))

    # What to do

    async def reconcile(self, key: ObjectKey) -> Result:
        node = self._graph.get(key.name)
        if node is None:
            return DONE
        if key.namespace == LET_GO:
            await self._let_go(node)
        elif node.waits_for_dependents:
            await self._finish_foreground(node)
        elif not node.deleting:
            return await self._collect(node)
        return DONE

    def _all_solid(self, node: Node) -> bool:
        """The usual case, told from the graph alone: keeping an object by mistake is mended by its owner's end."""
        owners = [self._graph.get(reference.uid) for reference in node.owners]
        return all(each is not None and _in_scope(node, each) and not each.waits_for_dependents for each in owners)

    async def _collect(self, node: Node) -> Result:
        if self._all_solid(node):
            return DONE
        live = await self._live(node)
        if live is None or not live.owners or live.deleting:
            return DONE
        states = {reference.uid: await self._state_of(live, reference) for reference in live.owners}
        uid = live.metadata.uid
        action = plan_collection(
            live.owners,
            states,
            finalizers=live.metadata.finalizers or (),
            has_dependents=next(self._graph.dependents(uid), None) is not None,
        )
        if isinstance(action, DropOwners):
            await self._drop_owners(live, action.uids)
        elif isinstance(action, Delete):
            if action.policy == "Foreground" and any(
                dependent.waits_for_dependents for dependent in self._graph.dependents(uid)
            ):
                await self._unblock(live)
            await self._delete(live, action.policy)
        elif any(self._graph.get(reference.uid) is None for reference in live.owners):
            # no watch has shown this owner: it may come and go before its kind is watched
            delay = self._unseen[uid] = min(2 * self._unseen.get(uid, UNSEEN / 2), UNSEEN_MAX)
            return Result(requeue_after=delay)
        self._unseen.pop(uid, None)
        return DONE

    async def _live(self, node: Node) -> Node | None:
        """The object as it is now, if it is still the same one."""
        try:
            obj = await self._kinds.client(node.resource).get(
                View(node.resource, PartialObject), node.metadata.name, node.metadata.namespace
            )
        except NotFound:
            return None
        return Node(node.resource, obj.metadata) if obj.metadata.uid == node.metadata.uid else None

    async def _state_of(self, node: Node, reference: OwnerRef) -> OwnerState:
        """Present owners are believed (their end will wake us); absent ones are looked up."""
        known = self._graph.get(reference.uid)
        if known is not None and _in_scope(node, known):
            return OwnerState.WAITING if known.waits_for_dependents else OwnerState.SOLID
        if known is not None:
            self._tell_of_namespace(node, reference)
        resource = self._kinds.by_kind(reference.apiVersion, reference.kind)
        if resource is None:
            return OwnerState.SOLID  # a kind we do not know: its objects may well exist
        if resource.namespaced and not node.metadata.namespace:
            # A cluster-scoped object cannot have a namespaced owner: its namespace is unknowable. Leave it alone.
            self._tell_of_namespace(node, reference)
            return OwnerState.SOLID
        namespace = node.metadata.namespace if resource.namespaced else ""
        try:
            owner = await self._kinds.client(resource).get(View(resource, PartialObject), reference.name, namespace)
        except NotFound:
            return OwnerState.ABSENT
        except MethodNotAllowed:
            return OwnerState.SOLID  # nobody can be asked for it: it may well exist
        if owner.metadata.uid != reference.uid:
            return OwnerState.ABSENT
        waits = Node(resource, owner.metadata).waits_for_dependents
        return OwnerState.WAITING if waits else OwnerState.SOLID

    def _tell_of_namespace(self, node: Node, reference: OwnerRef) -> None:
        """The owner is in another namespace, which no owner may be: say so on the dependent."""
        meta = node.metadata
        owner = f"{reference.apiVersion}/{reference.kind}, namespace: {meta.namespace}, name: {reference.name}"
        text = f'ownerRef [{owner}, uid: {reference.uid}] does not exist in namespace "{meta.namespace}"'
        resource = node.resource
        involved = {
            "apiVersion": resource.group_version,
            "kind": resource.kind,
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        }
        self._events.event(involved, WARNING, "OwnerRefInvalidNamespace", text)

    async def _delete(self, node: Node, policy: str) -> None:
        try:
            await self._kinds.client(node.resource).delete(
                node.resource,
                node.metadata.name,
                node.metadata.namespace,
                uid=node.metadata.uid,
                propagation_policy=policy,
            )
        except NotFound:
            return

    async def _drop_owners(self, node: Node, uids: frozenset[str]) -> None:
        kept = [reference for reference in node.owners if reference.uid not in uids]
        await self._write_owners(node, kept)

    async def _unblock(self, node: Node) -> None:
        """Let the owners go without waiting for this object: it waits for one of them itself, in a circle."""
        live = await self._kinds.client(node.resource).get(node.resource, node.metadata.name, node.metadata.namespace)
        metadata: dict[str, Any] = live["metadata"]
        references = [{**each, "blockOwnerDeletion": False} for each in metadata.get("ownerReferences") or ()]
        if metadata.get("uid") == node.metadata.uid:
            await self._patch_owners(node, references, metadata["resourceVersion"])

    async def _patch_owners(self, node: Node, references: list[dict[str, Any]], version: str) -> None:
        await self._kinds.client(node.resource).patch(
            node.resource,
            node.metadata.name,
            {"metadata": {"ownerReferences": references or None}},
            node.metadata.namespace,
            type=PatchType.MERGE,
            resource_version=version,
        )

    async def _write_owners(self, node: Node, owners: list[OwnerRef]) -> None:
        """Replace the owners; fails with Conflict if the object changed since it was read."""
        live = await self._kinds.client(node.resource).get(node.resource, node.metadata.name, node.metadata.namespace)
        metadata: dict[str, Any] = live["metadata"]
        if metadata.get("uid") != node.metadata.uid:
            return
        wanted = {reference.uid for reference in owners}
        references = [each for each in metadata.get("ownerReferences") or () if each.get("uid") in wanted]
        await self._patch_owners(node, references, metadata["resourceVersion"])

    async def _finish_foreground(self, node: Node) -> None:
        """Lift the finalizer once nothing blocks; until then see to it that what blocks is deleted."""
        blocking = self._graph.blocking_dependents(node.metadata.uid)
        if not blocking:
            await self._lift(node, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.deleting:
                self._enqueue(COLLECT, dependent.metadata.uid)

    async def _let_go(self, node: Node) -> None:
        """Take the owner off all its dependents, then lift its finalizer."""
        if not node.orphans_dependents:
            return
        uid = node.metadata.uid
        errors: list[StatusError] = []
        for dependent in list(self._graph.dependents(uid)):
            try:
                await self._write_owners(dependent, [each for each in dependent.owners if each.uid != uid])
            except NotFound:
                continue
            except Conflict as error:
                errors.append(error)
        if errors:
            raise errors[0]
        await self._lift(node, ORPHAN)

    async def _lift(self, node: Node, finalizer: str) -> None:
        live = await self._live(node)
        if live is None or finalizer not in (live.metadata.finalizers or ()):
            return
        kept = [each for each in live.metadata.finalizers or () if each != finalizer]
        try:
            await self._kinds.client(live.resource).patch(
                live.resource,
                live.metadata.name,
                {"metadata": {"finalizers": kept or None}},
                live.metadata.namespace,
                resource_version=live.metadata.resourceVersion,
            )
        except NotFound:
            return


def _in_scope(node: Node, owner: Node) -> bool:
    """Owners live in the namespace of their dependents or are cluster-scoped; others are not owners."""
    return not owner.resource.namespaced or owner.metadata.namespace == node.metadata.namespace


def build(env: Environment) -> list[Runnable]:
    return [GarbageCollector(env)]
