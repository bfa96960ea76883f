"""What a pod as a whole asks for: resource claims, and requests and limits of all its containers together.

Called by the pod spec validation.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from apiserver.registry.validation import names
from apiserver.registry.validation.fields import invalid_each
from apiserver.registry.validation.resources import check_pod_resource_name, check_requirements, is_huge
from machinery import quantity
from machinery.field_errors import FieldError

Obj = dict[str, Any]
_SOURCES = ("resourceClaimName", "resourceClaimTemplateName")


def validate_claims(claims: list[Obj], path: str) -> list[FieldError]:
    """resourceClaims: each of its own name, from one source."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        at, name = f"{path}[{index}]", claim.get("name") or ""
        if not name:
            errors.append(FieldError.required(f"{at}.name"))
        elif name in seen:
            errors.append(FieldError.duplicate(f"{at}.name", name))
        else:
            errors += invalid_each(f"{at}.name", name, names.dns_label(name))
            seen.add(name)
        given = [source for source in _SOURCES if claim.get(source) is not None]
        shown = {"Name": name, **{f"R{source[1:]}": claim.get(source) for source in _SOURCES}}
        if len(given) == 2:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(FieldError.invalid(at, shown, detail))
        elif not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(FieldError.invalid(at, shown, detail))
        for source in given:
            errors += invalid_each(f"{at}.{source}", claim[source], names.dns_subdomain(claim[source]))
    return errors


def validate_pod_resources(spec: Obj, resources: Obj, path: str, claims: Sequence[str]) -> list[FieldError]:
    """spec.resources: at least what the containers request together, at least what each of them may use."""
    errors: list[FieldError] = []
    if resources.get("claims") is not None:
        detail = "claims cannot be set for Resources at pod-level"
        errors.append(FieldError.forbidden(f"{path}.claims", detail))
    errors += check_requirements(path, resources, claims, check_pod_resource_name)
    try:
        return errors + _consistency(spec, resources, path)
    except ValueError:  # an amount that is none: told above
        return errors


def _consistency(spec: Obj, resources: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, asked in sorted(container_requests(spec).items()):
        given = requests.get(name, "0")
        if (name in ("cpu", "memory") or is_huge(name)) and asked > quantity.parse(given):
            detail = f"must be greater than or equal to aggregate container requests of {_shown(asked)}"
            errors.append(FieldError.invalid(f"{path}.requests[{name}]", str(given), detail))
    for index, container in enumerate(spec.get("containers") or ()):
        for name, limit in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and quantity.parse(limit) > quantity.parse(limits[name]):
                where = f"{path}.containers[{index}][{name}].limits"
                detail = f"must be less than or equal to pod limits of {limits[name]}"
                errors.append(FieldError.invalid(where, str(limit), detail))
    return errors


def _shown(amount: Fraction) -> str:
    return quantity.canonical(str(amount) if amount.denominator == 1 else f"{int(amount * 10**9)}n")


def container_requests(spec: Obj) -> dict[str, Fraction]:
    """What the containers need together: sidecars beside all that start after them. Raises ValueError."""

    def requests(container: Obj) -> dict[str, Fraction]:
        asked = (container.get("resources") or {}).get("requests") or {}
        return {name: quantity.parse(amount) for name, amount in asked.items()}

    running: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        asked = requests(container)
        for name, amount in asked.items():
            if container.get("restartPolicy") == "Always":
                running[name] = running.get(name, Fraction(0)) + amount
                peak[name] = max(peak.get(name, Fraction(0)), running[name])
            else:
                peak[name] = max(peak.get(name, Fraction(0)), running.get(name, Fraction(0)) + amount)
    for container in spec.get("containers") or ():
        for name, amount in requests(container).items():
            running[name] = running.get(name, Fraction(0)) + amount
    return {name: max(running.get(name, Fraction(0)), peak.get(name, Fraction(0))) for name in {*running, *peak}}
