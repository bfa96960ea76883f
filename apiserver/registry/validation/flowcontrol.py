"""FlowSchemas and PriorityLevelConfigurations.

Called by the rules of those kinds in the strategy table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from apiserver.flowcontrol import defaults
from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]

_MAX_PRECEDENCE = 10_000
_MAX_QUEUES = 10_000_000
_HASH_BITS = 60
_EXEMPT = "exempt"
_METHODS = ("ByNamespace", "ByUser")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_PRESERVE = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
_FIXED_LEVELS = {each["metadata"]["name"]: each["spec"] for each in defaults.levels()}
_FIXED_SCHEMAS = {each["metadata"]["name"]: each["spec"] for each in defaults.schemas()}
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
_NAMESPACE = "each member of this list must be '*' or a DNS-1123 label; "


def validate_flow_schema(obj: Obj) -> list[FieldError]:
    """Precedence, priority level, and what requests are meant."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    path, precedence = "spec.matchingPrecedence", spec.get("matchingPrecedence") or 0
    if precedence <= 0:
        errors.append(FieldError.invalid(path, precedence, "must be a positive value"))
    if precedence > _MAX_PRECEDENCE:
        errors.append(FieldError.invalid(path, precedence, f"must not be greater than {_MAX_PRECEDENCE}"))
    if precedence == 1 and obj["metadata"].get("name") != _EXEMPT:
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(FieldError.invalid(path, precedence, detail))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        errors.append(unsupported("spec.distinguisherMethod.type", method.get("type") or "", _METHODS))
    path, level = "spec.priorityLevelConfiguration.name", (spec.get("priorityLevelConfiguration") or {}).get("name")
    if not level:
        errors.append(FieldError.required(path, "must reference a priority level"))
    else:
        errors += invalid_each(path, level, names.dns_subdomain(level))
    for index, rule in enumerate(spec.get("rules") or ()):
        errors += _rule(rule, f"spec.rules[{index}]")
    return errors + _fixed(obj, _FIXED_SCHEMAS) + _conditions(obj)


def _fixed(obj: Obj, fixed: Mapping[str, Obj]) -> list[FieldError]:
    """The mandatory objects are what they are, but for the share of the exempt level."""
    name, spec = obj["metadata"].get("name") or "", obj.get("spec") or {}
    if name not in defaults.MANDATORY:
        return []
    wanted, aside = fixed[name], ""
    if "exempt" in wanted:
        wanted = {key: value for key, value in {**wanted, "exempt": spec.get("exempt")}.items() if value is not None}
        aside = "except the 'spec.exempt' field "
    if _meaning(spec) == _meaning(wanted):
        return []
    return [FieldError.invalid("spec", spec, f"spec of '{name}' {aside}must equal the fixed value")]


def _meaning(value: Any) -> Any:
    """A value without what is empty: Go's comparison does not tell it from what is left out."""
    if isinstance(value, dict):
        found = {key: _meaning(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner not in (None, {}, [], "", False)}
    return [_meaning(inner) for inner in value] if isinstance(value, list) else value


def _rule(rule: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    subjects = rule.get("subjects") or []
    for index, subject in enumerate(subjects):
        errors += _subject(subject, f"{path}.subjects[{index}]")
    if not subjects:
        errors.append(FieldError.required(f"{path}.subjects", "subjects must contain at least one value"))
    resources, others = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not others:
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(FieldError.required(path, detail))
    for index, each in enumerate(resources):
        errors += _resource_rule(each, f"{path}.resourceRules[{index}]")
    for index, each in enumerate(others):
        errors += _path_rule(each, f"{path}.nonResourceRules[{index}]")
    return errors


def _subject(subject: Obj, path: str) -> list[FieldError]:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        return [unsupported(f"{path}.kind", kind, tuple(_SUBJECTS))]
    field = _SUBJECTS[kind]
    given = subject.get(field)
    errors: list[FieldError] = []
    if given is None:
        detail = f"{field} is required when subject kind is '{kind}'"
        errors.append(FieldError.required(f"{path}.{field}", detail))
    else:
        errors += _named(given, kind, f"{path}.{field}")
    for other in ("ServiceAccount", "User", "Group"):
        if other != kind and subject.get(_SUBJECTS[other]) is not None:
            detail = f"{_SUBJECTS[other]} is forbidden when subject kind is not '{other}'"
            errors.append(FieldError.forbidden(f"{path}.{_SUBJECTS[other]}", detail))
    return errors


def _named(given: Obj, kind: str, path: str) -> list[FieldError]:
    name = given.get("name") or ""
    errors = [] if name else [FieldError.required(f"{path}.name")]
    if kind == "ServiceAccount":
        if name and name != "*":
            errors += invalid_each(f"{path}.name", name, names.dns_subdomain(name))
        if namespace := given.get("namespace"):
            errors += invalid_each(f"{path}.namespace", namespace, names.dns_label(namespace))
        else:
            errors.append(FieldError.required(f"{path}.namespace", "must specify namespace for service account"))
    return errors


def _verbs(rule: Obj, path: str) -> list[FieldError]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [FieldError.required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs:
        return _alone(verbs, f"{path}.verbs", "verbs")
    return [] if set(verbs) <= set(_VERBS) else [unsupported(f"{path}.verbs", verbs, _VERBS)]


def _alone(values: list[str], path: str, what: str) -> list[FieldError]:
    """`*` means all: nothing else may stand beside it."""
    if "*" not in values or len(values) == 1:
        return []
    return [FieldError.invalid(path, values, f"if '*' is present, must not specify other {what}")]


def _resource_rule(rule: Obj, path: str) -> list[FieldError]:
    errors = _verbs(rule, path)
    for field, one, many in (("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")):
        given = rule.get(field) or []
        if not given:
            errors.append(FieldError.required(f"{path}.{field}", f"resource rules must supply at least one {one}"))
        errors += _alone(given, f"{path}.{field}", many)
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(FieldError.required(f"{path}.namespaces", detail))
    elif "*" in namespaces:
        errors += _alone(namespaces, f"{path}.namespaces", "namespaces")
    else:
        for index, namespace in enumerate(namespaces):
            texts = [_NAMESPACE + text for text in names.dns_label(namespace)]
            errors += invalid_each(f"{path}.namespaces[{index}]", namespace, texts)
    return errors


def _path_rule(rule: Obj, path: str) -> list[FieldError]:
    errors, urls = _verbs(rule, path), rule.get("nonResourceURLs") or []
    at = f"{path}.nonResourceURLs"
    if not urls:
        errors.append(FieldError.required(at, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        errors += _alone(urls, at, "non-resource URLs")
    else:
        for index, url in enumerate(urls):
            if problem := _url_problem(url):
                errors.append(FieldError.invalid(f"{at}[{index}]", url, problem))
    return errors


def _url_problem(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


def validate_priority_level(obj: Obj) -> list[FieldError]:
    """Exempt or limited, and how."""
    spec = obj.get("spec") or {}
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    errors: list[FieldError] = []
    if _PRESERVE in (obj["metadata"].get("annotations") or {}):
        detail = f"annotation '{_PRESERVE}' is forbidden in flowcontrol.apiserver.k8s.io/v1"
        errors.append(FieldError.forbidden("metadata.annotations", detail))
    if (obj["metadata"].get("name") == _EXEMPT) != (kind == "Exempt"):
        detail = "type must be 'Exempt' if and only if name is 'exempt'"
        errors.append(FieldError.invalid("spec.type", kind, detail))
    if kind == "Exempt":
        if limited is not None:
            errors.append(FieldError.forbidden("spec.limited", "must be nil if the type is not Limited"))
        if exempt is not None:
            errors += _shares(exempt, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            errors.append(FieldError.forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errors.append(FieldError.required("spec.limited", "must not be empty when type is Limited"))
        else:
            errors += _limited(limited, "spec.limited")
    else:
        errors.append(unsupported("spec.type", kind, ("Exempt", "Limited")))
    return errors + _fixed(obj, _FIXED_LEVELS) + _conditions(obj)


def _shares(level: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    shares, lendable = level.get("nominalConcurrencyShares") or 0, level.get("lendablePercent")
    if shares < 0:
        errors.append(FieldError.invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lendable is not None and not 0 <= lendable <= 100:
        detail = "must be between 0 and 100, inclusive"
        errors.append(FieldError.invalid(f"{path}.lendablePercent", lendable, detail))
    return errors


def _limited(level: Obj, path: str) -> list[FieldError]:
    errors = _shares(level, path)
    borrowing = level.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        detail = "if specified, must be a non-negative integer"
        errors.append(FieldError.invalid(f"{path}.borrowingLimitPercent", borrowing, detail))
    response = level.get("limitResponse") or {}
    kind, queuing, at = response.get("type") or "", response.get("queuing"), f"{path}.limitResponse"
    if kind == "Reject":
        if queuing is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(FieldError.forbidden(f"{at}.queuing", detail))
    elif kind == "Queue":
        if queuing is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            errors.append(FieldError.required(f"{at}.queuing", detail))
        else:
            errors += _queuing(queuing, f"{at}.queuing")
    else:
        errors.append(unsupported(f"{at}.type", kind, ("Queue", "Reject")))
    return errors


def _queuing(queuing: Obj, path: str) -> list[FieldError]:
    length, queues, hand = (queuing.get(field) or 0 for field in ("queueLengthLimit", "queues", "handSize"))
    errors: list[FieldError] = []
    for field, value in (("queueLengthLimit", length), ("queues", queues), ("handSize", hand)):
        if value <= 0:
            errors.append(FieldError.invalid(f"{path}.{field}", value, "must be positive"))
    if queues > _MAX_QUEUES:
        errors.append(FieldError.invalid(f"{path}.queues", queues, f"must not be greater than {_MAX_QUEUES}"))
    if hand > max(queues, 0):
        detail = f"should not be greater than queues ({queues})"
        errors.append(FieldError.invalid(f"{path}.handSize", hand, detail))
    elif hand > 0 and math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        detail = f"required entropy bits of deckSize {queues} and handSize {hand} "
        errors.append(FieldError.invalid(f"{path}.handSize", hand, f"{detail}should not be greater than {_HASH_BITS}"))
    return errors


def _conditions(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}].type", condition.get("type") or ""
        if kind in seen:
            errors.append(FieldError.duplicate(path, kind))
        seen.add(kind)
        if not kind:
            errors.append(FieldError.required(path, "must not be empty"))
    return errors


def validate_status(new: Obj, old: Obj) -> list[FieldError]:
    """The status of either kind: conditions of different types."""
    return _conditions(new)
