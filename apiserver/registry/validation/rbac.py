"""Roles and bindings. Called by the rules of those kinds in the strategy table."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import check_label_selector, invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"


def _validate_rules(rules: list[Obj], namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, rule in enumerate(rules):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            errors.append(FieldError.required(f"{path}.verbs", "verbs must contain at least one value"))
        urls = rule.get("nonResourceURLs") or []
        resources, groups = rule.get("resources") or [], rule.get("apiGroups") or []
        if urls:
            at = f"{path}.nonResourceURLs"
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                errors.append(FieldError.invalid(at, urls, detail))
            if resources or groups or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(FieldError.invalid(at, urls, detail))
            continue
        if not groups:
            detail = "resource rules must supply at least one api group"
            errors.append(FieldError.required(f"{path}.apiGroups", detail))
        if not resources:
            detail = "resource rules must supply at least one resource"
            errors.append(FieldError.required(f"{path}.resources", detail))
    return errors


def validate_role(obj: Obj) -> list[FieldError]:
    """Role."""
    return _validate_rules(obj.get("rules") or [], namespaced=True)


def validate_cluster_role(obj: Obj) -> list[FieldError]:
    """ClusterRole, with its aggregation rule."""
    errors = _validate_rules(obj.get("rules") or [], namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        path = "aggregationRule.clusterRoleSelectors"
        if not selectors:
            detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            errors.append(FieldError.required(path, detail))
        for index, selector in enumerate(selectors):
            errors += check_label_selector(f"{path}[{index}]", selector)
    return errors


def _validate_binding(obj: Obj, kinds: tuple[str, ...], namespaced: bool) -> list[FieldError]:
    reference = obj.get("roleRef") or {}
    errors: list[FieldError] = []
    if (group := reference.get("apiGroup") or "") != _GROUP:
        errors.append(unsupported("roleRef.apiGroup", group, (_GROUP,)))
    if (kind := reference.get("kind") or "") not in kinds:
        errors.append(unsupported("roleRef.kind", kind, kinds))
    name = reference.get("name") or ""
    if not name:
        errors.append(FieldError.required("roleRef.name"))
    else:
        errors += invalid_each("roleRef.name", name, names.path_segment(name))
    for index, subject in enumerate(obj.get("subjects") or ()):
        errors += _validate_subject(subject, f"subjects[{index}]", namespaced)
    return errors


def _validate_subject(subject: Obj, path: str, namespaced: bool) -> list[FieldError]:
    kind, name, group = subject.get("kind") or "", subject.get("name") or "", subject.get("apiGroup") or ""
    errors: list[FieldError] = []
    if not name:
        errors.append(FieldError.required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            errors += invalid_each(f"{path}.name", name, names.dns_subdomain(name))
        if group:
            errors.append(unsupported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(FieldError.required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != _GROUP:
            errors.append(unsupported(f"{path}.apiGroup", group, (_GROUP,)))
    else:
        errors.append(unsupported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))
    return errors


def validate_role_binding(obj: Obj) -> list[FieldError]:
    """RoleBinding."""
    return _validate_binding(obj, ("Role", "ClusterRole"), namespaced=True)


def validate_cluster_role_binding(obj: Obj) -> list[FieldError]:
    """ClusterRoleBinding."""
    return _validate_binding(obj, ("ClusterRole",), namespaced=False)


def _same_role(new: Obj, old: Obj) -> list[FieldError]:
    reference = new.get("roleRef") or {}
    if reference == (old.get("roleRef") or {}):
        return []
    shown = {"APIGroup": reference.get("apiGroup"), "Kind": reference.get("kind"), "Name": reference.get("name")}
    return [FieldError.invalid("roleRef", shown, "cannot change roleRef")]


def validate_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    """The role stays."""
    return validate_role_binding(new) + _same_role(new, old)


def validate_cluster_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    """The role stays."""
    return validate_cluster_role_binding(new) + _same_role(new, old)
