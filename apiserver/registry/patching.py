"""PATCH: from a content type and a body to a function over documents.

Owns the choice of the patch kind and what is told about bodies that are no patch. Applying is `machinery.patch`'s.
Called by `ResourceStore.patch`; the returned function may run several times (retries after a conflict).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apiserver.storage.keys import BUILT_IN_GROUPS
from machinery.errors import UnsupportedMediaType

if TYPE_CHECKING:
    from api.resources import Resource

Obj = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def patcher(resource: Resource, kind: str, patch_type: str, patch: bytes, warnings: list[str]) -> Callable[[Obj], Obj]:
    """What the patch does to a document of `kind`. Raises BadRequest or UnsupportedMediaType."""
    from machinery import patch as patches  # with the first PATCH

    if patch_type == JSON_PATCH:
        operations, unknown = patches.decode_json_patch(patch)
        warnings.extend(unknown)
        return lambda doc: patches.apply_json_patch(doc, operations)
    if patch_type == MERGE_PATCH:
        merge = patches.decode_merge_patch(patch)
        return lambda doc: patches.apply_merge_patch(doc, merge)
    if patch_type == STRATEGIC_PATCH and resource.group in BUILT_IN_GROUPS:
        from api import schema

        strategic = patches.decode_merge_patch(patch)
        subject = resource if kind == resource.kind else None
        node = schema.for_kind(resource.group, resource.version, kind) if subject else None
        return lambda doc: patches.apply_strategic_merge(doc, strategic, node)
    accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if resource.group in BUILT_IN_GROUPS:
        accepted.insert(2, STRATEGIC_PATCH)
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    )
