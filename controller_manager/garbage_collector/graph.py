"""Who owns whom: the graph of all objects by uid, as the watches show it.

Owns: nodes (a few words per object) and the reverse edges. No I/O. Written by controller.py's handlers.

An owner that no watch has shown is simply not in `nodes`; its dependents are still found by its uid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from api.resources import Resource
from machinery.meta import ObjectKey

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


class OwnerRef(msgspec.Struct, gc=False, frozen=True):
    """The part of an owner reference that counts here."""

    uid: str
    kind: str = ""
    name: str = ""
    apiVersion: str = ""
    blockOwnerDeletion: bool | None = None


class Metadata(msgspec.Struct, gc=False):
    """The part of an object's metadata that counts here."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    ownerReferences: tuple[OwnerRef, ...] | None = None
    finalizers: tuple[str, ...] | None = None
    deletionTimestamp: str | None = None


class PartialObject(msgspec.Struct, gc=False):
    """Any object, of which only metadata is kept."""

    metadata: Metadata


class Node(NamedTuple):
    """One object."""

    resource: Resource
    metadata: Metadata

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def owners(self) -> tuple[OwnerRef, ...]:
        return self.metadata.ownerReferences or ()

    @property
    def deleting(self) -> bool:
        return self.metadata.deletionTimestamp is not None

    @property
    def waits_for_dependents(self) -> bool:
        """Being deleted in the foreground: stays until its blocking dependents are gone."""
        return self.deleting and FOREGROUND in (self.metadata.finalizers or ())

    @property
    def orphans_dependents(self) -> bool:
        """Being deleted with its dependents to be let go of first."""
        return self.deleting and ORPHAN in (self.metadata.finalizers or ())


class Graph:
    """Nodes by uid, and the uids of dependents by owner uid."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> Node | None:
        return self._nodes.get(uid)

    def put(self, node: Node) -> Node | None:
        """Add or replace; returns what was there."""
        uid = node.metadata.uid
        old = self._nodes.get(uid)
        for reference in old.owners if old is not None else ():
            self._unlink(reference.uid, uid)
        self._nodes[uid] = node
        for reference in node.owners:
            self._dependents.setdefault(reference.uid, set()).add(uid)
        return old

    def remove(self, uid: str) -> Node | None:
        """Forget an object (its dependents stay linked to its uid)."""
        old = self._nodes.pop(uid, None)
        for reference in old.owners if old is not None else ():
            self._unlink(reference.uid, uid)
        return old

    def dependents(self, uid: str) -> Iterator[Node]:
        """Objects that name this uid as an owner."""
        for each in tuple(self._dependents.get(uid, ())):
            node = self._nodes.get(each)
            if node is not None:
                yield node

    def blocking_dependents(self, uid: str) -> list[Node]:
        """Dependents that must be gone before the owner may go."""
        return [
            node
            for node in self.dependents(uid)
            if any(ref.uid == uid and ref.blockOwnerDeletion for ref in node.owners)
        ]

    def _unlink(self, owner: str, uid: str) -> None:
        linked = self._dependents.get(owner)
        if linked is not None:
            linked.discard(uid)
            if not linked:
                del self._dependents[owner]
