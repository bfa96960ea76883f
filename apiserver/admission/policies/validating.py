"""ValidatingAdmissionPolicy: policies bound to what they judge, evaluated inside the server.

Owns the meaning of failures, validation actions and audit annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from apiserver.admission.policies.bindings import Bindings, Bound, ParamsMissing
from apiserver.admission.refusal import forbidden
from apiserver.admission.write import Write, in_version, write_of
from apiserver.registry.context import RequestContext
from apiserver.registry.hooks import Obj, Undo
from apiserver.registry.store import Registry
from machinery.errors import Cause, StatusError

if TYPE_CHECKING:
    from api.resources import Resource
    from apiserver.admission.policies.expressions import Judge, Values

CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
FAILURES = "validation.policy.admission.k8s.io/validation_failure"
MAX_ANNOTATION = 10 * 1024


class Finding(NamedTuple):
    """A validation that does not hold. `configured`: the policy itself is at fault; then it only ever denies."""

    message: str
    reason: str = ""
    place: int = 0
    configured: bool = True


class ValidatingPolicies:
    """Asked before the validating webhooks."""

    name = "ValidatingAdmissionPolicy"

    def __init__(self, registry: Registry, judge: Judge) -> None:
        self._registry = registry
        self._judge = judge
        self._bindings = Bindings(registry, "validatingadmissionpolicies", "validatingadmissionpolicybindings")

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
        if self._bindings.none:
            return None
        write = write_of(self._registry, ctx, op, resource, namespace, name, new, old, subresource)
        denied: list[tuple[Bound, Finding]] = []
        for bound in self._bindings.concerning(write):
            began = perf_counter()
            findings = await self._findings(write, bound)
            self._count(bound, findings, perf_counter() - began)
            denied += [(bound, finding) for finding in self._denials(write, bound, findings)]
        if denied:
            raise _refusal(write, denied)
        return None

    def _count(self, bound: Bound, findings: list[Finding], seconds: float) -> None:
        """One check and the strictest thing that comes of it."""
        actions = (bound.binding.get("spec") or {}).get("validationActions") or ()
        action = next((each.lower() for each in ("Deny", "Warn", "Audit") if findings and each in actions), "allow")
        key = (action, "no_error", _name(bound.policy), _name(bound.binding))
        self._registry.admission.times.policies.observe(key, seconds)

    def _denials(self, write: Write, bound: Bound, findings: list[Finding]) -> list[Finding]:
        actions = (bound.binding.get("spec") or {}).get("validationActions") or ()
        told = [finding for finding in findings if not finding.configured]
        if "Warn" in actions:
            for each in told:
                text = f"Validation failed for {_named(bound)}: {each.message}"
                if text not in write.ctx.warnings:
                    write.ctx.warnings.append(text)
        if "Audit" in actions and told:
            _note(write, bound, told, list(actions))
        return [each for each in findings if each.configured or "Deny" in actions]

    async def _findings(self, write: Write, bound: Bound) -> list[Finding]:
        from apiserver.admission.policies.expressions import ExpressionFailed, add_variables, conditions_hold

        spec = bound.policy.get("spec") or {}
        try:
            values = await self._values(write, bound)
            params = await self._bindings.params(bound, write)
        except (ParamsMissing, StatusError) as error:
            why = error.message if isinstance(error, StatusError) else str(error)
            return [] if bound.tolerant else [Finding(f"failed to configure binding: {why}")]
        found: list[Finding] = []
        for each in params:
            scope = values.having(params=each)
            try:
                if not conditions_hold(spec.get("matchConditions") or (), scope):
                    continue
            except ExpressionFailed as error:
                found += [] if bound.tolerant else [Finding(str(error), "Invalid")]
                continue
            add_variables(scope, spec.get("variables") or ())
            for index, validation in enumerate(spec.get("validations") or ()):
                found += _judged(validation, index, scope, tolerant=bound.tolerant)
            _annotate(write, bound, spec, scope)
        return found

    async def _values(self, write: Write, bound: Bound) -> Values:
        if bound.seen == write.resource:
            return self._judge.values_of(write)
        new = await in_version(self._registry, write.shown(write.new), write.resource, bound.seen)
        old = await in_version(self._registry, write.shown(write.old), write.resource, bound.seen)
        return self._judge.values_of(write, seen=bound.seen, new=new, old=old)


def _name(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def _named(bound: Bound) -> str:
    return f"ValidatingAdmissionPolicy '{_name(bound.policy)}' with binding '{_name(bound.binding)}'"


def _refusal(write: Write, denied: list[tuple[Bound, Finding]]) -> StatusError:
    """The first denial gives code and reason; every one is a cause."""
    texts = [f"{_named(bound)} denied request: {finding.message}" for bound, finding in denied]
    error = forbidden(write.sent, write.name, write.new or write.old, texts[0])
    error.reason = denied[0][1].reason or "Invalid"
    error.code = CODES.get(error.reason, 422)
    error.details = {**(error.details or {}), "causes": [Cause("", text).as_dict() for text in texts]}
    return error


def _judged(validation: Mapping[str, Any], index: int, scope: Values, *, tolerant: bool) -> Iterator[Finding]:
    from apiserver.admission.policies.expressions import ExpressionFailed, evaluate

    text = str(validation.get("expression") or "").strip()
    reason = str(validation.get("reason") or "")
    try:
        if evaluate(text, scope) is True:
            return
    except ExpressionFailed as error:
        if not tolerant:
            yield Finding(str(error), reason, index, configured=False)
        return
    message = str(validation.get("message") or "").strip() or f"failed expression: {text}"
    if validation.get("messageExpression"):
        try:
            told = str(evaluate(str(validation["messageExpression"]), scope, "string")).strip()
        except ExpressionFailed:
            told = ""
        if told and "\n" not in told:
            message = told
    yield Finding(message, reason, index, configured=False)


def _annotate(write: Write, bound: Bound, spec: Mapping[str, Any], scope: Values) -> None:
    """The policy's own audit annotations; several values of one key are joined, as bindings may share a policy."""
    from apiserver.admission.policies.expressions import ExpressionFailed, evaluate

    for each in spec.get("auditAnnotations") or ():
        try:
            value = evaluate(str(each.get("valueExpression") or ""), scope, "")
        except ExpressionFailed:
            continue
        if not isinstance(value, str) or not value.strip():
            continue
        key, text = f"{_name(bound.policy)}/{each.get('key')}", value.strip()[:MAX_ANNOTATION]
        known = write.ctx.annotations.get(key)
        if known is None:
            write.ctx.annotations[key] = text
        elif text not in known.split(", "):
            write.ctx.annotations[key] = f"{known}, {text}"


def _note(write: Write, bound: Bound, findings: list[Finding], actions: list[str]) -> None:
    failures: list[Obj] = []
    if known := write.ctx.annotations.get(FAILURES):
        failures = msgspec.json.decode(known)
    for each in findings:
        failures.append(
            {
                "message": each.message,
                "policy": _name(bound.policy),
                "binding": _name(bound.binding),
                "expressionIndex": each.place,
                "validationActions": actions,
            }
        )
    write.ctx.annotations[FAILURES] = msgspec.json.encode(failures).decode()
