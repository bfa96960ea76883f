"""Admission policies, their bindings, and the rules and conditions that webhooks share with them.

Owns what can be said of a policy when it is written, expressions included. Called by the strategy table.
"""

import re
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.expressions import check_expression
from apiserver.registry.validation.fields import check_enum, check_label_selector, invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_MAX_CONDITIONS = 64
_MAX_MESSAGE_EXPRESSION = 5 * 1024
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SEEN = ("object", "oldObject", "request", "authorizer", "authorizer.requestResource")
_PARAMS = (*_SEEN, "namespaceObject", "params", "variables")


def validate_rule(rule: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("apiGroups", "apiVersions", "resources"):
        values = rule.get(field) or []
        if not values:
            errors.append(FieldError.required(f"{path}.{field}"))
        elif len(values) > 1 and "*" in values:
            detail = (
                "if '*' is present, must not specify other "
                + {
                    "apiGroups": "API groups",
                    "apiVersions": "API versions",
                    "resources": "resources",
                }[field]
            )
            errors.append(FieldError.invalid(f"{path}.{field}", values, detail))
    operations = rule.get("operations") or []
    if not operations:
        errors.append(FieldError.required(f"{path}.operations"))
    elif len(operations) > 1 and "*" in operations:
        detail = "if '*' is present, must not specify other operations"
        errors.append(FieldError.invalid(f"{path}.operations", operations, detail))
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(unsupported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    return errors + check_enum(f"{path}.scope", rule.get("scope"), _SCOPES)


def validate_conditions(conditions: list[Obj], path: str, variables: tuple[str, ...] = _SEEN) -> list[FieldError]:
    """`matchConditions` of a webhook or a policy."""
    errors: list[FieldError] = []
    if len(conditions) > _MAX_CONDITIONS:
        errors.append(FieldError.too_many(path, len(conditions), _MAX_CONDITIONS))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at, name = f"{path}[{index}]", condition.get("name") or ""
        errors += _expression(condition.get("expression"), f"{at}.expression", "bool", variables)
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        else:
            errors += invalid_each(f"{at}.name", name, names.qualified_name(name))
            if name in seen:
                errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
    return errors


def _expression(text: str | None, path: str, result: str, variables: tuple[str, ...]) -> list[FieldError]:
    if not (text or "").strip():
        return [FieldError.required(path)]
    return check_expression(path, str(text), result, variables)


def validate_admission_policy(obj: Obj) -> list[FieldError]:
    """ValidatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    errors = check_enum("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    errors += _validate_param_kind(spec.get("paramKind"), "spec.paramKind")
    errors += _validate_constraints(spec.get("matchConstraints"), "spec.matchConstraints")
    errors += validate_conditions(spec.get("matchConditions") or [], "spec.matchConditions", _PARAMS)
    errors += _validate_variables(spec.get("variables") or [], "spec.variables")
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        errors += [
            FieldError.required("spec.validations", detail),
            FieldError.required("spec.auditAnnotations", detail),
        ]
    for index, validation in enumerate(validations):
        errors += _validate_validation(validation, f"spec.validations[{index}]")
    for index, annotation in enumerate(annotations):
        errors += _validate_annotation(annotation, f"spec.auditAnnotations[{index}]")
    return errors


def _validate_validation(validation: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    text, message = str(validation.get("expression") or ""), validation.get("message")
    if not text.strip():
        errors.append(FieldError.required(f"{path}.expression", "expression is not specified"))
    else:
        errors += check_expression(f"{path}.expression", text, "bool", _PARAMS)
    if message and not message.strip():
        errors.append(FieldError.invalid(f"{path}.message", message, "message must be non-empty if specified"))
    elif message and "\n" in message.strip():
        errors.append(FieldError.invalid(f"{path}.message", message, "message must not contain line breaks"))
    elif "\n" in text.strip() and not message:
        detail = "message must be specified if expression contains line breaks"
        errors.append(FieldError.required(f"{path}.message", detail))
    if told := validation.get("messageExpression"):
        if len(told) > _MAX_MESSAGE_EXPRESSION:
            errors.append(FieldError.too_long(f"{path}.messageExpression", _MAX_MESSAGE_EXPRESSION))
        else:
            errors += check_expression(f"{path}.messageExpression", told, "string", _PARAMS)
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(unsupported(f"{path}.reason", reason, _REASONS))
    return errors


def _validate_annotation(annotation: Obj, path: str) -> list[FieldError]:
    key = annotation.get("key") or ""
    errors = (
        invalid_each(f"{path}.key", key, names.qualified_name(key)) if key else [FieldError.required(f"{path}.key")]
    )
    return errors + _expression(annotation.get("valueExpression"), f"{path}.valueExpression", "", _PARAMS)


def _validate_variables(variables: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        at, name = f"{path}[{index}]", variable.get("name") or ""
        if not name.strip():
            errors.append(FieldError.required(f"{at}.name", "name is not specified"))
        elif _IDENTIFIER.fullmatch(name) is None:
            errors.append(FieldError.invalid(f"{at}.name", name, "name is not a valid CEL identifier"))
        elif name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        seen.add(name)
        if not (variable.get("expression") or "").strip():
            errors.append(FieldError.required(f"{at}.expression", "expression is not specified"))
        else:
            errors += check_expression(f"{at}.expression", variable["expression"], "", _PARAMS)
    return errors


def _validate_param_kind(kind: Obj | None, path: str) -> list[FieldError]:
    if kind is None:
        return []
    errors = []
    if not kind.get("apiVersion"):
        errors.append(FieldError.required(f"{path}.apiVersion"))
    elif kind["apiVersion"].count("/") > 1:
        detail = f"unexpected GroupVersion string: {kind['apiVersion']}"
        errors.append(FieldError.invalid(f"{path}.apiVersion", kind["apiVersion"], detail))
    if not kind.get("kind"):
        errors.append(FieldError.required(f"{path}.kind"))
    return errors


def _validate_constraints(match: Obj | None, path: str) -> list[FieldError]:
    if match is None:
        return [FieldError.required(path)]
    errors = _validate_resources(match, path)
    if not match.get("resourceRules"):
        errors.append(FieldError.required(f"{path}.resourceRules"))
    return errors


def _validate_resources(match: Obj, path: str) -> list[FieldError]:
    errors = check_enum(f"{path}.matchPolicy", match.get("matchPolicy"), ("Equivalent", "Exact"))
    for field in ("namespaceSelector", "objectSelector"):
        errors += check_label_selector(f"{path}.{field}", match.get(field))
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(field) or ()):
            errors += validate_rule(rule, f"{path}.{field}[{index}]")
    return errors


def validate_mutating_policy(obj: Obj) -> list[FieldError]:
    """MutatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    errors = check_enum("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    errors += _validate_param_kind(spec.get("paramKind"), "spec.paramKind")
    errors += _validate_constraints(spec.get("matchConstraints"), "spec.matchConstraints")
    errors += validate_conditions(spec.get("matchConditions") or [], "spec.matchConditions", _PARAMS)
    errors += _validate_variables(spec.get("variables") or [], "spec.variables")
    if not spec.get("mutations"):
        errors.append(FieldError.required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(spec.get("mutations") or ()):
        errors += _validate_mutation(mutation, f"spec.mutations[{index}]")
    policies = ("IfNeeded", "Never")
    return errors + check_enum("spec.reinvocationPolicy", spec.get("reinvocationPolicy"), policies, required=True)


def _validate_mutation(mutation: Obj, path: str) -> list[FieldError]:
    kinds = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
    kind = mutation.get("patchType")
    if kind not in kinds:
        return check_enum(f"{path}.patchType", kind, tuple(kinds), required=True)
    field = kinds[kind]
    if mutation.get(field) is None:
        return [FieldError.required(f"{path}.{field}", f"must be specified when patchType is {kind}")]
    return _expression(mutation[field].get("expression"), f"{path}.{field}.expression", "", _PARAMS)


def validate_policy_binding(obj: Obj) -> list[FieldError]:
    """ValidatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    errors = _validate_binding(spec)
    actions = spec.get("validationActions") or []
    if not actions:
        errors.append(FieldError.required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(actions):
        path = f"spec.validationActions[{index}]"
        if action not in ("Audit", "Deny", "Warn"):
            errors.append(unsupported(path, action, ("Audit", "Deny", "Warn")))
        elif action in actions[:index]:
            errors.append(FieldError.duplicate(path, action))
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        errors.append(FieldError.invalid("spec.validationActions", actions, detail))
    return errors


def validate_mutating_binding(obj: Obj) -> list[FieldError]:
    """MutatingAdmissionPolicyBinding."""
    return _validate_binding(obj.get("spec") or {})


def _validate_binding(spec: Obj) -> list[FieldError]:
    errors = [] if spec.get("policyName") else [FieldError.required("spec.policyName")]
    ref = spec.get("paramRef")
    if ref is not None:
        path, name, selector = "spec.paramRef", ref.get("name"), ref.get("selector")
        if name and selector is not None:
            detail = "name and selector are mutually exclusive"
            errors.append(FieldError.forbidden(f"{path}.name", detail))
            errors.append(FieldError.forbidden(f"{path}.selector", detail))
        elif not name and selector is None:
            detail = "one of name or selector must be specified"
            errors.append(FieldError.required(path, detail))
        actions = ("Allow", "Deny")
        found = ref.get("parameterNotFoundAction")
        errors += check_enum(f"{path}.parameterNotFoundAction", found, actions, required=True)
    return errors + _validate_resources(spec.get("matchResources") or {}, "spec.matchResources")
