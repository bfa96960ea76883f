"""How a caller names what it reads: a model class, a resource of the table, or a view of a resource as a smaller type.

Owns the mapping to a resource reference and a decoder. Never talks to anybody. Used by the client and the informers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from api import codec, resources
from api.resources import Resource

T = TypeVar("T")

Unstructured = dict[str, Any]
_decode_any = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """A resource read as `type`, which may declare only what its reader needs: the rest is skipped while decoding."""

    resource: Resource
    type: type[T]

    def decode(self, raw: bytes) -> T:
        decoded: T = codec.decode(raw, self.type)
        return decoded


@dataclass(frozen=True, slots=True)
class Target(Generic[T]):
    """What a kind resolves to: where it lives and how its bytes become objects."""

    resource: Resource
    decode: Callable[[bytes], T]


@cache
def resolve(kind: Any) -> Target[Any]:
    """Target of a model class, a View or a Resource (whose objects are plain dicts)."""
    if isinstance(kind, Resource):
        return Target(kind, _decode_any)
    if isinstance(kind, View):
        return Target(kind.resource, kind.decode)
    resource = resources.of(kind)

    def decode(raw: bytes) -> Any:
        return codec.decode(raw, kind)

    return Target(resource, decode)


def resource_of(obj: Any) -> Resource:
    """The resource of an object to be written: by class, or by apiVersion and kind of a plain dict."""
    if not isinstance(obj, dict):
        model: Any = type(obj)
        return resources.of(model)
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    resource = resources.by_kind(group, version, str(obj.get("kind", "")))
    if resource is None:
        raise ValueError(f"no resource for apiVersion {obj.get('apiVersion')!r}, kind {obj.get('kind')!r}")
    return resource


def parent_of(obj: Any, subresource: str) -> Resource:
    """The resource that has a subresource whose bodies are of the object's kind: pods for a Binding."""
    kind = obj.get("kind") if isinstance(obj, dict) else type(obj).__name__
    for resource in resources.RESOURCES:
        found = resource.subresources.get(subresource)
        if found is not None and found.kind == kind:
            return resource
    raise ValueError(f"no resource has a subresource {subresource!r} of kind {kind}")
