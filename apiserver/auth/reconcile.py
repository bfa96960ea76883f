"""Bringing default roles and bindings back to what they must at least be.

Owns the comparison of a default object with the one that exists: missing rules and subjects are added, what a user
has added stays, a binding to another role is replaced. An object whose annotation `autoupdate` says `"false"` is left
alone. Pure; called by `apiserver.bootstrap` for what it finds at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver.auth.escalation import missing_rules
from apiserver.auth.rbac import rules_of

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"

Obj = Mapping[str, Any]


def plan(expected: Obj, found: Obj) -> tuple[dict[str, Any] | None, bool]:
    """(the object to write, or None when nothing is missing; whether it must be deleted and made anew)."""
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(AUTOUPDATE) == "false":
        return None, False
    changes = _metadata(expected, found)
    if "roleRef" in expected:
        if found.get("roleRef") != expected["roleRef"]:
            return {**expected, "metadata": {**expected["metadata"], **_kept(expected, found)}}, True
        changes |= _subjects(expected, found)
    else:
        changes |= _rules(expected, found)
    return ({**found, **changes}, False) if changes else (None, False)


def _kept(expected: Obj, found: Obj) -> dict[str, Any]:
    """Labels and annotations of both, the default's own first in rank."""
    meta, known = expected["metadata"], found["metadata"]
    return {field: {**(known.get(field) or {}), **(meta.get(field) or {})} for field in ("labels", "annotations")}


def _metadata(expected: Obj, found: Obj) -> dict[str, Any]:
    known = found["metadata"]
    wanted = _kept(expected, found)
    if all((known.get(field) or {}) == values for field, values in wanted.items()):
        return {}
    return {"metadata": {**known, **wanted}}


def _subjects(expected: Obj, found: Obj) -> dict[str, Any]:
    known = list(found.get("subjects") or ())
    lacking = [subject for subject in expected.get("subjects") or () if subject not in known]
    return {"subjects": known + lacking} if lacking else {}


def _rules(expected: Obj, found: Obj) -> dict[str, Any]:
    """Rules of aggregated roles belong to their controller; only the selectors are ours."""
    aggregation = expected.get("aggregationRule")
    if aggregation:
        known = list((found.get("aggregationRule") or {}).get("clusterRoleSelectors") or ())
        lacking = [each for each in aggregation["clusterRoleSelectors"] if each not in known]
        return {"aggregationRule": {"clusterRoleSelectors": known + lacking}} if lacking else {}
    lacking = missing_rules(rules_of(found), rules_of(expected))
    return {"rules": [*(found.get("rules") or ()), *lacking]} if lacking else {}
