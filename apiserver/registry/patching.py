"""PATCH: from a content type and a body to a function over documents.

Owns the choice of the patch kind and what is told about bodies that are no patch. Applying is `machinery.patch`'s,
checking the result against the kind's schema `apiserver.fieldvalidation`'s. Called by `ResourceStore.patch`; the
returned function may run several times (retries after a conflict).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from api.gojson import paths_tree
from api.resources import by_kind, lookup
from apiserver.registry.context import RequestContext
from machinery.errors import BadRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from api.resources import Resource
    from api.schema import SchemaNode

Obj = dict[str, Any]

SCHEME = "pkg/api/legacyscheme/scheme.go:30"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def patcher(
    resource: Resource, subresource: str, patch_type: str, patch: bytes, ctx: RequestContext
) -> Callable[[Obj], Obj]:
    """What the patch does to a document. Raises BadRequest or UnsupportedMediaType."""
    from apiserver import fieldvalidation  # the schema's reader is loaded with the first PATCH
    from apiserver.crd.resource import CustomResource

    shape = _Shape(resource, subresource)
    apply, shown, merged = _application(resource, shape, patch_type, patch, ctx.warnings)

    def patched(doc: Obj) -> Obj:
        result = apply(doc)
        if not isinstance(result, dict):
            raise BadRequest("the patched object must be an object")
        if result.get("metadata") is None:
            result = {**result, "metadata": {}}  # as Go reads it; the missing name is told later
        kind = result.get("kind")
        found: list[str] = []
        if isinstance(resource, CustomResource) and shape.kind == resource.kind:
            if not isinstance(result["metadata"], dict):
                raise BadRequest("the patched object must have metadata")
            resource.check_kind(result)
            result = resource.accept_patched(result, ctx.field_validation, found)
            ctx.warnings.extend(text for text in found if text not in ctx.warnings)
            return dict(result, metadata=dict(result["metadata"]))
        if shown is not None:  # a strategic patch is read as the kind that it is for, whatever it says
            result, kind = {**result, "kind": shape.kind, "apiVersion": shape.group_version}, shape.kind
        elif why := shape.unknown(result):
            raise fieldvalidation.patch_invalid(result, shape.node(shape.kind), None, merged, why)
        sent = result
        node = shape.node(kind if isinstance(kind, str) and kind else shape.kind)
        result = fieldvalidation.accept_patched(
            result, node, patch=shown, directive=ctx.field_validation, warnings=found, merged=merged
        )
        if kind not in (None, "", shape.kind):
            given = str(result.get("apiVersion") or shape.group_version).rpartition("/")[2]
            why = f"converting ({given}.{kind}) to ({shape.internal}): unknown conversion"
            raise fieldvalidation.patch_invalid(sent, node, None, merged, why)
        ctx.warnings.extend(text for text in found if text not in ctx.warnings)
        return dict(result, metadata=dict(result["metadata"]))

    return patched


class _Shape:
    """What kind of document is patched: the resource's, or another one that a subresource shows."""

    def __init__(self, resource: Resource, subresource: str) -> None:
        self.kind, self.group, self.version = resource.kind, resource.group, resource.version
        if subresource:
            shown = resource.subresources[subresource]
            self.kind = shown.kind
            if shown.version:
                self.group, self.version = shown.group, shown.version

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def internal(self) -> str:
        """What messages call the kind inside."""
        return f"{self.group.partition('.')[0] or 'core'}.{self.kind}"

    def unknown(self, obj: Obj) -> str:
        """Why a document cannot be read at all: nobody knows its kind and version."""
        version, kind = obj.get("apiVersion") or self.group_version, obj.get("kind") or self.kind
        if not isinstance(version, str) or not isinstance(kind, str):
            return ""
        group, _, number = version.rpartition("/")
        if (version, kind) == (self.group_version, self.kind) or by_kind(group, number, kind) is not None:
            return ""
        return f'no kind "{kind}" is registered for version "{version}" in scheme "{SCHEME}"'

    def node(self, kind: str) -> SchemaNode | None:
        from api import schema

        return schema.for_kind(self.group, self.version, kind)


def _application(
    resource: Resource, shape: _Shape, patch_type: str, patch: bytes, warnings: list[str]
) -> tuple[Callable[[Obj], Any], Obj | None, Obj]:
    """The function, the patch where error texts show it instead of the result, and which parts it changes."""
    from machinery import patch as patches

    if patch_type == JSON_PATCH:
        operations, unknown = patches.decode_json_patch(patch)
        warnings.extend(unknown)
        return lambda doc: patches.apply_json_patch(doc, operations), None, paths_tree(operations)
    if patch_type == MERGE_PATCH:
        if patch.strip() == b"null":
            raise BadRequest("Invalid JSON Patch")
        merge = patches.decode_merge_patch(patch)
        return lambda doc: patches.apply_merge_patch(doc, merge), None, merge
    built_in = lookup(*resource.key()) is not None
    if patch_type == STRATEGIC_PATCH and built_in:
        strategic, node = patches.decode_merge_patch(patch), shape.node(shape.kind)
        return lambda doc: patches.apply_strategic_merge(doc, strategic, node), strategic, {}
    accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if built_in:
        accepted.insert(2, STRATEGIC_PATCH)
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    )
