"""What expressions of policies and match conditions may look at, and how they are evaluated.

Owns the variables (`object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables`, `authorizer`). Never
knows policies; called by them and by webhooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apiserver.admission.webhooks.review import review_of
from apiserver.admission.write import Write
from apiserver.auth.attributes import Attributes, Decision
from apiserver.auth.user import UserInfo
from apiserver.expressions.compiling import ExpressionError, compile_expression
from apiserver.expressions.rights import Decide, authorizer, deciding, request_resource
from apiserver.registry.store import Registry

VARIABLES = (
    "object",
    "oldObject",
    "request",
    "namespaceObject",
    "params",
    "variables",
    "authorizer",
    "authorizer.requestResource",
)
Authorize = Callable[[UserInfo, Attributes], Decision]
VERBS = {"CREATE": "create", "UPDATE": "update", "DELETE": "delete", "CONNECT": "connect"}


class ExpressionFailed(Exception):
    """An expression cannot be compiled or evaluated; the text names it."""


class Values(dict[str, Any]):
    """The variables of one evaluation, who decides about rights, and which of the policy's variables failed."""

    decide: Decide | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.failed: dict[str, str] = {}

    def having(self, **named: Any) -> Values:
        """The same with other variables."""
        made = Values(self, **named)
        made.decide = self.decide
        return made


class Judge:
    """Makes the variables of a write. Without `authorize` expressions cannot ask about rights."""

    def __init__(self, registry: Registry, authorize: Authorize | None = None) -> None:
        self._registry = registry
        self._authorize = authorize

    def values_of(self, write: Write, **seen: Any) -> Values:
        """`seen`: the arguments of `review_of` for a write that is seen in another version."""
        request = review_of(write, "v1", uid="-", **seen)["request"]
        del request["uid"]
        entry = None
        if write.namespace and write.resource.key() != ("", "v1", "namespaces"):
            entry = self._registry.resource("", "v1", "namespaces").peek("", write.namespace)
        asked = {
            "group": write.resource.group,
            "resource": write.resource.plural,
            "subresource": write.subresource,
            "namespace": write.namespace,
            "name": write.name,
        }
        values = Values(
            {
                "object": request.pop("object"),
                "oldObject": request.pop("oldObject"),
                "request": request,
                "namespaceObject": entry.decoded() if entry is not None else None,
                "params": None,
                "variables": {},
                "authorizer": authorizer(),
                "authorizer.requestResource": request_resource(**asked),
            }
        )
        if self._authorize is not None:
            values.decide = self._deciding(write)
        return values

    def _deciding(self, write: Write) -> Decide:
        authorize = self._authorize
        assert authorize is not None

        def decide(question: dict[str, str]) -> tuple[bool, str]:
            user = write.ctx.user
            if account := question.get("user"):
                namespace = account.split(":")[2]
                groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
                user = UserInfo(account, groups=groups)
            decision = authorize(
                user,
                Attributes(
                    path=question.get("path", ""),
                    verb=question["verb"],
                    is_resource="path" not in question,
                    group=question.get("group", ""),
                    resource=question.get("resource", ""),
                    subresource=question.get("subresource", ""),
                    namespace=question.get("namespace", ""),
                    name=question.get("name", ""),
                    field_selector=question.get("fieldSelector", ""),
                ),
            )
            return decision.allowed, decision.reason

        return decide


def evaluate(text: str, values: Values, result: str = "bool") -> Any:
    """Raises ExpressionFailed."""
    try:
        with deciding(values.decide):
            return compile_expression(text, VARIABLES, result).evaluate(values)
    except ExpressionError as error:
        why = str(error)
        for name, inner in values.failed.items():
            if why == f"no such key: {name}":
                why = f'composited variable "{name}" fails to evaluate: {inner}'
        raise ExpressionFailed(f"expression '{text}' resulted in error: {why}") from error


def add_variables(values: Values, variables: Iterable[Mapping[str, Any]]) -> None:
    """Compute a policy's variables in order; one that fails is absent and fails whoever uses it."""
    found: dict[str, Any] = {}
    values["variables"] = found
    for each in variables:
        name = str(each.get("name"))
        try:
            found[name] = evaluate(str(each.get("expression") or ""), values, "")
        except ExpressionFailed as error:
            values.failed[name] = str(error).partition(" resulted in error: ")[2]


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
