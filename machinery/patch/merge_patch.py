"""JSON merge patch (RFC 7386): application, and the patch that leads from one document to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machinery.errors import BadRequest
from machinery.patch.json_patch import decode_body, go_kind


def decode_merge_patch(raw: bytes) -> dict[str, Any]:
    """The body of a merge or strategic merge patch, which for API objects must be an object; 400 otherwise."""
    patch = decode_body(raw)
    if patch is None:
        return {}
    if not isinstance(patch, dict):
        kind = go_kind(patch)
        raise BadRequest(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )
    return patch


def apply_merge_patch(doc: Any, patch: Any) -> Any:
    """The patched document; `doc` is not modified and untouched parts are shared with it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = apply_merge_patch(result.get(key), value)
        else:
            result[key] = value
    return result


def create_merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest merge patch that turns `old` into `new`.

    A merge patch cannot express a null in the result: nulls in `new` mean absence.
    """
    patch: dict[str, Any] = {key: None for key in old if new.get(key) is None and old[key] is not None}
    for key, value in new.items():
        if value is None:
            continue
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            inner = create_merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif type(before) is not type(value) or before != value:
            patch[key] = value
    return patch
