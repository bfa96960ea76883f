"""What expressions of policies and match conditions may look at, and how they are evaluated.

Owns the variables (`object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables`). There is no
`authorizer`. Never knows policies; called by them and by webhooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from apiserver.expressions.compiling import ExpressionError, compile_expression
from apiserver.registry.store import Registry

if TYPE_CHECKING:
    from apiserver.admission.webhooks.review import Write

Values = dict[str, Any]

VARIABLES = ("object", "oldObject", "request", "namespaceObject", "params", "variables")


class ExpressionFailed(Exception):
    """An expression cannot be compiled or evaluated; the text names it."""


def values_of(registry: Registry, write: Write) -> Values:
    """The variables of a write."""
    from apiserver.admission.webhooks.review import review_of

    request = review_of(write, "v1", uid="-")["request"]
    entry = registry.resource("", "v1", "namespaces").peek("", write.namespace) if write.namespace else None
    return {
        "object": request.pop("object"),
        "oldObject": request.pop("oldObject"),
        "request": request,
        "namespaceObject": entry.decoded() if entry is not None else None,
        "params": None,
        "variables": {},
    }


def evaluate(text: str, values: Values, result: str = "bool") -> Any:
    """Raises ExpressionFailed."""
    try:
        return compile_expression(text, VARIABLES, result).evaluate(values)
    except ExpressionError as error:
        raise ExpressionFailed(f"expression '{text}' resulted in error: {error}") from error


def add_variables(values: Values, variables: Iterable[Mapping[str, Any]]) -> None:
    """Compute a policy's variables in order; one that fails is absent and fails whoever uses it."""
    found: dict[str, Any] = {}
    values["variables"] = found
    for each in variables:
        try:
            found[str(each.get("name"))] = evaluate(str(each.get("expression") or ""), values, "")
        except ExpressionFailed:
            continue


def conditions_hold(conditions: Iterable[Mapping[str, Any]], values: Values) -> bool:
    """Do all match conditions hold? One that is false outweighs those that fail. Raises ExpressionFailed."""
    failed: ExpressionFailed | None = None
    for each in conditions:
        try:
            if evaluate(str(each.get("expression") or ""), values) is not True:
                return False
        except ExpressionFailed as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return True
