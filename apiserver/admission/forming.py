"""Bringing what a hook or a policy has made of an object into the kind's form: known fields, defaults, its own version.

Owns that step alone; called after every mutation.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from apiserver.admission.write import Write, in_version
from apiserver.crd.resource import CustomResource
from apiserver.registry.store import Registry
from machinery.errors import BadRequest

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]


async def take(registry: Registry, write: Write, patched: Any, seen: Resource) -> bool:
    """Let the write's object, in place, become what was made of it; has it changed? Raises StatusError."""
    new = write.new
    assert new is not None
    if not isinstance(patched, dict) or ("metadata" in new and not isinstance(patched.get("metadata"), dict)):
        raise BadRequest("the patched object must have metadata")
    if write.views_parent:
        return _take_view(write, patched)
    formed = _formed(registry, write, patched, seen)
    converted = seen.storage is not None and seen != write.resource
    formed = await in_version(registry, formed, seen, write.resource) or {}
    if converted:
        _default(registry, write, formed, write.resource)
    for field in ("kind", "apiVersion"):
        if field in new:
            formed[field] = new[field]
        else:
            formed.pop(field, None)
    if formed == new:
        return False
    _replace(new, formed)
    return True


def _formed(registry: Registry, write: Write, patched: Obj, seen: Resource) -> Obj:
    from api import schema
    from apiserver import fieldvalidation

    if isinstance(seen, CustomResource):
        patched = seen.accept_patched(copy.deepcopy(patched), "Ignore", [])
    else:
        kind = write.kind(seen)
        node = schema.for_kind(kind.group, kind.version, kind.kind)
        patched = fieldvalidation.accept_patched(patched, node, patch=None, directive="Ignore", warnings=[])
    if seen.storage is None:  # otherwise the rules are those of the version that is stored
        _default(registry, write, patched, seen)
    return patched


def _default(registry: Registry, write: Write, obj: Obj, resource: Resource) -> None:
    if write.kind(resource).kind != resource.kind or not resource.storable:
        return  # the body of a subresource, or a question, that is stored nowhere
    strategy = registry.resource(*resource.key()).strategy.for_subresource(write.subresource)
    strategy.canonicalize(obj)
    strategy.default(obj)


def _take_view(write: Write, patched: Obj) -> bool:
    new, strategy = write.new, write.strategy
    assert new is not None and strategy is not None
    if patched == write.shown(new):
        return False
    merged = strategy.merge(write.ctx, new, patched)
    if "resourceVersion" in new["metadata"]:
        merged["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"]
    _replace(new, merged)
    return True


def _replace(new: Obj, made: Obj) -> None:
    if "metadata" not in new:
        new.clear()
        new.update(made)
        return
    meta = new["metadata"]
    wanted = dict(made["metadata"])  # what was made may share what it does not name
    new.clear()
    new.update(made)
    # The write path holds the metadata it was given.
    meta.clear()
    meta.update(wanted)
    new["metadata"] = meta
