"""Query options: reading and validating what stands after the question mark.

Owns: the conversions of ListOptions and the rules of CreateOptions, UpdateOptions, PatchOptions and DeleteOptions,
with upstream's messages. Never interprets selectors nor judges ListOptions (the registry does). Called by the REST
handlers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from api.schema import SchemaNode, for_kind
from apiserver.fieldvalidation import TypeMismatch, check
from apiserver.registry.context import DeleteOptions, ListOptions, WatchOptions
from apiserver.rest.negotiation import APPLY_PATCH
from machinery.caching import keep_short
from machinery.errors import BadRequest
from machinery.field_errors import FieldError, invalid

META_GROUP = "meta.k8s.io"
MANAGER_LIMIT = 128
_VALIDATIONS = ("", "Ignore", "Strict", "Warn")
_PROPAGATIONS = ("Foreground", "Background", "Orphan", "nil")

Query = Mapping[str, Sequence[str]]

NO_QUERY: Query = {}
PLAIN_LIST = ListOptions()
PLAIN_DELETE = DeleteOptions()


@keep_short(512)
def _parse(text: bytes) -> Query:
    return parse_qs(text.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200)


def parse(text: bytes) -> Query:
    """A query string by key. The result is shared: never change it."""
    if not text:
        return NO_QUERY
    try:
        if len(text) < 256:
            return _parse(text)
        return parse_qs(text.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200)
    except ValueError as exc:
        raise BadRequest(f"invalid query: {exc}") from exc


def text(query: Query, key: str) -> str:
    values = query.get(key)
    return values[0] if values else ""


def flag(query: Query, key: str) -> bool:
    """A boolean as upstream converts it: anything but `false` and `0` is true once the key is there."""
    values = query.get(key)
    return values is not None and len(values) > 0 and values[0].lower() not in ("false", "0")


def number(query: Query, key: str) -> int | None:
    values = query.get(key)
    return parse_int(values[0]) if values else None


def parse_int(value: str) -> int:
    """A decimal 64-bit integer. Raises BadRequest with Go's text."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    parsed = int(value) if len(digits) < 30 else 1 << 64
    if not -(1 << 63) <= parsed < 1 << 63:
        raise BadRequest(f'strconv.ParseInt: parsing "{value}": value out of range')
    return parsed


def is_watch(query: Query) -> bool:
    return bool(query) and flag(query, "watch")


def list_options(query: Query) -> ListOptions:
    """ListOptions of a list or deletecollection. Raises BadRequest; the registry judges combinations."""
    if not query:
        return PLAIN_LIST
    number(query, "timeoutSeconds")
    return ListOptions(
        label_selector=text(query, "labelSelector"),
        field_selector=text(query, "fieldSelector"),
        limit=max(0, number(query, "limit") or 0),
        continue_=text(query, "continue"),
        resource_version=text(query, "resourceVersion"),
        resource_version_match=text(query, "resourceVersionMatch"),
        send_initial_events=_optional_flag(query, "sendInitialEvents"),
    )


def watch_options(query: Query, *, name: str = "") -> WatchOptions:
    """ListOptions of a watch; `name` restricts it to one object (the old /watch/ paths)."""
    number(query, "limit")
    number(query, "timeoutSeconds")
    fields = text(query, "fieldSelector")
    if name:
        fields = f"{fields},metadata.name={name}" if fields else f"metadata.name={name}"
    return WatchOptions(
        label_selector=text(query, "labelSelector"),
        field_selector=fields,
        resource_version=text(query, "resourceVersion"),
        resource_version_match=text(query, "resourceVersionMatch"),
        continue_=text(query, "continue"),
        allow_bookmarks=flag(query, "allowWatchBookmarks"),
        send_initial_events=_optional_flag(query, "sendInitialEvents"),
    )


def _optional_flag(query: Query, key: str) -> bool | None:
    return flag(query, key) if key in query else None


@dataclass(slots=True)
class WriteQuery:
    """The common part of CreateOptions, UpdateOptions and PatchOptions."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""
    force: bool = False


PLAIN_WRITE = WriteQuery()


def write_query(query: Query, kind: str, *, patch_type: str = "") -> WriteQuery:
    """Options of a write; `kind` is CreateOptions, UpdateOptions or PatchOptions. Raises Invalid."""
    if not query and patch_type != APPLY_PATCH:
        return PLAIN_WRITE
    found: list[FieldError] = []
    manager, validation = text(query, "fieldManager"), text(query, "fieldValidation")
    if kind == "PatchOptions":
        if patch_type == APPLY_PATCH:
            if not manager:
                found.append(FieldError.required("fieldManager", "is required for apply patch"))
        elif "force" in query:
            found.append(FieldError.forbidden("force", "may not be specified for non-apply patch"))
    if len(manager.encode()) > MANAGER_LIMIT:
        found.append(FieldError.too_long("fieldManager", MANAGER_LIMIT))
    found += _unprintable("fieldManager", manager)
    found += dry_run_findings(query.get("dryRun", ()))
    if validation not in _VALIDATIONS:
        found.append(FieldError.not_supported("fieldValidation", validation, _VALIDATIONS))
    if found:
        raise invalid(kind, "", META_GROUP, found)
    return WriteQuery(bool(query.get("dryRun")), manager, validation, flag(query, "force"))


def _unprintable(field: str, value: str) -> list[FieldError]:
    """One finding per character that cannot be printed; positions count bytes, as Go's strings do."""
    if value.isprintable():
        return []
    found, position = [], 0
    for char in value:
        if not char.isprintable():
            found.append(
                FieldError.invalid(field, value, f"invalid character U+{ord(char):04X} (at position {position})")
            )
        position += len(char.encode("utf-8", "replace"))
    return found


def dry_run_findings(values: Sequence[str]) -> list[FieldError]:
    if values and any(value != "All" for value in values):
        return [FieldError.not_supported("dryRun", list(values), ("All",))]
    return []


def delete_options(query: Query, body: Mapping[str, Any] | None) -> tuple[DeleteOptions, bool]:
    """The options of a deletion, from the body where there is one, and whether it is a dry run.

    Raises BadRequest and Invalid.
    """
    if body is not None:
        found = _from_body(body)
        dry_run: Sequence[str] = body.get("dryRun") or ()
    elif query:
        found = DeleteOptions(
            grace_period_seconds=number(query, "gracePeriodSeconds"),
            propagation_policy=text(query, "propagationPolicy") if "propagationPolicy" in query else None,
            orphan_dependents=_optional_flag(query, "orphanDependents"),
            uid=text(query, "uid"),
            resource_version=text(query, "resourceVersion"),
        )
        dry_run = query.get("dryRun", ())
    else:
        return PLAIN_DELETE, False
    findings: list[FieldError] = []
    policy = found.propagation_policy
    if policy is not None and found.orphan_dependents is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        findings.append(FieldError.invalid("propagationPolicy", policy, why))
    if policy is not None and policy not in _PROPAGATIONS[:3]:
        findings.append(FieldError.not_supported("propagationPolicy", policy, _PROPAGATIONS, sort=False))
    findings += dry_run_findings(dry_run)
    if findings:
        raise invalid("DeleteOptions", "", META_GROUP, findings)
    return found, bool(dry_run)


def _from_body(body: Mapping[str, Any]) -> DeleteOptions:
    kind, version = body.get("kind", ""), body.get("apiVersion", "")
    if kind not in ("", "DeleteOptions"):
        scheme = "pkg/apis/meta/internalversion/scheme/register.go:27"
        raise BadRequest(f'no kind "{kind}" is registered for version "{version}" in scheme "{scheme}"')
    try:
        checked = check(dict(body), None, _options_schema()).obj
    except TypeMismatch as error:
        raise BadRequest(str(error)) from error
    preconditions = checked.get("preconditions") or {}
    return DeleteOptions(
        grace_period_seconds=checked.get("gracePeriodSeconds"),
        propagation_policy=checked.get("propagationPolicy"),
        orphan_dependents=checked.get("orphanDependents"),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
    )


@cache
def _options_schema() -> SchemaNode:
    node = for_kind("", "v1", "DeleteOptions")
    assert node is not None
    return node
