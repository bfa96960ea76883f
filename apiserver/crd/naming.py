"""Which names of a definition are accepted, and its conditions: pure plans.

A name belongs to the definition of the group that had it first. Texts and reasons are upstream's. Carried out by
`crd.serving`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from apiserver.registry.context import DeleteOptions
from apiserver.registry.deletion import Deletion, gc_finalizers
from apiserver.registry.validation.crds import approval

Obj = dict[str, Any]

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
NAMES_ACCEPTED, ESTABLISHED, TERMINATING = "NamesAccepted", "Established", "Terminating"
APPROVAL = "KubernetesAPIApprovalPolicyConformant"

# Name, reason of a conflict; in the order in which upstream looks at them.
_SINGLE = (("plural", "PluralConflict"), ("singular", "SingularConflict"))
_KINDS = (("kind", "KindConflict"), ("listKind", "ListKindConflict"))


def condition(definition: Mapping[str, Any], kind: str) -> Obj:
    """The condition of that type, or an empty one."""
    for item in (definition.get("status") or {}).get("conditions") or ():
        if item.get("type") == kind:
            found: Obj = item
            return found
    return {}


def is_true(definition: Mapping[str, Any], kind: str) -> bool:
    return condition(definition, kind).get("status") == "True"


def with_condition(
    conditions: list[Obj] | None, kind: str, status: str, reason: str, message: str, now: str
) -> list[Obj]:
    """The conditions with this one set; its transition time moves only when its status does."""
    made = {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}
    found = list(conditions or ())
    for index, item in enumerate(found):
        if item.get("type") == kind:
            if item.get("status") == status:
                made["lastTransitionTime"] = item.get("lastTransitionTime") or now
            found[index] = made
            return found
    return [*found, made]


def taken_names(others: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Resource names (plural, singular, short) and kinds that other definitions of the group have been given."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {names.get("plural") or "", names.get("singular") or "", *(names.get("shortNames") or ())}
        kinds |= {names.get("kind") or "", names.get("listKind") or ""}
    return resources - {""}, kinds - {""}


def plan_status(definition: Obj, others: Iterable[Mapping[str, Any]], now: str) -> Obj:
    """The status as it should be: accepted names, NamesAccepted, Established. `definition` is not changed."""
    wanted = definition["spec"]["names"]
    status = definition.get("status") or {}
    accepted = dict(status.get("acceptedNames") or {})
    resources, kinds = taken_names(others)
    reason = message = ""

    def claim(field: str, value: Any, taken: bool, shown: str, why: str) -> None:
        nonlocal reason, message
        if taken:
            reason, message = why, f'"{shown}" is already in use'
        elif value:
            accepted[field] = value
        else:
            accepted.pop(field, None)

    for field, why in _SINGLE:
        value = wanted.get(field) or ""
        claim(field, value, value in resources, value, why)
    short = list(wanted.get("shortNames") or ())
    clashing = [name for name in short if name in resources]
    claim("shortNames", short, bool(clashing), clashing[0] if clashing else "", "ShortNamesConflict")
    for field, why in _KINDS:
        value = wanted.get(field) or ""
        claim(field, value, value in kinds, value, why)
    claim("categories", list(wanted.get("categories") or ()), False, "", "")
    conditions = status.get("conditions")
    if reason:
        conditions = with_condition(conditions, NAMES_ACCEPTED, "False", reason, message, now)
    else:
        why = "no conflicts found"
        conditions = with_condition(conditions, NAMES_ACCEPTED, "True", "NoConflicts", why, now)
    if not is_true(definition, ESTABLISHED):
        if reason:
            why = "not all names are accepted"
            conditions = with_condition(conditions, ESTABLISHED, "False", "NotAccepted", why, now)
        else:
            why = "the initial names have been accepted"
            conditions = with_condition(conditions, ESTABLISHED, "True", "InitialNamesAccepted", why, now)
    approved, why = approval(definition["spec"].get("group") or "", definition["metadata"].get("annotations") or {})
    if approved:
        status_text = "True" if approved == "ApprovedAnnotation" else "False"
        conditions = with_condition(conditions, APPROVAL, status_text, approved, why, now)
    accepted.setdefault("plural", "")
    accepted.setdefault("kind", "")
    order = ("plural", "singular", "shortNames", "kind", "listKind", "categories")
    named = {field: accepted[field] for field in order if field in accepted}
    return {**status, "conditions": conditions, "acceptedNames": named}


def plan_deletion(definition: Obj, options: DeleteOptions, now: str) -> Deletion:
    """The first request marks the definition; it goes when its objects are gone."""
    meta = definition["metadata"]
    before = list(meta.get("finalizers") or ())
    if meta.get("deletionTimestamp"):
        return Deletion(None, remove=not before)
    finalizers = gc_finalizers(before, options, orphan_by_default=False)
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    status = definition.get("status") or {}
    conditions = with_condition(
        status.get("conditions"),
        TERMINATING,
        "True",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        now,
    )
    marked = dict(definition, metadata={**meta, "deletionTimestamp": now, "finalizers": finalizers})
    marked["status"] = {**status, "conditions": conditions}
    return Deletion(marked, remove=False)


def plan_finished(definition: Obj) -> Obj:
    """All objects are gone: the finalizer goes, and with it the definition."""
    meta = dict(definition["metadata"])
    left = [name for name in meta.get("finalizers") or () if name != CLEANUP]
    meta.pop("finalizers", None)
    if left:
        meta["finalizers"] = left
    return {**definition, "metadata": meta}


def plan_progress(definition: Obj, now: str, *, done: bool) -> Obj:
    """The definition with its Terminating condition where the deletion stands."""
    status = definition.get("status") or {}
    if done:
        told = ("False", "InstanceDeletionCompleted", "removed all instances")
    else:
        told = ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
    return {
        **definition,
        "status": {**status, "conditions": with_condition(status.get("conditions"), TERMINATING, *told, now)},
    }
