"""ValidatingAdmissionPolicy: policies bound to what they judge, evaluated inside the server.

Owns bindings, parameters, the meaning of failures and validation actions. Audit annotations have no log to go to yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from api import resources
from apiserver.admission.refusal import forbidden
from apiserver.admission.webhooks.plugin import namespace_labels
from apiserver.admission.webhooks.review import Write
from apiserver.admission.webhooks.rules import never_asked, rule_matches, selects
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import Obj, Undo
from apiserver.registry.store import Registry
from machinery.errors import Cause
from machinery.selectors import LabelSelector

if TYPE_CHECKING:
    from api.resources import Resource

GROUP = "admissionregistration.k8s.io"
CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class Finding(NamedTuple):
    """A validation that does not hold."""

    message: str
    reason: str = ""


class ParamsMissing(Exception):
    """The binding's parameters do not exist; the text tells it."""


class AdmissionPolicies:
    """Reads policies and bindings from the cache, decoded once per change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._policies = registry.resource(GROUP, "v1", "validatingadmissionpolicies")
        self._bindings = registry.resource(GROUP, "v1", "validatingadmissionpolicybindings")
        self._known: tuple[tuple[int, ...], list[tuple[Obj, Obj]]] = ((), [])

    def _bound(self) -> list[tuple[Obj, Obj]]:
        """(policy, binding) of everything that is in force."""
        caches = (self._policies.cache, self._bindings.cache)
        state = tuple(number for cache in caches for number in (cache.modified, len(cache)))
        if self._known[0] != state:
            policies = {entry.key.name: entry.decoded() for entry in self._policies.entries()}
            bindings = [entry.decoded() for entry in self._bindings.entries()]
            pairs = [(policies.get((each.get("spec") or {}).get("policyName") or ""), each) for each in bindings]
            self._known = (state, [(policy, binding) for policy, binding in pairs if policy is not None])
        return self._known[1]

    async def check(
        self,
        ctx: RequestContext,
        op: str,
        resource: Resource,
        namespace: str,
        name: str,
        new: Obj | None,
        old: Obj | None,
        subresource: str,
    ) -> Undo | None:
        if not len(self._bindings.cache) or never_asked(resource):
            return None
        write = Write(ctx, op, resource, namespace, name, new, old, subresource)
        for policy, binding in self._bound():
            if not self._concerned(write, policy, binding):
                continue
            findings = list(self._findings(write, policy, binding))
            if findings:
                self._act(write, policy, binding, findings)
        return None

    def _concerned(self, write: Write, policy: Obj, binding: Obj) -> bool:
        constraints = (policy.get("spec") or {}).get("matchConstraints") or {}
        labels = namespace_labels(self._registry, write)
        if not constraints.get("resourceRules") or not matches(constraints, write, labels):
            return False
        return matches((binding.get("spec") or {}).get("matchResources") or {}, write, labels)

    def _findings(self, write: Write, policy: Obj, binding: Obj) -> Iterator[Finding]:
        from apiserver.admission.policies.expressions import ExpressionFailed, add_variables, conditions_hold, values_of

        spec = policy.get("spec") or {}
        tolerant = spec.get("failurePolicy") == "Ignore"
        values = values_of(self._registry, write)
        try:
            if not conditions_hold(spec.get("matchConditions") or (), values):
                return
            params = self._params(write, spec.get("paramKind"), (binding.get("spec") or {}).get("paramRef"))
        except (ExpressionFailed, ParamsMissing) as error:
            if not tolerant:
                yield Finding(str(error))
            return
        for each in params:
            scope = {**values, "params": each}
            add_variables(scope, spec.get("variables") or ())
            for validation in spec.get("validations") or ():
                yield from _judged(validation, scope, tolerant=tolerant)

    def _params(self, write: Write, kind: Obj | None, ref: Obj | None) -> list[Obj | None]:
        if not kind or not ref:
            return [None]
        group, version = resources.split_group_version(str(kind.get("apiVersion") or ""))
        store = next(
            (
                each
                for each in self._registry.stores()
                if (each.resource.group, each.resource.version, each.resource.kind) == (group, version, kind["kind"])
            ),
            None,
        )
        if store is None:
            raise ParamsMissing(f"failed to find resource referenced by paramKind: '{group}/{version}, {kind['kind']}'")
        namespace = ""
        if store.resource.namespaced:
            namespace = str(ref.get("namespace") or write.namespace)
        found: list[Obj | None] = []
        if ref.get("name"):
            entry = store.peek(namespace, str(ref["name"]))
            found = [entry.decoded()] if entry is not None else []
        else:
            selector = LabelSelector.from_object(ref.get("selector") or {})
            found = [entry.decoded() for entry in store.entries(namespace) if selector.matches(entry.labels)]
        if not found and ref.get("parameterNotFoundAction") != "Allow":
            raise ParamsMissing("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _act(self, write: Write, policy: Obj, binding: Obj, findings: list[Finding]) -> None:
        actions = (binding.get("spec") or {}).get("validationActions") or ()
        names = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
        if "Warn" in actions:
            for each in findings:
                text = f"Validation failed for {names}: {each.message}"
                if text not in write.ctx.warnings:
                    write.ctx.warnings.append(text)
        if "Deny" in actions:
            text = f"{names} denied request: {findings[0].message}"
            error = forbidden(write.resource, write.name, write.new or write.old, text)
            error.reason = findings[0].reason or "Invalid"
            error.code = CODES.get(error.reason, 422)
            error.details = {**(error.details or {}), "causes": [Cause("", text).as_dict()]}
            raise error


def _judged(validation: Mapping[str, Any], scope: dict[str, Any], *, tolerant: bool) -> Iterator[Finding]:
    from apiserver.admission.policies.expressions import ExpressionFailed, evaluate

    text = str(validation.get("expression") or "").strip()
    try:
        if evaluate(text, scope) is True:
            return
    except ExpressionFailed as error:
        if not tolerant:
            yield Finding(str(error), str(validation.get("reason") or ""))
        return
    message = str(validation.get("message") or "").strip() or f"failed expression: {text}"
    if validation.get("messageExpression"):
        try:
            told = str(evaluate(str(validation["messageExpression"]), scope, "string")).strip()
        except ExpressionFailed:
            told = ""
        if told and "\n" not in told:
            message = told
    yield Finding(message, str(validation.get("reason") or ""))


def matches(chosen: Mapping[str, Any], write: Write, labels: Mapping[str, str] | None) -> bool:
    """Does a MatchResources choose this write? Without rules it chooses all."""

    def named(rules: Any) -> bool:
        for rule in rules or ():
            names = rule.get("resourceNames")
            if names and write.name not in names:
                continue
            if rule_matches(rule, write.op, write.resource, write.namespace, write.subresource):
                return True
        return False

    if named(chosen.get("excludeResourceRules")):
        return False
    if chosen.get("resourceRules") and not named(chosen["resourceRules"]):
        return False
    namespaces, objects = (
        LabelSelector.from_object(given) if given else None
        for given in (chosen.get("namespaceSelector"), chosen.get("objectSelector"))
    )
    return selects(namespaces, objects, labels, write.new, write.old)
