"""Where a pod may run: affinity, tolerations, taints, topology spread, scheduling gates.

Called by the pod spec validation and, for taints and node selectors, by nodes and persistent volumes.
"""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import (
    check_label_name,
    check_label_selector,
    invalid_each,
    unsupported,
)
from machinery.field_errors import FieldError

Obj = dict[str, Any]
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NOT_POSITIVE = "must be greater than zero"
_NO_SELECTOR = "must not be specified when labelSelector is not set"
_IN_BOTH = "exists in both matchLabelKeys and labelSelector"
_WEIGHT = "must be in the range 1-100"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def validate_affinity(affinity: Obj, path: str) -> list[FieldError]:
    """Node, pod and pod anti-affinity."""
    errors: list[FieldError] = []
    if node := affinity.get("nodeAffinity"):
        at = f"{path}.nodeAffinity"
        if (required := node.get(_REQUIRED)) is not None:
            errors += validate_node_selector(required, f"{at}.{_REQUIRED}")
        for index, term in enumerate(node.get(_PREFERRED) or ()):
            here = f"{at}.{_PREFERRED}[{index}]"
            errors += _weight(term, here)
            # Preferences may name values that no label can have: upstream has always let them.
            errors += validate_node_selector_term(term.get("preference") or {}, f"{here}.preference", values=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        if pods := affinity.get(kind):
            for index, term in enumerate(pods.get(_REQUIRED) or ()):
                errors += _validate_pod_term(term, f"{path}.{kind}.{_REQUIRED}[{index}]")
            for index, term in enumerate(pods.get(_PREFERRED) or ()):
                here = f"{path}.{kind}.{_PREFERRED}[{index}]"
                errors += _weight(term, here)
                errors += _validate_pod_term(term.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")
    return errors


def _weight(term: Obj, path: str) -> list[FieldError]:
    weight = term.get("weight") or 0
    return [] if 1 <= weight <= 100 else [FieldError.invalid(f"{path}.weight", weight, _WEIGHT)]


def validate_node_selector(selector: Obj, path: str) -> list[FieldError]:
    """At least one term, every term valid."""
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        detail = "must have at least one node selector term"
        return [FieldError.required(f"{path}.nodeSelectorTerms", detail)]
    return [
        error
        for index, term in enumerate(terms)
        for error in validate_node_selector_term(term, f"{path}.nodeSelectorTerms[{index}]")
    ]


def validate_node_selector_term(term: Obj, path: str, *, values: bool = True) -> list[FieldError]:
    """Expressions over labels and over metadata.name; `values`: they have to be values that labels can have."""
    errors: list[FieldError] = []
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        errors += _validate_node_expression(expression, f"{path}.matchExpressions[{index}]", values)
    for index, expression in enumerate(term.get("matchFields") or ()):
        errors += _validate_field_expression(expression, f"{path}.matchFields[{index}]")
    return errors


def _validate_node_expression(expression: Obj, path: str, check_values: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = expression.get("operator") or "", expression.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            detail = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(FieldError.required(f"{path}.values", detail))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(FieldError.forbidden(f"{path}.values", detail))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(FieldError.required(f"{path}.values", detail))
    else:
        errors.append(FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator"))
    errors += check_label_name(f"{path}.key", expression.get("key") or "")
    if check_values:
        for index, value in enumerate(values):
            errors += invalid_each(f"{path}.values[{index}]", value, names.label_value(value))
    return errors


def _validate_field_expression(expression: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = expression.get("operator") or "", expression.get("values") or []
    if operator in ("In", "NotIn"):
        if len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            errors.append(FieldError.required(f"{path}.values", detail))
    else:
        errors.append(FieldError.invalid(f"{path}.operator", operator, "not a valid selector operator"))
    key = expression.get("key") or ""
    if key != "metadata.name":
        errors.append(FieldError.invalid(f"{path}.key", key, "not a valid field selector key"))
    else:
        for index, value in enumerate(values):
            errors += invalid_each(f"{path}.values[{index}]", value, names.dns_subdomain(value))
    return errors


def _validate_pod_term(term: Obj, path: str) -> list[FieldError]:
    errors = check_label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    errors += check_label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        errors += invalid_each(f"{path}.namespace", name, names.dns_label(name))
    errors += _label_keys(term, path)
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(FieldError.required(f"{path}.topologyKey", "can not be empty"))
    return errors + check_label_name(f"{path}.topologyKey", key)


def _label_keys(term: Obj, path: str) -> list[FieldError]:
    """matchLabelKeys and mismatchLabelKeys: label names, not in each other, not in the selector already."""
    errors: list[FieldError] = []
    wanted, unwanted, selector = (
        term.get("matchLabelKeys") or [],
        term.get("mismatchLabelKeys") or [],
        term.get("labelSelector"),
    )
    for field, keys in (("matchLabelKeys", wanted), ("mismatchLabelKeys", unwanted)):
        if keys and selector is None:
            errors.append(FieldError.forbidden(f"{path}.{field}", _NO_SELECTOR))
        elif keys:
            for index, key in enumerate(keys):
                errors += check_label_name(f"{path}.{field}[{index}]", key)
    # The server itself adds an expression for each key: only a second one is the client's.
    known = set((selector or {}).get("matchLabels") or ())
    for expression in (selector or {}).get("matchExpressions") or ():
        key = expression.get("key") or ""
        if key in wanted and key in known:
            errors.append(FieldError.invalid(f"{path}[{wanted.index(key)}]", key, _IN_BOTH))
        known.add(key)
    detail = "exists in both matchLabelKeys and mismatchLabelKeys"
    return errors + [
        FieldError.invalid(f"{path}.matchLabelKeys[{index}]", key, detail)
        for index, key in enumerate(wanted)
        if key in unwanted
    ]


def validate_tolerations(tolerations: list[Obj], path: str) -> list[FieldError]:
    """Keys, operators, values and effects that fit together."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        at = f"{path}[{index}]"
        key, operator, effect = toleration.get("key"), toleration.get("operator"), toleration.get("effect")
        value = toleration.get("value") or ""
        if key:
            if texts := names.qualified_name(key):
                errors += invalid_each(f"{at}.key", key, texts)
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(FieldError.invalid(f"{at}.operator", operator or "", detail))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(FieldError.invalid(f"{at}.effect", effect or "", detail))
        if operator in (None, "", "Equal"):
            if texts := names.label_value(value):
                errors.append(FieldError.invalid(f"{at}.operator", value, ";".join(texts)))
        elif operator == "Exists":
            if value:
                detail = "value must be empty when `operator` is 'Exists'"
                errors.append(FieldError.invalid(f"{at}.operator", value, detail))
        else:
            errors.append(unsupported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in TAINT_EFFECTS:
            errors.append(unsupported(f"{at}.effect", effect, TAINT_EFFECTS))
    return errors


def validate_spread(constraints: list[Obj], path: str) -> list[FieldError]:
    """topologySpreadConstraints."""
    errors: list[FieldError] = []
    pairs = [(each.get("topologyKey") or "", each.get("whenUnsatisfiable") or "") for each in constraints]
    for index, constraint in enumerate(constraints):
        at, skew, (key, action) = f"{path}[{index}]", constraint.get("maxSkew") or 0, pairs[index]
        if skew <= 0:
            errors.append(FieldError.invalid(f"{at}.maxSkew", skew, _NOT_POSITIVE))
        if not key:
            errors.append(FieldError.required(f"{at}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(unsupported(f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if (key, action) in pairs[index + 1 :]:  # told at the first of them
            where = f"{at}.{{topologyKey, whenUnsatisfiable}}"
            errors.append(FieldError.duplicate(where, f"{{{key}, {action}}}"))
        if (domains := constraint.get("minDomains")) is not None:
            if domains <= 0:
                errors.append(FieldError.invalid(f"{at}.minDomains", domains, _NOT_POSITIVE))
            if action != "DoNotSchedule":
                detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                errors.append(FieldError.invalid(f"{at}.minDomains", domains, detail))
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if (value := constraint.get(policy)) is not None and value not in ("Honor", "Ignore"):
                errors.append(unsupported(f"{at}.{policy}", value, ("Honor", "Ignore")))
        errors += _label_keys(constraint, at)
        errors += check_label_selector(f"{at}.labelSelector", constraint.get("labelSelector"))
    return errors


def validate_gates(gates: list[Obj], path: str) -> list[FieldError]:
    """schedulingGates: unique qualified names."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        errors += invalid_each(f"{path}[{index}]", name, names.qualified_name(name))
        if name in seen:
            errors.append(FieldError.duplicate(f"{path}[{index}]", name))
        seen.add(name)
    return errors
