"""metav1.Condition: states of an object, one of each type. Called by the rules of statuses that have them."""

import re
from typing import Any

from apiserver.registry.validation.fields import check_label_name, unsupported
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_STATES = ("False", "True", "Unknown")
_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_REASON_ERROR = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    f"'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{_REASON}')"
)
_REASON_LENGTH, _MESSAGE_LENGTH = 1024, 32 * 1024


def validate_conditions(conditions: list[Obj], path: str) -> list[FieldError]:
    """Complete ones, each type once."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        at, kind = f"{path}[{index}]", condition.get("type") or ""
        if kind in seen:
            errors.append(FieldError.duplicate(f"{at}.type", kind))
        seen.add(kind)
        errors += check_label_name(f"{at}.type", kind)
        if (state := condition.get("status") or "") not in _STATES:
            errors.append(unsupported(f"{at}.status", state, _STATES))
        if (generation := condition.get("observedGeneration") or 0) < 0:
            detail = "must be greater than or equal to zero"
            errors.append(FieldError.invalid(f"{at}.observedGeneration", generation, detail))
        if not condition.get("lastTransitionTime"):
            errors.append(FieldError.required(f"{at}.lastTransitionTime", "must be set"))
        if not (reason := condition.get("reason")):
            errors.append(FieldError.required(f"{at}.reason", "must be set"))
        else:
            if not re.fullmatch(_REASON, reason):
                errors.append(FieldError.invalid(f"{at}.reason", reason, _REASON_ERROR))
            if len(reason) > _REASON_LENGTH:
                errors.append(FieldError.too_long(f"{at}.reason", _REASON_LENGTH))
        if len((condition.get("message") or "").encode()) > _MESSAGE_LENGTH:
            errors.append(FieldError.too_long(f"{at}.message", _MESSAGE_LENGTH))
    return errors
