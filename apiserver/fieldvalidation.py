"""Decoding strictness: unknown fields, duplicate fields and values of the wrong type, in upstream's words.

Owns: the check of a decoded body against its kind's schema, and pruning what the schema does not know. The common
case, a body without fault, is one typed decode by msgspec into structs built from the schema (9 µs for a 2 KB pod);
only when that refuses is the body walked again, slowly, to find out what to say. Never: semantic validation or
defaults. Called for every request body, and for the result of every patch, by the REST door and the registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from api.gojson import go_json
from api.schema import SchemaNode
from apiserver.fieldtypes import fast_decoder
from apiserver.fieldwalk import TypeMismatch, Walker, merge_repeated, prune
from machinery.errors import BadRequest, Invalid
from machinery.golang import printed

STRICT, WARN, IGNORE = "Strict", "Warn", "Ignore"

__all__ = [
    "STRICT",
    "Checked",
    "TypeMismatch",
    "accept_body",
    "accept_patched",
    "check",
    "check_fields",
    "patch_invalid",
    "prune",
    "repeated",
]


class Checked(NamedTuple):
    """`obj` without what the schema does not know, and one text per unknown or duplicate field."""

    obj: dict[str, Any]
    problems: list[str]


def check(obj: dict[str, Any], raw: bytes | None, node: SchemaNode) -> Checked:
    """Check an object; `raw` is the JSON it came from (None: YAML, protobuf, a patch). Raises TypeMismatch."""
    text = msgspec.json.encode(obj)
    if _is_fine(text, raw, node):
        return Checked(obj, [])
    walker = Walker()
    walker.walk(raw if raw is not None else text, node)
    if walker.has_duplicates and raw is not None:
        obj = merge_repeated(raw, node)
    return Checked(prune(obj, node) if walker.has_unknown else obj, walker.problems)


def check_fields(obj: dict[str, Any], raw: bytes | None, node: SchemaNode) -> list[str]:
    """Only the texts: ``unknown field "spec.foo"``, ``duplicate field "data.k"``. Raises TypeMismatch."""
    return check(obj, raw, node).problems


def _is_fine(text: bytes, raw: bytes | None, node: SchemaNode) -> bool:
    decoder = _decoder(node)
    if decoder is None or (raw is not None and _may_repeat_keys(raw, text)):
        return False
    try:
        decoder.decode(text)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        return False
    return True


def _may_repeat_keys(raw: bytes, text: bytes) -> bool:
    """Whether keys may have been lost between the body and its compact re-encoding.

    Every key shows as ``":`` in both texts unless blanks stand before the colon or a quote is spelled as an escape;
    with neither, equal counts mean that no key was lost.
    """
    if raw.count(b'":') != text.count(b'":') or b"\\u0022" in raw:
        return True
    return b'" :' in raw or b'"\n' in raw or b'"\t' in raw or b'"\r' in raw


def repeated(raw: bytes, obj: Any) -> list[str]:
    """``duplicate field "spec.x"`` for every key that an object of the JSON text has twice, without a schema.

    `obj` is what the text was decoded to.
    """
    if not _may_repeat_keys(raw, msgspec.json.encode(obj)):
        return []
    found: list[str] = []
    _find_repeated(json.loads(raw, object_pairs_hook=tuple), "", found)
    return found


def _find_repeated(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, tuple):
        seen: set[str] = set()
        for key, item in value:
            at = f"{path}.{key}" if path else key
            if key in seen:
                found.append(f'duplicate field "{at}"')
            seen.add(key)
            _find_repeated(item, at, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _find_repeated(item, f"{path}[{index}]", found)


@lru_cache(maxsize=1024)
def _decoder(node: SchemaNode) -> msgspec.json.Decoder[Any] | None:
    return fast_decoder(node)


def accept_body(
    obj: dict[str, Any],
    raw: bytes | None,
    node: SchemaNode | None,
    *,
    kind: str,
    directive: str,
    warnings: list[str],
) -> dict[str, Any]:
    """A request body, pruned; its problems become warnings or a BadRequest as `fieldValidation` asks.

    `kind` is what the request expects. Without a schema everything is accepted.
    """
    if node is None:
        return obj
    try:
        checked = check(obj, raw, node)
    except TypeMismatch as error:
        raise BadRequest(f"{_cannot_be_handled(obj, kind)}: {error}") from error
    if checked.problems:
        if directive == STRICT:
            found = ", ".join(checked.problems)
            raise BadRequest(f"{_cannot_be_handled(obj, kind)}: strict decoding error: {found}")
        if directive != IGNORE:
            warnings.extend(checked.problems)
    return checked.obj


def _cannot_be_handled(obj: Mapping[str, Any], kind: str) -> str:
    # Upstream tells the version without the group.
    version = str(obj.get("apiVersion") or "v1").rpartition("/")[2]
    return f'{obj.get("kind") or kind} in version "{version}" cannot be handled as a {kind}'


def accept_patched(
    obj: dict[str, Any],
    node: SchemaNode | None,
    *,
    patch: Mapping[str, Any] | None,
    directive: str,
    warnings: list[str],
    merged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The result of a patch, pruned; 422 where a body would be 400.

    `patch` is the strategic patch, which the message shows; for JSON and merge patches (None) it shows the result, in
    which `merged` has been changed.
    """
    if node is None:
        return obj
    try:
        checked = check(obj, None, node)
    except TypeMismatch as error:
        # A strategic patch is not decoded from JSON upstream but converted, which words its errors differently.
        why = str(error) if patch is None else error.conversion or str(error)
        raise patch_invalid(obj, node, patch, merged, why) from error
    if checked.problems:
        if directive == STRICT:
            why = f"strict decoding error: {', '.join(checked.problems)}"
            raise patch_invalid(obj, node, patch, merged, why)
        if directive != IGNORE:
            warnings.extend(checked.problems)
    return checked.obj


def patch_invalid(
    obj: Mapping[str, Any],
    node: SchemaNode | None,
    patch: Mapping[str, Any] | None,
    merged: Mapping[str, Any] | None,
    why: str,
) -> Invalid:
    """The refusal of what a patch results in."""
    if patch is not None:
        shown = printed(patch)
    else:
        shown = go_json(obj, node, merged or {}) if node is not None else printed(obj)
    text = f"Invalid value: {msgspec.json.encode(shown).decode()}: {why}"
    cause = {"reason": "FieldValueInvalid", "message": text, "field": "patch"}
    return Invalid(f' "" is invalid: patch: {text}', details={"causes": [cause]})
