"""When the pods of a job have failed for good, and when they have succeeded. Called by the rules of job specs."""

from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import check_not_negative, invalid_each, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATES = ("False", "True", "Unknown")
_RULES, _PATTERNS, _CODES, _INDEXES = 20, 20, 255, 64 * 1024


def _quoted(values: tuple[str, ...]) -> str:
    listed = " ".join(f'"{value}"' for value in values)
    return f"valid values: [{listed}]"


def _choice(path: str, value: str, valid: tuple[str, ...]) -> list[FieldError]:
    if not value:
        return [FieldError.required(path, _quoted(valid))]
    return [] if value in valid else [unsupported(path, value, valid)]


def validate_failure_policy(spec: Obj, policy: Obj, path: str) -> list[FieldError]:
    """Rules that each look either at exit codes or at conditions of pods."""
    pods = (spec.get("template") or {}).get("spec") or {}
    containers = [*(pods.get("containers") or ()), *(pods.get("initContainers") or ())]
    known = {container.get("name") for container in containers}
    rules = policy.get("rules") or []
    errors = [FieldError.too_many(f"{path}.rules", len(rules), _RULES)] if len(rules) > _RULES else []
    for index, rule in enumerate(rules):
        at, action = f"{path}.rules[{index}]", rule.get("action") or ""
        errors += _choice(f"{at}.action", action, _ACTIONS)
        if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            errors.append(FieldError.invalid(f"{at}.action", action, detail))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None:
            errors += _exit_codes(codes, f"{at}.onExitCodes", known)
        errors += _pod_conditions(conditions, f"{at}.onPodConditions")
        if conditions and codes is not None:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(FieldError.invalid_whole(at, detail))
        if not conditions and codes is None:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(FieldError.invalid_whole(at, detail))
    return errors


def _pod_conditions(patterns: list[Obj], path: str) -> list[FieldError]:
    errors = [FieldError.too_many(path, len(patterns), _PATTERNS)] if len(patterns) > _PATTERNS else []
    for index, pattern in enumerate(patterns):
        kind, at = pattern.get("type") or "", f"{path}[{index}]"
        errors += invalid_each(f"{at}.type", kind, names.qualified_name(kind))
        errors += _choice(f"{at}.status", pattern.get("status") or "", _STATES)
    return errors


def _exit_codes(codes: Obj, path: str, containers: set[Any]) -> list[FieldError]:
    operator, values, name = codes.get("operator") or "", codes.get("values") or [], codes.get("containerName")
    errors = _choice(f"{path}.operator", operator, _OPERATORS)
    if name is not None and name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        errors.append(FieldError.invalid(f"{path}.containerName", name, detail))
    if not values:
        errors.append(FieldError.invalid(f"{path}.values", codes.get("values"), "at least one value is required"))
    elif len(values) > _CODES:
        errors.append(FieldError.too_many(f"{path}.values", len(values), _CODES))
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(FieldError.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in values[:index]:
            errors.append(FieldError.duplicate(f"{path}.values[{index}]", value))
    if values != sorted(values):
        errors.append(FieldError.invalid(f"{path}.values", values, "must be ordered"))
    return errors


def validate_success_policy(spec: Obj, policy: Obj, path: str) -> list[FieldError]:
    """Of indexed jobs: how many, or which, indexes have to succeed."""
    rules = policy.get("rules") or []
    if spec.get("completionMode") != "Indexed":
        shown = {
            "Rules": [
                {"SucceededIndexes": each.get("succeededIndexes"), "SucceededCount": each.get("succeededCount")}
                for each in rules
            ]
            or None
        }
        return [FieldError.invalid(path, shown, "requires indexed completion mode")]
    errors: list[FieldError] = []
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        errors.append(FieldError.required(f"{path}.rules", detail))
    if len(rules) > _RULES:
        errors.append(FieldError.too_many(f"{path}.rules", len(rules), _RULES))
    for index, rule in enumerate(rules):
        errors += _success_rule(rule, spec.get("completions") or 0, f"{path}.rules[{index}]")
    return errors


def _success_rule(rule: Obj, completions: int, path: str) -> list[FieldError]:
    indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    errors: list[FieldError] = []
    total = 0
    if count is None and indexes is None:
        detail = "at least one of succeededCount or succeededIndexes must be specified"
        errors.append(FieldError.required(path, detail))
    if indexes is not None:
        if len(indexes) > _INDEXES:
            errors.append(FieldError.too_long(f"{path}.succeededIndexes", _INDEXES))
        total, problem = count_indexes(indexes, completions)
        if problem:
            detail = f"error parsing succeededIndexes: {problem}"
            errors.append(FieldError.invalid(f"{path}.succeededIndexes", indexes, detail))
    if count is not None:
        at = f"{path}.succeededCount"
        errors += check_not_negative(at, count)
        if count > completions:
            detail = f"must be less than or equal to {completions} (the number of specified completions)"
            errors.append(FieldError.invalid(at, count, detail))
        if indexes is not None and count > total:
            what = "the number of indexes in the specified succeededIndexes field"
            errors.append(FieldError.invalid(at, count, f"must be less than or equal to {total} ({what})"))
    return errors


def count_indexes(text: str, completions: int) -> tuple[int, str]:
    """How many indexes `1,3-5` names below `completions`, or what is wrong with it."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            rule = "violates the requirement that an index interval can have at most two parts separated by '-'"
            return 0, f'the fragment "{part}" {rule}'
        numbers: list[int] = []
        for end in ends:
            if not (end.isascii() and end.isdecimal()):
                return 0, f'cannot convert string to integer for index: "{end}"'
            if int(end) >= completions:
                return 0, f'too large index: "{end}"'
            numbers.append(int(end))
            if numbers[-1] <= last:
                return 0, f"non-increasing order, previous: {last}, current: {numbers[-1]}"
            last = numbers[-1]
        total += numbers[-1] - numbers[0] + 1
    return total, ""
