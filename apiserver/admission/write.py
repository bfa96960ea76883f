"""The write that hooks and policies judge: what they are shown of it, and in which version.

Owns the kinds of subresources' bodies (a scale, a binding, the options of an exec) and the translation between versions
of one resource. Called by webhooks and policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from apiserver.crd.store import CustomStore
from apiserver.registry.context import RequestContext
from apiserver.registry.converted import ConvertedStore
from apiserver.registry.hooks import CONNECT, UPDATE
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.registry.strategy import Strategy

Obj = dict[str, Any]


class Kind(NamedTuple):
    """A group, version and kind."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Write(NamedTuple):
    """One write. `seen` is the version in which a hook wants it; `new` and `old` are in that of `resource`.

    `sent` is the version in which the client sent it.
    """

    ctx: RequestContext
    op: str
    resource: Resource
    namespace: str
    name: str
    new: Obj | None
    old: Obj | None
    subresource: str
    strategy: Strategy | None = None

    @property
    def sent(self) -> Resource:
        asked = self.ctx.asked
        return asked if asked is not None and asked.plural == self.resource.plural else self.resource

    def kind(self, seen: Resource | None = None) -> Kind:
        """What the body is: the resource's kind, or that of the subresource's."""
        resource = seen or self.resource
        if self.op == CONNECT and self.new is not None:
            return Kind("", "v1", str(self.new.get("kind") or ""))
        shown = resource.subresources.get(self.subresource)
        if shown is None or shown.kind == resource.kind:
            return Kind(resource.group, resource.version, resource.kind)
        if shown.version:
            return Kind(shown.group, shown.version, shown.kind)
        return Kind(resource.group, resource.version, shown.kind)

    def shown(self, obj: Obj | None) -> Obj | None:
        """The object as hooks get it, with its kind, which a body may leave out."""
        if obj is None:
            return None
        kind = self.kind()
        if self.views_parent:
            assert self.strategy is not None
            obj = self.strategy.view(obj)
        named = {"kind": kind.kind, "apiVersion": kind.api_version}
        return {**named, **obj, **named} if obj.get("kind") != kind.kind else {**named, **obj}

    @property
    def views_parent(self) -> bool:
        """Is the body a view of the stored object (a scale)?"""
        return self.strategy is not None and self.op == UPDATE and self.kind().kind != self.resource.kind


def write_of(
    registry: Registry,
    ctx: RequestContext,
    op: str,
    resource: Resource,
    namespace: str,
    name: str,
    new: Obj | None,
    old: Obj | None,
    subresource: str,
) -> Write:
    """The write that a plugin is asked about."""
    strategy = None
    if subresource and op == UPDATE:
        strategy = registry.resource(*resource.key()).strategy.for_subresource(subresource)
    return Write(ctx, op, resource, namespace, name, new, old, subresource, strategy)


def equivalents(registry: Registry, resource: Resource) -> Iterator[Resource]:
    """Other versions in which the same objects are served."""
    if not resource.storable:
        return
    own = registry.resource(*resource.key())
    for store in registry.stores():
        other = store.resource
        if store is not own and store.cache is own.cache and other.kind == resource.kind and other != resource:
            yield other


async def in_version(registry: Registry, obj: Obj | None, source: Resource, target: Resource) -> Obj | None:
    """An object of one version in another. Raises StatusError where a conversion fails."""
    if obj is None or source == target:
        return obj
    store, own = registry.resource(*target.key()), registry.resource(*source.key())
    if isinstance(store, CustomStore):
        return await store.from_version({"kind": source.kind, "apiVersion": source.group_version, **obj})
    if isinstance(store, ConvertedStore):
        return store._shown(obj)
    if isinstance(own, ConvertedStore):
        return own._in(obj, None)
    return obj


def namespace_labels(registry: Registry, write: Write) -> Mapping[str, str] | None:
    """Labels of the namespace that a write is in, or is about; None for other things without a namespace."""
    if write.resource.key() == ("", "v1", "namespaces"):
        return ((write.new or write.old or {}).get("metadata") or {}).get("labels") or {}
    if not write.namespace:
        return None
    entry = registry.resource("", "v1", "namespaces").peek("", write.namespace)
    return entry.labels if entry is not None else {}
