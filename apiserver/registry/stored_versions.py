"""Versions in which other API servers may have stored an object, and what becomes of it here.

Pure. A real kube-apiserver stores definitions of custom resources as v1beta1 to this day, and data of older clusters
holds versions that are no longer served. Versions that are not listed differ by their name alone. Used by the registry,
which gives every stored resource's byte form its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from apiserver.registry.conversion import CONVERSIONS

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]
Convert = Callable[[Obj], Obj]


def definition_from_v1beta1(obj: Obj) -> Obj:
    """apiextensions.k8s.io/v1beta1 → v1: what stood beside the versions goes into each of them."""
    spec = dict(obj.get("spec") or {})
    version, schema = spec.pop("version", ""), spec.pop("validation", None)
    subresources, columns = spec.pop("subresources", None), spec.pop("additionalPrinterColumns", None)
    versions = spec.get("versions") or [{"name": version, "served": True, "storage": True}]
    spec["versions"] = [_version(each, schema, subresources, columns) for each in versions]
    if spec.pop("preserveUnknownFields", True):
        spec["preserveUnknownFields"] = True
    conversion = dict(spec.get("conversion") or {"strategy": "None"})
    client, reviews = conversion.pop("webhookClientConfig", None), conversion.pop("conversionReviewVersions", None)
    if client is not None or (reviews and conversion.get("strategy") == "Webhook"):
        conversion["webhook"] = {"clientConfig": client or {}, "conversionReviewVersions": reviews or ["v1beta1"]}
    spec["conversion"] = conversion
    return {**obj, "spec": spec}


def _version(version: Obj, schema: Any, subresources: Any, columns: Any) -> Obj:
    made = dict(version)
    for field, value in (("schema", schema), ("subresources", subresources), ("additionalPrinterColumns", columns)):
        if value is not None:
            made.setdefault(field, value)
    shown = made.get("additionalPrinterColumns")
    if shown:
        made["additionalPrinterColumns"] = [
            {"jsonPath" if name == "JSONPath" else name: value for name, value in column.items()} for column in shown
        ]
    return made


_OTHERS: Mapping[tuple[str, str], Mapping[str, Convert]] = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"apiextensions.k8s.io/v1beta1": definition_from_v1beta1},
}


def stored_versions(resource: Resource) -> dict[str, Convert]:
    """By apiVersion: how an object stored in it becomes one of the resource's own version."""
    found = dict(_OTHERS.get((resource.group, resource.plural), {}))
    stored = resource.group, resource.version
    for (group, version, plural), conversion in CONVERSIONS.items():
        if plural == resource.plural and (group, version) != stored and _stored_as(group, version, plural) == stored:
            inward = conversion.to_storage
            found[f"{group}/{version}"] = lambda obj, inward=inward: inward(obj, None)  # type: ignore[misc]
    return found


def _stored_as(group: str, version: str, plural: str) -> tuple[str, str] | None:
    from api.resources import lookup

    served = lookup(group, version, plural)
    return served.storage if served is not None else None
