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
_MUTABLE = ("*", "CONNECT", "CREATE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_MAX_ANNOTATIONS, _MAX_VALUE_EXPRESSION = 20, 5 * 1024
_MAX_CONDITIONS = 64
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SEEN = ("object", "oldObject", "request", "authorizer", "authorizer.requestResource")
_PARAMS = (*_SEEN, "namespaceObject", "params", "variables")


def validate_rule(rule: Obj, path: str) -> list[FieldError]:
    """RuleWithOperations."""
    errors: list[FieldError] = []
    operations = rule.get("operations") or []
    errors += _wildcard(operations, f"{path}.operations", "operations")
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(unsupported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    errors += _wildcard(rule.get("apiGroups") or [], f"{path}.apiGroups", "API groups")
    versions = rule.get("apiVersions") or []
    errors += _wildcard(versions, f"{path}.apiVersions", "API versions")
    for index, version in enumerate(versions):
        if not version:
            errors.append(FieldError.required(f"{path}.apiVersions[{index}]"))
    errors += _validate_kinds(rule.get("resources") or [], f"{path}.resources")
    return errors + check_enum(f"{path}.scope", rule.get("scope"), _SCOPES)


def _wildcard(values: list[str], path: str, what: str) -> list[FieldError]:
    """At least one, and nothing beside "*"."""
    if not values:
        return [FieldError.required(path)]
    if len(values) > 1 and "*" in values:
        return [FieldError.invalid(path, values, f"if '*' is present, must not specify other {what}")]
    return []


def _validate_kinds(resources: list[str], path: str) -> list[FieldError]:
    """Resources and subresources, none twice by way of "*"."""
    errors = [] if resources else [FieldError.required(path)]
    all_of: set[str] = set()  # x of x/*
    on_all: set[str] = set()  # x of */x
    plain = False  # upstream remembers the last one only
    for index, resource in enumerate(resources):
        at = f"{path}[{index}]"
        if not resource:
            errors.append(FieldError.required(at))
            continue
        kind, slash, part = resource.partition("/")
        if not slash:
            plain = resource != "*"
            continue
        if kind in all_of:
            detail = f"if '{kind}/*' is present, must not specify {resource}"
            errors.append(FieldError.invalid(at, resource, detail))
        if part in on_all:
            detail = f"if '*/{part}' is present, must not specify {resource}"
            errors.append(FieldError.invalid(at, resource, detail))
        if part == "*":
            all_of.add(kind)
        if kind == "*":
            on_all.add(part)
    if len(resources) > 1 and "*/*" in resources:
        detail = "if '*/*' is present, must not specify other resources"
        errors.append(FieldError.invalid(path, resources, detail))
    if "*" in resources and plain:
        detail = "if '*' is present, must not specify other resources without subresources"
        errors.append(FieldError.invalid(path, resources, detail))
    return errors


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
    return errors + _validate_annotations(annotations, "spec.auditAnnotations", obj["metadata"].get("name") or "")


def _validate_validation(validation: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    text, message = str(validation.get("expression") or ""), validation.get("message")
    if not text.strip():
        errors.append(FieldError.required(f"{path}.expression", "expression is not specified"))
    else:
        errors += check_expression(f"{path}.expression", text, "bool", _PARAMS)
    if told := validation.get("messageExpression"):
        if not told.strip():
            errors.append(FieldError.invalid(f"{path}.messageExpression", told, "must be non-empty if specified"))
        else:
            errors += check_expression(f"{path}.messageExpression", told, "string", _PARAMS)
    if message and not message.strip():
        errors.append(FieldError.invalid(f"{path}.message", message, "message must be non-empty if specified"))
    elif message and any(end in message.strip() for end in "\n\r"):
        errors.append(FieldError.invalid(f"{path}.message", message, "message must not contain line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(unsupported(f"{path}.reason", reason, _REASONS))
    return errors


def _validate_annotations(annotations: list[Obj], path: str, policy: str) -> list[FieldError]:
    """At most twenty, of distinct keys that are names together with the policy's."""
    errors: list[FieldError] = []
    if len(annotations) > _MAX_ANNOTATIONS:
        detail = f"must not have more than {_MAX_ANNOTATIONS} auditAnnotations"
        errors.append(FieldError.invalid(path, annotations, detail))
    seen: set[str] = set()
    for index, annotation in enumerate(annotations):
        at, key, text = f"{path}[{index}]", annotation.get("key") or "", annotation.get("valueExpression") or ""
        if policy:
            errors += invalid_each(f"{at}.key", f"{policy}/{key}", names.qualified_name(f"{policy}/{key}"))
        else:
            errors.append(FieldError.invalid(f"{at}.key", key, "requires metadata.name be non-empty"))
        if not text.strip():
            errors.append(FieldError.required(f"{at}.valueExpression", "valueExpression is not specified"))
        elif len(text.strip().encode()) > _MAX_VALUE_EXPRESSION:
            detail = f"must not exceed {_MAX_VALUE_EXPRESSION} bytes in length"
            errors.append(FieldError.required(f"{at}.valueExpression", detail))
        else:
            errors += check_expression(f"{at}.valueExpression", text, "", _PARAMS)
        if key in seen:
            errors.append(FieldError.duplicate(f"{at}.key", key))
        seen.add(key)
    return errors


def _validate_variables(variables: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        at, name = f"{path}[{index}]", variable.get("name") or ""
        if not name.strip():
            errors.append(FieldError.required(f"{at}.name", "name is not specified"))
        elif _IDENTIFIER.fullmatch(name) is None or name in _RESERVED:
            errors.append(FieldError.invalid(f"{at}.name", name, "name is not a valid CEL identifier"))
        if not (variable.get("expression") or "").strip():
            errors.append(FieldError.required(f"{at}.expression", "expression is not specified"))
        else:
            errors += check_expression(f"{at}.expression", variable["expression"], "", _PARAMS)
    return errors


def _validate_param_kind(kind: Obj | None, path: str) -> list[FieldError]:
    if kind is None:
        return []
    errors: list[FieldError] = []
    at, written, name = f"{path}.apiVersion", kind.get("apiVersion") or "", kind.get("kind") or ""
    if not written:
        errors.append(FieldError.required(at))
    elif written.count("/") > 1:
        errors.append(FieldError.invalid(at, written, f"unexpected GroupVersion string: {written}"))
    else:
        group, _, version = written.rpartition("/")
        if group and (texts := names.dns_subdomain(group)):
            errors.append(FieldError.invalid(at, group, ",".join(texts)))
        if not version:
            errors.append(FieldError.invalid(at, written, "version must be specified"))
        elif texts := names.dns_1035_label(version):
            errors.append(FieldError.invalid(at, version, ",".join(texts)))
    if not name:
        errors.append(FieldError.required(f"{path}.kind"))
    elif texts := names.dns_1035_label(name.lower()):
        detail = f"may have mixed case, but should otherwise match: {','.join(texts)}"
        errors.append(FieldError.invalid(f"{path}.kind", name, detail))
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
            errors += _validate_names(rule.get("resourceNames") or [], f"{path}.{field}[{index}].resourceNames")
            errors += validate_rule(rule, f"{path}.{field}[{index}]")
    return errors


def _validate_names(wanted: list[str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, name in enumerate(wanted):
        errors += invalid_each(f"{path}[{index}]", name, names.path_segment(name))
        if name in wanted[:index]:
            errors.append(FieldError.duplicate(f"{path}[{index}]", name))
    return errors


def _only_mutable(match: Obj | None, path: str) -> list[FieldError]:
    """What is deleted cannot be mutated."""
    return [
        unsupported(f"{path}.resourceRules.operations", operation, _MUTABLE)
        for rule in (match or {}).get("resourceRules") or ()
        for operation in rule.get("operations") or ()
        if operation not in _MUTABLE
    ]


def validate_mutating_policy(obj: Obj) -> list[FieldError]:
    """MutatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    errors = check_enum("spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    errors += _validate_param_kind(spec.get("paramKind"), "spec.paramKind")
    errors += _validate_constraints(spec.get("matchConstraints"), "spec.matchConstraints")
    errors += _only_mutable(spec.get("matchConstraints"), "spec.matchConstraints")
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
    errors: list[FieldError] = []
    for name, field in kinds.items():
        given = mutation.get(field)
        if name != kind and given is not None:
            detail = f"must not be specified when patchType is {kind}"
            errors.append(FieldError.invalid(f"{path}.{field}", f"{{{field}}}", detail))
        elif name == kind and given is None:
            errors.append(FieldError.required(f"{path}.{field}", f"must be specified when patchType is {kind}"))
        elif name == kind and given is not None:
            errors += _expression(given.get("expression"), f"{path}.{field}.expression", "", _PARAMS)
    return errors


def validate_policy_binding(obj: Obj) -> list[FieldError]:
    """ValidatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    errors = _validate_binding(spec)
    actions = spec.get("validationActions") or []
    for index, action in enumerate(actions):
        path = f"spec.validationActions[{index}]"
        if action not in ("Audit", "Deny", "Warn"):
            errors.append(unsupported(path, action, ("Audit", "Deny", "Warn")))
        if action in actions[:index]:
            errors.append(FieldError.duplicate(path, action))
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        errors.append(FieldError.invalid("spec.validationActions", actions, detail))
    if not actions:
        errors.append(FieldError.required("spec.validationActions", "at least one validation action is required"))
    return errors


def validate_mutating_binding(obj: Obj) -> list[FieldError]:
    """MutatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    return _validate_binding(spec) + _only_mutable(spec.get("matchResources"), "spec.matchResources")


def _validate_binding(spec: Obj) -> list[FieldError]:
    policy, ref = spec.get("policyName") or "", spec.get("paramRef")
    errors = [FieldError.required("spec.policyName")]
    if policy:
        errors = invalid_each("spec.policyName", policy, names.dns_subdomain(policy))
    if ref is not None:
        path, name, selector = "spec.paramRef", ref.get("name"), ref.get("selector")
        if name:
            errors += invalid_each(f"{path}.name", name, names.path_segment(name))
        errors += check_label_selector(f"{path}.selector", selector)
        if name and selector is not None:
            detail = "name and selector are mutually exclusive"
            errors.append(FieldError.forbidden(f"{path}.name", detail))
            errors.append(FieldError.forbidden(f"{path}.selector", detail))
        elif not name and selector is None:
            detail = "one of name or selector must be specified"
            errors.append(FieldError.required(path, detail))
        actions = ("Deny", "Allow")
        found = ref.get("parameterNotFoundAction")
        errors += check_enum(f"{path}.parameterNotFoundAction", found, actions, required=True)
    return errors + _validate_resources(spec.get("matchResources") or {}, "spec.matchResources")
