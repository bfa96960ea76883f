"""Small checks shared by all kinds: enumerations, ranges, formats at a path, label selectors.

Owns upstream's texts for them. Called by the validation modules only.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.metadata import IMMUTABLE, validate_labels
from machinery.field_errors import FieldError, go_value

Obj = dict[str, Any]
NOT_NEGATIVE = "must be greater than or equal to 0"
MAX_INT32 = 2**31 - 1
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_path_text = re.compile(_PATH).fullmatch
_PATH_ERROR = f"Invalid path (regex used for validation is '{_PATH}')"


def invalid_each(path: str, value: Any, texts: Iterable[str]) -> list[FieldError]:
    """One `Invalid value` finding per text."""
    return [FieldError.invalid(path, value, text) for text in texts]


def unsupported(path: str, value: Any, valid: Sequence[str]) -> FieldError:
    """`Unsupported value`, the supported ones in the given order (upstream sorts only some lists)."""
    listed = ", ".join(go_value(item) for item in valid)
    text = f"Unsupported value: {go_value(value)}"
    return FieldError(path, "FieldValueNotSupported", f"{text}: supported values: {listed}" if valid else text)


def duplicate(path: str, value: Any, detail: str) -> FieldError:
    """`Duplicate value` with an explanation."""
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {go_value(value)}: {detail}")


def check_enum(path: str, value: Any, valid: Sequence[str], *, required: bool = False) -> list[FieldError]:
    """The value is one of `valid`; absent values are `required` or fine.

    Empty text is a value: where it stands for an absent one, the canonical form has dropped it.
    """
    if value is None or (required and value == ""):
        return [FieldError.required(path)] if required else []
    return [] if value in valid else [unsupported(path, value, valid)]


def check_not_negative(path: str, value: Any) -> list[FieldError]:
    """Absent, zero or more."""
    return [FieldError.invalid(path, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def check_range(path: str, value: Any, low: int, high: int) -> list[FieldError]:
    """Between both, inclusive."""
    if value is None or low <= value <= high:
        return []
    return [FieldError.invalid(path, value, f"must be between {low} and {high}, inclusive")]


def check_immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """The value is what it was."""
    return [] if new == old else [FieldError.invalid(path, new, IMMUTABLE)]


def check_label_name(path: str, value: str) -> list[FieldError]:
    """A qualified name."""
    return invalid_each(path, value, names.qualified_name(value))


def check_port_or_name(path: str, value: Any) -> list[FieldError]:
    """An IntOrString that names a container port."""
    if isinstance(value, int):
        return invalid_each(path, value, names.port_number(value))
    if isinstance(value, str):
        return invalid_each(path, value, names.port_name(value))
    return invalid_each(path, 0, names.port_number(0))


def check_label_selector(path: str, selector: Obj | None) -> list[FieldError]:
    """A metav1.LabelSelector."""
    if not selector:
        return []
    errors = validate_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator") or "", expression.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be specified when `operator` is 'In' or 'NotIn'"
                errors.append(FieldError.required(f"{at}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                errors.append(FieldError.forbidden(f"{at}.values", detail))
        else:
            errors.append(FieldError.invalid(f"{at}.operator", operator, "not a valid selector operator"))
        errors += check_label_name(f"{at}.key", expression.get("key") or "")
        for position, value in enumerate(values):
            errors += invalid_each(f"{at}.values[{position}]", value, names.label_value(value))
    return errors


def check_absolute_path(path: str, value: str) -> list[FieldError]:
    """Starts with a slash."""
    return [] if value.startswith("/") else [FieldError.invalid(path, value, "must be an absolute path")]


def check_no_backsteps(path: str, value: str) -> list[FieldError]:
    """No `..` element."""
    return [FieldError.invalid(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def check_descending_path(path: str, value: str) -> list[FieldError]:
    """Relative and without `..`."""
    errors = [FieldError.invalid(path, value, "must be a relative path")] if value.startswith("/") else []
    return errors + check_no_backsteps(path, value)


def check_domain_prefixed_path(path: str, value: str) -> list[FieldError]:
    """`example.com/name`."""
    if not value:
        return [FieldError.required(path)]
    domain, _, rest = value.partition("/")
    if not domain or not rest:
        return [FieldError.invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = invalid_each(path, domain, names.dns_subdomain(domain))
    if not _path_text(rest):
        errors.append(FieldError.invalid(path, rest, _PATH_ERROR))
    return errors
