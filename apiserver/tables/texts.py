"""Cell texts that several kinds share: selectors, labels, lists cut short, containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "<none>"
UNSET = "<unset>"


def part(obj: Mapping[str, Any], *path: str) -> Any:
    """The value at a path, or None as soon as a step is missing."""
    value: Any = obj
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def mapping(obj: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The object at a path, or an empty one."""
    value = part(obj, *path)
    return value if isinstance(value, Mapping) else {}


def items(obj: Mapping[str, Any], *path: str) -> list[Any]:
    """The list at a path, or an empty one."""
    value = part(obj, *path)
    return value if isinstance(value, list) else []


def number(obj: Mapping[str, Any], *path: str) -> int:
    """The number at a path, or 0: counts are left out of JSON when zero."""
    value = part(obj, *path)
    return value if isinstance(value, int) else 0


def text(obj: Mapping[str, Any], *path: str) -> str:
    """The string at a path, or ""."""
    value = part(obj, *path)
    return value if isinstance(value, str) else ""


def name(obj: Mapping[str, Any]) -> str:
    return text(obj, "metadata", "name")


def name_with_default(obj: Mapping[str, Any], annotation: str) -> str:
    """The name, marked when the annotation makes the class the default one."""
    marked = mapping(obj, "metadata", "annotations").get(annotation) == "true"
    return f"{name(obj)} (default)" if marked else name(obj)


def labels(values: Mapping[str, Any] | None) -> str:
    """`a=b,c=d`, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or NONE


def label_selector(selector: Mapping[str, Any] | None) -> str:
    """A metav1.LabelSelector in the query language: `!color,tier=web,tier in (db,web)`."""
    if not selector:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in sorted(mapping(selector, "matchLabels").items())]
    for expression in items(selector, "matchExpressions"):
        key, values = text(expression, "key"), ",".join(sorted(map(str, items(expression, "values"))))
        match text(expression, "operator"):
            case "In":
                terms.append((key, f"{key} in ({values})"))
            case "NotIn":
                terms.append((key, f"{key} notin ({values})"))
            case "Exists":
                terms.append((key, key))
            case "DoesNotExist":
                terms.append((key, f"!{key}"))
            case _:
                return "<error>"
    return ",".join(term for _, term in sorted(terms, key=lambda pair: pair[0])) or NONE


def containers(pod_spec: Mapping[str, Any]) -> tuple[str, str]:
    """Names and images of the containers, each joined by commas."""
    found = items(pod_spec, "containers")
    return ",".join(text(c, "name") for c in found), ",".join(text(c, "image") for c in found)


def cut(values: Sequence[str], limit: int, separator: str = ",") -> str:
    """The first `limit` values and how many more there are."""
    shown = separator.join(values[:limit])
    return f"{shown} + {len(values) - limit} more..." if len(values) > limit else shown


def condition(conditions: Iterable[Any], type_: str) -> Mapping[str, Any]:
    """The condition of that type, or an empty one."""
    return next((c for c in conditions if isinstance(c, Mapping) and c.get("type") == type_), {})


def truth(value: Any) -> str:
    """A boolean as Kubernetes prints optional ones: `True`, `False`, `<unset>`."""
    return UNSET if value is None else "True" if value else "False"


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The owner reference that controls the object, or an empty one."""
    return next((ref for ref in items(obj, "metadata", "ownerReferences") if part(ref, "controller")), {})
